//! `lab`

mod up;

use std::ffi::OsString;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use testbed::host::{Host, Lab};

use crate::apply::{Interrupt, Second};
use crate::cli::{DEFAULT_LAB, LabArgs, LabVerb};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::host::local::{replace_with, resolve};
use crate::output::{Document, Table};
use crate::runtime::runtime;
use crate::state::{LabDir, list_labs};

/// One lab.
#[derive(Debug, Serialize)]
struct Report {
    name: String,
    state: &'static str,
    dns: Part,
    hosts: Vec<Part>,
    ssh_config: PathBuf,
    zone_file: PathBuf,
}

/// A host, or the DNS server.
#[derive(Debug, Serialize)]
struct Part {
    name: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

impl Document for Report {
    fn table(&self) -> Table {
        let mut table = Table::new(["host", "state", "address"]);
        for part in self.hosts.iter().chain([&self.dns]) {
            let address = part.address.clone().unwrap_or_else(|| "-".to_owned());
            table.row([part.name.clone(), part.state.to_owned(), address]);
        }
        table.with_after(format!(
            "lab {} is {}\nssh -F {} infra0.example.com\n",
            self.name,
            self.state,
            self.ssh_config.display()
        ))
    }
}

#[derive(Debug, Serialize)]
struct List {
    labs: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    name: String,
    state: &'static str,
    hosts: usize,
    running: usize,
}

impl Document for List {
    fn table(&self) -> Table {
        if self.labs.is_empty() {
            return Table::text("no labs; bring one up with `provision lab up`");
        }
        let mut table = Table::new(["name", "state", "running"]);
        for lab in &self.labs {
            table.row([
                lab.name.clone(),
                lab.state.to_owned(),
                format!("{}/{}", lab.running, lab.hosts),
            ]);
        }
        table
    }
}

/// Runs `lab`.
///
/// # Errors
/// What the machine lacks, or what could not be brought up, found or ended.
pub fn run(args: &LabArgs, context: &Context) -> Result<ExitCode, Error> {
    Lab::check_machine()?;
    let dir = LabDir::new(&context.state_root, &args.name);
    let name = args.name.as_str();
    match &args.verb {
        LabVerb::Up { hosts, timeout } => {
            runtime()?.block_on(up::up(name, &dir, *hosts, *timeout, context))
        }
        LabVerb::Status => status(name, &known(name, &dir)?, context),
        LabVerb::List => list(context),
        LabVerb::Ssh { host, command } => ssh(&known(name, &dir)?, name, host, command),
        LabVerb::Exec { command } => exec(&known(name, &dir)?, command),
        LabVerb::Kill { host } => runtime()?.block_on(kill(name, &dir, host, context)),
        LabVerb::Start { host, timeout } => {
            runtime()?.block_on(start(name, &dir, host, *timeout, context))
        }
        LabVerb::Down => runtime()?.block_on(down(name, &dir, context)),
        LabVerb::Connect { host, port } => connect(&known(name, &dir)?, host, *port),
    }
}

fn known(name: &str, dir: &LabDir) -> Result<Lab, Error> {
    let hosts = dir.load()?.ok_or_else(|| unknown(name))?;
    Ok(Lab::new(dir.path(), hosts)?)
}

fn unknown(name: &str) -> Error {
    Error::usage(
        format!("there is no lab {name}"),
        format!(
            "bring it up with `provision lab up{}`, or look with `provision lab list`",
            flag(name)
        ),
    )
}

// What a command line needs to mean this lab.
fn flag(name: &str) -> String {
    if name == DEFAULT_LAB {
        String::new()
    } else {
        format!(" --name {name}")
    }
}

fn host<'l>(lab: &'l Lab, name: &str) -> Result<&'l Host, Error> {
    lab.host(name).ok_or_else(|| {
        let names: Vec<&str> = lab.hosts().iter().map(|host| host.name.as_str()).collect();
        Error::usage(
            format!("the lab has no host {name}"),
            format!("its hosts are {}", names.join(", ")),
        )
    })
}

fn runs(lab: &Lab, wanted: &Host) -> bool {
    let mut hosts = lab.hosts().iter().zip(lab.look().hosts);
    hosts.any(|(host, runs)| runs && host == wanted)
}

fn report(name: &str, lab: &Lab) -> Report {
    let word = |runs| if runs { "running" } else { "stopped" };
    let seen = lab.look();
    let hosts = lab.hosts().iter().zip(&seen.hosts);
    let any = seen.dns || seen.hosts.contains(&true);
    Report {
        name: name.to_owned(),
        state: match (seen.complete(), any) {
            (true, _) => "running",
            (false, true) => "partly running",
            (false, false) => "stopped",
        },
        dns: Part {
            name: "dns".to_owned(),
            state: word(seen.dns),
            address: Some(lab.own_address().to_string()),
        },
        hosts: hosts
            .map(|(host, runs)| Part {
                name: host.domain.clone(),
                state: word(*runs),
                address: Some(host.address.to_string()),
            })
            .collect(),
        ssh_config: lab.ssh_config(),
        zone_file: lab.zone_file(),
    }
}

fn status(name: &str, lab: &Lab, context: &Context) -> Result<ExitCode, Error> {
    context.output.data(&report(name, lab))?;
    Ok(if lab.look().complete() {
        ExitCode::Ok
    } else {
        ExitCode::Degraded
    })
}

fn list(context: &Context) -> Result<ExitCode, Error> {
    let mut labs = Vec::new();
    for name in list_labs(&context.state_root)? {
        let report = report(
            &name,
            &known(&name, &LabDir::new(&context.state_root, &name))?,
        );
        labs.push(Entry {
            name,
            state: report.state,
            hosts: report.hosts.len(),
            running: report
                .hosts
                .iter()
                .filter(|host| host.state == "running")
                .count(),
        });
    }
    context.output.data(&List { labs })?;
    Ok(ExitCode::Ok)
}

fn ssh(lab: &Lab, lab_name: &str, name: &str, command: &[OsString]) -> Result<ExitCode, Error> {
    let host = host(lab, name)?;
    if !runs(lab, host) {
        return Err(Error::failed(
            format!("host {} does not run", host.name),
            format!(
                "start it with `provision lab start{} {}`",
                flag(lab_name),
                host.name
            ),
        ));
    }
    let mut argv: Vec<OsString> = vec!["ssh".into(), "-F".into(), lab.ssh_config().into()];
    argv.push(host.domain.clone().into());
    argv.extend(command.iter().cloned());
    become_it(&argv)
}

fn exec(lab: &Lab, command: &[OsString]) -> Result<ExitCode, Error> {
    if let Some(program) = command.first() {
        resolve(Path::new(program)).map_err(|error| {
            Error::failed(error.to_string(), "check the command's name and PATH")
        })?;
    }
    become_it(&lab.inside(command.to_vec())?)
}

fn become_it(argv: &[OsString]) -> Result<ExitCode, Error> {
    let unchanged: [(&str, &str); 0] = [];
    let error = replace_with(argv, unchanged, &[]);
    Err(Error::because("the command does not run", error))
}

async fn kill(
    name: &str,
    dir: &LabDir,
    wanted: &str,
    context: &Context,
) -> Result<ExitCode, Error> {
    let lab = known(name, dir)?;
    let _lock = dir.lock("lab kill")?;
    let host = host(&lab, wanted)?;
    let line = context.output.line(&host.name);
    if !runs(&lab, host) {
        line.done("did not run");
        return Ok(ExitCode::Ok);
    }
    lab.kill(host).await?;
    line.done("killed; its disk stays");
    Ok(ExitCode::Ok)
}

async fn start(
    name: &str,
    dir: &LabDir,
    wanted: &str,
    timeout: Duration,
    context: &Context,
) -> Result<ExitCode, Error> {
    let lab = known(name, dir)?;
    let interrupt = Interrupt::listen(Second::Exits)?;
    let _lock = dir.lock("lab start")?;
    let host = host(&lab, wanted)?;
    let line = context.output.line(&host.name);
    if runs(&lab, host) {
        line.done("runs already");
        return Ok(ExitCode::Ok);
    }
    tokio::select! {
        started = lab.start(host, timeout) => started?,
        () = interrupt.token().cancelled() => {
            lab.kill(host).await?;
            return Err(interrupt.error());
        }
    }
    line.done(format!("ready, {}, {}", host.domain, host.address));
    Ok(ExitCode::Ok)
}

async fn down(name: &str, dir: &LabDir, context: &Context) -> Result<ExitCode, Error> {
    let remembered = dir.load()?;
    let lab = Lab::new(dir.path(), remembered.unwrap_or_default())?;
    // Its directory may have been deleted while it ran.
    if remembered.is_none() && !lab.exists() {
        return Err(unknown(name));
    }
    let lock = dir.lock("lab down")?;
    lab.down().await?;
    dir.purge()?;
    drop(lock);
    context
        .output
        .note(format!("lab {name} is gone, with its disks and keys"));
    Ok(ExitCode::Ok)
}

fn connect(lab: &Lab, name: &str, port: u16) -> Result<ExitCode, Error> {
    let host = host(lab, name)?;
    let address = SocketAddr::from((host.address, port));
    let stream = lab.connect(address)?.map_err(|source| {
        Error::because(
            format!("cannot connect to {} at {address}", host.domain),
            source,
        )
    })?;
    relay(&stream)
        .map_err(|source| Error::because(format!("the connection to {address} broke"), source))?;
    Ok(ExitCode::Ok)
}

// ssh ends the connection: by closing its side, or by going away.
fn relay(stream: &TcpStream) -> io::Result<()> {
    let mut there = stream.try_clone()?;
    std::thread::spawn(move || {
        let _broken_off = io::copy(&mut io::stdin().lock(), &mut there);
        let _closed_already = there.shutdown(Shutdown::Write);
    });
    let mut back = stream.try_clone()?;
    let mut stdout = io::stdout().lock();
    // Standard output of Rust waits for ends of lines, which ssh does not send.
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = io::Read::read(&mut back, &mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        io::Write::write_all(&mut stdout, &buffer[..count])?;
        io::Write::flush(&mut stdout)?;
    }
}
