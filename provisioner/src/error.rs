//! The error of every verb and the exit codes that scripts rely on.
//!
//! Modules with callers that branch keep their own enums (`topology::Invalid`, `pki::PkiError`, ...); here they meet as what
//! the command line needs: a message, its causes, what to do next and an exit code.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::time::Duration;

use testbed::host::HostError;
use thiserror::Error as ThisError;

use crate::host::remote::SshError;
use crate::pki::PkiError;
use crate::render::RenderError;
use crate::topology::Invalid;

/// What the process returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// Done; nothing to do; healthy.
    Ok,
    /// The operation failed.
    Failed,
    /// Wrong usage or an invalid topology; `plan --detailed-exitcode`: there are changes.
    Usage,
    /// A preflight check failed.
    Preflight,
    /// Some members are unhealthy, the quorum holds.
    Degraded,
    /// The quorum is lost.
    QuorumLost,
    /// Refused for safety: lock, quorum margin, missing confirmation.
    Refused,
    /// A deadline passed.
    TimedOut,
    /// A conformance scenario failed.
    NotConformant,
    /// A test cluster, or what its checks need, could not be provided.
    NotProvisioned,
    /// A machine could not be reached or worked on.
    Transport,
    /// Interrupted, after cleaning up.
    Interrupted,
    /// Terminated, after cleaning up.
    Terminated,
    /// The exit code of the command that `run` or `exec` ran.
    Child(u8),
}

impl ExitCode {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Preflight => 3,
            Self::Degraded => 4,
            Self::QuorumLost => 5,
            Self::Refused => 6,
            Self::TimedOut => 7,
            Self::NotConformant => 10,
            Self::NotProvisioned => 11,
            Self::Transport => 20,
            Self::Interrupted => 130,
            Self::Terminated => 143,
            Self::Child(code) => code,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}

/// A cause of any type, kept for the chain that is printed.
pub type Cause = Box<dyn StdError + Send + Sync + 'static>;

/// Why a verb did not do what it was asked.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The topology file has problems.
    #[error(transparent)]
    Topology(#[from] Invalid),
    /// A member's settings cannot be rendered.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// Certificates cannot be made, read or written.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A machine cannot be worked on. Exit code 20.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// A member's machine was out of reach when it was looked at. Exit code 20.
    #[error("{what}")]
    Unreachable {
        /// Which and why.
        what: String,
        /// What to do.
        fix: String,
    },
    /// A lab cannot be made, looked at or ended.
    #[error(transparent)]
    Lab(#[from] HostError),
    /// The command line asks for something that does not exist or make sense. Exit code 2.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// What to do.
        fix: String,
    },
    /// It could be done but would be unsafe. Exit code 6.
    #[error("{what}")]
    Refused {
        /// What was refused and why.
        what: String,
        /// What to do, or the flag that accepts the risk.
        fix: String,
    },
    /// A deadline passed. Exit code 7.
    #[error("{what} took longer than {}", crate::duration::show(*.waited))]
    TimedOut {
        /// What was awaited, as a noun phrase.
        what: String,
        /// How long.
        waited: Duration,
        /// What to do.
        fix: String,
    },
    /// A file operation failed. Exit code 1.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// A verb: read, write, create.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Anything else that failed. Exit code 1.
    #[error("{what}")]
    Failed {
        /// What failed.
        what: String,
        /// What to do, where that is known.
        fix: Option<String>,
        /// Why.
        #[source]
        source: Option<Cause>,
    },
    /// Names the member, and the step, in which an error came up.
    #[error("member {member}: {step}")]
    At {
        /// The member's name.
        member: String,
        /// What was being done, such as `start`.
        step: String,
        /// What went wrong.
        #[source]
        source: Box<Error>,
    },
    /// Ctrl-C; the step was finished or undone. Exit code 130.
    #[error("interrupted")]
    Interrupted,
    /// SIGTERM or SIGHUP; cleaned up. Exit code 143.
    #[error("terminated")]
    Terminated,
}

impl Error {
    /// Builds [`Error::Usage`].
    pub fn usage(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Usage {
            what: what.into(),
            fix: fix.into(),
        }
    }

    /// Builds [`Error::Refused`].
    pub fn refused(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Refused {
            what: what.into(),
            fix: fix.into(),
        }
    }

    /// Builds [`Error::Failed`] without a cause.
    pub fn failed(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Failed {
            what: what.into(),
            fix: Some(fix.into()),
            source: None,
        }
    }

    /// Builds [`Error::Failed`] with a cause.
    pub fn because(what: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Failed {
            what: what.into(),
            fix: None,
            source: Some(source.into()),
        }
    }

    /// Builds [`Error::TimedOut`].
    pub fn timed_out(what: impl Into<String>, waited: Duration, fix: impl Into<String>) -> Self {
        Self::TimedOut {
            what: what.into(),
            waited,
            fix: fix.into(),
        }
    }

    /// Builds [`Error::Io`]; for `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Adds the member and the step.
    pub fn at(self, member: impl Into<String>, step: impl Into<String>) -> Self {
        Self::At {
            member: member.into(),
            step: step.into(),
            source: Box::new(self),
        }
    }

    /// The exit code of the process.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Topology(invalid) => invalid.exit_code(),
            Self::Render(_) | Self::Usage { .. } => ExitCode::Usage,
            Self::Refused { .. } => ExitCode::Refused,
            Self::Ssh(_) | Self::Unreachable { .. } => ExitCode::Transport,
            Self::TimedOut { .. } | Self::Lab(HostError::TimedOut { .. }) => ExitCode::TimedOut,
            Self::Pki(_) | Self::Lab(_) | Self::Io { .. } | Self::Failed { .. } => ExitCode::Failed,
            Self::At { source, .. } => source.exit_code(),
            Self::Interrupted => ExitCode::Interrupted,
            Self::Terminated => ExitCode::Terminated,
        }
    }

    /// What the user can do about it.
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Topology(invalid) => invalid.fix(),
            Self::Render(error) => error.fix(),
            Self::Pki(error) => error.fix(),
            Self::Lab(error) => error.fix(),
            Self::Ssh(error) => Some(error.fix()),
            Self::Usage { fix, .. }
            | Self::Refused { fix, .. }
            | Self::TimedOut { fix, .. }
            | Self::Unreachable { fix, .. } => Some(fix.clone()),
            Self::Io { source, .. } => io_fix(source).map(str::to_owned),
            Self::Failed { fix, .. } => fix.clone(),
            Self::At { source, .. } => source.fix(),
            Self::Interrupted | Self::Terminated => None,
        }
    }

    /// A short word for scripts that read JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Topology(_) => "topology",
            Self::Render(_) => "render",
            Self::Pki(_) => "pki",
            Self::Lab(_) => "lab",
            Self::Ssh(_) | Self::Unreachable { .. } => "ssh",
            Self::Usage { .. } => "usage",
            Self::Refused { .. } => "refused",
            Self::TimedOut { .. } => "timed-out",
            Self::Io { .. } => "io",
            Self::Failed { .. } => "failed",
            Self::At { source, .. } => source.kind(),
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
        }
    }

    /// The member and step that [`Error::at`] recorded.
    pub fn place(&self) -> Option<(&str, &str)> {
        match self {
            Self::At { member, step, .. } => Some((member, step)),
            _ => None,
        }
    }

    /// The causes, nearest first.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = self.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    }
}

/// What to do about the file errors that users meet.
pub(crate) fn io_fix(error: &std::io::Error) -> Option<&'static str> {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => Some("check the path"),
        ErrorKind::PermissionDenied => {
            Some("check the owner and the mode of the file and of the directories above it")
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Some("free some space on that file system and run the same command again")
        }
        ErrorKind::ReadOnlyFilesystem => Some(
            "make the file system writable, or choose another place: with --state-dir here, on a host with `data-dir` and `install-dir`",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_keeps_code_fix_and_chain() {
        let inner = Error::timed_out("readiness", Duration::from_secs(5), "look at the log");
        let error = inner.at("infra0", "start");
        assert_eq!(error.exit_code(), ExitCode::TimedOut);
        assert_eq!(error.fix().as_deref(), Some("look at the log"));
        assert_eq!(error.to_string(), "member infra0: start");
        assert_eq!(error.causes(), ["readiness took longer than 5s"]);
        assert_eq!(error.place(), Some(("infra0", "start")));
    }

    #[test]
    fn exit_codes_are_the_documented_numbers() {
        let codes = [
            ExitCode::Ok,
            ExitCode::Failed,
            ExitCode::Usage,
            ExitCode::Preflight,
            ExitCode::Degraded,
            ExitCode::QuorumLost,
            ExitCode::Refused,
            ExitCode::TimedOut,
            ExitCode::NotConformant,
            ExitCode::NotProvisioned,
            ExitCode::Interrupted,
            ExitCode::Terminated,
            ExitCode::Child(42),
        ];
        assert_eq!(
            codes.map(ExitCode::code),
            [0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 130, 143, 42]
        );
    }

    #[test]
    fn a_full_disk_says_what_to_do() {
        let error = Error::io("write", Path::new("/x"))(std::io::ErrorKind::StorageFull.into());
        assert_eq!(error.to_string(), "cannot write /x");
        assert!(
            error
                .fix()
                .is_some_and(|fix| fix.contains("free some space"))
        );
    }
}
