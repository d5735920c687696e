//! The API as JSON: one list of requests against the member and against etcd 3.4, answers compared byte by byte.
//!
//! What may differ: ids, terms, sizes, and what etcd 3.6 has and 3.4 has not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::process::{ETCD, MEMBER, Server};

/// A request of HTTP/1.1, and the connection on which its answer comes.
pub(crate) fn send(port: u16, head: &str, body: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    write!(
        stream,
        "{head} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("sent");
    BufReader::new(stream)
}

struct Head {
    status: u16,
    content_type: String,
    length: Option<usize>,
}

fn read_head(reader: &mut BufReader<TcpStream>) -> Head {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a status line");
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let mut head = Head {
        status: status.expect("a status"),
        content_type: String::new(),
        length: None,
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            return head;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-type" => value.clone_into(&mut head.content_type),
            "content-length" => head.length = value.parse().ok(),
            _ => {}
        }
    }
}

/// The next chunk of a chunked body; empty at the end.
pub(crate) fn chunk(reader: &mut BufReader<TcpStream>) -> String {
    let mut size = String::new();
    reader.read_line(&mut size).expect("a chunk's size");
    let size = usize::from_str_radix(size.trim_end(), 16).expect("a size");
    let mut bytes = vec![0; size];
    reader.read_exact(&mut bytes).expect("a chunk");
    let mut end = String::new();
    reader.read_line(&mut end).expect("a chunk's end");
    String::from_utf8(bytes).expect("text")
}

/// Status, type and body of an answer, without what may differ.
fn ask(port: u16, head: &str, body: &str) -> String {
    let mut reader = send(port, head, body);
    let head = read_head(&mut reader);
    let mut text = String::new();
    match head.length {
        Some(length) => {
            let mut bytes = vec![0; length];
            reader.read_exact(&mut bytes).expect("a body");
            text = String::from_utf8(bytes).expect("text");
        }
        None => loop {
            let more = chunk(&mut reader);
            if more.is_empty() {
                break;
            }
            text += &more;
        },
    }
    format!("{} {} {}", head.status, head.content_type, masked(&text))
}

/// Replaces the values of fields that differ between any two clusters.
fn masked(text: &str) -> String {
    let mut out = text.to_owned();
    for field in ["cluster_id", "member_id", "raft_term", "ID\":\"1"] {
        let mut done = String::new();
        let mut rest = out.as_str();
        let mark = if field.contains('"') {
            format!("\"{field}")
        } else {
            format!("\"{field}\":\"")
        };
        while let Some(at) = rest.find(&mark) {
            let (before, after) = rest.split_at(at + mark.len());
            done += before;
            done += "*";
            rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        out = done + rest;
    }
    out
}

/// Path and body of requests, in order.
const SCRIPT: &[(&str, &str)] = &[
    ("kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#),
    ("kv/put", r#"{"key":"Zm9v","value":"YmF6","prev_kv":true}"#),
    ("kv/range", r#"{"key":"Zm9v"}"#),
    ("kv/range", r#"{"key":""}"#),
    ("kv/range", ""),
    ("kv/range", "{}"),
    (
        "kv/range",
        r#"{"key":"Zm9v","limit":"5","sort_order":"DESCEND","sortTarget":2}"#,
    ),
    ("kv/range", r#"{"key":"Zm9v","sort_order":"NOPE"}"#),
    ("kv/range", r#"{"key":"Zm9v","sort_order":true}"#),
    ("kv/range", r#"{"key":"Zm9v","sort_order":null}"#),
    ("kv/range", r#"{"key":"Zm9v","limit":5.5}"#),
    ("kv/range", r#"{"key":"Zm9v","limit":"x"}"#),
    ("kv/range", r#"{"key":"Zm9v","limit":"5 5"}"#),
    ("kv/range", r#"{"key":"Zm9v","limit":true}"#),
    ("kv/range", r#"{"key":"Zm9v","limit":{}}"#),
    ("kv/range", r#"{"key":"Zm9v","limit":[]}"#),
    ("kv/range", r#"{"key":"Zm9v","limit":1e2}"#),
    ("kv/range", r#"{"key":"Zm9v","limit":null}"#),
    ("kv/range", r#"{"key":"Zm9v","limit":99999999999999999999}"#),
    ("kv/range", r#"{"key":"Zm9v","limit":""}"#),
    ("kv/range", r#"{"key":"Zm9v","keys_only":"true"}"#),
    ("kv/range", r#"{"key":"Zm9v","keys_only":1}"#),
    ("kv/range", r#"{"key":"Zm9v","keysOnly":true}"#),
    ("kv/range", r#"{"key":"Zm9v","count_only":true}"#),
    (
        "kv/range",
        r#"{"key":"Zm9v","bogus":{"a":[1,"b",null,1.5e3]}}"#,
    ),
    ("kv/range", r#"{"key":"Zm9"}"#),
    ("kv/range", r#"{"key":"Zm9_"}"#),
    ("kv/range", r#"{"key":"Zm9vZg="}"#),
    ("kv/range", r#"{"key":"Zm9vZh=="}"#),
    ("kv/range", r#"{"key":"Zm9v\n"}"#),
    ("kv/range", r#"{"key":"!!!!"}"#),
    ("kv/range", r#"{"key":5}"#),
    ("kv/range", r#"{"key":true}"#),
    ("kv/range", r#"{"key":{}}"#),
    ("kv/range", r#"{"key":[102,111,111]}"#),
    ("kv/range", r#"{"key":["Zm9v"]}"#),
    ("kv/range", r#"{"key":[300]}"#),
    ("kv/range", r#"{"key":null}"#),
    ("kv/range", "{"),
    ("kv/range", "{\"key\""),
    ("kv/range", "{\"key\" \"x\"}"),
    ("kv/range", "key=foo"),
    ("kv/range", "\u{7}"),
    ("kv/range", "\u{e9}"),
    ("kv/range", r#"{"key":"Zm9v"} trailing"#),
    ("kv/range", r#"{"key":"Zm9v"},"#),
    ("kv/range", "[]"),
    ("kv/range", r#""s""#),
    ("kv/range", "null"),
    ("kv/range", "5"),
    ("kv/range", "true"),
    ("kv/range", r#"{"key":"Zm9v",}"#),
    ("kv/range", "{'key':1}"),
    ("kv/range", r#"{"key":"Zm9v","key":"YQ=="}"#),
    ("kv/range", r#"{"Key":"Zm9v"}"#),
    (
        "kv/range",
        r#"{"key":"Zm9v","range_end":"Zm9w","rangeEnd":"eg=="}"#,
    ),
    ("kv/range", r#"{"key":"Zm9v","revision":"100"}"#),
    (
        "kv/range",
        r#"{"key":"Zm9v","revision":"2","serializable":true}"#,
    ),
    (
        "kv/txn",
        r#"{"compare":[{"key":"Zm9v","target":"VALUE","result":"EQUAL","value":"YmF6"}],
            "success":[{"request_range":{"key":"Zm9v"}},{"requestPut":{"key":"YQ==","value":"YjxiPg=="}}],
            "failure":[{"request_delete_range":{"key":"Zm9v"}}]}"#,
    ),
    ("kv/txn", r#"{"success":{"request_range":{"key":"Zm9v"}}}"#),
    ("kv/txn", r#"{"success":[{"request_range":"x"}]}"#),
    ("kv/txn", r#"{"success":null}"#),
    ("kv/txn", r#"{"success":[5]}"#),
    ("kv/txn", r#"{"success":[{"request_range":null}]}"#),
    (
        "kv/txn",
        r#"{"compare":[{"key":"Zm9v","target":"CREATE","result":"GREATER","create_revision":"0"}]}"#,
    ),
    (
        "kv/txn",
        r#"{"compare":[{"key":"YWE=","target":"VALUE","result":"EQUAL","value":null}]}"#,
    ),
    (
        "kv/txn",
        r#"{"success":[{"request_txn":{"success":[{"request_put":{"key":"dA=="}},{"request_range":{"key":"dA=="}}]}}]}"#,
    ),
    ("kv/deleterange", r#"{"key":"YQ==","prev_kv":true}"#),
    ("kv/deleterange", r#"{"key":"YQ==","prev_kv":true}"#),
    ("kv/compaction", r#"{"revision":"100"}"#),
    ("kv/compaction", r#"{"revision":"3","physical":true}"#),
    ("kv/range", r#"{"key":"Zm9v","revision":"2"}"#),
    ("kv/put", r#"{"value":"YmFy"}"#),
    (
        "kv/put",
        r#"{"key":"YQ==","ignore_value":true,"value":"YQ=="}"#,
    ),
    ("kv/put", r#"{"key":"YQ==","lease":"-5"}"#),
    ("maintenance/transfer-leadership", r#"{"targetID":"5"}"#),
    ("nope", "{}"),
    ("kv/range/", "{}"),
    ("kv/range:x", "{}"),
    ("", "{}"),
];

fn pair() -> [Server; 2] {
    [MEMBER, ETCD].map(|binary| {
        let mut server = Server::single(binary, &[]);
        server.start();
        server.wait_ready();
        server
    })
}

#[test]
fn gateway_answers_are_etcds_byte_by_byte() {
    let servers = pair();
    let mut unlike = Vec::new();
    for prefix in ["/v3/", "/v3beta/"] {
        for (path, body) in SCRIPT {
            let head = format!("POST {prefix}{path}");
            let [ours, theirs] = [0, 1].map(|i| ask(servers[i].client_port, &head, body));
            if ours != theirs {
                unlike.push(format!("{head} {body}\n  member {ours}\n  etcd   {theirs}"));
            }
        }
    }
    for head in [
        "GET /v3/kv/range",
        "PUT /v3/kv/range",
        "POST /v3/kv/range?x=1",
        "GET /v3/nope",
        "OPTIONS /v3/kv/range",
    ] {
        let [ours, theirs] = [0, 1].map(|i| ask(servers[i].client_port, head, "{}"));
        if ours != theirs {
            unlike.push(format!("{head}\n  member {ours}\n  etcd   {theirs}"));
        }
    }
    assert!(unlike.is_empty(), "{}", unlike.join("\n"));
}

/// An answer with its headers in order and without the time; `lines` are those of the request.
fn exchange(port: u16, lines: &[&str]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    let request = format!("{}\r\nConnection: close\r\n\r\n", lines.join("\r\n"));
    stream.write_all(request.as_bytes()).expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let (status, headers) = head.split_once("\r\n").expect("headers");
    let mut headers: Vec<String> = headers
        .lines()
        .map(|header| header.split_once(':').expect("a header"))
        .map(|(name, value)| format!("{}:{value}", name.to_lowercase()))
        .filter(|header| !header.starts_with("date:"))
        .collect();
    headers.sort();
    format!("{status}\n{}\n{body}", headers.join("\n"))
}

#[test]
fn hosts_and_origins_are_let_in_as_the_flags_say() {
    let pair = |args: &[&str]| [MEMBER, ETCD].map(|binary| Server::started(binary, args));
    let requests = [
        [
            "GET /version HTTP/1.1",
            "Host: localhost",
            "Origin: http://a.example:80",
        ],
        [
            "GET /version HTTP/1.1",
            "Host: localhost:99",
            "Origin: http://b.example:80",
        ],
        [
            "GET /version HTTP/1.1",
            "Host: evil.example:99",
            "Origin: http://a.example:80",
        ],
        ["GET /nosuch HTTP/1.1", "Host: evil.example", "X: y"],
        ["GET /nosuch HTTP/1.1", "Host: localhost", "X: y"],
        [
            "POST /version HTTP/1.1",
            "Host: localhost",
            "Content-Length: 0",
        ],
        [
            "PUT /v3/kv/range HTTP/1.1",
            "Host: evil.example",
            "Content-Length: 0",
        ],
        [
            "GET /v3/kv/range HTTP/1.1",
            "Host: localhost",
            "Origin: http://a.example:80",
        ],
        [
            "OPTIONS /v3/kv/range HTTP/1.1",
            "Host: localhost",
            "Origin: http://a.example:80",
        ],
        [
            "OPTIONS /v3/kv/range HTTP/1.1",
            "Host: localhost",
            "Origin: http://b.example:80",
        ],
        [
            "OPTIONS /version HTTP/1.1",
            "Host: localhost",
            "Origin: http://a.example:80",
        ],
        [
            "OPTIONS /nosuch HTTP/1.1",
            "Host: evil.example",
            "Origin: http://a.example:80",
        ],
        // A script of any site may send this without asking.
        [
            "POST /etcdserverpb.KV/Put HTTP/1.1",
            "Host: evil.example",
            "Content-Type: text/plain",
        ],
        [
            "POST /etcdserverpb.KV/Put HTTP/1.1",
            "Host: localhost",
            "Content-Type: text/plain",
        ],
    ];
    for args in [
        &[
            "--host-whitelist=localhost,127.0.0.1",
            "--cors=http://a.example:80",
        ][..],
        &["--host-whitelist=*,other", "--cors=*"],
        &[],
    ] {
        let servers = pair(args);
        for request in &requests {
            // The releases' numbers differ.
            let [ours, theirs] = [0, 1].map(|i| {
                let answer = exchange(servers[i].client_port, request);
                match answer.split_once("{\"etcdserver\"") {
                    Some((head, _)) => head.replace("content-length: 45", "content-length: 46"),
                    None => answer,
                }
            });
            assert_eq!(ours, theirs, "{args:?} {request:?}");
        }
        // The peers' port has no such rules, nor headers that only browsers read.
        let request = ["GET /members HTTP/1.1", "Host: evil.example", "X: y"];
        assert!(!exchange(servers[0].peer_port, &request).contains("access-control"));
    }
}

/// Locks and elections: names and values are `l`, `e` and `v`, the lease is 10, so keys are `l/a` and `e/a`.
const QUEUES: &[(&str, &str)] = &[
    ("lease/grant", r#"{"ID":"10","TTL":"1000"}"#),
    ("lock/lock", r#"{"name":"bA==","lease":"10"}"#),
    ("lock/lock", r#"{"name":"bA==","lease":"10"}"#),
    ("lock/lock", r#"{"name":"bA==","lease":"11"}"#),
    ("lock/unlock", r#"{"key":"bC9h"}"#),
    ("lock/unlock", r#"{"key":"bC9h"}"#),
    ("lock/unlock", "{}"),
    ("election/leader", r#"{"name":"ZQ=="}"#),
    (
        "election/campaign",
        r#"{"name":"ZQ==","lease":"10","value":"dg=="}"#,
    ),
    ("election/leader", r#"{"name":"ZQ=="}"#),
    (
        "election/proclaim",
        r#"{"leader":{"name":"ZQ==","key":"ZS9h","rev":"4","lease":"10"},"value":"dnY="}"#,
    ),
    (
        "election/proclaim",
        r#"{"leader":{"name":"ZQ==","key":"ZS9h","rev":"5","lease":"10"},"value":"dnY="}"#,
    ),
    (
        "election/campaign",
        r#"{"name":"ZQ==","lease":"10","value":"dg=="}"#,
    ),
    (
        "election/campaign",
        r#"{"name":"ZQ==","lease":"10","value":"dg=="}"#,
    ),
    ("election/leader", r#"{"name":"ZQ=="}"#),
    ("election/proclaim", r#"{"value":"dnY="}"#),
    ("election/proclaim", r#"{"leader":{"lease":"10"}}"#),
    (
        "election/proclaim",
        r#"{"leader":{"name":"ZQ==","key":"ZS9h","rev":"4","lease":"11"}}"#,
    ),
    ("election/resign", "{}"),
    ("election/resign", r#"{"leader":{}}"#),
    (
        "election/resign",
        r#"{"leader":{"name":"ZQ==","key":"ZS9h","rev":"5","lease":"10"}}"#,
    ),
    (
        "election/resign",
        r#"{"leader":{"name":"ZQ==","key":"ZS9h","rev":"4","lease":"10"}}"#,
    ),
    ("election/leader", r#"{"name":"ZQ=="}"#),
    ("election/campaign", r#"{"name":"ZQ==","lease":"11"}"#),
];

#[test]
fn gateway_locks_and_elects_as_etcd_does() {
    let servers = pair();
    for (path, body) in QUEUES {
        let head = format!("POST /v3/{path}");
        let [ours, theirs] = [0, 1].map(|i| ask(servers[i].client_port, &head, body));
        assert_eq!(ours, theirs, "{head} {body}");
    }
    let observed = [0, 1].map(|i| {
        let ask = |path: &str, body: &str| {
            let answer = ask(servers[i].client_port, &format!("POST /v3/{path}"), body);
            assert!(answer.starts_with("200 "), "{answer}");
        };
        ask(
            "election/campaign",
            r#"{"name":"ZQ==","lease":"10","value":"dg=="}"#,
        );
        let mut stream = send(
            servers[i].client_port,
            "POST /v3/election/observe",
            r#"{"name":"ZQ=="}"#,
        );
        assert_eq!(read_head(&mut stream).status, 200);
        let first = chunk(&mut stream);
        ask(
            "election/campaign",
            r#"{"name":"ZQ==","lease":"10","value":"dnY="}"#,
        );
        [masked(&first), masked(&chunk(&mut stream))]
    });
    assert_eq!(observed[0], observed[1]);
}

#[test]
fn gateway_refuses_what_is_too_large() {
    let servers = pair();
    for bytes in [1_600_000, 2_400_000] {
        let body = format!(
            "{{\"key\":\"YQ==\",\"value\":\"{}\"}}",
            "AAAA".repeat(bytes / 3)
        );
        let [ours, theirs] = [0, 1].map(|i| ask(servers[i].client_port, "POST /v3/kv/put", &body));
        assert_eq!(ours, theirs, "{bytes}");
    }
    // etcd takes any number of bytes into memory; the member does not.
    let mut reader = send(
        servers[0].client_port,
        "POST /v3/kv/put",
        &format!("{{\"key\":\"{}\"}}", "A".repeat(6_000_000)),
    );
    assert_eq!(read_head(&mut reader).status, 429);
}

#[test]
fn gateway_reads_a_stream_in_small_pieces_without_reading_it_again_and_again() {
    let mut server = Server::single(MEMBER, &[]);
    server.start();
    server.wait_ready();
    let mut stream = TcpStream::connect(("127.0.0.1", server.client_port)).expect("a connection");
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).expect("a timeout");
    let mut request =
        b"POST /v3/watch HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_vec();
    // Pieces of a few bytes: with each of them the text is longer, and its value not yet whole.
    let key = "YWFh".repeat(75_000);
    let text = format!("{{\"create_request\":{{\"key\":\"{key}\"}}}}");
    for piece in text.as_bytes().chunks(4) {
        request.extend(format!("{:x}\r\n", piece.len()).bytes());
        request.extend(piece);
        request.extend(b"\r\n");
    }
    let began = std::time::Instant::now();
    stream.write_all(&request).expect("sent");
    let mut reader = BufReader::new(stream);
    assert_eq!(read_head(&mut reader).status, 200);
    assert!(chunk(&mut reader).contains("\"created\":true"));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn gateway_is_off_on_request() {
    let servers = [MEMBER, ETCD].map(|binary| {
        let mut server = Server::single(binary, &["--enable-grpc-gateway=false"]);
        server.start();
        server.wait_ready();
        server
    });
    for head in ["POST /v3/kv/range", "GET /v3/kv/range", "POST /v3/nope"] {
        let [ours, theirs] = [0, 1].map(|i| ask(servers[i].client_port, head, "{}"));
        assert_eq!(ours, theirs, "{head}");
    }
}

#[test]
fn gateway_honours_the_time_that_a_client_gives() {
    let servers = pair();
    for (wait, body) in [("bogus", "{}"), ("1n", "{}"), ("20S", r#"{"key":"YQ=="}"#)] {
        let head = format!("POST /v3/kv/range HTTP/1.1\r\nGrpc-Timeout: {wait}\r\nX-Rest:");
        let [ours, theirs] = [0, 1].map(|i| ask(servers[i].client_port, &head, body));
        assert_eq!(ours, theirs, "{wait}");
    }
}

#[test]
fn gateway_gives_etcds_words_to_streams_that_it_cannot_read() {
    let servers = pair();
    for path in [
        "watch",
        "lease/keepalive",
        "election/observe",
        "maintenance/snapshot",
    ] {
        for body in ["xx", "{", "[1]"] {
            let head = format!("POST /v3/{path}");
            let [ours, theirs] = [0, 1].map(|i| ask(servers[i].client_port, &head, body));
            assert_eq!(ours, theirs, "{head} {body}");
        }
    }
}

#[test]
fn grpc_health_is_that_of_etcd() {
    use member_proto::healthpb::HealthCheckRequest;
    use member_proto::healthpb::health_client::HealthClient;
    let servers = pair();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for service in ["", "etcdserverpb.KV"] {
            let mut answers = Vec::new();
            for server in &servers {
                let mut client = HealthClient::connect(server.endpoint())
                    .await
                    .expect("a connection");
                let request = HealthCheckRequest {
                    service: service.to_owned(),
                };
                let checked = client.check(request.clone()).await;
                let mut watched = client.watch(request).await.expect("watched").into_inner();
                answers.push((
                    checked
                        .map(|answer| answer.into_inner().status)
                        .map_err(|status| (status.code(), status.message().to_owned())),
                    watched.message().await.expect("a status"),
                ));
            }
            assert_eq!(answers[0], answers[1], "{service}");
        }
    });
}
