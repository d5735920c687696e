//! Three stock etcd members on loopback, plaintext or mutual TLS, ended with the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use testbed::port;
use testbed::traffic::load::Load;
use testbed::traffic::operation::{Keys, Operation, Order};
use testbed::traffic::{Target, Tls};

pub(crate) const MEMBERS: usize = 3;

/// A running cluster.
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    ports: Vec<u16>,
    tls: bool,
    members: Vec<Option<Child>>,
}

/// An etcd that listens where it says that it can be reached; not started yet.
pub(crate) fn etcd(name: &str, data_dir: &Path, client: &str, peer: &str) -> Command {
    let mut command = Command::new("/usr/bin/etcd");
    command
        .args(["--name", name, "--data-dir", data_dir.to_str().unwrap()])
        .args(["--listen-client-urls", client])
        .args(["--advertise-client-urls", client])
        .args(["--listen-peer-urls", peer])
        .args(["--initial-advertise-peer-urls", peer]);
    command
}

impl Cluster {
    /// Starts three members and waits until each answers a linearizable read.
    pub(crate) fn start(tls: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        if tls {
            write_certificates(dir.path());
        }
        let ports = port::claim::<{ 2 * MEMBERS }>().to_vec();
        let mut cluster = Self {
            dir,
            ports,
            tls,
            members: (0..MEMBERS).map(|_| None).collect(),
        };
        (0..MEMBERS).for_each(|member| cluster.spawn(member));
        (0..MEMBERS).for_each(|member| cluster.wait_ready(member));
        cluster
    }

    pub(crate) fn target(&self) -> Target {
        let endpoints = (0..MEMBERS).map(|member| self.client_url(member)).collect();
        let tls = self.tls.then(|| Tls {
            ca: self.file("ca.crt"),
            identity: Some((self.file("client.crt"), self.file("client.key"))),
        });
        Target { endpoints, tls }
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members.iter().flatten().map(Child::id).collect()
    }

    /// Kills a member as a power cut would.
    pub(crate) fn kill(&mut self, member: usize) {
        let mut child = self.members[member].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn spawn(&mut self, member: usize) {
        let (client, peer) = (self.client_url(member), self.peer_url(member));
        let initial: Vec<_> = (0..MEMBERS)
            .map(|other| format!("infra{other}={}", self.peer_url(other)))
            .collect();
        let data_dir = self.file(&format!("infra{member}.etcd"));
        let mut command = etcd(&format!("infra{member}"), &data_dir, &client, &peer);
        command
            .args([
                "--initial-cluster",
                &initial.join(","),
                "--initial-cluster-token",
                "testbed",
            ])
            .args(["--logger", "zap", "--log-outputs", "stderr"]);
        if self.tls {
            let file = |name: &str| self.file(name).into_os_string().into_string().unwrap();
            let (ca, cert, key) = (file("ca.crt"), file("server.crt"), file("server.key"));
            command
                .args([
                    "--client-cert-auth",
                    "--trusted-ca-file",
                    &ca,
                    "--cert-file",
                    &cert,
                    "--key-file",
                    &key,
                ])
                .args(["--peer-client-cert-auth", "--peer-trusted-ca-file", &ca])
                .args(["--peer-cert-file", &cert, "--peer-key-file", &key]);
        }
        let log = fs::File::create(self.file(&format!("infra{member}.log"))).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.members[member] = Some(child);
    }

    pub(crate) fn wait_ready(&self, member: usize) {
        let target = Target {
            endpoints: vec![self.client_url(member)],
            ..self.target()
        };
        let put = Operation::Put {
            value_bytes: 1,
            keys: Keys {
                count: 1,
                order: Order::Sequential,
            },
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let probe = Load {
                target: target.clone(),
                clients: 1,
                connections: 1,
                operation: put,
                requests: Some(1),
                time: Duration::from_secs(5),
                servers: Vec::new(),
                seed: 0,
            };
            match probe.run() {
                Ok(report) if report.succeeded == 1 => return,
                outcome => assert!(
                    Instant::now() < deadline,
                    "member {member} is not ready: {outcome:?}"
                ),
            }
            std::thread::yield_now();
        }
    }

    fn client_url(&self, member: usize) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.ports[member])
    }

    fn peer_url(&self, member: usize) -> String {
        format!(
            "{}://127.0.0.1:{}",
            self.scheme(),
            self.ports[MEMBERS + member]
        )
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.members.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn write_certificates(dir: &Path) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    fs::write(dir.join("ca.crt"), ca_cert.pem()).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let mut leaf =
            CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        leaf.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        fs::write(
            dir.join(format!("{name}.crt")),
            leaf.signed_by(&key, &issuer).unwrap().pem(),
        )
        .unwrap();
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
