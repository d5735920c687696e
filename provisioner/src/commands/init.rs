//! `init`: writes one of the shipped topologies to start from.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::cli::{InitArgs, Template};
use crate::context::Context;
use crate::error::{Error, ExitCode};

fn text(template: Template) -> &'static str {
    match template {
        Template::SingleNode => include_str!("../../../topologies/single-node.toml"),
        Template::ThreeNode => include_str!("../../../topologies/three-node.toml"),
        Template::ThreeNodeTls => include_str!("../../../topologies/three-node-tls.toml"),
        Template::FiveNodeTls => include_str!("../../../topologies/five-node-tls.toml"),
        Template::FiveNodeKubernetes => {
            include_str!("../../../topologies/five-node-kubernetes.toml")
        }
        Template::SshThreeHost => include_str!("../../../topologies/ssh-three-host.toml"),
        Template::AutoTls => include_str!("../../../topologies/auto-tls.toml"),
        Template::MixedFlags => include_str!("../../../topologies/mixed-flags.toml"),
        Template::Environment => include_str!("../../../topologies/environment.toml"),
        Template::Static => include_str!("../../../topologies/static.toml"),
        Template::StaticTls => include_str!("../../../topologies/static-tls.toml"),
        Template::DiscoveryPrivate => include_str!("../../../topologies/discovery-private.toml"),
        Template::DiscoveryPublic => include_str!("../../../topologies/discovery-public.toml"),
        Template::DiscoveryV3 => include_str!("../../../topologies/discovery-v3.toml"),
        Template::DnsSrv => include_str!("../../../topologies/dns-srv.toml"),
        Template::DnsSrvTls => include_str!("../../../topologies/dns-srv-tls.toml"),
        Template::DnsSrvIp => include_str!("../../../topologies/dns-srv-ip.toml"),
        Template::Gateway => include_str!("../../../topologies/gateway.toml"),
    }
}

/// Runs `init`.
///
/// # Errors
/// The file exists or cannot be written.
pub fn run(args: &InitArgs, context: &Context) -> Result<ExitCode, Error> {
    let text = text(args.template);
    let path = &args.file;
    if path == Path::new("-") {
        context.output.raw(text.as_bytes())?;
        return Ok(ExitCode::Ok);
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Error::refused(
                format!("{} exists already", path.display()),
                "name another file, or print it: provision init -",
            ),
            _ => Error::io("write", path)(error),
        })?;
    file.write_all(text.as_bytes())
        .map_err(Error::io("write", path))?;
    context
        .output
        .note(format!("wrote {0}; next: provision up {0}", path.display()));
    Ok(ExitCode::Ok)
}
