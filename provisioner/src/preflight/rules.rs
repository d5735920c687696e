//! The thresholds. Pure: a fact in, a verdict out.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::finding::Verdict;
use crate::host::local::{Directory, Opened, Resolved, RoundTrip, SyncTime, TimeSync};
use crate::topology::Keeper;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
// etcd's guide to hardware: under load its log wants this.
const SYNC_US: u64 = 10_000;
// A new member's log, its first snapshot and what it logs.
const LEAST_SPACE: u64 = 256 * MIB;
// Beside the database: the log, and a copy of the database while it is defragmented or restored.
const SPACE_BESIDE: u64 = GIB;
/// etcd's default for `--quota-backend-bytes`.
pub(super) const QUOTA: u64 = 2 * GIB;
const LEAST_MEMORY: u64 = 128 * MIB;
const MEMORY: u64 = GIB;
/// What the systemd unit asks for.
const OPEN_FILES: u64 = 65_536;
const LEAST_OPEN_FILES: u64 = 1024;
// From here on etcd warns of it in its log.
const CLOCK_US: i64 = 1_000_000;
// Half of that: it is on its way there.
const CLOCK_NEAR_US: i64 = 500_000;
// etcd's defaults are made for one data centre; nothing is gained below.
const HEARTBEAT_MS: u64 = 100;
const ELECTION_MS: u64 = 1000;
// etcd's guide to tuning.
const ELECTION_ROUND_TRIPS: u64 = 10;
// etcd's own limit.
const MOST_ELECTION_MS: u64 = 50_000;

pub(super) fn architecture(found: &str, here: &str) -> Verdict {
    if found == here {
        return Verdict::pass(found);
    }
    Verdict::fail(
        format!("{found}, and this machine has {here}"),
        "run provision on a machine with the same processor",
    )
}

/// `newest` is that of all machines.
pub(super) fn libc(found: Option<&str>, newest: Option<&str>) -> Verdict {
    let (Some(found), Some(newest)) = (found, newest) else {
        return Verdict::skipped("getconf does not tell the C library's version");
    };
    let version = |text: &str| -> Option<(String, Vec<u32>)> {
        let (name, version) = text.split_once(' ')?;
        let parts: Result<Vec<u32>, _> = version.split('.').map(str::parse).collect();
        Some((name.to_owned(), parts.ok()?))
    };
    match (version(found), version(newest)) {
        (Some(there), Some(mine)) if there.0 == mine.0 && there.1 >= mine.1 => Verdict::pass(found),
        (Some(_), Some(_)) => Verdict::warn(
            format!("{found}, and {newest} elsewhere"),
            "use builds of provision and member for the older system",
        ),
        _ => Verdict::skipped(format!("{found:?} and {newest:?} cannot be compared")),
    }
}

pub(super) fn memory(available: u64, members: u64) -> Verdict {
    let found = format!("{} available", bytes(available));
    let fix = "stop what else runs there, or give the machine more memory";
    if available < LEAST_MEMORY * members {
        Verdict::fail(found, fix)
    } else if available < MEMORY * members {
        Verdict::warn(found, fix)
    } else {
        Verdict::pass(found)
    }
}

pub(super) fn swap(size: u64) -> Verdict {
    if size == 0 {
        return Verdict::pass("none");
    }
    Verdict::warn(
        format!(
            "{}: a member that is swapped out misses heartbeats",
            bytes(size)
        ),
        "swapoff -a, and take swap out of /etc/fstab",
    )
}

/// `keeper` is `None` for members on this machine: they inherit its limit.
pub(super) fn open_files(keeper: Option<Keeper>, own: u64, most: u64) -> Verdict {
    let (limit, fix) = match keeper {
        Some(Keeper::Systemd) => (most, "raise the kernel's limit: sysctl fs.nr_open=1048576"),
        Some(Keeper::Process) | None => (
            own,
            "raise the hard limit of open files, see limits.conf(5)",
        ),
    };
    let found = format!("at most {limit}");
    if limit < LEAST_OPEN_FILES {
        Verdict::fail(found, fix)
    } else if limit < OPEN_FILES {
        Verdict::warn(found, fix)
    } else {
        Verdict::pass(found)
    }
}

pub(super) fn directories(data: &[Directory], programs: Option<&Directory>) -> Verdict {
    let shown = |dir: &Directory| dir.nearest.display().to_string();
    for dir in data.iter().chain(programs) {
        if !dir.writable {
            return Verdict::fail(
                format!("{} cannot be written", shown(dir)),
                "mount it for writing, or log in as who may write there",
            );
        }
    }
    if let Some(dir) = programs.filter(|dir| !dir.runs_programs) {
        return Verdict::fail(
            format!("{} is mounted with noexec", shown(dir)),
            "choose another `install-dir` in [host-defaults]",
        );
    }
    let open = data.iter().find_map(|dir| {
        let mode = dir.mode.filter(|mode| mode & 0o077 != 0)?;
        Some((dir, mode))
    });
    match open {
        Some((dir, mode)) => Verdict::warn(
            format!(
                "{} has mode {mode:04o}: others may look into it",
                dir.path.display()
            ),
            "provision check --fix makes it 0700",
        ),
        None => Verdict::pass("can be written"),
    }
}

/// `needs` has the file system and the quota of each member there.
pub(super) fn disk_space(dir: &Directory, quotas: u64, members: u64) -> Verdict {
    let found = format!("{} free at {}", bytes(dir.free), dir.nearest.display());
    let want = quotas + SPACE_BESIDE * members;
    if dir.free < LEAST_SPACE * members {
        Verdict::fail(
            found,
            format!("make room there: {} would be enough", bytes(want)),
        )
    } else if dir.free < want {
        Verdict::warn(
            format!("{found}, and a full database takes {}", bytes(want)),
            "make room there, or lower `quota-backend-bytes`",
        )
    } else {
        Verdict::pass(found)
    }
}

pub(super) fn disk_sync(sync: &Result<SyncTime, String>, heartbeat_ms: u64) -> Verdict {
    let SyncTime { writes, p99_us } = match sync {
        Ok(sync) => *sync,
        Err(why) => return Verdict::skipped(format!("the disk cannot be measured: {why}")),
    };
    let found = format!("p99 {} of {writes} writes", time(p99_us));
    let fix =
        "use an SSD that nothing else writes to, or raise heartbeat-interval and election-timeout";
    if p99_us > heartbeat_ms * 1000 {
        Verdict::fail(
            format!("{found}, over the heartbeat interval of {heartbeat_ms} ms"),
            fix,
        )
    } else if p99_us > SYNC_US {
        Verdict::warn(
            format!("{found}, over the {} that etcd wants", time(SYNC_US)),
            fix,
        )
    } else {
        Verdict::pass(found)
    }
}

pub(super) fn time_zone(found: &str, most: &str) -> Verdict {
    if found == most {
        return Verdict::pass(found);
    }
    Verdict::warn(
        format!("{found}, and others have {most}: their logs are hard to compare"),
        format!("timedatectl set-timezone {most}"),
    )
}

pub(super) fn time_sync(found: &TimeSync) -> Verdict {
    match found {
        TimeSync::By(keeper) => Verdict::pass(keeper),
        TimeSync::Container => {
            Verdict::skipped("it is a container, whose clock is that of the machine around it")
        }
        TimeSync::Nothing => Verdict::warn(
            "nothing is seen that keeps the clock right",
            "timedatectl set-ntp true, or install chrony",
        ),
    }
}

/// `ahead_us` is against the median of all machines.
pub(super) fn clock(ahead_us: i64, error_us: i64) -> Verdict {
    let way = if ahead_us < 0 { "behind" } else { "ahead" };
    let off = ahead_us.saturating_abs();
    let found = format!(
        "{} {way}, at most {} wrong",
        time(off.unsigned_abs()),
        time(error_us.unsigned_abs())
    );
    let fix =
        "let all machines take the time from the same servers, with chrony or systemd-timesyncd";
    // What a slow line may have added is nobody's fault.
    let sure = off.saturating_sub(error_us);
    if sure > CLOCK_US {
        Verdict::fail(
            format!("{found}: etcd tolerates {}", time(CLOCK_US.unsigned_abs())),
            fix,
        )
    } else if sure > CLOCK_NEAR_US {
        Verdict::warn(found, fix)
    } else if error_us > CLOCK_US {
        Verdict::skipped(format!("the line is too slow to tell: {found}"))
    } else {
        Verdict::pass(found)
    }
}

/// `most` is what most machines find.
pub(super) fn name(found: &Resolved, most: &BTreeSet<IpAddr>, at_home: bool) -> Verdict {
    let name = &found.name;
    let fix = "correct the DNS or /etc/hosts there; `provision render --format dns-zone` prints what belongs into the DNS";
    let addresses = match &found.addresses {
        Ok(addresses) => addresses,
        Err(why) => return Verdict::fail(format!("{name}: {why}"), fix),
    };
    if addresses.iter().any(IpAddr::is_loopback) {
        let found = format!(
            "{name} is {}, an address that no other machine reaches",
            list(addresses)
        );
        // Debian gives a machine's own name 127.0.1.1.
        return if at_home {
            Verdict::warn(found, fix)
        } else {
            Verdict::fail(found, fix)
        };
    }
    if addresses != most {
        return Verdict::warn(
            format!(
                "{name} is {}, and {} elsewhere",
                list(addresses),
                list(most)
            ),
            fix,
        );
    }
    Verdict::pass(format!("{name} is {}", list(addresses)))
}

pub(super) fn reverse_name(found: &Resolved) -> Verdict {
    let name = &found.name;
    let same = |other: &String| {
        other
            .trim_end_matches('.')
            .eq_ignore_ascii_case(name.trim_end_matches('.'))
    };
    if found.addresses.is_err() {
        return Verdict::skipped(format!("{name} has no address"));
    }
    if found.reverse.iter().any(same) {
        return Verdict::pass(format!("the address of {name} is called so"));
    }
    let called = if found.reverse.is_empty() {
        "has no name".to_owned()
    } else {
        format!("is called {}", list(&found.reverse))
    };
    Verdict::warn(
        format!("the address of {name} {called}"),
        "add a PTR record: members look up who connects where certificates hold names only",
    )
}

pub(super) fn listen_address(opened: Option<&Opened>, listen: IpAddr) -> Verdict {
    match opened {
        None => Verdict::pass(format!("{listen}, where the member runs")),
        Some(Opened::Open | Opened::Taken) => Verdict::pass(listen.to_string()),
        Some(Opened::NotHere) => Verdict::fail(
            format!("{listen} is no address of this machine"),
            "correct `address`, or give the member a `listen` address that the machine has",
        ),
        Some(Opened::Failed(why)) => Verdict::fail(
            format!("cannot listen at {listen}: {why}"),
            "give the member ports that its user may listen at",
        ),
    }
}

/// The ways from one machine to a kind of port of all others, each with the member's name.
pub(super) fn reach(ways: &[(String, Option<RoundTrip>)], firewalls: &[String]) -> Verdict {
    let blocked: Vec<String> = ways
        .iter()
        .filter_map(|(member, way)| {
            let why = way.as_ref()?.as_ref().err()?;
            Some(format!("{member}: {why}"))
        })
        .collect();
    if !blocked.is_empty() {
        let fix = if firewalls.is_empty() {
            "see whether a firewall or a security group between the machines drops the port"
                .to_owned()
        } else {
            format!(
                "open the port in {} on the machine of that member",
                list(firewalls)
            )
        };
        return Verdict::fail(format!("not reached: {}", blocked.join(", ")), fix);
    }
    let silent: Vec<&str> = ways
        .iter()
        .filter(|(_, way)| way.is_none())
        .map(|(member, _)| member.as_str())
        .collect();
    if !silent.is_empty() {
        return Verdict::skipped(format!("nothing could listen for {}", silent.join(", ")));
    }
    let slowest = ways
        .iter()
        .filter_map(|(_, way)| way.as_ref()?.as_ref().ok());
    match slowest.max() {
        Some(slowest) => Verdict::pass(format!(
            "{} reached, in at most {}",
            if ways.len() == 1 {
                "the other one".to_owned()
            } else {
                format!("all {} others", ways.len())
            },
            time(*slowest)
        )),
        None => Verdict::skipped("all members are on one machine"),
    }
}

/// What `heartbeat-interval` and `election-timeout` should be for a round trip.
pub(super) fn recommended(round_trip_us: u64) -> (u64, u64) {
    let heartbeat = round_trip_us.div_ceil(1000).max(HEARTBEAT_MS);
    let election = (heartbeat * ELECTION_ROUND_TRIPS).max(ELECTION_MS);
    (heartbeat, election.min(MOST_ELECTION_MS))
}

pub(super) fn round_trip(slowest_us: Option<u64>, heartbeat_ms: u64, election_ms: u64) -> Verdict {
    let Some(slowest) = slowest_us else {
        return Verdict::skipped("no two machines have reached each other");
    };
    let (heartbeat, election) = recommended(slowest);
    let found = format!(
        "the slowest takes {}; heartbeats every {heartbeat_ms} ms, elections after {election_ms} ms",
        time(slowest)
    );
    let fix = format!(
        "set heartbeat-interval = {heartbeat} and election-timeout = {election} in [defaults]"
    );
    // A vote takes a round trip, and what the candidate says then another.
    if slowest * 2 > election_ms * 1000 {
        Verdict::fail(found, fix)
    } else if slowest > heartbeat_ms * 1000 || slowest * ELECTION_ROUND_TRIPS > election_ms * 1000 {
        Verdict::warn(found, fix)
    } else {
        Verdict::pass(found)
    }
}

/// `blocked`: somebody has not reached this machine; `None`: nobody could try.
pub(super) fn firewall(active: &Result<Vec<String>, String>, blocked: Option<bool>) -> Verdict {
    let active = match active {
        Ok(active) => active,
        Err(why) => return Verdict::skipped(why),
    };
    if active.is_empty() {
        return Verdict::pass("none is seen");
    }
    let found = format!("{} is active", list(active));
    match blocked {
        Some(false) => Verdict::pass(format!("{found}, and lets the members through")),
        Some(true) => Verdict::warn(
            format!("{found}, and ports of members were not reached"),
            "let the other members reach the peer port, and clients the client port",
        ),
        None => Verdict::warn(
            format!("{found}, and nobody could try to get through"),
            "see whether it lets the members' ports through",
        ),
    }
}

pub(super) fn list<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = all.into_iter().map(|item| item.to_string()).collect();
    all.join(", ")
}

fn time(us: u64) -> String {
    match us {
        0..=999 => format!("{us} us"),
        1000..=99_999 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        100_000..=9_999_999 => format!("{} ms", us / 1000),
        _ => format!("{} s", us / 1_000_000),
    }
}

fn bytes(bytes: u64) -> String {
    if bytes >= GIB {
        format!("{}.{} GiB", bytes / GIB, bytes % GIB * 10 / GIB)
    } else {
        format!("{} MiB", bytes / MIB)
    }
}

#[cfg(test)]
mod tests;
