//! What this machine is like, for preflight checks. Writes nothing but a nameless file, for as long as the disk is measured.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, StatVfsMountFlags, access, fdatasync, statvfs};
use serde::{Deserialize, Serialize};

use super::put::output;
use crate::error::Error;
use crate::host::remote::Ask;

// etcd's log is flushed after each batch of entries, which is of this size under a light load.
const WRITE: [u8; 512] = [0; 512];
const MOST_WRITES: usize = 200;
const WRITE_LIMIT: Duration = Duration::from_secs(2);

/// Asks a machine what it is like.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Survey {
    /// Where data go. The disk is measured there.
    pub data: Vec<PathBuf>,
    /// Where programs go, if they are brought there.
    pub programs: Option<PathBuf>,
}

/// What a machine is like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surveyed {
    /// As `std::env::consts::ARCH` has it.
    pub architecture: String,
    /// Such as `glibc 2.36`; `None`: unknown.
    pub libc: Option<String>,
    /// Bytes that can be used now.
    pub memory: u64,
    /// Bytes of swap.
    pub swap: u64,
    /// How many files a process may open at most, of those that nothing starts with a limit of its own.
    pub open_files: u64,
    /// How many files a unit may allow at most.
    pub most_open_files: u64,
    /// Such as `Europe/Berlin`.
    pub time_zone: String,
    /// What keeps the clock.
    pub time_sync: TimeSync,
    /// What filters packets; or why that is not known.
    pub firewalls: Result<Vec<String>, String>,
    /// Where data go, in the order of the question.
    pub data: Vec<Directory>,
    /// Where programs go.
    pub programs: Option<Directory>,
}

/// What keeps a machine's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeSync {
    /// This program.
    By(String),
    /// Nothing that is known.
    Nothing,
    /// It is the clock of another machine, which this one lives on.
    Container,
}

/// A directory that may not exist yet; what is true of it then is true of the next one above that does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// The directory.
    pub path: PathBuf,
    /// Its permissions, if it exists.
    pub mode: Option<u32>,
    /// What exists of it.
    pub nearest: PathBuf,
    /// Which file system it is on.
    pub device: u64,
    /// Bytes that can be written.
    pub free: u64,
    /// Whether this user may write there.
    pub writable: bool,
    /// Whether programs may run there.
    pub runs_programs: bool,
    /// How long a small write takes until it is on the disk; or why that is not known.
    pub sync: Result<SyncTime, String>,
}

/// How long small writes took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncTime {
    /// How many there were.
    pub writes: usize,
    /// All but one of a hundred took at most this long, in microseconds.
    pub p99_us: u64,
}

impl Ask for Survey {
    const NAME: &'static str = "survey";
    type Answer = Surveyed;

    async fn answer(self) -> Result<Surveyed, Error> {
        let libc = output("getconf", &["GNU_LIBC_VERSION"]).await;
        let libc = libc.ok().filter(|(succeeded, _)| *succeeded);
        let firewalls = firewalls().await;
        let blocking = tokio::task::spawn_blocking(move || -> io::Result<Surveyed> {
            let memory = fs::read_to_string("/proc/meminfo")?;
            let limits = fs::read_to_string("/proc/self/limits")?;
            let most = fs::read_to_string("/proc/sys/fs/nr_open")?;
            let data: io::Result<Vec<Directory>> =
                self.data.into_iter().map(|path| look(path, true)).collect();
            Ok(Surveyed {
                architecture: std::env::consts::ARCH.to_owned(),
                libc: libc.map(|(_, said)| said.trim().to_owned()),
                memory: kibibytes(&memory, "MemAvailable:") * 1024,
                swap: kibibytes(&memory, "SwapTotal:") * 1024,
                open_files: hard_limit(&limits),
                most_open_files: most.trim().parse().unwrap_or(u64::MAX),
                time_zone: time_zone(),
                time_sync: time_sync(),
                firewalls,
                data: data?,
                programs: self.programs.map(|path| look(path, false)).transpose()?,
            })
        });
        let surveyed = blocking
            .await
            .map_err(|error| Error::because("the survey was cut off", error))?;
        surveyed.map_err(|source| Error::because("cannot look at the machine", source))
    }
}

fn look(path: PathBuf, measure: bool) -> io::Result<Directory> {
    let nearest = path
        .ancestors()
        .find(|above| above.is_dir())
        .unwrap_or(Path::new("/"))
        .to_owned();
    let there = statvfs(&nearest)?;
    let has = |flag| there.f_flag.contains(flag);
    let mode = if nearest == path {
        Some(fs::metadata(&path)?.permissions().mode() & 0o7777)
    } else {
        None
    };
    let sync = if measure {
        sync_time(&nearest).map_err(|error| error.to_string())
    } else {
        Err("it is not measured".to_owned())
    };
    Ok(Directory {
        mode,
        device: fs::metadata(&nearest)?.dev(),
        free: there.f_bavail.saturating_mul(there.f_frsize),
        writable: !has(StatVfsMountFlags::RDONLY) && access(&nearest, Access::WRITE_OK).is_ok(),
        runs_programs: !has(StatVfsMountFlags::NOEXEC),
        sync,
        nearest,
        path,
    })
}

fn sync_time(dir: &Path) -> io::Result<SyncTime> {
    let mut file = tempfile::tempfile_in(dir)?;
    let started = Instant::now();
    let mut times = Vec::with_capacity(MOST_WRITES);
    while times.len() < MOST_WRITES && started.elapsed() < WRITE_LIMIT {
        let before = Instant::now();
        file.write_all(&WRITE)?;
        fdatasync(&file)?;
        times.push(before.elapsed());
    }
    times.sort();
    let rank = times.len().saturating_sub(1) * 99 / 100;
    let p99 = times.get(rank).copied().unwrap_or(WRITE_LIMIT);
    Ok(SyncTime {
        writes: times.len(),
        p99_us: u64::try_from(p99.as_micros()).unwrap_or(u64::MAX),
    })
}

fn kibibytes(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn hard_limit(limits: &str) -> u64 {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let hard = line.and_then(|rest| rest.split_whitespace().nth(1));
    hard.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}

fn time_zone() -> String {
    // tzset(3): without the file it is UTC.
    let link = fs::read_link("/etc/localtime").unwrap_or_default();
    let link = link.to_string_lossy();
    let name = link.split_once("zoneinfo/").map(|(_, name)| name);
    name.unwrap_or("Etc/UTC").to_owned()
}

fn time_sync() -> TimeSync {
    const KEEPERS: [&str; 5] = ["chronyd", "ntpd", "ntpsec", "openntpd", "systemd-timesyn"];
    if Path::new("/run/systemd/container").exists() {
        return TimeSync::Container;
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut names = processes.filter_map(|entry| {
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some(name.trim().to_owned())
    });
    match names.find(|name| KEEPERS.contains(&name.as_str())) {
        Some(keeper) => TimeSync::By(keeper),
        None => TimeSync::Nothing,
    }
}

async fn firewalls() -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut asked = false;
    for (name, program, args) in [
        ("nftables", "nft", ["list", "ruleset"]),
        ("iptables", "iptables", ["-S", "INPUT"]),
    ] {
        let rules = match output(program, &args).await {
            Ok((true, rules)) => rules,
            Ok((false, said)) => return Err(format!("{program} does not tell: {}", said.trim())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("cannot run {program}: {error}")),
        };
        asked = true;
        if filters(&rules) {
            found.push(name.to_owned());
        }
    }
    if !asked {
        return Err("neither nft nor iptables is there to be asked".to_owned());
    }
    for service in ["ufw", "firewalld"] {
        if let Ok((true, _)) = output("systemctl", &["is-active", "--quiet", service]).await {
            found.push(service.to_owned());
        }
    }
    Ok(found)
}

// Whether anything is decided of packets that come in, as either program prints it.
fn filters(rules: &str) -> bool {
    rules.lines().map(str::trim).any(|rule| {
        rule.contains("hook input") || rule.starts_with("-A INPUT") || rule == "-P INPUT DROP"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let meminfo =
            "MemTotal:       8000000 kB\nMemAvailable:   4000000 kB\nSwapTotal:             0 kB\n";
        assert_eq!(kibibytes(meminfo, "MemAvailable:"), 4_000_000);
        assert_eq!(kibibytes(meminfo, "SwapTotal:"), 0);
        let limits = "Limit                     Soft Limit           Hard Limit           Units\nMax open files            1024                 524288               files\n";
        assert_eq!(hard_limit(limits), 524_288);
    }

    #[test]
    fn rules_for_what_comes_in_are_a_firewall() {
        let chain = "table inet t {\n\tchain in {\n\t\ttype filter hook input priority filter; policy accept;\n\t}\n}\n";
        assert!(filters(chain));
        assert!(filters("-P INPUT DROP\n"));
        assert!(filters(
            "-P INPUT ACCEPT\n-A INPUT -p tcp --dport 2380 -j DROP\n"
        ));
        assert!(!filters("-P INPUT ACCEPT\n"));
        assert!(!filters(
            "table ip nat {\n\tchain post {\n\t\ttype nat hook postrouting priority srcnat;\n\t}\n}\n"
        ));
    }

    #[test]
    fn a_directory_that_is_missing_is_on_the_file_system_above() {
        let root = tempfile::tempdir().unwrap();
        let found = look(root.path().join("a/b"), true).unwrap();
        assert_eq!((found.nearest.as_path(), found.mode), (root.path(), None));
        assert!(found.writable && found.free > 0);
        let sync = found.sync.unwrap();
        assert!(sync.writes > 0 && sync.writes <= MOST_WRITES);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
