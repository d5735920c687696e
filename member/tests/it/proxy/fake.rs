//! Members of the test's own making: what a proxy sends them, and how long it waits for them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::{BINARIES, proxy, wait_for_endpoints};
use crate::process::{ETCD, MEMBER, Server};
use crate::v2::client::ask;

/// What a fake member does with a request.
#[derive(Clone, Copy)]
enum Manner {
    Answers(&'static str),
    /// It reads, and says nothing.
    Silent,
    /// It does not read on.
    Deaf,
}

/// What a fake member was asked, and the connections that it keeps open.
#[derive(Default)]
struct Asked {
    heads: Vec<String>,
    held: Vec<TcpStream>,
}

/// A member of one's own making, which lists itself, and keeps the heads of all else that it is asked.
struct Fake {
    port: u16,
    asked: Arc<Mutex<Asked>>,
}

impl Fake {
    fn started(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let asked = Arc::<Mutex<Asked>>::default();
        let kept = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || serve(stream, port, manner, &kept));
            }
        });
        Self { port, asked }
    }

    fn proxy(&self, binary: &str, more: &[&str]) -> Server {
        let mut proxy = proxy(binary, &["--proxy=on"]);
        let port = self.port;
        proxy.arg(&format!("--initial-cluster=a=http://127.0.0.1:{port}"));
        more.iter().for_each(|arg| proxy.arg(arg));
        proxy.start();
        wait_for_endpoints(&proxy, 1);
        proxy
    }
}

fn serve(stream: TcpStream, port: u16, manner: Manner, asked: &Mutex<Asked>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
    let mut stream = stream;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if !matches!(reader.read_line(&mut head), Ok(1..)) {
            return;
        }
    }
    let list = format!(
        "[{{\"id\":1,\"peerURLs\":[\"http://127.0.0.1:{port}\"],\"name\":\"a\",\"clientURLs\":[\"http://127.0.0.1:{port}\"]}}]\n"
    );
    let members = head.starts_with("GET /members ");
    if !members {
        let mut asked = asked.lock().expect("no panic");
        asked.heads.push(head.to_ascii_lowercase());
    }
    let _ = match manner {
        _ if members => write!(
            stream,
            "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: 1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{list}",
            list.len()
        ),
        Manner::Answers(answer) => stream.write_all(answer.as_bytes()),
        // Until the other side gives up.
        Manner::Silent => reader.read_to_end(&mut Vec::new()).map(drop),
        Manner::Deaf => {
            asked.lock().expect("no panic").held.push(stream);
            Ok(())
        }
    };
}

#[test]
fn a_member_sees_who_asks_and_no_header_of_the_connection() {
    let fake = Fake::started(Manner::Answers(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nKeep-Alive: timeout=5\r\nX-Other: kept\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\n\r\nok",
    ));
    for binary in BINARIES {
        let proxy = fake.proxy(binary, &[]);
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.client_port)).expect("listens");
        stream
            .write_all(
                b"GET /v2/keys/a%20b?wait=true HTTP/1.1\r\nHost: other.example:7\r\nConnection: close\r\n\
                  Keep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\nProxy-Authorization: x\r\n\
                  X-Forwarded-For: 10.0.0.1\r\nX-Own: yes\r\n\r\n",
            )
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        let answer = answer.to_ascii_lowercase();
        assert!(
            answer.starts_with("http/1.1 200 ") && answer.ends_with("\r\n\r\nok"),
            "{answer}"
        );
        assert!(answer.contains("\r\nx-other: kept\r\n"), "{answer}");
        assert!(!answer.contains("keep-alive"), "{answer}");
        let allowed = answer.matches("access-control-allow-origin: *\r\n").count();
        // Browsers take no answer that says it twice.
        assert_eq!(allowed, if binary == MEMBER { 1 } else { 2 }, "{answer}");

        let head = fake
            .asked
            .lock()
            .expect("no panic")
            .heads
            .pop()
            .expect("asked");
        assert!(
            head.starts_with("get /v2/keys/a%20b?wait=true http/1.1\r\n"),
            "{head}"
        );
        for kept in [
            "host: other.example:7",
            "x-forwarded-for: 10.0.0.1, 127.0.0.1",
            "x-own: yes",
        ] {
            assert!(
                head.contains(&format!("\r\n{kept}\r\n")),
                "{binary}: {head}"
            );
        }
        for gone in [
            "connection:",
            "keep-alive:",
            "te:",
            "upgrade:",
            "proxy-authorization:",
        ] {
            assert!(
                !head.contains(&format!("\r\n{gone}")),
                "{binary}: {gone} {head}"
            );
        }
    }
}

#[test]
fn a_member_that_does_not_answer_or_listen_is_given_up_in_time() {
    let (silent, deaf) = (Fake::started(Manner::Silent), Fake::started(Manner::Deaf));
    // More than the kernel keeps of a connection.
    let long = format!("value={}", "x".repeat(32 << 20));
    // etcd 3.5 waits on: it sets its timeouts where Go does not look any more.
    for binary in [MEMBER, ETCD] {
        for (fake, flag, form) in [
            (&silent, "--proxy-read-timeout=300", "value=1"),
            (&deaf, "--proxy-write-timeout=300", &long),
        ] {
            let proxy = fake.proxy(binary, &["--max-request-bytes=64000000", flag]);
            let (status, body) = ask(proxy.client_port, "PUT", "/v2/keys/a", form);
            assert_eq!(status, 502, "{binary} {flag}: {body}");
            let asked = std::mem::take(&mut *fake.asked.lock().expect("no panic")).heads;
            assert_eq!(asked.len(), 1, "{binary} {flag}: {asked:?}");
        }
    }
}
