//! From the command line to the exit code.

use std::ffi::c_int;
use std::io::{self, Write};
use std::process::ExitCode;

use member_flags::{Command, Flags};
use member_server::{Layout, MemberError, SERVER_VERSION, Server};
use rustix::fs::Mode;
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::signal::unix::{SignalKind, signal};

use crate::engine::RocksEngine;
use crate::logging;

/// Parses the command line, runs the member, and says how it ended.
pub(crate) fn run() -> ExitCode {
    if let Some(code) = crate::snapshot::run(std::env::args_os().skip(1)) {
        return code;
    }
    if let Some(code) = crate::gateway::run(std::env::args_os().skip(1)) {
        return code;
    }
    let read = |path: &std::path::Path| std::fs::read_to_string(path);
    let command = match member_flags::parse(std::env::args_os().skip(1), std::env::vars_os(), &read)
    {
        Ok(command) => command,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            if let Some(hint) = error.hint() {
                let _ = writeln!(io::stderr(), "{hint}");
            }
            return ExitCode::from(error.exit_code());
        }
    };
    match command {
        Command::Help => print(&member_flags::help()),
        Command::Version => print(&format!(
            "etcd Version: {SERVER_VERSION}\nmember Version: {}\n",
            env!("CARGO_PKG_VERSION")
        )),
        Command::Run(run) => {
            if let Err(error) = logging::init(&run.flags) {
                let _ = writeln!(io::stderr(), "cannot open the log output: {error}");
                return ExitCode::FAILURE;
            }
            for warning in run.warnings.iter().chain(&run.flags.warnings()) {
                tracing::warn!("{warning}");
            }
            serve(&run.flags)
        }
    }
}

fn print(text: &str) -> ExitCode {
    // A closed pipe is the reader's wish.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn serve(flags: &Flags) -> ExitCode {
    // RocksDB makes its files with the process's mask; data is for this user alone, as etcd's.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(until_stopped(flags)) {
        Ok(signal) => {
            runtime.shutdown_background();
            end_by(signal)
        }
        Err(error @ MemberError::Removed) => {
            tracing::warn!(%error, "server error");
            tracing::warn!("data-dir used by this member must be removed");
            runtime.shutdown_background();
            ExitCode::from(error.exit_code())
        }
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let (line, advice) = error.log_lines();
            tracing::error!(level = "fatal", error = %error, cause = source, "{line}");
            for line in advice {
                tracing::warn!("{line}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Ends the process. As etcd: its parent sees that the signal did it.
pub(crate) fn end_by(signal: c_int) -> ExitCode {
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    ExitCode::FAILURE
}

/// On small machines one thread does everything: a hop between threads costs as much as a request.
pub(crate) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut builder = if cores <= 4 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    builder.enable_all().thread_name("member").build()
}

/// Runs until a signal; which one.
async fn until_stopped(flags: &Flags) -> Result<c_int, MemberError> {
    let mut terminate = listen_for(SignalKind::terminate())?;
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    let dir = Layout::of(flags).state;
    let starting = Server::start(flags, move || RocksEngine::open(dir));
    let server = tokio::select! {
        server = starting => server?,
        _ = terminate.recv() => return Ok(SIGTERM),
        _ = interrupt.recv() => return Ok(SIGINT),
    };
    let signal = tokio::select! {
        _ = terminate.recv() => SIGTERM,
        _ = interrupt.recv() => SIGINT,
        error = server.failed() => {
            if matches!(error, MemberError::Removed) {
                server.stop().await;
            }
            return Err(error);
        }
    };
    tracing::info!(signal, "received signal; shutting down");
    tokio::select! {
        () = server.stop() => {}
        // The second signal does not wait. Nothing acknowledged is lost: the log has it.
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(signal)
}

fn listen_for(kind: SignalKind) -> Result<tokio::signal::unix::Signal, MemberError> {
    signal(kind).map_err(|error| MemberError::Consensus {
        reason: format!("cannot listen for signals: {error}"),
    })
}
