//! What is wrong with a topology file, with the place and what to do about it.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::error::{ExitCode, io_fix};

/// Why there is no [`super::Topology`].
#[derive(Debug, Error)]
pub enum Invalid {
    /// The file cannot be read.
    #[error("cannot read the topology {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file was read and has problems.
    #[error("{file} is not a valid topology: {}", count(.problems.len()))]
    Problems {
        /// The file's name as the user wrote it.
        file: String,
        /// Its text.
        text: Arc<str>,
        /// At least one.
        problems: Vec<Problem>,
    },
}

fn count(problems: usize) -> String {
    if problems == 1 {
        "1 problem".to_owned()
    } else {
        format!("{problems} problems")
    }
}

/// Whether a problem stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The topology is not used.
    Error,
    /// A lint: the topology is used.
    Warning,
}

/// One problem at one place of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether it stops.
    pub severity: Severity,
    /// The lint's code; errors have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// What is wrong: lowercase, no full stop.
    pub message: String,
    /// A few words beside the underlined text.
    pub label: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Bytes of the file.
    #[serde(skip)]
    pub span: Range<usize>,
}

impl Problem {
    /// An error at `span`; line and column are set by [`Invalid::new`].
    pub(super) fn error(
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            code: None,
            message: message.into(),
            label: label.into(),
            help: None,
            line: 0,
            column: 0,
            span,
        }
    }

    /// A warning at `span`.
    pub(super) fn warning(
        span: Range<usize>,
        code: &'static str,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            code: Some(code),
            ..Self::error(span, message, label)
        }
    }

    /// Adds what to do.
    #[must_use]
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Sets line and column from the text.
    pub(super) fn locate(&mut self, text: &str) {
        let before = text.get(..self.span.start).unwrap_or(text);
        self.line = before.matches('\n').count() + 1;
        self.column = before
            .rsplit('\n')
            .next()
            .map_or(0, |line| line.chars().count())
            + 1;
    }

    /// Draws it with the line of the file; `colour` for terminals.
    pub fn report(&self, file: &str, text: &Arc<str>, colour: bool) -> String {
        let theme = if colour {
            GraphicalTheme::unicode()
        } else {
            GraphicalTheme::unicode_nocolor()
        };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(100);
        let mut out = String::new();
        let shown = Shown {
            problem: self,
            source: NamedSource::new(file, Arc::clone(text)),
        };
        if handler.render_report(&mut out, &shown).is_err() {
            return format!("{file}:{}:{}: {}", self.line, self.column, self.message);
        }
        out
    }
}

impl Invalid {
    /// Locates and sorts the problems by their place.
    pub(super) fn new(file: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        locate_all(text, &mut problems);
        Self::Problems {
            file: file.to_owned(),
            text: text.into(),
            problems,
        }
    }

    /// The exit code of a verb that met this.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Read { .. } | Self::Problems { .. } => ExitCode::Usage,
        }
    }

    /// What to do.
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("check the path, or write a topology with `provision init`".to_owned())
            }
            Self::Read { source, .. } => io_fix(source).map(str::to_owned),
            Self::Problems { problems, .. } => {
                problems.iter().find_map(|problem| problem.help.clone())
            }
        }
    }

    /// All problems drawn with their lines; `None` when the file was not read.
    pub fn report(&self, colour: bool) -> Option<String> {
        match self {
            Self::Read { .. } => None,
            Self::Problems {
                file,
                text,
                problems,
            } => {
                let mut out: String = problems
                    .iter()
                    .map(|problem| problem.report(file, text, colour) + "\n")
                    .collect();
                out.push_str(&self.to_string());
                Some(out)
            }
        }
    }

    /// The problems for programs.
    pub fn problems_json(&self) -> Value {
        match self {
            Self::Read { .. } => Value::Null,
            Self::Problems { problems, .. } => {
                serde_json::to_value(problems).unwrap_or(Value::Null)
            }
        }
    }

    /// The problems; none when the file was not read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Read { .. } => &[],
            Self::Problems { problems, .. } => problems,
        }
    }
}

/// Sets every line and column and sorts by place.
pub(super) fn locate_all(text: &str, problems: &mut Vec<Problem>) {
    for problem in problems.iter_mut() {
        problem.locate(text);
    }
    problems.sort_by(|a, b| (a.span.start, &a.message).cmp(&(b.span.start, &b.message)));
    // Brace ranges and cluster-wide flags make several members from one place in the file.
    problems.dedup_by(|a, b| a.span == b.span && a.message == b.message);
}

#[derive(Debug)]
struct Shown<'p> {
    problem: &'p Problem,
    source: NamedSource<Arc<str>>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.problem.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem
            .code
            .map(|code| Box::new(code) as Box<dyn fmt::Display>)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem
            .help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = (!self.problem.label.is_empty()).then(|| self.problem.label.clone());
        Some(Box::new(std::iter::once(
            LabeledSpan::new_primary_with_span(label, self.problem.span.clone()),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_line_and_column_and_shows_the_text() {
        let text = "name = \"a\"\nadress = \"x\"\n";
        let start = text.find("adress").unwrap();
        let problem = Problem::error(start..start + 6, "unknown key `adress`", "not a key")
            .help("did you mean `address`?");
        let invalid = Invalid::new("c.toml", text, vec![problem]);
        let report = invalid.report(false).unwrap();
        for part in [
            "unknown key `adress`",
            "c.toml:2:1",
            "adress = \"x\"",
            "did you mean `address`?",
            "c.toml is not a valid topology: 1 problem",
        ] {
            assert!(report.contains(part), "{part:?} is not in\n{report}");
        }
    }

    #[test]
    fn columns_count_characters() {
        let text = "# é\nä = ö\n";
        let start = text.find('ö').unwrap();
        let mut problem = Problem::error(start..start + 2, "", "");
        problem.locate(text);
        assert_eq!((problem.line, problem.column), (2, 5));
    }
}
