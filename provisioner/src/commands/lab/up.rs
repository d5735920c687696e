//! `lab up`

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use testbed::host::{Change, Lab};

use super::{flag, report};
use crate::apply::{Interrupt, Second};
use crate::context::{Context, cache_root};
use crate::duration;
use crate::error::{Error, ExitCode};
use crate::output::Format;
use crate::state::LabDir;

const DEFAULT_HOSTS: u8 = 3;

/// Brings up the lab, or what is missing of it.
pub(super) async fn up(
    name: &str,
    dir: &LabDir,
    wanted: Option<u8>,
    timeout: Duration,
    context: &Context,
) -> Result<ExitCode, Error> {
    let output = &context.output;
    let interrupt = Interrupt::listen(Second::Exits)?;
    let lock = dir.lock("lab up")?;
    let remembered = dir.load()?;
    let hosts = wanted.or(remembered).unwrap_or(DEFAULT_HOSTS);
    if let Some(has) = remembered.filter(|has| *has != hosts) {
        return Err(Error::usage(
            format!("lab {name} has {has} hosts, not {hosts}"),
            format!(
                "end it first with `provision lab down{}`, or choose another --name",
                flag(name)
            ),
        ));
    }
    let lab = Lab::new(dir.path(), hosts)?;
    let changed = !lab.look().complete();
    dir.save(hosts)?;
    let result = tokio::select! {
        result = bring_up(name, &lab, timeout, context) => result,
        () = interrupt.token().cancelled() => Err(interrupt.error()),
    };
    if let Err(error) = result {
        // Without its network nothing of it is of use; with it, the next run starts what is missing.
        let interrupted = matches!(error, Error::Interrupted | Error::Terminated);
        if !lab.look().base || (interrupted && remembered.is_none()) {
            lab.down().await?;
            dir.purge()?;
        }
        return Err(error);
    }
    drop(lock);
    let elapsed = duration::show(output.elapsed());
    if changed {
        output.note(format!("lab {name} is up ({elapsed})"));
        output.note(format!(
            "next: provision lab ssh{} {}",
            flag(name),
            lab.hosts()[0].name
        ));
    } else {
        output.note(format!("no change: lab {name} is up ({elapsed})"));
    }
    if output.format() != Format::Table {
        output.data(&report(name, &lab))?;
    }
    Ok(ExitCode::Ok)
}

async fn bring_up(
    name: &str,
    lab: &Lab,
    timeout: Duration,
    context: &Context,
) -> Result<(), Error> {
    let output = &context.output;
    let lines = RefCell::new(BTreeMap::new());
    let open = |key: &str| {
        lines
            .borrow_mut()
            .entry(key.to_owned())
            .or_insert_with(|| output.line(key));
    };
    let done = |key: &str, what: String| {
        if let Some(line) = lines.borrow_mut().remove(key) {
            line.done(what);
        }
    };
    open("network");
    let tell = |change: Change<'_>| match change {
        Change::Root(doing) => {
            if let Some(line) = lines.borrow().get("network") {
                line.set(doing);
            }
        }
        Change::Base => {
            done("network", "bridge, disks and keys".to_owned());
            open("dns");
        }
        Change::Dns => {
            open("dns");
            done("dns", "answers".to_owned());
        }
        Change::Starting(host) => open(&host.name),
        Change::Ready(host) => done(
            &host.name,
            format!("ready, {}, {}", host.domain, host.address),
        ),
    };
    let this = std::env::current_exe()
        .map_err(|source| Error::because("cannot find this program", source))?;
    let dns: Vec<OsString> = vec![this.clone().into(), "serve".into(), "dns".into()];
    let connect = [
        this.display().to_string(),
        "--state-dir".to_owned(),
        context.state_root.display().to_string(),
        "lab".to_owned(),
        "connect".to_owned(),
        "--name".to_owned(),
        name.to_owned(),
    ];
    Ok(lab
        .up(
            &cache_root()?.join("lab-root"),
            &dns,
            &connect,
            timeout,
            &tell,
        )
        .await?)
}
