//! The network of a cluster's own: entered by starting this program again inside.
//!
//! It is a network and a mount namespace, below a user namespace of the caller's own where the caller is not root. Loopback holds every
//! address that the members want, and names are asked of 127.0.0.1, where the cluster's DNS server is. No process holds it but the
//! cluster's own: with the last of them the kernel takes it away.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::binary::{BinaryError, resolve};
use super::process::Process;

// Holds the pid of the process that made the network it is in. Its children have other pids.
const MADE_BY: &str = "PROVISION_NETWORK";
// $1: addresses. A connection to one of them would come from the address itself, as if the member that is asked were asking, and
// members check where others come from against their certificates: routes say that it comes from 127.0.0.1.
const ADDRESSES: &str = r#"set -e
for address in $1; do
    case $address in
    *:*) family=-6 source=::1 ;;
    *) family=-4 source=127.0.0.1 ;;
    esac
    if [ -n "$(ip $family -oneline address show dev lo to "$address")" ]; then continue; fi
    ip $family address replace "$address" dev lo
    ip $family route del local "$address" dev lo table local
    ip $family route add local "$address" dev lo src $source table local
done
shift
"#;
// The files live on a file system that is detached at once, so that nothing is left to clean up.
const FILES: &str = r#"dir=$(mktemp -d)
mount -t tmpfs -o size=64k,mode=755 tmpfs "$dir"
echo "nameserver 127.0.0.1" >"$dir/resolv.conf"
printf 'passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n' >"$dir/nsswitch.conf"
for name in resolv.conf nsswitch.conf; do
    at=$(readlink -f "/etc/$name")
    if [ -e "$at" ]; then mount --bind "$dir/$name" "$at"; fi
done
umount -l "$dir"
rmdir "$dir"
"#;
const GO_ON: &str = r#"exec "$@""#;

/// Why a network of its own cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A program that is needed is not installed.
    #[error("a private network needs {package}")]
    Program {
        /// Debian's package.
        package: &'static str,
        /// Where it was looked for.
        #[source]
        source: BinaryError,
    },
    /// The system does not let this user make namespaces.
    #[error("this system refuses a private network: {said}")]
    Refused {
        /// What unshare(1) said.
        said: String,
    },
    /// The system failed.
    #[error("cannot enter the cluster's network")]
    Io(#[from] io::Error),
}

impl NetworkError {
    /// What to do.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::Program { package, .. } => format!("install {package}"),
            Self::Refused { .. } => "run as root, or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1, \
                 kernel.apparmor_restrict_unprivileged_userns=0; inside a container, allow it to make namespaces"
                .to_owned(),
            Self::Io(_) => "see the cause".to_owned(),
        }
    }
}

/// Returns if this process is in the network of `alive`, or has made its own; otherwise starts this program again inside it.
///
/// `alive` is any process of the cluster. `stdin` is what was read of standard input, for the program to read again.
pub fn enter(
    alive: Option<&Process>,
    addresses: &[IpAddr],
    stdin: Option<&str>,
) -> Result<(), NetworkError> {
    let Some(process) = alive else {
        let made_it = std::env::var_os(MADE_BY) == Some(std::process::id().to_string().into());
        return if made_it {
            Ok(())
        } else {
            make(addresses, stdin)
        };
    };
    let is_ours = |kind: &str| -> io::Result<bool> {
        let theirs = fs::read_link(format!("/proc/{}/ns/{kind}", process.pid))?;
        Ok(theirs == fs::read_link(format!("/proc/self/ns/{kind}"))?)
    };
    if is_ours("net")? {
        return Ok(());
    }
    let mut command = Command::new(program("nsenter", "util-linux")?);
    command.arg(format!("--target={}", process.pid));
    if !is_ours("user")? {
        command.args(["--user", "--preserve-credentials"]);
    }
    let mut here = OsString::from("--wdns=");
    here.push(std::env::current_dir()?);
    command.args(["--net", "--mount"]).arg(here).arg("--");
    // A member may have come to the file with an address of its own.
    if !addresses.is_empty() {
        let script = format!("{ADDRESSES}{GO_ON}");
        command.args(["sh", "-c", &script, "sh", &listed(addresses)]);
    }
    again(command, stdin)
}

fn make(addresses: &[IpAddr], stdin: Option<&str>) -> Result<(), NetworkError> {
    for (name, package) in [("ip", "iproute2"), ("mount", "mount")] {
        program(name, package)?;
    }
    let mut unshare = vec!["--net", "--mount"];
    if !rustix::process::geteuid().is_root() {
        unshare.extend(["--user", "--map-root-user"]);
    }
    let path = program("unshare", "util-linux")?;
    // What refuses would otherwise speak in place of this program.
    let tried = Command::new(&path).args(&unshare).arg("true").output()?;
    if !tried.status.success() {
        return Err(NetworkError::Refused {
            said: String::from_utf8_lossy(&tried.stderr).trim().to_owned(),
        });
    }
    let script = format!("ip link set lo up\n{ADDRESSES}{FILES}{GO_ON}");
    let mut command = Command::new(path);
    command
        .args(unshare)
        .args(["--", "sh", "-c", &script, "sh", &listed(addresses)])
        .env(MADE_BY, std::process::id().to_string());
    again(command, stdin)
}

fn listed(addresses: &[IpAddr]) -> String {
    let addresses = addresses
        .iter()
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified());
    let addresses: Vec<String> = addresses.map(ToString::to_string).collect();
    addresses.join(" ")
}

// unshare(1), nsenter(1) and the shell become what they are given, so that pid, streams and exit code stay those of this process.
fn again(mut command: Command, stdin: Option<&str>) -> Result<(), NetworkError> {
    if let Some(text) = stdin {
        let mut file = tempfile::tempfile()?;
        file.write_all(text.as_bytes())?;
        file.seek(SeekFrom::Start(0))?;
        command.stdin(Stdio::from(file));
    }
    command.arg(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1));
    Err(command.exec().into())
}

fn program(name: &str, package: &'static str) -> Result<std::path::PathBuf, NetworkError> {
    resolve(Path::new(name)).map_err(|source| NetworkError::Program { package, source })
}
