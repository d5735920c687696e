//! Reads a topology file, or standard input for `-`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use toml::de::{DeTable, Deserializer};

use super::env::{self, Lookup};
use super::invalid::{Invalid, Problem, Severity, locate_all};
use super::model::Topology;
use super::schema::{File, json_schema};
use super::spans::Spans;
use super::{check, lint, validate};
use crate::output::Output;

/// A topology is a page of text; more is a wrong file.
const MOST_BYTES: u64 = 4 << 20;

/// A valid topology with what the lints say about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The cluster.
    pub topology: Topology,
    /// The lints' warnings, those that the file waives left out.
    pub warnings: Vec<Problem>,
    /// The file's name as the user wrote it; `standard input` for `-`.
    pub file: String,
    /// The file's text.
    pub text: Arc<str>,
    /// Whether it came from standard input, where it cannot be read again.
    pub from_stdin: bool,
}

impl Loaded {
    /// Prints the warnings.
    pub fn warn(&self, output: &Output) {
        for warning in &self.warnings {
            output.note(
                warning
                    .report(&self.file, &self.text, output.colour())
                    .trim_end(),
            );
        }
    }
}

/// Reads and checks a topology file; `-` is standard input. `${VAR}` comes from the process's environment.
///
/// # Errors
/// The file cannot be read or is not a valid topology.
pub fn load(path: &Path) -> Result<Loaded, Invalid> {
    let from_stdin = path == Path::new("-");
    let (name, bytes) = if from_stdin {
        ("standard input".to_owned(), read(std::io::stdin().lock()))
    } else {
        (
            path.display().to_string(),
            std::fs::File::open(path).and_then(read),
        )
    };
    let bytes = bytes.map_err(|source| Invalid::Read {
        path: path.to_path_buf(),
        source,
    })?;
    match String::from_utf8(bytes) {
        Ok(text) => parse_at(path, &name, &text).map(|loaded| Loaded {
            from_stdin,
            ..loaded
        }),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
            let problem = Problem::error(
                good..good,
                "the file is not text in UTF-8",
                "the first byte that is not",
            )
            .help("is this a topology?");
            Err(Invalid::new(&name, &text, vec![problem]))
        }
    }
}

/// Reads `text` as if it stood in the file `path`.
///
/// # Errors
/// It is not a valid topology.
pub fn load_as(path: &Path, text: &str) -> Result<Loaded, Invalid> {
    parse_at(path, &path.display().to_string(), text)
}

fn parse_at(path: &Path, name: &str, text: &str) -> Result<Loaded, Invalid> {
    let base = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let base = std::path::absolute(base).unwrap_or_else(|_| base.to_path_buf());
    parse(name, text, &base, &|variable| std::env::var(variable).ok())
}

fn read(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            "larger than 4 MiB: this is no topology",
        ));
    }
    Ok(bytes)
}

/// Checks the text of a topology. `file` names it in messages; relative paths in it are below `base`, which is absolute.
///
/// # Errors
/// [`Invalid::Problems`] with every problem that was found.
pub fn parse(
    file: &str,
    text: &str,
    base: &Path,
    variables: &Lookup<'_>,
) -> Result<Loaded, Invalid> {
    let (mut table, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<Problem> = errors.iter().map(syntax).collect();
    if !problems.is_empty() {
        return Err(Invalid::new(file, text, problems));
    }
    env::expand_table(table.get_mut(), variables, &mut problems);
    check::check(&table, &json_schema(), &mut problems);
    if !problems.is_empty() {
        return Err(Invalid::new(file, text, problems));
    }
    let raw = File::deserialize(Deserializer::from(table.clone()))
        .map_err(|error| Invalid::new(file, text, vec![syntax(&error)]))?;
    let spans = Spans::new(table.get_ref());
    let home = variables("HOME").map(PathBuf::from);
    let topology = validate::validate(&raw, &spans, base, home.as_deref())
        .map_err(|problems| Invalid::new(file, text, problems))?;
    let mut found = lint::lint(&topology, &raw, &spans);
    locate_all(text, &mut found);
    let (errors, warnings): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|problem| problem.severity == Severity::Error);
    if !errors.is_empty() {
        return Err(Invalid::new(file, text, errors));
    }
    Ok(Loaded {
        topology,
        warnings,
        file: file.to_owned(),
        text: text.into(),
        from_stdin: false,
    })
}

fn syntax(error: &toml::de::Error) -> Problem {
    let mut lines = error.message().lines();
    let message = lines.next().unwrap_or("this is not TOML").to_owned();
    let mut problem = Problem::error(error.span().unwrap_or(0..0), message, "here");
    let rest: Vec<&str> = lines
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    if !rest.is_empty() {
        problem = problem.help(rest.join("; "));
    }
    problem
}
