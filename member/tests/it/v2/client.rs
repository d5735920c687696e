//! Plain HTTP of the v2 API: a request, the head of its answer, and its body as it comes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::gateway::chunk;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The content type that `curl -d` sends.
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

/// An answer whose head has come.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// As they are written, sorted.
    pub(crate) headers: Vec<(String, String)>,
    has_body: bool,
    stream: BufReader<TcpStream>,
}

/// Sends a request and reads the head of its answer.
pub(crate) fn request(port: u16, method: &str, target: &str, kind: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
    if !kind.is_empty() {
        head += &format!("Content-Type: {kind}\r\n");
    }
    // In one piece: who refuses the head may close before the rest is written.
    let text = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).expect("sent");
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).expect("a status line");
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).expect("a header");
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_owned(), value.to_owned()));
    }
    headers.sort();
    Answer {
        status: status.unwrap_or_else(|| panic!("{method} {target}: {line:?}")),
        headers,
        has_body: method != "HEAD",
        stream,
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let named = |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
        let found = self.headers.iter().find(named);
        found.map(|(_, value)| value.as_str())
    }

    /// The next part of a body that comes in parts; empty at the end.
    pub(crate) fn part(&mut self) -> String {
        chunk(&mut self.stream)
    }

    /// The rest of the body.
    pub(crate) fn body(&mut self) -> String {
        if !self.has_body {
            return String::new();
        }
        let length = self.header("content-length").map(str::to_owned);
        if let Some(length) = length {
            let mut bytes = vec![0; length.parse().expect("a length")];
            self.stream.read_exact(&mut bytes).expect("a body");
            return String::from_utf8(bytes).expect("text");
        }
        let mut text = String::new();
        if self.header("transfer-encoding").is_some() {
            loop {
                match self.part() {
                    part if part.is_empty() => break,
                    part => text += &part,
                }
            }
        } else if self.header("connection") == Some("close") {
            self.stream.read_to_string(&mut text).expect("a body");
        }
        text
    }
}

/// The status and body of a request with a form.
pub(crate) fn ask(port: u16, method: &str, target: &str, form: &str) -> (u16, String) {
    let kind = if form.is_empty() { "" } else { FORM };
    let mut answer = request(port, method, target, kind, form);
    let body = answer.body();
    (answer.status, body)
}
