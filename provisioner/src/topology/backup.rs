//! `[backup]`: where backups go, who can read them, how long they are kept and when they are taken.

use std::path::PathBuf;

use super::model::Backup;
use super::schema;
use super::spans::Path;
use super::validate::Check;
use crate::backup::Recipients;
use crate::duration;

/// Checks `[backup]`.
pub(super) fn backup(raw: Option<&schema::Backup>, check: &mut Check<'_>) -> Option<Backup> {
    let raw = raw?;
    let path = Path::root().key("backup");
    let dir = raw.dir.as_ref().map(|dir| directory(dir, &path, check));
    if raw.keep == Some(0) {
        check.fault(
            &path.key("keep"),
            "`keep` cannot be 0",
            "keeps nothing",
            "the newest backup always stays: write 1 or more",
        );
    }
    let keep_for = raw.keep_for.as_ref().and_then(|text| {
        let parsed = duration::parse(text);
        if let Err(why) = &parsed {
            check.fault(
                &path.key("keep-for"),
                why.clone(),
                "not a duration",
                "write a duration such as 30d or 12h",
            );
        }
        parsed.ok()
    });
    for (index, text) in raw.encrypt_to.iter().enumerate() {
        if let Err(error) = Recipients::parse(std::slice::from_ref(text)) {
            check.fault(
                &path.key("encrypt-to").index(index),
                error.to_string(),
                "not a recipient",
                "write the public key that `age-keygen` prints, age1...",
            );
        }
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || " *-:,/.~+_".contains(c);
    if let Some(schedule) = &raw.schedule
        && (schedule.trim().is_empty() || !schedule.chars().all(plain))
    {
        check.fault(
            &path.key("schedule"),
            format!("{schedule:?} is no calendar event"),
            "stands in a systemd timer",
            "write daily, hourly or such as *-*-* 03:00:00: see `systemd-analyze calendar`",
        );
    }
    Some(Backup {
        dir,
        keep: raw.keep,
        keep_for,
        encrypt_to: raw.encrypt_to.clone(),
        verify: raw.verify,
        schedule: raw.schedule.clone(),
    })
}

fn directory(text: &str, path: &Path, check: &mut Check<'_>) -> PathBuf {
    if text.chars().any(char::is_control) {
        check.fault(
            &path.key("dir"),
            format!("{text:?} is not a directory"),
            "stands in a systemd unit",
            "write a path without line feeds and the like",
        );
    }
    check.file(text, &path.key("dir"))
}
