//! The only place that prints: data to standard output, progress and messages to standard error.
//!
//! Every document is an object with `schema_version` in its machine forms. Progress is a spinner per line on a terminal and plain
//! lines elsewhere. Invariant: with `--quiet` standard error holds errors only, and standard output never holds anything but data.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use comfy_table::presets;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::duration;
use crate::error::Error;

/// Version of every machine-readable document.
pub const SCHEMA_VERSION: u32 = 1;

/// Form of the data on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// One JSON document per line, for streams.
    Jsonl,
}

/// What a verb prints: an object for programs and a table for people.
pub trait Document: Serialize {
    /// The table's heading and rows; text that is no table goes into [`Table::text`].
    fn table(&self) -> Table;

    /// The objects of `jsonl`; by default the whole document is one.
    fn lines(&self) -> Vec<Value> {
        serde_json::to_value(self).into_iter().collect()
    }
}

/// A table for people, with free text before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    heading: Vec<Cow<'static, str>>,
    rows: Vec<Vec<String>>,
    before: String,
    after: String,
}

impl Table {
    /// A table with these columns.
    pub fn new<I>(heading: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Cow<'static, str>>,
    {
        Self {
            heading: heading.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Text without a table.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            before: text.into(),
            ..Self::default()
        }
    }

    /// Adds a row.
    pub fn row<I>(&mut self, cells: I) -> &mut Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.rows.push(cells.into_iter().map(Into::into).collect());
        self
    }

    /// Puts text above the table.
    #[must_use]
    pub fn with_before(mut self, text: impl Into<String>) -> Self {
        self.before = text.into();
        self
    }

    /// Puts text below the table.
    #[must_use]
    pub fn with_after(mut self, text: impl Into<String>) -> Self {
        self.after = text.into();
        self
    }

    /// Lays it out, with a line feed at the end unless it is empty.
    pub fn render(&self) -> String {
        let mut out = String::new();
        push_block(&mut out, &self.before);
        if !self.heading.is_empty() {
            let mut table = comfy_table::Table::new();
            table.load_style(presets::NOTHING);
            table.set_header(self.heading.iter().map(|cell| cell.to_uppercase()));
            for row in &self.rows {
                table.add_row(row);
            }
            for column in table.column_iter_mut() {
                column.set_padding((0, 3));
            }
            for line in table.lines() {
                out.push_str(line.trim_end());
                out.push('\n');
            }
        }
        push_block(&mut out, &self.after);
        out
    }
}

fn push_block(out: &mut String, text: &str) {
    out.push_str(text);
    if !text.is_empty() && !text.ends_with('\n') {
        out.push('\n');
    }
}

/// Where everything is printed. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Output {
    format: Format,
    quiet: bool,
    verbose: u8,
    colour: bool,
    spinners: Option<Arc<MultiProgress>>,
    started: Instant,
}

impl Output {
    /// Looks at the terminal and the environment (`NO_COLOR`, `TERM`) once.
    pub fn new(format: Format, quiet: bool, verbose: u8) -> Self {
        let terminal = std::io::stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let spinners = (terminal && !quiet).then(|| Arc::new(MultiProgress::new()));
        Self {
            format,
            quiet,
            verbose,
            colour: terminal && !no_colour,
            spinners,
            started: Instant::now(),
        }
    }

    /// For tests and embedding: no progress at all.
    pub fn silent(format: Format) -> Self {
        Self {
            format,
            quiet: true,
            verbose: 0,
            colour: false,
            spinners: None,
            started: Instant::now(),
        }
    }

    /// The form that was asked for.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether standard error takes colour.
    pub fn colour(&self) -> bool {
        self.colour
    }

    /// Time since the program started.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Prints a document to standard output in the form that was asked for.
    ///
    /// # Errors
    /// The document cannot be turned into JSON, or standard output is full.
    pub fn data<D: Document + ?Sized>(&self, document: &D) -> Result<(), Error> {
        let text = self.format_document(document)?;
        self.raw(text.as_bytes())
    }

    fn format_document<D: Document + ?Sized>(&self, document: &D) -> Result<String, Error> {
        let encode = |error: serde_json::Error| Error::because("cannot encode the output", error);
        Ok(match self.format {
            Format::Table => document.table().render(),
            Format::Json => {
                let mut text = serde_json::to_string_pretty(&versioned(
                    serde_json::to_value(document).map_err(encode)?,
                ))
                .map_err(encode)?;
                text.push('\n');
                text
            }
            Format::Yaml => serde_yaml_ng::to_string(&versioned(
                serde_json::to_value(document).map_err(encode)?,
            ))
            .map_err(|error| Error::because("cannot encode the output", error))?,
            Format::Jsonl => {
                let mut text = String::new();
                for line in document.lines() {
                    text.push_str(&serde_json::to_string(&versioned(line)).map_err(encode)?);
                    text.push('\n');
                }
                text
            }
        })
    }

    /// Prints bytes to standard output as they are: `env`, `render`, `logs`, scripts.
    ///
    /// # Errors
    /// Standard output is full. A reader that went away, as `head` does, is no error.
    pub fn raw(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Error::because("cannot write to standard output", error))
            }
            _ => Ok(()),
        }
    }

    /// Prints a line of progress.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.stderr_line(text.as_ref());
        }
    }

    /// Prints a line for `-v`.
    pub fn detail(&self, text: impl AsRef<str>) {
        if self.verbose > 0 && !self.quiet {
            self.stderr_line(text.as_ref());
        }
    }

    /// Prints a line for `-vv`.
    pub fn trace(&self, text: impl AsRef<str>) {
        if self.verbose > 1 && !self.quiet {
            self.stderr_line(text.as_ref());
        }
    }

    /// Prints a warning.
    pub fn warn(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.stderr_line(&format!(
                "{} {}",
                self.paint(Paint::Yellow, "warning:"),
                text.as_ref()
            ));
        }
    }

    /// Prints an error with its causes and what to do, also with `--quiet`.
    pub fn error(&self, error: &Error) {
        let text = if matches!(self.format, Format::Table) {
            self.error_text(error)
        } else {
            error_json(error)
        };
        self.stderr_line(text.trim_end());
    }

    fn error_text(&self, error: &Error) -> String {
        if let Error::Topology(invalid) = error
            && let Some(report) = invalid.report(self.colour)
        {
            return report;
        }
        let mut text = format!("{} {error}", self.paint(Paint::Red, "error:"));
        for cause in error.causes() {
            for (index, line) in cause.lines().enumerate() {
                text.push_str(if index == 0 {
                    "\n  because: "
                } else {
                    "\n           "
                });
                text.push_str(line);
            }
        }
        if let Some(fix) = error.fix() {
            text.push_str(&format!("\n  {} {fix}", self.paint(Paint::Cyan, "fix:")));
        }
        text
    }

    /// Starts a line of progress, such as a member that comes up. Several may be open at once.
    pub fn line(&self, name: impl Into<String>) -> Line {
        let name = name.into();
        let bar = self.spinners.as_ref().map(|spinners| {
            let bar = spinners.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}  {msg}") {
                bar.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
            }
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(Duration::from_millis(80));
            bar
        });
        Line {
            output: self.clone(),
            name,
            bar,
            started: Instant::now(),
            ended: false,
        }
    }

    fn stderr_line(&self, text: &str) {
        let write = || {
            // Standard error that is closed or full leaves nowhere to complain to.
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        };
        match &self.spinners {
            Some(spinners) => spinners.suspend(write),
            None => write(),
        }
    }

    fn paint<'t>(&self, paint: Paint, text: &'t str) -> Cow<'t, str> {
        if !self.colour {
            return text.into();
        }
        let code = match paint {
            Paint::Red => "31;1",
            Paint::Green => "32",
            Paint::Yellow => "33;1",
            Paint::Cyan => "36",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m").into()
    }
}

#[derive(Clone, Copy)]
enum Paint {
    Red,
    Green,
    Yellow,
    Cyan,
}

/// One line of progress. Ends by [`Line::done`] or [`Line::fail`]; a dropped line vanishes.
#[derive(Debug)]
pub struct Line {
    output: Output,
    name: String,
    bar: Option<ProgressBar>,
    started: Instant,
    ended: bool,
}

impl Line {
    /// Says what is being done; shown on a terminal, and elsewhere with `-v`.
    pub fn set(&self, doing: impl Into<String>) {
        let doing = doing.into();
        match &self.bar {
            Some(bar) => bar.set_message(doing),
            None => self.output.detail(format!("{}: {doing}", self.name)),
        }
    }

    /// Ends the line well; the time taken is added.
    pub fn done(mut self, what: impl AsRef<str>) {
        let mark = self.output.paint(Paint::Green, "✓").into_owned();
        self.end(&mark, what.as_ref());
    }

    /// Ends the line badly; the time taken is added.
    pub fn fail(mut self, what: impl AsRef<str>) {
        let mark = self.output.paint(Paint::Red, "✗").into_owned();
        self.end(&mark, what.as_ref());
    }

    fn end(&mut self, mark: &str, what: &str) {
        self.ended = true;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.output.note(format!(
            "{mark} {}  {what} ({})",
            self.name,
            duration::show(self.started.elapsed())
        ));
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let (Some(bar), false) = (&self.bar, self.ended) {
            bar.finish_and_clear();
        }
    }
}

fn versioned(value: Value) -> Value {
    let mut object = Map::new();
    object.insert("schema_version".into(), SCHEMA_VERSION.into());
    match value {
        Value::Object(fields) => object.extend(fields),
        other => {
            object.insert("items".into(), other);
        }
    }
    Value::Object(object)
}

fn error_json(error: &Error) -> String {
    let (member, step) = error.place().unzip();
    let problems = match error {
        Error::Topology(invalid) => invalid.problems_json(),
        _ => Value::Null,
    };
    let mut fields = json!({
        "code": error.exit_code().code(),
        "kind": error.kind(),
        "message": error.to_string(),
        "causes": error.causes(),
        "fix": error.fix(),
        "member": member,
        "step": step,
        "problems": problems,
    });
    if let Value::Object(map) = &mut fields {
        map.retain(|_, value| !value.is_null());
    }
    versioned(json!({ "error": fields })).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Pair {
        name: &'static str,
        port: u16,
    }

    impl Document for Vec<Pair> {
        fn table(&self) -> Table {
            let mut table = Table::new(["name", "port"]);
            for pair in self {
                table.row([pair.name.to_owned(), pair.port.to_string()]);
            }
            table
        }

        fn lines(&self) -> Vec<Value> {
            self.iter()
                .filter_map(|pair| serde_json::to_value(pair).ok())
                .collect()
        }
    }

    fn pairs() -> Vec<Pair> {
        vec![
            Pair {
                name: "infra0",
                port: 2379,
            },
            Pair {
                name: "a-longer-name",
                port: 1,
            },
        ]
    }

    fn formatted(format: Format) -> String {
        Output::silent(format).format_document(&pairs()).unwrap()
    }

    #[test]
    fn the_table_is_aligned_without_trailing_blanks() {
        assert_eq!(
            formatted(Format::Table),
            "NAME            PORT\ninfra0          2379\na-longer-name   1\n"
        );
    }

    #[test]
    fn machine_forms_carry_the_schema_version() {
        let json: Value = serde_json::from_str(&formatted(Format::Json)).unwrap();
        assert_eq!(json["schema_version"], 1);
        assert_eq!(json["items"][0]["name"], "infra0");
        let yaml: Value = serde_yaml_ng::from_str(&formatted(Format::Yaml)).unwrap();
        assert_eq!(yaml, json);
    }

    #[test]
    fn jsonl_is_one_versioned_object_per_line() {
        let text = formatted(Format::Jsonl);
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line["schema_version"] == 1));
        assert_eq!(lines[1]["port"], 1);
    }

    #[test]
    fn an_error_prints_its_chain_and_the_fix() {
        let error = Error::io("write", "/x".as_ref())(std::io::ErrorKind::StorageFull.into())
            .at("infra1", "write certificates");
        let text = Output::silent(Format::Table).error_text(&error);
        assert_eq!(
            text,
            "error: member infra1: write certificates\n  because: cannot write /x\n  because: no storage space\n  fix: free some space on that file system and run the same command again"
        );
    }

    #[test]
    fn an_error_is_an_object_for_programs() {
        let error = Error::refused("locked by pid 7", "wait for it").at("infra1", "start");
        let value: Value = serde_json::from_str(&error_json(&error)).unwrap();
        assert_eq!(value["error"]["code"], 6);
        assert_eq!(value["error"]["member"], "infra1");
        assert_eq!(value["error"]["causes"][0], "locked by pid 7");
        assert_eq!(value["error"]["fix"], "wait for it");
    }
}
