//! Scripts over plain HTTP: status, headers and body of every answer.
//!
//! A line is `METHOD TARGET`, then the body, a form unless `@type ` in front of the method names another content type
//! (`@none` for none). `{repeat N x}` stands for N times x. `NAME = METHOD TARGET` sends a request and reads the head of
//! its answer, `NAME > N` reads N parts of its body. `{id}` is the server's member id, `{peer}` the port of its peer URL.

use std::collections::HashMap;

use super::{Verdict, script};
use crate::process::{ETCD, MEMBER, Server};
use crate::v2::client::{Answer, FORM, ask, request};

/// What a header or field says of the server and not of the answer.
const MASKED: [&str; 3] = ["X-Etcd-Cluster-Id", "X-Raft-Index", "X-Raft-Term"];
const FIELDS: [&str; 3] = ["expiration", "startTime", "uptime"];

struct Side {
    server: Server,
    id: String,
    open: HashMap<String, Answer>,
}

/// Runs a script on a fresh pair of servers.
pub(super) fn compare(name: &str, args: &[&str]) {
    let mut sides = [MEMBER, ETCD].map(|binary| Side::start(binary, args));
    let mut verdict = Verdict::new(name);
    for line in script(name).lines() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let [found, expected] = sides.each_mut().map(|side| side.run(line));
        verdict.step(line, &found, &expected);
    }
    verdict.pass();
}

impl Side {
    fn start(binary: &str, args: &[&str]) -> Self {
        let server = Server::started(binary, args);
        let port = server.client_port;
        // etcd serves before it has written down what it knows of itself, which counts as changes.
        crate::process::wait_until("etcd has published itself", || {
            ask(port, "GET", "/v2/members", "").1.contains("infra0")
                && request(port, "GET", "/v2/keys", "", "").header("x-etcd-index") == Some("3")
        });
        let members = ask(port, "GET", "/v2/members", "").1;
        let id = members.split('"').nth(5).expect("an id").to_owned();
        let open = HashMap::new();
        Self { server, id, open }
    }

    fn run(&mut self, line: &str) -> String {
        if let Some((name, parts)) = line.split_once(" > ") {
            let answer = self.open.get_mut(name).expect("an open request");
            let parts = parts.parse().expect("a number of parts");
            let text: Vec<String> = (0..parts).map(|_| answer.part()).collect();
            return self.shown_body(&text.concat());
        }
        if let Some((name, line)) = line
            .split_once(" = ")
            .filter(|(name, _)| !name.contains(' '))
        {
            let answer = self.send(line);
            let shown = self.shown_head(&answer);
            self.open.insert(name.to_owned(), answer);
            return shown;
        }
        let mut answer = self.send(line);
        let body = answer.body();
        let body = self.shown_body(&body);
        format!("{}\n{body}", self.shown_head(&answer))
            .trim_end()
            .to_owned()
    }

    fn send(&self, line: &str) -> Answer {
        let (kind, line) = match line.strip_prefix('@').and_then(|line| line.split_once(' ')) {
            Some(("none", line)) => ("", line),
            Some((kind, line)) => (kind, line),
            None => (FORM, line),
        };
        let line = line
            .replace("{id}", &self.id)
            .replace("{peer}", &self.server.peer_port.to_string());
        let line = repeated(&line);
        let (method, rest) = line.split_once(' ').expect("method and target");
        let (target, body) = rest.split_once(' ').unwrap_or((rest, ""));
        let kind = if body.is_empty() && kind == FORM {
            ""
        } else {
            kind
        };
        request(self.server.client_port, method, target, kind, body)
    }

    fn shown_head(&self, answer: &Answer) -> String {
        let mut shown = answer.status.to_string();
        for (name, value) in &answer.headers {
            let value = if MASKED.contains(&name.as_str()) {
                "*"
            } else {
                value
            };
            // Ids and ports are longer on one side than on the other.
            if !matches!(name.as_str(), "Content-Length" | "Date") {
                shown += &format!("\n{name}: {value}");
            }
        }
        shown
    }

    /// The body with a bar before each line, so that an empty one shows.
    fn shown_body(&self, body: &str) -> String {
        let mut body = body
            .replace(&self.id, "ID")
            .replace(&self.server.client_port.to_string(), "CLIENT")
            .replace(&self.server.peer_port.to_string(), "PEER");
        for field in FIELDS {
            body = masked(&body, &format!("\"{field}\":\""));
        }
        body = without_ttls(&body);
        // Reads of the test itself, until the server is ready.
        for name in ["getsSuccess", "getsFail"] {
            body = without_number(&body, name);
        }
        let lines: Vec<String> = body.lines().map(|line| format!("| {line}")).collect();
        let open = if body.is_empty() || body.ends_with('\n') {
            ""
        } else {
            " (no newline)"
        };
        lines.join("\n") + open
    }
}

/// The text without the seconds that are left, which a busy machine makes fewer.
fn without_ttls(text: &str) -> String {
    let mut parts = text.split(",\"ttl\":");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find([',', '}']).expect("the end of a number");
        // What has expired says so only when it is late.
        if !part.starts_with('-') {
            out += ",\"ttl\":*";
        }
        out += &part[end..];
    }
    out
}

fn without_number(text: &str, name: &str) -> String {
    let Some((before, rest)) = text.split_once(&format!("\"{name}\":")) else {
        return text.to_owned();
    };
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{before}\"{name}\":*{rest}")
}

/// The text with every value after `prefix` left out, up to its quote.
fn masked(text: &str, prefix: &str) -> String {
    let mut parts = text.split(prefix);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find('"').expect("the end of a string");
        out += &format!("{prefix}*{}", &part[end..]);
    }
    out
}

fn repeated(text: &str) -> String {
    let Some((before, rest)) = text.split_once("{repeat ") else {
        return text.to_owned();
    };
    let (repeat, after) = rest.split_once('}').expect("a closing brace");
    let (count, unit) = repeat.split_once(' ').expect("{repeat N x}");
    let count = count.parse().expect("a number");
    format!("{before}{}{}", unit.repeat(count), repeated(after))
}
