//! The root file system that all hosts of all labs share: Debian, made once by debootstrap and kept in the user's cache.
//!
//! Invariant: what has the final name is complete, and is never written to again. A change of [`PACKAGES`] or of what is done to the root
//! gives it another name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, statvfs, syncfs};
use sha2::{Digest, Sha256};

use super::command::Argv;
use super::error::HostError;

/// To be raised when [`adapt`] changes.
const FORMAT: u32 = 1;

/// What a host has beyond the smallest Debian.
const PACKAGES: &[&str] = &[
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "iputils-ping",
    "nftables",
    "openssh-server",
    "procps",
    "sudo",
    "systemd",
    "systemd-sysv",
];

// Units that have nothing to do on a host without a console, without the internet and with one file system.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-networkd-wait-online.service",
];

// Root may log in with the lab's key; tests open many connections at once.
const SSHD: &str = "\
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
UseDNS no
MaxStartups 200
MaxSessions 200
";

// The root takes about 300 MiB; while it is made, the packages are there as well.
const ROOM: u64 = 700 << 20;
const SUITE: &str = "bookworm";
const LOOK_EVERY: Duration = Duration::from_millis(100);
// A minute, and much more over a slow line.
const DEBOOTSTRAP_LIMIT: Duration = Duration::from_secs(30 * 60);
// What a killed debootstrap still writes is over soon.
const CLEAN_LIMIT: Duration = Duration::from_secs(10);

/// The shared root, made now if it is not there. `doing` is told what is being done. Dropping the future ends
/// debootstrap and deletes what it made.
pub(super) async fn shared_root(cache: &Path, doing: &dyn Fn(&str)) -> Result<PathBuf, HostError> {
    let root = cache.join(name());
    if root.is_dir() {
        return Ok(root);
    }
    // The root has programs with the rights of root, which are nobody else's to run.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(cache)
        .map_err(HostError::io("create", cache))?;
    let _lock = lock(cache, doing).await?;
    if root.is_dir() {
        return Ok(root);
    }
    // The lock is held, so whoever made these is gone.
    for unfinished in unfinished(cache) {
        fs::remove_dir_all(&unfinished).map_err(HostError::io("delete", &unfinished))?;
    }
    let room = statvfs(cache).map_err(|error| HostError::io("look at", cache)(error.into()))?;
    let free = room.f_bavail * room.f_frsize;
    if free < ROOM {
        return Err(HostError::NoSpace {
            path: cache.to_owned(),
            free,
            need: ROOM,
        });
    }
    let building = Building {
        path: cache.join(format!("{}{UNFINISHED}", name())),
    };
    doing("debootstrap, once for all labs: about a minute");
    // However this process ends, debootstrap must not go on in a directory that the next one deletes.
    let mut command = Argv::new(["setpriv", "--pdeathsig", "KILL", "--"])
        .and(["unshare", "--mount", "--pid", "--fork", "--kill-child"])
        .and(["--mount-proc", "--", "debootstrap", "--variant=minbase"])
        .and([
            format!("--include={}", PACKAGES.join(",")),
            SUITE.to_owned(),
        ])
        .and([&building.path]);
    // Without one, debootstrap takes its own default.
    if let Some(mirror) = mirror().await? {
        command = command.and([mirror]);
    }
    command.run_with("", DEBOOTSTRAP_LIMIT).await?;
    adapt(&building.path).map_err(HostError::io("prepare", &building.path))?;
    // The new name must not reach the disk before what it names.
    let flush = || -> io::Result<()> { Ok(syncfs(File::open(&building.path)?)?) };
    flush().map_err(HostError::io("flush", &building.path))?;
    fs::rename(&building.path, &root).map_err(HostError::io("rename", &building.path))?;
    Ok(root)
}

const UNFINISHED: &str = ".unfinished";

struct Building {
    path: PathBuf,
}

impl Drop for Building {
    fn drop(&mut self) {
        let started = Instant::now();
        while fs::remove_dir_all(&self.path).is_err()
            && self.path.exists()
            && started.elapsed() < CLEAN_LIMIT
        {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn name() -> String {
    let what = format!("{FORMAT} {SUITE} {PACKAGES:?} {MASKED:?} {SSHD}");
    let digest = Sha256::digest(what.as_bytes());
    let stamp: String = digest
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{SUITE}-{stamp}")
}

fn unfinished(cache: &Path) -> Vec<PathBuf> {
    fs::read_dir(cache)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(UNFINISHED))
        .collect()
}

async fn lock(cache: &Path, doing: &dyn Fn(&str)) -> Result<File, HostError> {
    let path = cache.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(HostError::io("open", &path))?;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                doing("another lab makes the shared root");
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(error) => return Err(HostError::io("lock", &path)(error.into())),
        }
    }
}

// The archive that this machine installs from, which may be a mirror of its own.
async fn mirror() -> Result<Option<String>, HostError> {
    let targets = Argv::new(["apt-get", "indextargets", "--format", "$(REPO_URI)"])
        .and(["Created-By: Packages", "Component: main", "Origin: Debian"])
        .and([format!("Codename: {SUITE}")])
        .run()
        .await?;
    Ok(targets.lines().next().map(str::to_owned))
}

fn adapt(root: &Path) -> io::Result<()> {
    // Every host has keys, a name and an id of its own.
    for entry in fs::read_dir(root.join("etc/ssh"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("ssh_host_") {
            fs::remove_file(entry.path())?;
        }
    }
    fs::write(root.join("etc/ssh/sshd_config.d/lab.conf"), SSHD)?;
    fs::write(root.join("etc/machine-id"), "")?;
    for unit in MASKED {
        symlink("/dev/null", root.join("etc/systemd/system").join(unit))?;
    }
    for downloaded in ["var/cache/apt/archives", "var/lib/apt/lists"] {
        fs::remove_dir_all(root.join(downloaded))?;
        fs::create_dir(root.join(downloaded))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_build_left_is_told_from_a_root() {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir(cache.path().join(name())).unwrap();
        let left = cache.path().join(format!("bookworm-00000000{UNFINISHED}"));
        fs::create_dir(&left).unwrap();
        assert_eq!(unfinished(cache.path()), [left]);
    }
}
