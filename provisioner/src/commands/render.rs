//! `render`: prints each member's settings and touches nothing.

mod files;

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::cli::{RenderArgs, RenderFormat};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::instance::{Instance, VERSION};
use crate::output::{Document, Table};
use crate::render::{self, Image, Server};
use crate::topology::{self, Binary, Member, Role, Topology};

/// What the Kubernetes guide recommends for production.
const KUBERNETES_VOTERS: usize = 5;

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
    let members: Vec<&Member> = topology
        .members
        .iter()
        .filter(|member| args.member.is_empty() || args.member.contains(&member.name))
        .collect();
    advise(args.format, topology, context);
    if args.format == RenderFormat::Systemd {
        let minor = args.etcd_version.minor;
        let files = files::files(topology, &members, &instance, placeholder, minor)?;
        context.output.data(&files)?;
        return Ok(ExitCode::Ok);
    }
    if let Some(text) = whole(args, topology, &members, &instance)? {
        context.output.data(&Whole {
            cluster: topology.name.clone(),
            placeholder,
            text,
        })?;
        return Ok(ExitCode::Ok);
    }
    let members = members
        .into_iter()
        .map(|member| settings(args, topology, member, &instance))
        .collect::<Result<_, _>>()?;
    context.output.data(&Rendered {
        cluster: topology.name.clone(),
        placeholder,
        members,
    })?;
    Ok(ExitCode::Ok)
}

/// What is one text for the whole cluster.
fn whole(
    args: &RenderArgs,
    topology: &Topology,
    members: &[&Member],
    instance: &Instance,
) -> Result<Option<String>, Error> {
    Ok(Some(match args.format {
        RenderFormat::DnsZone => render::zone(topology, instance),
        RenderFormat::KubeApiserver => render::kube_apiserver(topology, instance).join("\n") + "\n",
        RenderFormat::Compose => yaml(&render::compose(
            topology,
            members,
            instance,
            &image(args)?,
        )?)?,
        RenderFormat::StaticPod => {
            let mut text = String::new();
            let pods = render::pods(topology, members, instance, &image(args)?)?;
            for (member, pod) in members.iter().zip(&pods) {
                let place = render::MANIFEST;
                text.push_str(&format!(
                    "---\n# {place} of {} at {}\n{}",
                    member.name,
                    member.address,
                    yaml(pod)?
                ));
            }
            text
        }
        RenderFormat::AnsibleInventory => {
            let minor = args.etcd_version.minor;
            yaml(&render::inventory(topology, members, instance, minor)?)?
        }
        RenderFormat::Flags | RenderFormat::Env | RenderFormat::Yaml | RenderFormat::Systemd => {
            return Ok(None);
        }
    }))
}

fn yaml(value: &Value) -> Result<String, Error> {
    serde_yaml_ng::to_string(value).map_err(|error| Error::because("cannot write YAML", error))
}

fn image(args: &RenderArgs) -> Result<Image, Error> {
    let version = args.etcd_version;
    if let Some(name) = &args.image {
        return Ok(Image {
            name: name.clone(),
            minor: version.minor,
        });
    }
    Image::of_release(version.minor, version.patch).ok_or_else(|| {
        let (major, minor) = version.minor;
        Error::usage(
            format!("no image of etcd {major}.{minor} is known"),
            format!("give the patch as well, such as --etcd-version {major}.{minor}.0, or --image"),
        )
    })
}

/// Says what is not in what is rendered, or not as in the topology.
fn advise(format: RenderFormat, topology: &Topology, context: &Context) {
    let contained = matches!(format, RenderFormat::Compose | RenderFormat::StaticPod);
    if contained
        && topology
            .members
            .iter()
            .any(|member| member.binary == Binary::Included)
    {
        context.output.note(
            "the containers run stock etcd: the included member is not published as an image",
        );
    }
    if (contained || format == RenderFormat::Systemd) && !topology.gateways.is_empty() {
        context.output.note("the gateways are not part of it");
    }
    let voters = topology.members.iter();
    let voters = voters.filter(|member| member.role == Role::Voter).count();
    let kubernetes = matches!(
        format,
        RenderFormat::StaticPod | RenderFormat::KubeApiserver
    );
    if kubernetes && voters < KUBERNETES_VOTERS {
        context.output.note(format!(
            "the Kubernetes guide recommends five members in production, and {} has {voters}",
            topology.name
        ));
    }
}

/// The settings of one member.
fn settings(
    args: &RenderArgs,
    topology: &Topology,
    member: &Member,
    instance: &Instance,
) -> Result<RenderedMember, Error> {
    let server = Server::assumed(&member.binary, args.etcd_version.minor);
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
        RenderFormat::Env => {
            rendered.text = render::env_file(topology, member, instance, server)?;
            let env = render::env(topology, member, instance, server)?;
            rendered.env = Some(
                env.into_iter()
                    .map(|(name, value)| (name, value.into()))
                    .collect(),
            );
        }
        RenderFormat::Yaml => {
            rendered.text = render::yaml(topology, member, instance, server)?;
            rendered.yaml = Some(rendered.text.clone());
        }
        // The others are of the whole cluster.
        _ => {
            let argv = render::argv(topology, member, instance, server)?;
            rendered.text = render::shell_line(&rendered.binary, &argv) + "\n";
            rendered.args = Some(argv);
        }
    }
    Ok(rendered)
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
