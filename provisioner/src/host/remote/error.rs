//! Why a machine cannot be worked on.

use crate::topology::SshHost;

/// Why the connection to a machine failed. Nothing was changed there but for a program that may have been put into place.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// The ssh program does not start.
    #[error("cannot run ssh")]
    NoSsh(#[source] std::io::Error),
    /// This program cannot read itself.
    #[error("cannot read this program's own file")]
    Own(#[source] std::io::Error),
    /// ssh says why.
    #[error("{host}: {}", .what.text())]
    Refused {
        /// The machine.
        host: String,
        /// What kind of failure.
        what: What,
        /// What ssh, or the machine, printed.
        #[source]
        said: Said,
    },
    /// It was connected once.
    #[error("the connection to {host} is lost")]
    Lost {
        /// The machine.
        host: String,
        /// What ssh printed.
        #[source]
        said: Said,
    },
}

/// The kinds of failure that have different fixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Nobody there.
    Unreachable,
    /// Its key is not known.
    KeyUnknown,
    /// Its key is another than is known.
    KeyChanged,
    /// It does not accept the user.
    Denied,
    /// sudo asks for a password, or is not there.
    NoSudo,
    /// No space.
    DiskFull,
    /// No writing.
    ReadOnly,
    /// Another processor.
    Architecture,
    /// Too old a C library.
    Library,
    /// No answer in time.
    Late,
    /// Anything else.
    Other,
}

/// What was printed, as the last cause of an error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Said(pub String);

impl What {
    fn text(self) -> &'static str {
        match self {
            Self::Unreachable => "cannot be reached",
            Self::KeyUnknown => "its host key is not known",
            Self::KeyChanged => "its host key has changed",
            Self::Denied => "it does not accept the login",
            Self::NoSudo => "cannot become root with sudo",
            Self::DiskFull => "its disk is full",
            Self::ReadOnly => "cannot write there",
            Self::Architecture => "it has another kind of processor than this machine",
            Self::Library => "its C library is older than that of this machine",
            Self::Late => "it does not answer",
            Self::Other => "cannot start the agent",
        }
    }

    /// Reads what ssh and the machine printed. `said` is empty where nobody printed anything.
    pub(super) fn read(said: &str) -> Self {
        let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
        if has(&["IDENTIFICATION HAS CHANGED"]) {
            Self::KeyChanged
        } else if has(&["Host key verification failed", "No matching host key"]) {
            Self::KeyUnknown
        } else if has(&[
            "Permission denied (",
            "Too many authentication failures",
            "Load key ",
        ]) {
            Self::Denied
        } else if has(&["sudo:"]) {
            Self::NoSudo
        } else if has(&["No space left on device", "Disk quota exceeded"]) {
            Self::DiskFull
        } else if has(&["Read-only file system", "Permission denied"]) {
            Self::ReadOnly
        } else if has(&["provision: architecture", "Exec format error"]) {
            Self::Architecture
        } else if has(&["GLIBC_", "ld-linux", "ld-musl"]) {
            Self::Library
        } else if has(&[
            "Connection refused",
            "No route to host",
            "Network is unreachable",
            "Could not resolve hostname",
            "Name or service not known",
            "timed out",
            "Connection closed by",
            "Connection reset by",
            "banner exchange",
        ]) {
            Self::Unreachable
        } else {
            Self::Other
        }
    }
}

impl SshError {
    pub(super) fn refused(host: &SshHost, what: What, said: &str) -> Self {
        // The last lines hold the reason; before it come banners.
        let lines: Vec<&str> = said
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let last = lines[lines.len().saturating_sub(3)..].join("\n");
        Self::Refused {
            host: host.url(),
            what,
            said: Said(if last.is_empty() {
                "ssh ended without a word".to_owned()
            } else {
                last
            }),
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        let try_it = "try it by hand with the same ssh configuration";
        match self {
            Self::NoSsh(_) => "install an OpenSSH client".to_owned(),
            Self::Own(_) => "run provision from a file that its user may read".to_owned(),
            Self::Lost { .. } => {
                "see whether the machine runs, and repeat the command: it goes on where it stopped".to_owned()
            }
            Self::Refused { host, what, .. } => match what {
                What::Unreachable => format!("see whether {host} runs and its sshd answers; {try_it}"),
                What::KeyUnknown => format!("log in once by hand and compare the key, or add it to known_hosts: ssh {host}"),
                What::KeyChanged => "if the machine was installed anew, remove its old key with `ssh-keygen -R HOST`; if not, somebody else answers in its place".to_owned(),
                What::Denied => "give a key that it accepts with `identity` or ssh-agent, and the right `user`; passwords are not asked for".to_owned(),
                What::NoSudo => "allow the user to run commands with sudo without a password, or log in as root".to_owned(),
                What::DiskFull => "make room on it".to_owned(),
                What::ReadOnly => "log in as root or set `sudo = true`, or choose other directories with `install-dir` and `data-dir`".to_owned(),
                What::Architecture => "use hosts with the processor of this machine, or run provision on one with theirs".to_owned(),
                What::Library => "use a build of provision and member for the older system".to_owned(),
                What::Late | What::Other => try_it.to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_prints_has_a_fix() {
        for (said, what) in [
            (
                "ssh: connect to host 10.0.1.10 port 22: Connection refused",
                What::Unreachable,
            ),
            (
                "ssh: connect to host 10.0.1.10 port 22: No route to host",
                What::Unreachable,
            ),
            (
                "ssh: Could not resolve hostname nowhere: Name or service not known",
                What::Unreachable,
            ),
            ("Host key verification failed.", What::KeyUnknown),
            (
                "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
                What::KeyChanged,
            ),
            (
                "root@10.0.1.10: Permission denied (publickey).",
                What::Denied,
            ),
            ("sudo: a password is required", What::NoSudo),
            ("sh: 1: sudo: not found", What::NoSudo),
            ("head: write error: No space left on device", What::DiskFull),
            (
                "mkdir: cannot create directory '/opt/provision': Permission denied",
                What::ReadOnly,
            ),
            (
                "mkdir: cannot create directory '/opt/provision': Read-only file system",
                What::ReadOnly,
            ),
            ("provision: architecture aarch64", What::Architecture),
            ("version `GLIBC_2.36' not found", What::Library),
            ("something new", What::Other),
        ] {
            assert_eq!(What::read(said), what, "{said}");
        }
    }
}
