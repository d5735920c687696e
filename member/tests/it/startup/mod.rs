//! Every error of a start that needs more than a look at the flags: text and exit code, and those of a real etcd.

use std::net::TcpListener;
use std::process::Command;

use crate::discovery::{Service, answering};
use crate::process::{ETCD_3_5, MEMBER, Server, free_ports};

struct Case {
    name: &'static str,
    args: &'static str,
    exit: i32,
    text: &'static str,
    etcd: &'static str,
}

fn cases() -> Vec<Case> {
    include_str!("cases.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let parts: Vec<&str> = line.split('|').map(str::trim).collect();
            let [name, args, exit, text, etcd] = parts[..] else {
                panic!("five parts: {line}");
            };
            Case {
                name,
                args,
                exit: exit.parse().expect("an exit code"),
                text,
                etcd,
            }
        })
        .collect()
}

/// Runs a program until it ends: its exit code and all that it said, without JSON's quotes.
fn ended(binary: &str, args: &[&str], ports: [u16; 2]) -> (Option<i32>, String) {
    let (code, text) = if args[0] == "gateway" {
        let output = Command::new(binary).args(args).output().expect("runs");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    } else {
        let [client, peer] = ports;
        let mut server = Server::of_none(binary, "infra0", client, peer, args);
        server.start();
        (server.wait_exit().code(), server.log())
    };
    (code, text.replace("\\\"", "\""))
}

#[test]
fn a_start_that_fails_has_the_text_and_exit_code_of_the_list() {
    let service = Service::started();
    let sizes = [
        ("zero", "0"),
        ("minus", "-1"),
        ("fraction", "1.5"),
        ("text", "abc"),
        ("empty", ""),
        ("x", "1"),
    ];
    for (token, size) in sizes {
        service.token(token, size);
    }
    let html = answering(
        "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 22\r\n\r\n<html>not here</html>\n",
    );
    let garbage = answering("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\u{1}garbage\n");
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = held.local_addr().expect("bound").port().to_string();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let v2 = format!("http://127.0.0.1:{}/v2/keys/discovery", service.port());
    let mut wrong = Vec::new();
    for case in cases() {
        for binary in [MEMBER, ETCD_3_5] {
            let text = match case.etcd.split_at(1) {
                _ if binary == MEMBER => case.text,
                ("=", "") => case.text,
                ("~", text) => text,
                ("!", reason) => {
                    assert!(!reason.is_empty(), "{}: why?", case.name);
                    continue;
                }
                _ => panic!("{}: {}", case.name, case.etcd),
            };
            let ports = free_ports();
            let fill = |text: &str| {
                text.replace("{p}", &ports[1].to_string())
                    .replace("{taken}", &taken)
                    .replace("{file}", &file.path().display().to_string())
                    .replace("{v2}", &v2)
                    .replace("{html}", &html.to_string())
                    .replace("{garbage}", &garbage.to_string())
            };
            let args = fill(case.args);
            let args: Vec<&str> = args.split_whitespace().collect();
            let (code, said) = ended(binary, &args, ports);
            if code != Some(case.exit) || !said.contains(&fill(text)) {
                wrong.push(format!(
                    "{} of {binary}: {code:?}, not {}: {}\n{said}",
                    case.name,
                    case.exit,
                    fill(text)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
