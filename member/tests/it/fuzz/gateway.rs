//! The API as JSON.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::{Random, assert_well, each_seed, started};

/// As with gRPC: nothing that enables authentication or changes the members.
const REQUESTS: &[(&str, &str)] = &[
    (
        "kv/put",
        r#"{"key":"Zm9v","value":"YmFy","lease":"0","prev_kv":true}"#,
    ),
    (
        "kv/range",
        r#"{"key":"Zm9v","range_end":"eg==","limit":"5","sort_order":"DESCEND","sortTarget":2,"serializable":false}"#,
    ),
    ("kv/deleterange", r#"{"key":"Zm9v","range_end":"Zm9w"}"#),
    (
        "kv/txn",
        r#"{"compare":[{"key":"Zm9v","target":"VALUE","result":"EQUAL","value":"YmF6"}],"success":[{"request_range":{"key":"Zm9v"}},{"requestPut":{"key":"YQ==","value":"YjxiPg=="}}],"failure":[{"request_txn":{"success":[{"request_put":{"key":"dA=="}}]}}]}"#,
    ),
    ("kv/compaction", r#"{"revision":"2","physical":true}"#),
    (
        "watch",
        r#"{"create_request":{"key":"Zm9v","start_revision":1,"filters":["NOPUT"],"prev_kv":true}} {"progress_request":{}} {"cancel_request":{"watch_id":0}}"#,
    ),
    ("lease/grant", r#"{"TTL":60,"ID":"7"}"#),
    ("lease/revoke", r#"{"ID":7}"#),
    ("lease/keepalive", r#"{"ID":"7"}"#),
    ("lease/timetolive", r#"{"ID":7,"keys":true}"#),
    ("cluster/member/list", "{}"),
    (
        "maintenance/alarm",
        r#"{"action":"DEACTIVATE","alarm":"NOSPACE"}"#,
    ),
    ("maintenance/status", "{}"),
    ("maintenance/hashkv", r#"{"revision":"-1"}"#),
    ("auth/authenticate", r#"{"name":"a","password":"b"}"#),
    (
        "auth/role/grant",
        r#"{"name":"r","perm":{"permType":"READWRITE","key":"YQ==","range_end":"Yg=="}}"#,
    ),
    ("lock/lock", r#"{"name":"bA=="}"#),
    ("election/leader", r#"{"name":"ZQ=="}"#),
];

const TOKENS: &[&str] = &[
    "null",
    "true",
    "{}",
    "[]",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\u12",
    "1e999",
    "-0",
    "1.5",
    "99999999999999999999",
    "-9223372036854775808",
    "\"x\":",
    "\u{feff}",
    "\u{10ffff}",
    "NaN",
    "//",
    " ",
    "\n",
];

fn body(random: &mut Random, text: &str) -> Vec<u8> {
    let mut body = text.as_bytes().to_vec();
    match random.below(16) {
        0 => random.bytes(200),
        1 => ["[", "{\"a\":", "{\"success\":[{\"request_txn\":"][random.below(3)]
            .repeat(random.below(20_000))
            .into_bytes(),
        2..8 => {
            for _ in 0..=random.below(3) {
                let at = random.below(body.len() + 1);
                let end = (at + random.below(6)).min(body.len());
                body.splice(at..end, random.pick(TOKENS).bytes());
            }
            body
        }
        8 => body,
        _ => {
            random.mutate(&mut body);
            body
        }
    }
}

/// Status and body of the answer; `None` when it did not end in time, as that of a stream.
fn post(port: u16, path: &str, body: &[u8], length: usize) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    let wait = Duration::from_millis(200);
    stream.set_read_timeout(Some(wait)).expect("a timeout");
    let head = format!(
        "POST /v3/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    // An answer may come before the whole request was read.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(_) => return None,
        }
    }
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding");
    (!chunked).then(|| (status, answer[end + 4..].to_vec()))
}

#[test]
fn a_member_outlives_any_json() {
    let server = started();
    let mut answered = 0;
    each_seed(|random| {
        for _ in 0..32 {
            let (path, text) = random.pick(REQUESTS);
            let body = body(random, text);
            let length = if random.one_in(20) {
                body.len() + random.below(1 << 30)
            } else {
                body.len()
            };
            let Some((status, answer)) = post(server.client_port, path, &body, length) else {
                continue;
            };
            answered += 1;
            let shown = String::from_utf8_lossy(&body);
            assert!((200..600).contains(&status), "{status}");
            if length == body.len() {
                let json = serde_json::from_slice::<serde_json::Value>(&answer);
                assert!(
                    json.is_ok(),
                    "{path} {shown}: {status} {}",
                    String::from_utf8_lossy(&answer)
                );
            }
        }
        assert_well(&server);
    });
    assert!(answered > 0 || std::env::var_os("PROVISION_FUZZ_SEED").is_some());
}
