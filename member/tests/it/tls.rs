//! What certificates members show, make, and take: against real etcd, whose outcome and log line are the rule.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::process::{ETCD, ETCD_3_5, MEMBER, Server, etcdctl, free_ports, wait_until};

/// An authority and what it has signed, as files of a directory.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let mut params = CertificateParams::default();
        params.distinguished_name = named("ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        std::fs::write(dir.path().join("ca.crt"), cert.pem()).expect("written");
        Self {
            dir,
            issuer: Issuer::new(params, key),
        }
    }

    fn path(&self, file: &str) -> String {
        self.dir.path().join(file).display().to_string()
    }

    /// A certificate of that name, which is its files' name too, good for those hosts.
    fn issue(&self, name: &str, serial: u64, hosts: &[&str]) {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("names");
        params.distinguished_name = named(name);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(self.path(&format!("{name}.crt")), cert.pem()).expect("written");
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("written");
    }

    /// The list of revoked certificates, in PEM and in DER.
    fn revoke(&self, serials: &[u64]) -> (String, Vec<u8>) {
        let now = OffsetDateTime::now_utc();
        let revoked = serials.iter().map(|&serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: now + time::Duration::days(1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        (list.pem().expect("PEM"), list.der().to_vec())
    }

    /// Whether a client with that certificate is served.
    fn serves(&self, server: &Server, name: &str) -> bool {
        let files = [
            format!("--cacert={}", self.path("ca.crt")),
            format!("--cert={}", self.path(&format!("{name}.crt"))),
            format!("--key={}", self.path(&format!("{name}.key"))),
        ];
        let mut args: Vec<&str> = files.iter().map(String::as_str).collect();
        args.extend(["--dial-timeout=2s", "--command-timeout=2s", "get", "x"]);
        let url = format!("https://127.0.0.1:{}", server.client_port);
        etcdctl(&url, &args).0
    }

    /// Flags of a server whose clients show certificates.
    fn client_flags(&self, name: &str) -> Vec<String> {
        vec![
            format!("--cert-file={}", self.path(&format!("{name}.crt"))),
            format!("--key-file={}", self.path(&format!("{name}.key"))),
            format!("--trusted-ca-file={}", self.path("ca.crt")),
            "--client-cert-auth".to_owned(),
        ]
    }

    fn peer_flags(&self, name: &str) -> Vec<String> {
        vec![
            format!("--peer-cert-file={}", self.path(&format!("{name}.crt"))),
            format!("--peer-key-file={}", self.path(&format!("{name}.key"))),
            format!("--peer-trusted-ca-file={}", self.path("ca.crt")),
            "--peer-client-cert-auth".to_owned(),
        ]
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// Makes a server speak TLS to its clients.
fn with_client_tls(binary: &str, more: &[String]) -> Server {
    let [client, peer] = free_ports();
    let url = format!("https://127.0.0.1:{client}");
    let mut args = vec![
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
    ];
    args.extend_from_slice(more);
    let initial = format!("infra0=http://127.0.0.1:{peer}");
    let mut server = Server::of_cluster(binary, "infra0", client, peer, &initial, &strs(&args));
    server.start();
    server
}

/// Three members that speak TLS to one another; `more` has the flags of each.
fn three_with_peer_tls(binary: &str, more: [Vec<String>; 3]) -> [Server; 3] {
    let ports = free_ports::<6>();
    let initial = (0..3)
        .map(|i| format!("infra{i}=https://127.0.0.1:{}", ports[2 * i + 1]))
        .collect::<Vec<_>>()
        .join(",");
    let mut i = 0;
    more.map(|more| {
        let peer = format!("https://127.0.0.1:{}", ports[2 * i + 1]);
        let mut args = vec![
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
        ];
        args.extend(more);
        let (client, peer) = (ports[2 * i], ports[2 * i + 1]);
        let name = format!("infra{i}");
        i += 1;
        let mut server = Server::of_cluster(binary, &name, client, peer, &initial, &strs(&args));
        server.start();
        server
    })
}

fn answers(server: &Server) -> bool {
    etcdctl(&server.endpoint(), &["--command-timeout=2s", "get", "x"]).0
}

#[test]
fn a_revoked_certificate_is_refused_from_the_next_connection_on() {
    for binary in [MEMBER, ETCD_3_5] {
        let authority = Authority::new();
        authority.issue("server", 1, &["127.0.0.1"]);
        authority.issue("good", 2, &[]);
        authority.issue("bad", 0xabc, &[]);
        let list = authority.path("list");
        let (none, _) = authority.revoke(&[7]);
        std::fs::write(&list, none).expect("written");
        let mut flags = authority.client_flags("server");
        flags.push(format!("--client-crl-file={list}"));
        let server = with_client_tls(binary, &flags);
        wait_until("both are served", || {
            authority.serves(&server, "good") && authority.serves(&server, "bad")
        });
        let (pem, der) = authority.revoke(&[7, 0xabc]);
        for form in [pem.as_bytes(), &der] {
            std::fs::write(&list, form).expect("written");
            assert!(!authority.serves(&server, "bad"), "{binary}");
            assert!(authority.serves(&server, "good"), "{binary}");
        }
        wait_until("the reason is logged", || {
            server
                .log()
                .contains("transport: certificate serial 0abc revoked")
        });
        // Nobody can be told from the revoked ones, so nobody is let in.
        std::fs::remove_file(&list).expect("removed");
        assert!(!authority.serves(&server, "good"), "{binary}");
        wait_until("the reason is logged", || {
            let reason = format!("open {list}: no such file or directory");
            server.log().contains(&reason)
        });
    }
}

#[test]
fn a_port_takes_clients_with_and_without_tls() {
    // Plain gRPC is asked of the member alone: etcd up to 3.5.1 serves it on such a port only if its threads happen to run in one order.
    for (binary, grpc) in [(MEMBER, true), (ETCD, false), (ETCD_3_5, false)] {
        let authority = Authority::new();
        authority.issue("server", 1, &["127.0.0.1"]);
        authority.issue("client", 2, &[]);
        let [client, peer] = free_ports();
        let urls = format!("http://127.0.0.1:{client},https://127.0.0.1:{client}");
        let mut args = authority.client_flags("server");
        args.push(format!("--listen-client-urls={urls}"));
        args.push(format!("--advertise-client-urls={urls}"));
        let initial = format!("infra0=http://127.0.0.1:{peer}");
        let mut server = Server::of_cluster(binary, "infra0", client, peer, &initial, &strs(&args));
        server.start();
        server.wait_ready();
        let _silent = TcpStream::connect(("127.0.0.1", client)).expect("connects");
        assert!(authority.serves(&server, "client"), "{binary}");
        assert!(!authority.serves(&server, "nobody"), "{binary}");
        assert!(!grpc || answers(&server), "{binary}");
    }
}

#[test]
fn clients_must_have_an_allowed_name() {
    for binary in [MEMBER, ETCD_3_5] {
        let authority = Authority::new();
        authority.issue("server", 1, &["127.0.0.1"]);
        authority.issue("good", 2, &["a.example", "k8s.example"]);
        authority.issue("bad", 3, &["a.example"]);
        let mut flags = authority.client_flags("server");
        flags.push("--client-cert-allowed-hostname=k8s.example".to_owned());
        let server = with_client_tls(binary, &flags);
        wait_until("the good one is served", || {
            authority.serves(&server, "good")
        });
        assert!(!authority.serves(&server, "bad"), "{binary}");
        wait_until("the reason is logged", || {
            server
                .log()
                .contains("client certificate authentication failed")
        });
    }
}

#[test]
fn a_peer_of_another_name_is_kept_out() {
    for (binary, rule) in [
        (MEMBER, "--peer-cert-allowed-cn=peer"),
        (ETCD, "--peer-cert-allowed-cn=peer"),
        (MEMBER, "--peer-cert-allowed-hostname=peer.example"),
    ] {
        let authority = Authority::new();
        authority.issue("peer", 1, &["127.0.0.1", "peer.example"]);
        authority.issue("other", 2, &["127.0.0.1", "localhost"]);
        let servers = three_with_peer_tls(
            binary,
            ["peer", "peer", "other"].map(|name| {
                let mut flags = authority.peer_flags(name);
                flags.push(rule.to_owned());
                flags
            }),
        );
        wait_until("two form the cluster", || answers(&servers[0]));
        wait_until("the third is refused", || {
            servers[0]
                .log()
                .contains("client certificate authentication failed")
        });
        assert!(!answers(&servers[2]), "{binary} {rule}");
    }
}

#[test]
fn a_peer_calls_from_where_its_certificate_says() {
    for binary in [MEMBER, ETCD_3_5] {
        let authority = Authority::new();
        authority.issue("peer", 1, &["127.0.0.1"]);
        authority.issue("moved", 2, &["10.9.9.9"]);
        let servers = three_with_peer_tls(
            binary,
            ["peer", "peer", "moved"].map(|name| authority.peer_flags(name)),
        );
        wait_until("two form the cluster", || answers(&servers[0]));
        wait_until("the third is refused", || {
            let reason = "x509: certificate is valid for 10.9.9.9, not 127.0.0.1";
            servers[0].log().contains(reason)
        });
        assert!(!answers(&servers[2]), "{binary}");
    }
}

#[test]
fn members_make_their_certificates_and_keep_them() {
    let auto = ["--auto-tls", "--peer-auto-tls"].map(str::to_owned);
    let ports = free_ports::<6>();
    let initial = (0..3)
        .map(|i| format!("infra{i}=https://127.0.0.1:{}", ports[2 * i + 1]))
        .collect::<Vec<_>>()
        .join(",");
    let mut servers = [0, 1, 2].map(|i| {
        let (client, peer) = (ports[2 * i], ports[2 * i + 1]);
        let mut args = vec![
            format!("--listen-client-urls=https://127.0.0.1:{client}"),
            format!("--advertise-client-urls=https://localhost:{client}"),
            format!("--listen-peer-urls=https://127.0.0.1:{peer}"),
            format!("--initial-advertise-peer-urls=https://127.0.0.1:{peer}"),
        ];
        args.extend_from_slice(&auto);
        let name = format!("infra{i}");
        let mut server = Server::of_cluster(MEMBER, &name, client, peer, &initial, &strs(&args));
        server.start();
        server
    });
    let file =
        |server: &Server, file: &str| -> PathBuf { server.data_dir().join("fixtures").join(file) };
    let get = |server: &Server| {
        // The guide's way: the certificate itself is what a client trusts. It names the advertised host too.
        let trust = format!("--cacert={}", file(server, "client/cert.pem").display());
        let url = format!("https://localhost:{}", server.client_port);
        etcdctl(&url, &[&trust, "--command-timeout=2s", "get", "x"])
    };
    for server in &servers {
        wait_until("it serves", || get(server).0);
        assert!(!answers(server), "plain text is not served");
    }
    let before = std::fs::read(file(&servers[0], "client/cert.pem")).expect("readable");
    servers[0].kill();
    servers[0].start();
    wait_until("it serves again", || get(&servers[0]).0);
    let after = std::fs::read(file(&servers[0], "client/cert.pem")).expect("readable");
    assert!(before == after, "the certificate is kept");
    for part in ["client/key.pem", "peer/key.pem"] {
        use std::os::unix::fs::PermissionsExt;
        let metadata = std::fs::metadata(file(&servers[0], part)).expect("there");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{part}");
    }
}

/// Whether a TLS client that offers only this comes through.
fn offers(server: &Server, offer: &[&str]) -> bool {
    let status = Command::new("openssl")
        .args(["s_client", "-connect"])
        .arg(format!("127.0.0.1:{}", server.client_port))
        .args(offer)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.expect("openssl runs").success()
}

#[test]
fn versions_and_suites_are_those_that_are_asked_for() {
    let authority = Authority::new();
    authority.issue("server", 1, &["127.0.0.1"]);
    let files: Vec<String> = authority.client_flags("server")[..2].to_vec();
    let with = |more: &[&str]| {
        let mut flags = files.clone();
        flags.extend(more.iter().map(|&flag| flag.to_owned()));
        let server = with_client_tls(MEMBER, &flags);
        wait_until("it is ready", || {
            server.log().contains("ready to serve client requests")
        });
        server
    };
    let (old, new) = (["-tls1_2"], ["-tls1_3"]);
    let server = with(&[]);
    assert!(offers(&server, &old) && offers(&server, &new));
    let server = with(&["--tls-max-version=TLS1.2"]);
    assert!(offers(&server, &old) && !offers(&server, &new));
    let server = with(&["--tls-min-version=TLS1.3"]);
    assert!(!offers(&server, &old) && offers(&server, &new));
    let server = with(&["--cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"]);
    let suite = |name| ["-tls1_2", "-cipher", name];
    assert!(offers(&server, &suite("ECDHE-ECDSA-AES256-GCM-SHA384")));
    assert!(!offers(&server, &suite("ECDHE-ECDSA-AES128-GCM-SHA256")));
}

#[test]
fn rules_that_contradict_one_another_stop_the_start() {
    let authority = Authority::new();
    authority.issue("peer", 1, &["127.0.0.1"]);
    for (flags, reason) in [
        (
            &["--peer-cert-allowed-cn=a", "--peer-cert-allowed-hostname=b"][..],
            "AllowedCN and AllowedHostname are mutually exclusive (cn=\\\"a\\\", hostname=\\\"b\\\")",
        ),
        (
            &["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            &[
                "--tls-min-version=TLS1.3",
                "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            ],
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            &["--auto-tls", "--self-signed-cert-validity=0"],
            "selfSignedCertValidity is invalid,it should be greater than 0",
        ),
        (
            &["--peer-client-cert-file=x"],
            "KeyFile and CertFile must both be present[key: , cert: x]",
        ),
    ] {
        let mut server = Server::single(MEMBER, flags);
        server.start();
        assert_eq!(server.wait_exit().code(), Some(1), "{flags:?}");
        assert!(server.log().contains(reason), "{flags:?}: {}", server.log());
        assert!(!server.data_dir().exists(), "{flags:?}");
    }
    let mut server = Server::single(MEMBER, &["--cipher-suites=bogus"]);
    server.start();
    assert_eq!(server.wait_exit().code(), Some(2));
    assert!(
        server
            .log()
            .contains("unexpected TLS cipher suite \"bogus\"")
    );
}
