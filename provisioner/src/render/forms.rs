//! Settings as a command line, an environment file and a configuration file.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use member_flags::{FlagDef, FlagError, Kind, Support};

use super::error::RenderError;
use super::flags::flags;
use super::server::Server;
use crate::fnv;
use crate::instance::Instance;
use crate::topology::{Bootstrap, Member, PeerTls, Settings, Topology};

/// The program that sets variables and becomes another.
pub const ENV: &str = "/usr/bin/env";
const DATA_DIR: &str = "ETCD_DATA_DIR";

/// The arguments of the member's process, as `--name=value`, without the program.
///
/// # Errors
/// The settings cannot be rendered for this server.
pub fn argv(
    topology: &Topology,
    member: &Member,
    instance: &Instance,
    server: Server,
) -> Result<Vec<String>, RenderError> {
    check(topology, member, server)?;
    let flags = flags(topology, member, instance)?;
    let mut args = match server {
        Server::Member => flags.to_args(),
        Server::Etcd { minor } => flags.to_args_for(minor).map_err(version(member, server))?,
    };
    args.extend(
        extras(member, server)?
            .into_iter()
            .map(|(def, value)| format!("--{}={value}", def.name)),
    );
    Ok(args)
}

/// What a member's process is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its argument vector, program first.
    pub argv: Vec<String>,
    /// The file that it reads. Its name changes with its text, so that the arguments tell whether all is as wanted.
    pub file: Option<(PathBuf, String)>,
}

/// The member's settings in the form that the topology asks for. `dir` is the member's directory.
///
/// # Errors
/// The settings cannot be rendered for this server.
pub fn given(
    topology: &Topology,
    member: &Member,
    instance: &Instance,
    server: Server,
    program: &Path,
    dir: &Path,
) -> Result<Given, RenderError> {
    let program = program.display().to_string();
    match topology.settings {
        Settings::Flags => {
            let mut all = vec![program];
            all.extend(argv(topology, member, instance, server)?);
            Ok(Given {
                argv: all,
                file: None,
            })
        }
        Settings::Env => {
            // env(1) sets them and becomes the program. The directory stays an argument: a process is found by it.
            let (data, mut variables): (Vec<_>, Vec<_>) = env(topology, member, instance, server)?
                .into_iter()
                .partition(|(name, _)| name == DATA_DIR);
            // As a running process is read: in an order of its own.
            variables.sort();
            let mut all = vec![ENV.to_owned()];
            all.extend(
                variables
                    .into_iter()
                    .map(|(name, value)| format!("{name}={value}")),
            );
            all.push(program);
            all.extend(data.into_iter().map(|(_, dir)| format!("--data-dir={dir}")));
            Ok(Given {
                argv: all,
                file: None,
            })
        }
        Settings::File => {
            let text = yaml(topology, member, instance, server)?;
            let path = dir.join(format!("settings-{:016x}.yaml", fnv::hash(text.as_bytes())));
            Ok(Given {
                argv: vec![program, format!("--config-file={}", path.display())],
                file: Some((path, text)),
            })
        }
    }
}

/// The settings as `ETCD_*` variables.
///
/// # Errors
/// The settings cannot be rendered for this server.
pub fn env(
    topology: &Topology,
    member: &Member,
    instance: &Instance,
    server: Server,
) -> Result<Vec<(String, String)>, RenderError> {
    check(topology, member, server)?;
    let flags = flags(topology, member, instance)?;
    let mut env = match server {
        Server::Member => flags.to_env(),
        Server::Etcd { minor } => flags.to_env_for(minor).map_err(version(member, server))?,
    };
    env.extend(
        extras(member, server)?
            .into_iter()
            .map(|(def, value)| (def.env_name(), value.to_owned())),
    );
    Ok(env)
}

/// The variables as an environment file that systemd and a shell read alike.
///
/// # Errors
/// The settings cannot be rendered for this server.
pub fn env_file(
    topology: &Topology,
    member: &Member,
    instance: &Instance,
    server: Server,
) -> Result<String, RenderError> {
    let mut out = String::new();
    for (name, value) in env(topology, member, instance, server)? {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name}={}", quote(&value));
    }
    Ok(out)
}

/// The settings as a file for `--config-file`.
///
/// # Errors
/// The settings cannot be rendered for this server.
pub fn yaml(
    topology: &Topology,
    member: &Member,
    instance: &Instance,
    server: Server,
) -> Result<String, RenderError> {
    check(topology, member, server)?;
    let flags = flags(topology, member, instance)?;
    let mut out = match server {
        Server::Member => flags.to_yaml(),
        Server::Etcd { minor } => flags.to_yaml_for(minor).map_err(version(member, server))?,
    };
    for (def, value) in extras(member, server)? {
        let _ = writeln!(out, "{}: {}", def.name, yaml_scalar(def.kind, value));
    }
    Ok(out)
}

/// What a server cannot do although it has the flags.
fn check(topology: &Topology, member: &Member, server: Server) -> Result<(), RenderError> {
    let by_srv = matches!(topology.bootstrap, Bootstrap::DnsSrv { .. });
    // It throws away what it finds for _etcd-server._tcp; found by running 3.4.23.
    if by_srv && topology.tls.peer == PeerTls::Off && server == (Server::Etcd { minor: (3, 4) }) {
        return Err(RenderError::PlainSrv {
            member: member.name.clone(),
            server: server.to_string(),
        });
    }
    Ok(())
}

fn version(member: &Member, server: Server) -> impl FnOnce(FlagError) -> RenderError {
    let member = member.name.clone();
    move |source| RenderError::Version {
        member,
        server: server.to_string(),
        source: Box::new(source),
    }
}

/// Flags that an upstream etcd has and `Flags` does not hold, because the included member refuses them.
fn extras(member: &Member, server: Server) -> Result<Vec<(&'static FlagDef, &str)>, RenderError> {
    let mut extras = Vec::new();
    for (name, value) in &member.flags {
        let Some(def) =
            member_flags::lookup(name).filter(|def| matches!(def.support, Support::Refused { .. }))
        else {
            continue;
        };
        let lacks = match server {
            // A refused flag at its default is accepted, as on the command line.
            Server::Member => !def.accepts(value),
            Server::Etcd { minor } => !def.exists_in(minor),
        };
        if lacks {
            return Err(RenderError::Unsupported {
                member: member.name.clone(),
                flag: name.clone(),
                server: server.to_string(),
            });
        }
        if server != Server::Member {
            extras.push((def, value.as_str()));
        }
    }
    Ok(extras)
}

/// One line for a POSIX shell: program and arguments.
pub fn shell_line(program: &str, args: &[String]) -> String {
    let mut out = quote(program);
    for arg in args {
        out.push_str(" \\\n  ");
        out.push_str(&quote(arg));
    }
    out
}

/// Quotes one word for a shell and for systemd's environment files where that is needed.
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn yaml_scalar(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Bool | Kind::Uint | Kind::Uint32 | Kind::Uint64 | Kind::Int | Kind::Int64 => {
            text.to_owned()
        }
        // JSON strings are YAML strings.
        _ => serde_json::Value::from(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_when_a_shell_would_touch_them() {
        assert_eq!(quote("--name=infra0"), "--name=infra0");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("it's"), "'it'\\''s'");
        assert_eq!(quote("https://[::1]:2379"), "'https://[::1]:2379'");
    }
}
