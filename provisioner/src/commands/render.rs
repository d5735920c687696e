//! `render`: prints each member's settings and touches nothing.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::cli::{RenderArgs, RenderFormat};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::instance::{Instance, VERSION};
use crate::output::{Document, Table};
use crate::render::{self, Server};
use crate::topology::{self, Binary, Topology};

#[derive(Serialize)]
struct Rendered {
    cluster: String,
    /// Whether ports and paths are made up, because the cluster has no instance yet.
    placeholder: bool,
    members: Vec<RenderedMember>,
}

#[derive(Serialize)]
struct RenderedMember {
    name: String,
    binary: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    env: Option<serde_json::Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    yaml: Option<String>,
    #[serde(skip)]
    text: String,
}

/// What is of the cluster, not of a member.
#[derive(Serialize)]
struct Whole {
    cluster: String,
    placeholder: bool,
    text: String,
}

impl Document for Whole {
    fn table(&self) -> Table {
        Table::text(self.text.clone())
    }
}

impl Document for Rendered {
    fn table(&self) -> Table {
        // One member alone is a file that can be used as it is.
        if let [member] = self.members.as_slice() {
            return Table::text(member.text.clone());
        }
        let blocks: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("# {}\n{}", member.name, member.text))
            .collect();
        Table::text(blocks.join("\n"))
    }

    fn lines(&self) -> Vec<Value> {
        self.members
            .iter()
            .filter_map(|member| serde_json::to_value(member).ok())
            .collect()
    }
}

/// Runs `render`.
///
/// # Errors
/// The topology is invalid, a member is unknown, or the remembered instance cannot be read.
pub fn run(args: &RenderArgs, context: &Context) -> Result<ExitCode, Error> {
    let loaded = topology::load(&args.file)?;
    loaded.warn(&context.output);
    let topology = &loaded.topology;
    if let Some(unknown) = args
        .member
        .iter()
        .find(|name| topology.members.iter().all(|member| member.name != **name))
    {
        let names: Vec<&str> = topology
            .members
            .iter()
            .map(|member| member.name.as_str())
            .collect();
        return Err(Error::usage(
            format!("{} has no member {unknown}", topology.name),
            format!("its members are {}", names.join(", ")),
        ));
    }
    let known = remembered(&context.cluster_dir(&topology.name), topology)?;
    let placeholder = known.is_none();
    let instance = known.unwrap_or_else(|| render::placeholder(topology));
    if placeholder {
        context.output.detail(format!(
            "{} does not exist yet: ports, token and paths are placeholders",
            topology.name
        ));
    }
    if args.format == RenderFormat::DnsZone && !render::has_records(topology) {
        return Err(Error::usage(
            format!(
                "{} has no DNS records: its members advertise addresses and find each other without the DNS",
                topology.name
            ),
            "write names into `address`, or [bootstrap] method = \"dns-srv\" and a domain",
        ));
    }
    let whole = match args.format {
        RenderFormat::DnsZone => Some(render::zone(topology, &instance)),
        RenderFormat::KubeApiserver => {
            Some(render::kube_apiserver(topology, &instance).join("\n") + "\n")
        }
        RenderFormat::Flags | RenderFormat::Env | RenderFormat::Yaml => None,
    };
    if let Some(text) = whole {
        context.output.data(&Whole {
            cluster: topology.name.clone(),
            placeholder,
            text,
        })?;
        return Ok(ExitCode::Ok);
    }
    let mut members = Vec::new();
    for member in topology
        .members
        .iter()
        .filter(|member| args.member.is_empty() || args.member.contains(&member.name))
    {
        let server = Server::assumed(&member.binary, args.etcd_version);
        let binary = match &member.binary {
            Binary::Included => "member".to_owned(),
            Binary::Path(path) => path.display().to_string(),
        };
        let mut rendered = RenderedMember {
            name: member.name.clone(),
            binary,
            args: None,
            env: None,
            yaml: None,
            text: String::new(),
        };
        match args.format {
            RenderFormat::Flags => {
                let argv = render::argv(topology, member, &instance, server)?;
                rendered.text = render::shell_line(&rendered.binary, &argv) + "\n";
                rendered.args = Some(argv);
            }
            RenderFormat::Env => {
                rendered.text = render::env_file(topology, member, &instance, server)?;
                let env = render::env(topology, member, &instance, server)?;
                rendered.env = Some(
                    env.into_iter()
                        .map(|(name, value)| (name, value.into()))
                        .collect(),
                );
            }
            RenderFormat::Yaml => {
                rendered.text = render::yaml(topology, member, &instance, server)?;
                rendered.yaml = Some(rendered.text.clone());
            }
            RenderFormat::DnsZone | RenderFormat::KubeApiserver => {}
        }
        members.push(rendered);
    }
    context.output.data(&Rendered {
        cluster: topology.name.clone(),
        placeholder,
        members,
    })?;
    Ok(ExitCode::Ok)
}

/// The cluster's own instance, if it has one that knows all members of the file.
fn remembered(dir: &Path, topology: &Topology) -> Result<Option<Instance>, Error> {
    let path = dir.join("instance.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    let instance: Instance = serde_json::from_str(&text)
        .map_err(|error| Error::because(format!("cannot read {}", path.display()), error))?;
    if instance.version != VERSION {
        return Err(Error::refused(
            format!(
                "{} has format {}, and this release knows format {VERSION}",
                path.display(),
                instance.version
            ),
            "use the release that wrote it, or another --state-dir",
        ));
    }
    Ok(Some(instance).filter(|instance| {
        topology
            .members
            .iter()
            .all(|member| instance.members.contains_key(&member.name))
    }))
}
