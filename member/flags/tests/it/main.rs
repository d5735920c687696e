//! The flag vocabulary as a program meets it, and beside it a real etcd as the judge of texts and exit codes.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

mod cases;
mod config_file;
mod environment;
mod errors;
mod etcd;
mod round_trip;

use std::{ffi::OsString, fs, io, path::Path};

use member_flags::{Command, FlagError, Run, parse};

/// Parses arguments and variables; files are read from the file system.
fn command(args: &[&str], env: &[(&str, &str)]) -> Result<Command, FlagError> {
    let read = |path: &Path| -> io::Result<String> { fs::read_to_string(path) };
    parse(
        args.iter().map(OsString::from),
        env.iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value))),
        &read,
    )
}

/// Parses what must be a start.
fn run(args: &[&str], env: &[(&str, &str)]) -> Run {
    match command(args, env) {
        Ok(Command::Run(run)) => run,
        other => panic!("{args:?} {env:?}: {other:?}"),
    }
}

/// Parses a configuration file's text.
fn run_file(text: &str) -> Result<Run, FlagError> {
    let read = |_: &Path| -> io::Result<String> { Ok(text.to_owned()) };
    match parse(["--config-file=etcd.yaml"].map(OsString::from), [], &read) {
        Ok(Command::Run(run)) => Ok(run),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    }
}

/// Does what a member does with its command line on a first start, without a network.
fn first_start(args: &[&str], env: &[(&str, &str)]) -> Result<(), FlagError> {
    match command(args, env)? {
        Command::Run(run) => run
            .flags
            .check_first_start(&|host, _| Err(format!("lookup {host}: no such host")))
            .map(drop),
        Command::Help | Command::Version => Ok(()),
    }
}
