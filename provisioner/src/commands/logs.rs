//! `logs`

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::apply::{Interrupt, Second};
use crate::cli::LogsArgs;
use crate::cluster::Known;
use crate::context::Context;
use crate::deployment;
use crate::error::{Error, ExitCode};
use crate::host::local::{Kept, Tail};
use crate::host::remote::Agent;
use crate::output::{Document, Format, Table};
use crate::runtime::runtime;
use crate::state::Unit;

const FOLLOW_EVERY: Duration = Duration::from_millis(100);
const TAIL_LIMIT: Duration = Duration::from_secs(30);
// What a member on a host writes in a moment; more comes with the next look.
const MOST_NEW: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct LogLine {
    member: String,
    line: String,
}

#[derive(Debug, Serialize)]
struct LogLines {
    lines: Vec<LogLine>,
    #[serde(skip)]
    prefixed: bool,
}

impl Document for LogLines {
    fn table(&self) -> Table {
        let width = self
            .lines
            .iter()
            .map(|line| line.member.len())
            .max()
            .unwrap_or_default();
        let mut text = String::new();
        for LogLine { member, line } in &self.lines {
            if self.prefixed {
                text.push_str(&format!("{member:<width$} | "));
            }
            text.push_str(line);
            text.push('\n');
        }
        Table::text(text)
    }

    fn lines(&self) -> Vec<Value> {
        self.lines
            .iter()
            .filter_map(|line| serde_json::to_value(line).ok())
            .collect()
    }
}

/// The log of one member, read from where it was left.
struct Source {
    member: String,
    place: Place,
}

/// Where a log is, and how far it was read.
enum Place {
    /// A file of this machine.
    File { path: PathBuf, offset: u64 },
    /// On the member's host.
    There {
        agent: Agent,
        kept: Kept,
        after: Option<String>,
    },
}

/// Runs `logs`.
///
/// # Errors
/// The cluster or a member is unknown, or a log cannot be read.
pub fn run(args: &LogsArgs, context: &Context) -> Result<ExitCode, Error> {
    let known = Known::open(&args.target, context)?;
    let services = known.dir.services()?;
    let members = known.instance.members.keys();
    let all: Vec<Unit<'_>> = members
        .map(|name| Unit::Member(name))
        .chain(services.iter().map(|name| Unit::Service(name)))
        .collect();
    let named = |wanted: &String| all.iter().find(|unit| unit.name() == wanted);
    if let Some(stranger) = args.members.iter().find(|name| named(name).is_none()) {
        let names: Vec<&str> = all.iter().map(Unit::name).collect();
        return Err(Error::usage(
            format!("cluster {} has no member {stranger}", known.dir.name()),
            format!("it has logs of {}", names.join(", ")),
        ));
    }
    let wanted: Vec<&Unit<'_>> = if args.members.is_empty() {
        let is_member = |unit: &&Unit<'_>| matches!(unit, Unit::Member(_));
        all.iter().filter(is_member).collect()
    } else {
        args.members.iter().filter_map(named).collect()
    };
    let prefixed = wanted.len() > 1;
    runtime()?.block_on(async {
        let mut sources = Vec::new();
        for unit in wanted {
            sources.push(Source::of(unit, &known).await?);
        }
        let mut lines = Vec::new();
        for source in &mut sources {
            lines.extend(source.last(args.lines).await?);
        }
        print(in_order_of_time(lines), prefixed, context)?;
        if !args.follow {
            return Ok(ExitCode::Ok);
        }
        let interrupt = Interrupt::listen(Second::Exits)?;
        loop {
            tokio::select! {
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
                () = interrupt.token().cancelled() => return Ok(ExitCode::Interrupted),
            }
            let mut lines = Vec::new();
            for source in &mut sources {
                lines.extend(source.new_lines().await?);
            }
            print(in_order_of_time(lines), prefixed, context)?;
        }
    })
}

fn print(lines: Vec<LogLine>, prefixed: bool, context: &Context) -> Result<(), Error> {
    if lines.is_empty() && context.output.format() == Format::Table {
        return Ok(());
    }
    context.output.data(&LogLines { lines, prefixed })
}

impl Source {
    async fn of(unit: &Unit<'_>, known: &Known) -> Result<Self, Error> {
        let name = unit.name();
        let members = known.topology.members.iter();
        let host = members
            .filter(|member| member.name == name)
            .find_map(|member| member.host.as_ref());
        let place = match (unit, host, known.instance.members.get(name)) {
            (Unit::Member(_), Some(host), Some(place)) => Place::There {
                agent: known.hosts.agent(host).await?,
                kept: deployment::kept(host, known.dir.name(), name, place),
                after: None,
            },
            _ => Place::File {
                path: known.dir.unit_log(unit),
                offset: 0,
            },
        };
        Ok(Self {
            member: name.to_owned(),
            place,
        })
    }

    // Reads a file once and keeps a window: a log is at most a few ten megabytes, because starts rotate it.
    async fn last(&mut self, count: usize) -> Result<Vec<LogLine>, Error> {
        let mut lines = self.read(count).await?;
        lines.drain(..lines.len().saturating_sub(count));
        Ok(lines)
    }

    /// Whole lines since the last call.
    async fn new_lines(&mut self) -> Result<Vec<LogLine>, Error> {
        self.read(MOST_NEW).await
    }

    async fn read(&mut self, count: usize) -> Result<Vec<LogLine>, Error> {
        let lines = match &mut self.place {
            Place::File { path, offset } => {
                read_from(path, offset).map_err(Error::io("read", path))?
            }
            Place::There { agent, kept, after } => {
                let tail = Tail {
                    kept: kept.clone(),
                    lines: count,
                    after: after.clone(),
                };
                let answer = agent.ask(&tail, TAIL_LIMIT).await?;
                if answer.place.is_some() {
                    *after = answer.place;
                }
                answer.lines
            }
        };
        let member = &self.member;
        let line = |line| LogLine {
            member: member.clone(),
            line,
        };
        Ok(lines.into_iter().map(line).collect())
    }
}

fn read_from(path: &Path, offset: &mut u64) -> io::Result<Vec<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        // A member that was never started has no log.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    // Shorter than before: the start of a new process rotated it.
    if length < *offset {
        *offset = 0;
    }
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(*offset))?;
    let mut reader = reader.take(length - *offset);
    let mut lines = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Ok(lines);
        }
        *offset += read as u64;
        lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
    }
}

// Lines of one member keep their order; one without a time of its own stays behind the line before it.
fn in_order_of_time(lines: Vec<LogLine>) -> Vec<LogLine> {
    let mut keyed = Vec::with_capacity(lines.len());
    let mut last = (String::new(), String::new());
    for line in lines {
        let stamp = time_of(&line.line);
        let key = match stamp {
            Some(stamp) => stamp,
            None if last.0 == line.member => last.1.clone(),
            None => String::new(),
        };
        last = (line.member.clone(), key.clone());
        keyed.push((key, line));
    }
    keyed.sort_by(|(one, _), (other, _)| one.cmp(other));
    keyed.into_iter().map(|(_, line)| line).collect()
}

// The digits of the time down to microseconds. JSON lines have it in `ts`, etcd's plain lines begin with it.
fn time_of(line: &str) -> Option<String> {
    const DIGITS: usize = "YYYYMMDDhhmmssffffff".len();
    let text = match line.split_once("\"ts\":\"") {
        Some((_, rest)) => rest.split('"').next()?,
        None => line.get(..26)?,
    };
    // A zone at the end is the same for all members of one host.
    let clock = text.trim_end_matches('Z').split('+').next()?;
    if !clock.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut digits: String = clock
        .chars()
        .filter(char::is_ascii_digit)
        .take(DIGITS)
        .collect();
    while digits.len() < DIGITS {
        digits.push('0');
    }
    Some(digits)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(member: &str, line: &str) -> LogLine {
        LogLine {
            member: member.to_owned(),
            line: line.to_owned(),
        }
    }

    #[test]
    fn lines_of_several_members_are_merged_by_time() {
        let merged = in_order_of_time(vec![
            line(
                "a",
                r#"{"level":"info","ts":"2026-11-21T09:00:00.100Z","msg":"one"}"#,
            ),
            line("a", "goroutine 1 [running]:"),
            line(
                "a",
                r#"{"level":"info","ts":"2026-11-21T09:00:00.300Z","msg":"three"}"#,
            ),
            line("b", "2026-11-21 09:00:00.200000 I | two"),
        ]);
        let order: Vec<&str> = merged.iter().map(|line| line.member.as_str()).collect();
        assert_eq!(order, ["a", "a", "b", "a"]);
        assert!(merged[1].line.starts_with("goroutine"));
    }

    #[test]
    fn only_whole_lines_are_shown_and_rotation_starts_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut offset = 0;
        assert_eq!(read_from(&path, &mut offset).unwrap(), [""; 0]);
        let mut file = File::create(&path).unwrap();
        write!(file, "one\ntw").unwrap();
        assert_eq!(read_from(&path, &mut offset).unwrap(), ["one"]);
        writeln!(file, "o").unwrap();
        assert_eq!(read_from(&path, &mut offset).unwrap(), ["two"]);
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(read_from(&path, &mut offset).unwrap(), ["new"]);
    }
}
