//! A name server of the test's own, in a network namespace of its own.

use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, CNAME, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record};

/// Set for a test that runs inside.
const INSIDE: &str = "MEMBER_TEST_NAMESPACE";

/// Runs the test anew in a network namespace with loopback alone, where `/etc/resolv.conf` names 127.0.0.1. `test` is
/// the test's full name. Needs root.
pub(super) fn in_namespace(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let mut resolv = tempfile::NamedTempFile::new().expect("a file");
    resolv
        .write_all(b"nameserver 127.0.0.1\noptions timeout:1 attempts:2\n")
        .expect("written");
    // The processes inside end with the first of them.
    let output = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
            "sh",
            "-c",
        ])
        .arg("ip link set lo up && mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"")
        .arg("sh")
        .arg(resolv.path())
        .arg(std::env::current_exe().expect("a test"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare is installed: run ci/setup");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What the name server knows.
#[derive(Clone, Default)]
pub(super) struct Zone(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    records: Vec<Record>,
    /// Answered instead of the records.
    failure: Option<ResponseCode>,
}

impl Zone {
    /// Serves on port 53, until the process ends.
    pub(super) fn served() -> Self {
        let zone = Self::default();
        let socket = UdpSocket::bind("127.0.0.1:53").expect("free in this namespace");
        let serving = zone.clone();
        std::thread::spawn(move || {
            let mut query = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                if let Some(answer) = serving.answer(&query[..length]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        zone
    }

    pub(super) fn set(&self, records: Vec<Record>) {
        *self.0.lock().expect("no panic") = Contents {
            records,
            failure: None,
        };
    }

    pub(super) fn fail(&self, failure: ResponseCode) {
        self.0.lock().expect("no panic").failure = Some(failure);
    }

    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).ok()?;
        let question = query.queries.first()?.clone();
        let contents = self.0.lock().expect("no panic");
        let named = contents
            .records
            .iter()
            .filter(|record| record.name == *question.name());
        let mut answer = Message::response(query.metadata.id, OpCode::Query);
        answer.metadata.response_code = match contents.failure {
            Some(failure) => failure,
            None if named.clone().next().is_none() => ResponseCode::NXDomain,
            None => ResponseCode::NoError,
        };
        if contents.failure.is_none() {
            let wanted = named.filter(|record| {
                record.record_type() == question.query_type()
                    || matches!(record.data, RData::CNAME(_))
            });
            answer.add_answers(wanted.cloned());
        }
        answer.add_query(question);
        answer.to_vec().ok()
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).expect("a name")
}

fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(name(owner), 60, data)
}

pub(super) fn a(owner: &str, address: Ipv4Addr) -> Record {
    record(owner, RData::A(A(address)))
}

pub(super) fn cname(owner: &str, target: &str) -> Record {
    record(owner, RData::CNAME(CNAME(name(target))))
}

pub(super) fn srv(service: &str, priority: u16, weight: u16, port: u16, target: &str) -> Record {
    let target = if target == "." {
        Name::root()
    } else {
        name(target)
    };
    record(
        &format!("_{service}._tcp.example.com"),
        RData::SRV(SRV::new(priority, weight, port, target)),
    )
}
