//! Certificates on disk, read back by x509-parser and by openssl.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use provisioner::instance::{Instance, KeyPaths, Placement};
use provisioner::pki::{self, CertKind, PkiError, Reason};
use provisioner::topology::{self, Topology};
use time::{Duration, OffsetDateTime};

fn topology(tls: &str) -> Topology {
    let text = format!(
        "name = \"demo\"\n{tls}\n[[member]]\nname = \"infra{{0..2}}\"\naddress = \"{{127.0.0.1,fd00::10,infra2.example.com}}\"\n"
    );
    topology::parse("demo", &text, Path::new("/"), &|_| None)
        .unwrap_or_else(|error| panic!("{}", error.report(false).unwrap()))
        .topology
}

const MUTUAL: &str = "tls = { peer = \"mutual\", client = \"mutual\", extra-sans = [\"etcd.example.com\", \"10.1.2.3\"] }";

struct Cluster {
    _temp: tempfile::TempDir,
    dir: PathBuf,
    topology: Topology,
    instance: Instance,
    now: OffsetDateTime,
}

impl Cluster {
    fn new(tls: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("demo");
        let topology = topology(tls);
        let mut instance = Instance::new("demo", "token", &dir);
        for (member, port) in topology.members.iter().zip(1_u16..) {
            instance.members.insert(
                member.name.clone(),
                Placement::new(&dir, &member.name, 2 * port, 2 * port + 1),
            );
        }
        Self {
            _temp: temp,
            dir,
            topology,
            instance,
            now: OffsetDateTime::now_utc(),
        }
    }

    fn ensured(tls: &str) -> Self {
        let cluster = Self::new(tls);
        cluster.ensure();
        assert_eq!(cluster.plan(), []);
        cluster
    }

    fn ensure(&self) {
        pki::ensure(&self.topology, &self.instance, self.now).unwrap();
    }

    fn plan(&self) -> Vec<(CertKind, Reason)> {
        self.try_plan().unwrap()
    }

    fn try_plan(&self) -> Result<Vec<(CertKind, Reason)>, PkiError> {
        let actions = pki::plan(&self.topology, &self.instance, self.now)?;
        Ok(actions
            .into_iter()
            .map(|action| (action.kind, action.reason))
            .collect())
    }

    fn peer(&self, member: &str) -> KeyPaths {
        self.instance.members[member].peer()
    }

    fn server(&self, member: &str) -> KeyPaths {
        self.instance.members[member].server()
    }
}

fn peer(member: &str) -> CertKind {
    CertKind::Peer(member.into())
}

fn openssl(args: &[&str]) -> (bool, String) {
    let output = Command::new("openssl").args(args).output().unwrap();
    (
        output.status.success(),
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    )
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_new_cluster_gets_a_ca_an_operator_and_two_certificates_per_member() {
    let cluster = Cluster::new(MUTUAL);
    let kinds: Vec<String> = cluster
        .plan()
        .into_iter()
        .map(|(kind, reason)| format!("{kind}: {reason}"))
        .collect();
    assert_eq!(
        kinds[..5],
        [
            "CA: missing",
            "operator certificate: missing",
            "CA certificate for infra0: missing",
            "peer certificate of infra0: missing",
            "server certificate of infra0: missing"
        ]
    );
    assert_eq!(kinds.len(), 2 + 3 * 3);
    cluster.ensure();
    assert_eq!(cluster.plan(), []);
}

#[test]
fn certificates_say_who_and_where_and_for_what() {
    let cluster = Cluster::ensured(MUTUAL);
    let names = |path: &Path| {
        pki::inspect(path)
            .unwrap()
            .names
            .into_iter()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&cluster.peer("infra0").cert),
        [
            "10.1.2.3",
            "127.0.0.1",
            "::1",
            "etcd.example.com",
            "localhost"
        ]
    );
    assert!(names(&cluster.server("infra1").cert).contains(&"fd00::10".to_owned()));
    assert!(names(&cluster.server("infra2").cert).contains(&"infra2.example.com".to_owned()));
    for paths in [cluster.peer("infra1"), cluster.server("infra1")] {
        let info = pki::inspect(&paths.cert).unwrap();
        assert_eq!(
            (info.common_name.as_str(), info.issuer.as_str()),
            ("infra1", "demo CA")
        );
        assert!(info.server_auth && info.client_auth && !info.is_ca);
        assert_eq!(info.days_left(cluster.now), 365);
    }
    let operator = pki::inspect(&cluster.instance.operator().cert).unwrap();
    assert_eq!(operator.common_name, "root");
    assert!(operator.client_auth && !operator.server_auth && operator.names.is_empty());
    let ca = pki::inspect(&cluster.instance.ca().cert).unwrap();
    assert!(ca.is_ca && ca.days_left(cluster.now) > 3600);
}

#[test]
fn openssl_agrees() {
    let cluster = Cluster::ensured(MUTUAL);
    let ca = cluster.instance.ca();
    for (paths, purpose) in [
        (cluster.peer("infra0"), "sslserver"),
        (cluster.peer("infra0"), "sslclient"),
        (cluster.server("infra2"), "sslserver"),
        (cluster.server("infra2"), "sslclient"),
        (cluster.instance.operator(), "sslclient"),
    ] {
        let (good, output) = openssl(&[
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-CAfile",
            text(&ca.cert),
            text(&paths.cert),
        ]);
        assert!(good, "{purpose}: {output}");
        let (good, output) = openssl(&["pkey", "-in", text(&paths.key), "-check", "-noout"]);
        assert!(good, "{output}");
    }
    let (good, _) = openssl(&[
        "verify",
        "-purpose",
        "sslserver",
        "-CAfile",
        text(&ca.cert),
        text(&cluster.instance.operator().cert),
    ]);
    assert!(!good, "the operator's certificate is for clients only");
    let (good, output) = openssl(&[
        "verify",
        "-CAfile",
        text(&ca.cert),
        "-verify_hostname",
        "infra2.example.com",
        text(&cluster.server("infra2").cert),
    ]);
    assert!(good, "{output}");
    let (_, output) = openssl(&[
        "x509",
        "-in",
        text(&cluster.peer("infra0").cert),
        "-noout",
        "-text",
    ]);
    assert!(
        output.contains("prime256v1") && output.contains("ecdsa-with-SHA256"),
        "{output}"
    );
}

#[test]
fn keys_are_private() {
    let cluster = Cluster::ensured(MUTUAL);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for key in [
        cluster.instance.ca().key,
        cluster.instance.operator().key,
        cluster.peer("infra0").key,
        cluster.server("infra0").key,
    ] {
        assert_eq!(mode(&key), 0o600, "{}", key.display());
        assert_eq!(mode(key.parent().unwrap()), 0o700);
    }
}

#[test]
fn only_the_ports_with_tls_get_certificates() {
    let cluster = Cluster::ensured(
        "tls = { peer = \"mutual\" }\nlints = { allow = { http-beside-https = \"test\" } }",
    );
    assert!(
        cluster.peer("infra0").cert.exists()
            && !cluster.server("infra0").cert.exists()
            && !cluster.instance.operator().cert.exists()
    );
    let cluster = Cluster::ensured(
        "tls = { client = \"server\" }\nlints = { allow = { http-beside-https = \"test\" } }",
    );
    assert!(
        !cluster.peer("infra0").cert.exists()
            && cluster.server("infra0").cert.exists()
            && !cluster.instance.operator().cert.exists()
    );
    let cluster = Cluster::ensured("");
    assert!(!cluster.dir.exists());
}

#[test]
fn what_is_valid_is_kept() {
    let cluster = Cluster::ensured(MUTUAL);
    let before = std::fs::read(cluster.peer("infra0").cert).unwrap();
    std::fs::remove_file(cluster.peer("infra1").cert).unwrap();
    assert_eq!(cluster.plan(), [(peer("infra1"), Reason::Missing)]);
    cluster.ensure();
    assert_eq!(std::fs::read(cluster.peer("infra0").cert).unwrap(), before);
    assert_eq!(cluster.plan(), []);
}

#[test]
fn expiring_certificates_are_renewed_thirty_days_before() {
    let mut cluster = Cluster::ensured(MUTUAL);
    let start = cluster.now;
    cluster.now = start + Duration::days(334);
    assert_eq!(cluster.plan(), []);
    cluster.now = start + Duration::days(336);
    let plan = cluster.plan();
    assert_eq!(plan.len(), 7, "every leaf: {plan:?}");
    assert!(plan.contains(&(peer("infra0"), Reason::Expiring { days_left: 29 })));
    cluster.now = start + Duration::days(400);
    assert!(
        cluster
            .plan()
            .contains(&(peer("infra0"), Reason::Expiring { days_left: -35 }))
    );
    cluster.ensure();
    assert_eq!(cluster.plan(), []);
    cluster.now = start - Duration::days(2);
    assert!(matches!(
        cluster.try_plan(),
        Err(PkiError::CaNotValid { .. })
    ));
}

#[test]
fn an_expired_ca_is_refused_with_its_dates() {
    let mut cluster = Cluster::ensured(MUTUAL);
    cluster.now += Duration::days(3651);
    let error = cluster.try_plan().unwrap_err();
    assert!(
        matches!(error, PkiError::CaNotValid { brought: false, .. }),
        "{error}"
    );
    assert!(error.fix().unwrap().contains("--purge"));
}

#[test]
fn certificates_with_other_names_are_reissued() {
    let mut cluster = Cluster::ensured(MUTUAL);
    cluster.topology.members[0].address = "10.0.0.9".into();
    let expected = Reason::WrongNames {
        missing: ["10.0.0.9".to_owned()].into(),
        extra: [].into(),
    };
    assert_eq!(
        cluster.plan(),
        [
            (peer("infra0"), expected.clone()),
            (CertKind::Server("infra0".into()), expected.clone())
        ]
    );
    assert_eq!(expected.to_string(), "lacks the names 10.0.0.9");
    cluster.ensure();
    assert_eq!(cluster.plan(), []);
}

#[test]
fn certificates_of_another_ca_or_key_or_member_are_reissued() {
    let cluster = Cluster::ensured(MUTUAL);
    let other = Cluster::ensured(MUTUAL);
    std::fs::copy(other.peer("infra0").cert, cluster.peer("infra0").cert).unwrap();
    std::fs::copy(other.peer("infra1").key, cluster.peer("infra1").key).unwrap();
    std::fs::copy(cluster.peer("infra1").cert, cluster.peer("infra2").cert).unwrap();
    std::fs::write(cluster.server("infra2").cert, "half a certi").unwrap();
    std::fs::copy(
        other.instance.ca().cert,
        cluster.instance.members["infra2"].ca_cert(),
    )
    .unwrap();
    let reasons: Vec<String> = cluster
        .plan()
        .iter()
        .map(|(kind, reason)| format!("{kind}: {reason}"))
        .collect();
    assert_eq!(
        reasons[..4],
        [
            "peer certificate of infra0: of another CA",
            "peer certificate of infra1: its key is another's",
            "CA certificate for infra2: of another CA",
            "peer certificate of infra2: made for infra1"
        ]
    );
    assert!(
        reasons[4].starts_with("server certificate of infra2: unreadable:"),
        "{}",
        reasons[4]
    );
    cluster.ensure();
    assert_eq!(cluster.plan(), []);
}

#[test]
fn an_exposed_key_is_replaced() {
    let cluster = Cluster::ensured(MUTUAL);
    let key = cluster.peer("infra0").key;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let before = std::fs::read(&key).unwrap();
    assert_eq!(
        cluster.plan(),
        [(peer("infra0"), Reason::Exposed { mode: 0o644 })]
    );
    cluster.ensure();
    assert_ne!(std::fs::read(&key).unwrap(), before);
    assert_eq!(cluster.plan(), []);
}

#[test]
fn a_lost_ca_key_matters_only_when_something_must_be_signed() {
    let cluster = Cluster::ensured(MUTUAL);
    std::fs::remove_file(cluster.instance.ca().key).unwrap();
    assert_eq!(cluster.plan(), []);
    std::fs::remove_file(cluster.peer("infra0").cert).unwrap();
    let error = cluster.try_plan().unwrap_err();
    assert!(matches!(error, PkiError::CaKeyLost { .. }), "{error}");
}

/// A CA as an operator makes one.
fn own_ca(dir: &Path, name: &str, extra: &[&str]) -> (String, String) {
    let (key, cert) = (
        dir.join(format!("{name}.key")),
        dir.join(format!("{name}.crt")),
    );
    let (key, cert) = (text(&key).to_owned(), text(&cert).to_owned());
    let mut args = vec![
        "req",
        "-x509",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=Example Root",
        "-keyout",
        &key,
        "-out",
        &cert,
    ];
    args.extend_from_slice(extra);
    let (good, output) = openssl(&args);
    assert!(good, "{output}");
    (cert, key)
}

const EC: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

fn with_ca(cert: &str, key: &str) -> String {
    format!(
        "[tls]\npeer = \"mutual\"\nclient = \"mutual\"\nca = {{ cert = {cert:?}, key = {key:?} }}"
    )
}

#[test]
fn an_own_ca_signs_and_its_key_is_not_copied() {
    let temp = tempfile::tempdir().unwrap();
    for (name, kind) in [("ec", &EC[..]), ("rsa", &["-newkey", "rsa:2048"][..])] {
        let (cert, key) = own_ca(temp.path(), name, kind);
        let cluster = Cluster::ensured(&with_ca(&cert, &key));
        assert!(!cluster.instance.ca().key.exists());
        let (good, output) = openssl(&[
            "verify",
            "-purpose",
            "sslserver",
            "-CAfile",
            &cert,
            text(&cluster.server("infra0").cert),
        ]);
        assert!(good, "{name}: {output}");
        assert_eq!(
            pki::inspect(&cluster.server("infra0").cert).unwrap().issuer,
            "Example Root"
        );
    }
}

#[test]
fn a_bad_own_ca_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let (cert, key) = own_ca(temp.path(), "good", &EC);
    let (other_cert, other_key) = own_ca(temp.path(), "other", &EC);
    let mut leaf_args = EC.to_vec();
    leaf_args.extend_from_slice(&["-addext", "basicConstraints=critical,CA:FALSE"]);
    let (leaf, leaf_key) = own_ca(temp.path(), "leaf", &leaf_args);
    let plan = |cert: &str, key: &str| Cluster::new(&with_ca(cert, key)).try_plan();
    assert!(matches!(
        plan(&cert, &other_key),
        Err(PkiError::KeyOfAnother { .. })
    ));
    assert!(matches!(
        plan(&leaf, &leaf_key),
        Err(PkiError::NotACa { .. })
    ));
    assert!(matches!(
        plan("/nonexistent", &key),
        Err(PkiError::Io { .. })
    ));
    assert!(matches!(
        plan(&key, &key),
        Err(PkiError::NotACertificate { .. })
    ));
    let (good, _) = openssl(&["ec", "-in", &key, "-out", &format!("{key}.sec1")]);
    assert!(good);
    let error = plan(&cert, &format!("{key}.sec1")).unwrap_err();
    assert!(
        error.fix().unwrap().contains("openssl pkcs8 -topk8"),
        "{error}"
    );
    let mut expired = Cluster::new(&with_ca(&cert, &key));
    expired.now += Duration::days(31);
    assert!(matches!(
        expired.try_plan(),
        Err(PkiError::CaNotValid { brought: true, .. })
    ));

    let mut cluster = Cluster::ensured(&with_ca(&cert, &key));
    cluster.topology = topology(&with_ca(&other_cert, &other_key));
    assert!(matches!(
        cluster.try_plan(),
        Err(PkiError::CaChanged { .. })
    ));
}

#[test]
fn a_directory_that_cannot_be_written_is_named_and_leaves_nothing() {
    let cluster = Cluster::new(MUTUAL);
    std::fs::create_dir_all(&cluster.dir).unwrap();
    // A file where the directory of a member should be.
    std::fs::write(cluster.dir.join("members"), "").unwrap();
    let error = pki::ensure(&cluster.topology, &cluster.instance, cluster.now).unwrap_err();
    assert!(error.to_string().contains("members/infra"), "{error}");
    std::fs::remove_file(cluster.dir.join("members")).unwrap();
    cluster.ensure();
    assert_eq!(cluster.plan(), []);
}
