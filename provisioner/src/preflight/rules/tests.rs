//! Every rule at its borders.

use super::super::finding::Outcome::{self, Fail, Pass, Skipped, Warn};
use super::*;

fn dir(free: u64, mode: Option<u32>) -> Directory {
    Directory {
        path: "/var/lib/x/data".into(),
        mode,
        nearest: "/var/lib".into(),
        device: 1,
        free,
        writable: true,
        runs_programs: true,
        sync: Err("not now".to_owned()),
    }
}

fn outcomes(verdicts: impl IntoIterator<Item = Verdict>) -> Vec<Outcome> {
    let verdicts = verdicts.into_iter();
    verdicts
        .inspect(|verdict| {
            let bad = matches!(verdict.outcome, Warn | Fail);
            assert_eq!(verdict.fix.is_some(), bad, "{verdict:?}");
            assert!(!verdict.found.is_empty());
        })
        .map(|verdict| verdict.outcome)
        .collect()
}

#[test]
fn a_disk_flushes_within_ten_milliseconds_and_never_longer_than_a_heartbeat() {
    let sync = |p99_us| Ok(SyncTime { writes: 9, p99_us });
    let times = [10_000, 10_001, 100_000, 100_001];
    let found = times.map(|us| disk_sync(&sync(us), 100));
    assert_eq!(outcomes(found), [Pass, Warn, Warn, Fail]);
    assert_eq!(outcomes([disk_sync(&sync(100_001), 500)]), [Warn]);
    assert_eq!(outcomes([disk_sync(&Err("x".into()), 100)]), [Skipped]);
}

#[test]
fn a_disk_has_room_for_the_quotas_of_all_its_members() {
    let sizes = [3 * GIB, 3 * GIB - 1, LEAST_SPACE, LEAST_SPACE - 1];
    let found = sizes.map(|free| disk_space(&dir(free, None), QUOTA, 1));
    assert_eq!(outcomes(found), [Pass, Warn, Warn, Fail]);
    let three = disk_space(&dir(3 * GIB, None), 3 * QUOTA, 3);
    assert_eq!(outcomes([three]), [Warn]);
}

#[test]
fn memory_is_counted_per_member() {
    let found = [GIB, GIB - 1, LEAST_MEMORY, LEAST_MEMORY - 1].map(|size| memory(size, 1));
    assert_eq!(outcomes(found), [Pass, Warn, Warn, Fail]);
    assert_eq!(
        outcomes([memory(3 * GIB - 1, 3), memory(3 * GIB, 3)]),
        [Warn, Pass]
    );
}

#[test]
fn any_swap_is_warned_of() {
    assert_eq!(outcomes([swap(0), swap(4096)]), [Pass, Warn]);
}

#[test]
fn the_limit_of_open_files_is_that_of_who_starts_the_member() {
    let limits = [65_536, 65_535, 1024, 1023];
    let alone = limits.map(|limit| open_files(Some(Keeper::Process), limit, u64::MAX));
    assert_eq!(outcomes(alone), [Pass, Warn, Warn, Fail]);
    let unit = limits.map(|limit| open_files(Some(Keeper::Systemd), 1, limit));
    assert_eq!(outcomes(unit), [Pass, Warn, Warn, Fail]);
    assert_eq!(outcomes([open_files(None, 1024, u64::MAX)]), [Warn]);
}

#[test]
fn directories_can_be_written_and_hold_programs_that_run() {
    let of = |data: Directory, programs: Directory| directories(&[data], Some(&programs));
    let fine = || dir(1, None);
    let mut locked = fine();
    locked.writable = false;
    let mut still = fine();
    still.runs_programs = false;
    let found = [
        of(fine(), fine()),
        of(dir(1, Some(0o700)), fine()),
        of(dir(1, Some(0o750)), fine()),
        of(locked.clone(), fine()),
        of(fine(), locked),
        of(fine(), still.clone()),
        // Nothing runs where data are.
        of(still, fine()),
    ];
    assert_eq!(outcomes(found), [Pass, Pass, Warn, Fail, Fail, Fail, Pass]);
}

#[test]
fn machines_are_alike() {
    let found = [
        architecture("x86_64", "x86_64"),
        architecture("aarch64", "x86_64"),
    ];
    assert_eq!(outcomes(found), [Pass, Fail]);
    let libcs = ["glibc 2.36", "glibc 2.9", "glibc 2.41", "musl 1.2"];
    let found = libcs.map(|there| libc(Some(there), Some("glibc 2.36")));
    assert_eq!(outcomes(found), [Pass, Warn, Pass, Warn]);
    assert_eq!(outcomes([libc(None, Some("glibc 2.36"))]), [Skipped]);
    let found = [
        time_zone("Etc/UTC", "Etc/UTC"),
        time_zone("Asia/Tokyo", "Etc/UTC"),
    ];
    assert_eq!(outcomes(found), [Pass, Warn]);
    let found = [
        TimeSync::By("chronyd".into()),
        TimeSync::Nothing,
        TimeSync::Container,
    ];
    assert_eq!(
        outcomes(found.map(|sync| time_sync(&sync))),
        [Pass, Warn, Skipped]
    );
}

#[test]
fn a_clock_is_off_when_it_is_more_than_the_line_explains() {
    let offs = [500_000, 500_001, 1_000_000, 1_000_001];
    assert_eq!(
        outcomes(offs.map(|us| clock(us, 0))),
        [Pass, Warn, Warn, Fail]
    );
    assert_eq!(
        outcomes(offs.map(|us| clock(-us, 0))),
        [Pass, Warn, Warn, Fail]
    );
    let found = offs.map(|us| clock(us + 200_000, 200_000));
    assert_eq!(outcomes(found), [Pass, Warn, Warn, Fail]);
    assert_eq!(outcomes([clock(0, 1_000_001)]), [Skipped]);
}

#[test]
fn a_name_means_the_same_everywhere() {
    let ips = |text: &str| -> BTreeSet<IpAddr> {
        text.split_whitespace()
            .map(|ip| ip.parse().unwrap())
            .collect()
    };
    let resolved = |addresses: Result<BTreeSet<IpAddr>, String>| Resolved {
        name: "a.example.com".to_owned(),
        addresses,
        reverse: BTreeSet::new(),
    };
    let most = ips("10.0.0.1");
    let judge = |found: &str, at_home| name(&resolved(Ok(ips(found))), &most, at_home);
    let found = [
        judge("10.0.0.1", false),
        judge("10.0.0.2", false),
        judge("10.0.0.1 10.0.0.2", false),
        judge("127.0.1.1", true),
        judge("127.0.1.1", false),
        name(&resolved(Err("no such host".into())), &most, true),
    ];
    assert_eq!(outcomes(found), [Pass, Warn, Warn, Warn, Fail, Fail]);

    let called = |names: &[&str]| Resolved {
        reverse: names.iter().map(|name| (*name).to_owned()).collect(),
        ..resolved(Ok(ips("10.0.0.1")))
    };
    let found = [
        reverse_name(&called(&["A.example.com."])),
        reverse_name(&called(&["b.example.com"])),
        reverse_name(&called(&[])),
        reverse_name(&resolved(Err("no such host".into()))),
    ];
    assert_eq!(outcomes(found), [Pass, Warn, Warn, Skipped]);
}

#[test]
fn an_address_is_one_of_the_machine() {
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    let found = [
        listen_address(None, ip),
        listen_address(Some(&Opened::Open), ip),
        listen_address(Some(&Opened::Taken), ip),
        listen_address(Some(&Opened::NotHere), ip),
        listen_address(Some(&Opened::Failed("denied".into())), ip),
    ];
    assert_eq!(outcomes(found), [Pass, Pass, Pass, Fail, Fail]);
}

#[test]
fn one_blocked_port_fails_and_one_that_nobody_could_try_does_not_pass() {
    let way = |member: &str, way: Option<RoundTrip>| (member.to_owned(), way);
    let fine = || way("infra1", Some(Ok(300)));
    let blocked = || way("infra2", Some(Err("no answer".into())));
    let found = [
        reach(&[fine()], &[]),
        reach(&[fine(), blocked()], &[]),
        reach(&[fine(), way("infra2", None)], &[]),
        reach(&[blocked(), way("infra2", None)], &[]),
        reach(&[], &[]),
    ];
    assert_eq!(
        outcomes(found.clone()),
        [Pass, Fail, Skipped, Fail, Skipped]
    );
    assert!(found[1].found.contains("infra2: no answer"));
    let fix = reach(&[blocked()], &["nftables".to_owned()]).fix.unwrap();
    assert!(fix.contains("nftables"), "{fix}");
}

#[test]
fn heartbeats_and_elections_have_time() {
    let found = [
        round_trip(Some(100_000), 100, 1000),
        round_trip(Some(100_001), 100, 2000),
        round_trip(Some(100_001), 200, 1000),
        round_trip(Some(500_000), 500, 1000),
        round_trip(Some(500_001), 500, 1000),
        round_trip(None, 100, 1000),
    ];
    assert_eq!(outcomes(found), [Pass, Warn, Warn, Warn, Fail, Skipped]);
    assert_eq!(recommended(300), (100, 1000));
    assert_eq!(recommended(100_001), (101, 1010));
    assert_eq!(recommended(9_000_000), (9000, 50_000));
}

#[test]
fn a_firewall_is_no_fault_as_long_as_it_lets_members_through() {
    let active = Ok(vec!["nftables".to_owned()]);
    let found = [
        firewall(&Err("not asked".to_owned()), Some(false)),
        firewall(&Ok(Vec::new()), None),
        firewall(&active, Some(false)),
        firewall(&active, Some(true)),
        firewall(&active, None),
    ];
    assert_eq!(outcomes(found), [Skipped, Pass, Pass, Warn, Warn]);
}

#[test]
fn numbers_are_shown_in_their_size() {
    assert_eq!(time(340), "340 us");
    assert_eq!(time(12_345), "12.3 ms");
    assert_eq!(time(1_234_567), "1234 ms");
    assert_eq!(bytes(16 * MIB), "16 MiB");
    assert_eq!(bytes(5 * GIB / 2), "2.5 GiB");
}
