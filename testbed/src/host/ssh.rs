//! Keys of a lab and of its hosts, and the configuration with which `ssh -F` finds and checks them.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::command::Argv;
use super::error::HostError;
use super::lab::Host;

/// The files of one lab, below its directory.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    dir: PathBuf,
}

impl Keys {
    pub(super) fn of(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    pub(super) fn config(&self) -> PathBuf {
        self.dir.join("ssh_config")
    }

    pub(super) fn identity(&self) -> PathBuf {
        self.dir.join("id_ed25519")
    }

    fn known_hosts(&self) -> PathBuf {
        self.dir.join("known_hosts")
    }

    fn host_key(&self, host: &Host) -> PathBuf {
        self.dir.join(format!("{}.key", host.name))
    }

    /// The private and the public key of a host.
    pub(super) fn of_host(&self, host: &Host) -> Result<(String, String), HostError> {
        let key = self.host_key(host);
        Ok((read(&key)?, read(&public(&key))?))
    }

    pub(super) fn public_identity(&self) -> Result<String, HostError> {
        read(&public(&self.identity()))
    }

    /// Makes all of them. `connect` is the command that connects its standard streams with a host and port, for
    /// ssh outside the lab.
    pub(super) async fn make(&self, hosts: &[Host], connect: &[String]) -> Result<(), HostError> {
        generate(&self.identity(), "provision lab").await?;
        let mut known = String::new();
        for host in hosts {
            let key = self.host_key(host);
            generate(&key, &host.domain).await?;
            let public = read(&public(&key))?;
            let public = public
                .split_whitespace()
                .take(2)
                .collect::<Vec<_>>()
                .join(" ");
            known.push_str(&format!(
                "{},{},{} {public}\n",
                host.name, host.domain, host.address
            ));
        }
        write_private(&self.known_hosts(), &known)?;
        write_private(&self.config(), &self.config_text(hosts, connect))
    }

    fn config_text(&self, hosts: &[Host], connect: &[String]) -> String {
        let mut text = String::new();
        for host in hosts {
            text.push_str(&format!(
                "Host {} {} {}\n    HostName {}\n    HostKeyAlias {}\n",
                host.name, host.domain, host.address, host.address, host.domain
            ));
        }
        let connect: Vec<String> = connect.iter().map(|word| for_shell(word)).collect();
        text.push_str(&format!(
            "Host *\n    User root\n    IdentityFile {}\n    IdentitiesOnly yes\n    UserKnownHostsFile {}\n    \
             GlobalKnownHostsFile none\n    StrictHostKeyChecking yes\n    PasswordAuthentication no\n    \
             KbdInteractiveAuthentication no\n    ConnectTimeout 10\n    ProxyCommand {} %h %p\n",
            quoted(&self.identity()),
            quoted(&self.known_hosts()),
            connect.join(" ")
        ));
        text
    }
}

async fn generate(key: &Path, comment: &str) -> Result<(), HostError> {
    // ssh-keygen asks before it replaces a key, and nobody is there to answer.
    for old in [key.to_owned(), public(key)] {
        match fs::remove_file(&old) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(HostError::io("replace", &old)(error));
            }
            _ => {}
        }
    }
    Argv::new([
        "ssh-keygen",
        "-q",
        "-t",
        "ed25519",
        "-N",
        "",
        "-C",
        comment,
        "-f",
    ])
    .and([key])
    .run()
    .await
    .map(drop)
}

fn public(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn read(path: &Path) -> Result<String, HostError> {
    fs::read_to_string(path).map_err(HostError::io("read", path))
}

/// Writes a file that only its owner can read.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), HostError> {
    use std::io::Write;
    fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(HostError::io("write", path))
}

// ssh_config(5): arguments may be in double quotes, and % begins a token.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

// A ProxyCommand is run by the user's shell.
fn for_shell(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''").replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_stay_one_word() {
        assert_eq!(for_shell("/a b/it's 5%"), r"'/a b/it'\''s 5%%'");
        assert_eq!(quoted(Path::new("/a b/5%")), "\"/a b/5%%\"");
    }
}
