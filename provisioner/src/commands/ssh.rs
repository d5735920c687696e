//! `ssh`

use std::ffi::OsString;

use crate::cli::SshArgs;
use crate::cluster::Cluster;
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::host::local::replace_with;
use crate::host::remote::ssh_arguments;

/// Runs `ssh`: becomes ssh to the machine of a member, with what the topology says of it.
///
/// # Errors
/// There is no such member, it lives on this machine, or ssh does not run.
pub fn run(args: &SshArgs, context: &Context) -> Result<ExitCode, Error> {
    let cluster = Cluster::open(&args.target, context)?;
    let members = &cluster.topology.members;
    let member = members.iter().find(|member| member.name == args.member);
    let member = member.ok_or_else(|| {
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        Error::usage(
            format!(
                "cluster {} has no member {}",
                cluster.topology.name, args.member
            ),
            format!("its members are {}", names.join(", ")),
        )
    })?;
    let host = member.host.as_ref().ok_or_else(|| {
        Error::usage(
            format!("{} lives on this machine", member.name),
            format!(
                "run the command here, or see `provision logs {}`",
                args.target
            ),
        )
    })?;
    let mut command: Vec<OsString> = vec!["ssh".into()];
    command.extend(ssh_arguments(host).into_iter().map(OsString::from));
    command.extend(args.command.iter().cloned());
    let none: [(&str, &str); 0] = [];
    Err(Error::Failed {
        what: "ssh does not run".to_owned(),
        fix: Some("install an OpenSSH client".to_owned()),
        source: Some(replace_with(&command, none, &[]).into()),
    })
}
