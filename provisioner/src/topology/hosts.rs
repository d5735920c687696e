//! `host` and `[host-defaults]`: members on machines that are reached by SSH.

use std::path::PathBuf;

use super::address;
use super::model::{Keeper, SshHost};
use super::schema;
use super::spans::Path;
use super::validate::Check;

const INSTALL_DIR: &str = "/opt/provision";
const DATA_DIR: &str = "/var/lib/provision";
const RUN_AS: &str = "etcd";

impl SshHost {
    /// A machine of which a file says no more than where it is.
    #[must_use]
    pub fn at(destination: &str) -> Self {
        Self {
            destination: destination.to_owned(),
            user: None,
            port: None,
            identity: None,
            jump: Vec::new(),
            ssh_config: None,
            sudo: false,
            keeper: Keeper::Systemd,
            install_dir: INSTALL_DIR.into(),
            data_dir: DATA_DIR.into(),
            run_as: RUN_AS.to_owned(),
        }
    }
}

/// What all members on hosts share.
pub(super) struct Defaults {
    host: SshHost,
}

/// Checks `[host-defaults]`.
pub(super) fn defaults(raw: Option<&schema::HostDefaults>, check: &mut Check<'_>) -> Defaults {
    let fallback = schema::HostDefaults::default();
    let given = raw.unwrap_or(&fallback);
    let path = Path::root().key("host-defaults");
    let file = |text: &Option<String>, key: &str, check: &mut Check<'_>| {
        // A variable may leave it empty.
        let text = text.as_ref().filter(|text| !text.is_empty())?;
        Some(check.file(text, &path.key(key)))
    };
    let dir = |text: &Option<String>, key: &str, default: &str, check: &mut Check<'_>| {
        let dir = PathBuf::from(text.as_deref().unwrap_or(default));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let text = dir.to_string_lossy();
        if !dir.is_absolute() || text.contains("..") || !text.chars().all(plain) {
            check.fault(
                &path.key(key),
                format!("{text:?} is not a directory of a host"),
                "stands in a systemd unit",
                "write an absolute path of letters, digits, `-`, `_` and `.`",
            );
        }
        dir
    };
    let word = |text: &Option<String>, key: &str, check: &mut Check<'_>| {
        let text = text.clone()?;
        if !is_word(&text) {
            check.fault(
                &path.key(key),
                format!("{text:?} is not the name of a user"),
                "no user",
                "use letters, digits, `-`, `_` and `.`, starting with a letter, a digit or `_`",
            );
        }
        Some(text)
    };
    let identity = file(&given.identity, "identity", check);
    let ssh_config = file(&given.ssh_config, "ssh-config", check);
    for (index, jump) in given.jump.iter().enumerate() {
        if destination(jump).is_none() {
            check.fault(
                &path.key("jump").index(index),
                format!("{jump:?} is not a host to jump over"),
                "not [USER@]HOST[:PORT]",
                "write [USER@]HOST[:PORT], or the name of a host of ~/.ssh/config",
            );
        }
    }
    Defaults {
        host: SshHost {
            destination: String::new(),
            user: word(&given.user, "user", check),
            port: given.port,
            identity,
            jump: given.jump.clone(),
            ssh_config,
            sudo: given.sudo.unwrap_or(false),
            keeper: match given.service {
                schema::Keeper::Systemd => Keeper::Systemd,
                schema::Keeper::Process => Keeper::Process,
            },
            install_dir: dir(&given.install_dir, "install-dir", INSTALL_DIR, check),
            data_dir: dir(&given.data_dir, "data-dir", DATA_DIR, check),
            run_as: word(&given.run_as, "run-as", check).unwrap_or_else(|| RUN_AS.to_owned()),
        },
    }
}

impl Defaults {
    /// The host of one member, from its `host`.
    pub(super) fn host(&self, text: &str, path: &Path, check: &mut Check<'_>) -> Option<SshHost> {
        let found = text.strip_prefix("ssh://").and_then(destination);
        let Some(found) = found else {
            check.fault(
                path,
                format!("{text:?} is not a host"),
                "not ssh://[USER@]HOST[:PORT]",
                "write ssh://HOST; user, port and the rest may stand in [host-defaults] and in ~/.ssh/config",
            );
            return None;
        };
        let mut host = self.host.clone();
        host.destination = found.host;
        host.user = found.user.or(host.user);
        host.port = found.port.or(host.port);
        Some(host)
    }
}

struct Destination {
    user: Option<String>,
    host: String,
    port: Option<u16>,
}

// A name may be one of ~/.ssh/config, so it need not resolve, but it goes on a command line.
fn destination(text: &str) -> Option<Destination> {
    let (user, rest) = match text.rsplit_once('@') {
        Some((user, rest)) => (Some(user.to_owned()), rest),
        None => (None, text),
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (
            host,
            Some(port.parse::<u16>().ok().filter(|port| *port > 0)?),
        ),
        _ => (rest, None),
    };
    let host = address::host(host).ok()?;
    let valid = user.as_deref().is_none_or(is_word) && !host.starts_with('-');
    valid.then_some(Destination { user, host, port })
}

fn is_word(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let rest = |c: char| first(c) || c == '-' || c == '.';
    text.starts_with(first) && text.chars().all(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_taken_apart() {
        let parts = |text: &str| {
            destination(text).map(|found| (found.user.unwrap_or_default(), found.host, found.port))
        };
        let some = |user: &str, host: &str, port| Some((user.to_owned(), host.to_owned(), port));
        assert_eq!(parts("10.0.1.10"), some("", "10.0.1.10", None));
        assert_eq!(
            parts("root@infra0.example.com:2222"),
            some("root", "infra0.example.com", Some(2222))
        );
        assert_eq!(parts("[fd00::1]:22"), some("", "fd00::1", Some(22)));
        assert_eq!(parts("fd00::1"), some("", "fd00::1", None));
        for wrong in [
            "",
            "a b",
            "-oProxyCommand=x",
            "x@",
            "$(id)@h",
            "h:0",
            "h:x",
            "a;b",
        ] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }
}
