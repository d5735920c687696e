//! Command lines that end at once, with what the server says: one scenario for each line of `cases.txt`.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use super::answers::Answerer;
use super::definition::{Body, Need, Scenario, Suite};
use super::failure::Failure;
use super::server::Server;
use super::stage::Stage;
use super::subject::Subject;
use crate::render;

const LIST: &str = include_str!("cases.txt");
// Each ends within a second; a name that is looked up in vain takes longer.
const LIMIT: Duration = Duration::from_secs(60);
const HTML: &str = "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 22\r\n\r\n<html>not here</html>\n";
const GARBAGE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\u{1}garbage\n";

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Case {
    name: &'static str,
    args: &'static str,
    exit: i32,
    text: &'static str,
    etcd: Said,
    etcd_3_4: Said,
}

/// What etcd does.
#[derive(Clone, Copy, Debug)]
enum Said {
    /// The same.
    Same,
    /// It says something else.
    Text(&'static str),
    /// Something else, which is not checked.
    Other(&'static str),
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut source = "";
    let mut scenarios = Vec::new();
    for line in LIST.lines() {
        if let Some(section) = line.strip_prefix("@ ") {
            source = section;
        } else if let Some(case) = parse(line) {
            scenarios.push(scenario(case, source));
        }
    }
    scenarios
}

fn parse(line: &'static str) -> Option<Case> {
    if line.starts_with('#') {
        return None;
    }
    let mut parts = line.split('|').map(str::trim);
    let mut next = || parts.next();
    let (name, args, exit, text) = (next()?, next()?, next()?, next()?);
    let etcd = said(next()?)?;
    Some(Case {
        name,
        args,
        exit: exit.parse().ok()?,
        text,
        etcd,
        etcd_3_4: next().map_or(Some(etcd), said)?,
    })
}

fn said(column: &'static str) -> Option<Said> {
    match column.split_at_checked(1)? {
        ("=", "") => Some(Said::Same),
        ("~", text) if !text.is_empty() => Some(Said::Text(text)),
        ("!", reason) if !reason.is_empty() => Some(Said::Other(reason)),
        _ => None,
    }
}

fn scenario(case: Case, source: &'static str) -> Scenario {
    let mut needs = Vec::new();
    if let Said::Other(why) = case.etcd {
        needs.push(Need::Member { why });
    }
    Scenario {
        id: format!("start/{}", case.name),
        suite: Suite::BootstrapErrors,
        source,
        checks: format!("{}: exit code {}, {}", case.args, case.exit, case.text),
        limit: LIMIT,
        covering: true,
        needs,
        body: Body::Case(case),
    }
}

impl Case {
    fn said(&self, subject: &Subject) -> Said {
        match subject.server {
            render::Server::Member => Said::Same,
            render::Server::Etcd { minor } if minor < (3, 5) => self.etcd_3_4,
            render::Server::Etcd { .. } => self.etcd,
        }
    }

    /// Why this server is not held against it.
    pub(super) fn not_of(&self, subject: &Subject) -> Option<String> {
        match self.said(subject) {
            Said::Other(reason) => Some(reason.to_owned()),
            Said::Same | Said::Text(_) => None,
        }
    }
}

/// What the placeholders of a line stand for; held until the command has ended.
struct Filling {
    html: Answerer,
    garbage: Answerer,
    taken: TcpListener,
}

pub(super) async fn run(stage: &Stage, case: &Case) -> Result<(), Failure> {
    let filling = Filling {
        html: Answerer::new(Some(HTML)).await?,
        garbage: Answerer::new(Some(GARBAGE)).await?,
        taken: TcpListener::bind((Ipv4Addr::LOCALHOST, stage.port()?))
            .map_err(|error| Failure::setup("a port that is taken", &error))?,
    };
    let v2 = match case.args.contains("{v2}") {
        true => stage.services.v2().await?,
        false => "",
    };
    let taken = filling
        .taken
        .local_addr()
        .map_err(|error| Failure::setup("a port that is taken", &error))?
        .port();
    let file = stage.write("file", "")?.display().to_string();
    let mut server = Server::stranger(stage, "infra0")?;
    let peer = server.peer_port;
    let fill = |text: &str| {
        text.replace("{p}", &peer.to_string())
            .replace("{taken}", &taken.to_string())
            .replace("{file}", &file)
            .replace("{v2}", v2)
            .replace("{html}", &filling.html.port.to_string())
            .replace("{garbage}", &filling.garbage.port.to_string())
    };
    let text = match case.said(&stage.subject) {
        Said::Text(text) => fill(text),
        Said::Same | Said::Other(_) => fill(case.text),
    };
    let args = fill(case.args);
    let args: Vec<&str> = args.split_whitespace().collect();
    stage.step(args.join(" "));
    if args.first() != Some(&"gateway") {
        server.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        server.start()?;
        return server.ends(case.exit, &[&text]).await;
    }
    let done = stage.run(&stage.subject.program, &args, &[]).await?;
    done.ends(case.exit, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_case_below_a_source() {
        let lines = LIST
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with(['#', '@']));
        let scenarios = scenarios();
        assert_eq!(lines.count(), scenarios.len());
        assert!(scenarios.len() >= 50, "{}", scenarios.len());
        for scenario in scenarios {
            assert!(!scenario.source.is_empty(), "{}", scenario.id);
        }
    }

    #[test]
    fn a_line_needs_a_reason_for_what_is_not_checked() {
        assert!(parse("a | --b | 1 | text | !").is_none());
        assert!(parse("a | --b | 1 | text |").is_none());
        let case = parse("a | --b | 1 | text | = | ~other").unwrap();
        assert!(matches!(case.etcd, Said::Same));
        assert!(matches!(case.etcd_3_4, Said::Text("other")));
    }
}
