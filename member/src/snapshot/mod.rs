//! `member snapshot`: what etcdctl and etcdutl do with snapshot files, for files of etcd and of ours.
//!
//! Options, texts and exit codes are those of etcd's tools.

mod import;
mod options;
mod restore;
mod status;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use options::Options;

const HELP: &str = "\
Usage:
  member snapshot status FILE [-w simple|table|json|fields]
  member snapshot restore FILE [options]

Options of restore:
  --name NAME                         this member's name (default \"default\")
  --initial-cluster LIST              all members, NAME=URL separated by commas (default \"default=http://localhost:2380\")
  --initial-advertise-peer-urls LIST  this member's peer URLs (default \"http://localhost:2380\")
  --initial-cluster-token TOKEN       (default \"etcd-cluster\")
  --data-dir DIR                      must not exist (default NAME.etcd)
  --wal-dir DIR                       directory of the log, if it is not in the data directory
  --skip-hash-check                   take a file without a hash: a copied database
  --bump-revision N                   add N to the revision; goes with --mark-compacted
  --mark-compacted                    make everything before the new revision unreadable
";

/// Bad arguments, as in etcd's tools.
const BAD_ARGUMENTS: u8 = 128;
/// An output format that the command does not have.
const BAD_FEATURE: u8 = 4;

/// Why a sub-command ended, and with which exit code.
#[derive(Debug)]
struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    fn new(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Texts of flags carry their cause, as etcd's do.
            if !text.ends_with(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        Self { text, code: 1 }
    }

    fn bad_arguments(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            code: BAD_ARGUMENTS,
        }
    }
}

/// Runs a sub-command if the arguments name one.
pub(crate) fn run(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if args.next()? != "snapshot" {
        return None;
    }
    let done = Options::parse(args).and_then(|options| match options.command() {
        Some("status") => status::run(&options),
        Some("restore") => restore::run(&options),
        _ => print(HELP),
    });
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "Error: {}", failure.text);
            ExitCode::from(failure.code)
        }
    })
}

fn print(text: &str) -> Result<(), Failure> {
    // A closed pipe is the reader's wish.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
}
