//! The logging flags' values: level, format, outputs.
//!
//! Only their vocabulary: the member opens the outputs and writes the lines. The logger itself is always zap's JSON
//! or console layout; etcd 3.4's capnslog is refused where `--logger` is set.

use std::{collections::BTreeSet, fmt, path::PathBuf};

use crate::go::quote;

/// The least level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Life-cycle events and above.
    Info,
    /// What deserves a look.
    Warn,
    /// What failed.
    Error,
    /// zap's panic of development builds; logs as [`LogLevel::Panic`].
    Dpanic,
    /// What ends the process with a panic.
    Panic,
    /// What ends the process.
    Fatal,
}

impl LogLevel {
    /// The level's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Dpanic => "dpanic",
            Self::Panic => "panic",
            Self::Fatal => "fatal",
        }
    }

    /// Reads a level in lower or upper case; the empty text is info, as zap has it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "debug" | "DEBUG" => Ok(Self::Debug),
            "info" | "INFO" | "" => Ok(Self::Info),
            "warn" | "WARN" => Ok(Self::Warn),
            "error" | "ERROR" => Ok(Self::Error),
            "dpanic" | "DPANIC" => Ok(Self::Dpanic),
            "panic" | "PANIC" => Ok(Self::Panic),
            "fatal" | "FATAL" => Ok(Self::Fatal),
            _ => Err(format!("unrecognized level: {}", quote(text))),
        }
    }
}

/// The layout of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Tab-separated text for people.
    Console,
}

impl LogFormat {
    /// The format's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Console => "console",
        }
    }
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogOutput {
    /// The server's choice, which is standard error; it stands alone.
    Default,
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

impl LogOutput {
    /// Reads a comma-separated list; systemd's journal is not among what this release writes to.
    pub(crate) fn parse_list(text: &str) -> Result<BTreeSet<Self>, String> {
        text.split(',')
            .map(|item| match item {
                "default" => Ok(Self::Default),
                "stderr" => Ok(Self::Stderr),
                "stdout" => Ok(Self::Stdout),
                "systemd/journal" => Err(
                    "the journal is not written to directly; a unit's standard error reaches it"
                        .to_owned(),
                ),
                "" => Err("empty log output".to_owned()),
                path => Ok(Self::File(PathBuf::from(path))),
            })
            .collect()
    }
}

impl fmt::Display for LogOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Stderr => f.write_str("stderr"),
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}
