//! `--format systemd`: what `up` installs on a member's host.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::deployment::{Content, Deployment, FileOwner, HostFile, Program};
use crate::error::Error;
use crate::instance::{Instance, Placement};
use crate::output::{Document, Table};
use crate::render::{self, Server};
use crate::topology::{Binary, Member, SshHost, Topology};

/// The files of all members' hosts.
#[derive(Serialize)]
pub(super) struct Files {
    cluster: String,
    placeholder: bool,
    members: Vec<MemberFiles>,
}

#[derive(Serialize)]
struct MemberFiles {
    name: String,
    /// Where `up` would log in; none for a member on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    files: Vec<File>,
}

#[derive(Serialize)]
struct File {
    path: PathBuf,
    mode: String,
    owner: String,
    /// The text of a file that is rendered.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// Where the other files come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    copy_of: Option<PathBuf>,
}

impl Document for Files {
    fn table(&self) -> Table {
        let members: Vec<String> = self.members.iter().map(MemberFiles::text).collect();
        Table::text(members.join("\n"))
    }

    fn lines(&self) -> Vec<Value> {
        let members = self.members.iter();
        members
            .filter_map(|member| serde_json::to_value(member).ok())
            .collect()
    }
}

impl MemberFiles {
    // The files that have to be brought come first, as a list; then the text of each other.
    fn text(&self) -> String {
        let mut out = match &self.host {
            Some(host) => format!("# {} on {host}\n", self.name),
            None => format!("# {}\n", self.name),
        };
        for file in &self.files {
            let source = file.copy_of.as_ref();
            let source =
                source.map_or_else(String::new, |path| format!(", from {}", path.display()));
            if file.content.is_none() {
                out.push_str(&format!("# {}{source}\n", file.place()));
            }
        }
        for file in &self.files {
            if let Some(content) = &file.content {
                out.push_str(&format!("\n# {}\n{content}", file.place()));
            }
        }
        out
    }
}

impl File {
    fn new(file: &HostFile, host: &SshHost, placeholder: bool) -> Self {
        let (content, copy_of) = match &file.content {
            Content::Text(text) => (Some(text.clone()), None),
            Content::CopyOf(path) => (None, (!placeholder).then(|| path.clone())),
            Content::Program(path, _) => (None, Some(path.clone())),
        };
        Self {
            path: file.path.clone(),
            mode: format!("{:04o}", file.mode),
            owner: match file.owner {
                FileOwner::Installer => "root".to_owned(),
                FileOwner::Member => host.run_as.clone(),
            },
            content,
            copy_of,
        }
    }

    fn place(&self) -> String {
        format!("{} {} {}", self.path.display(), self.mode, self.owner)
    }
}

/// What each member's host would get. A member on this machine is shown as on a host with default directories.
pub(super) fn files(
    topology: &Topology,
    members: &[&Member],
    instance: &Instance,
    placeholder: bool,
    minor: (u32, u32),
) -> Result<Files, Error> {
    render::stands_alone(topology)?;
    let mut all = Vec::new();
    for member in members {
        let mut member = (*member).clone();
        let host = member.host.as_ref().map(SshHost::url);
        let there = member
            .host
            .get_or_insert_with(|| SshHost::at(&member.address))
            .clone();
        let mut instance = instance.clone();
        if let (None, Some(place)) = (&host, instance.members.get_mut(&member.name)) {
            let (cluster, certs) = (&topology.name, place.cert_dir.clone());
            let (client, peer) = (place.client_port, place.peer_port);
            let origin = place.origin.clone();
            *place = Placement::of(&member, cluster, Path::new("/"), client, peer);
            place.cert_dir = certs;
            place.origin = origin;
        }
        let deployment = deployment(topology, &member, &there, &instance, minor)?;
        all.push(MemberFiles {
            name: member.name,
            host,
            files: deployment
                .files()
                .map(|file| File::new(file, &there, placeholder))
                .collect(),
        });
    }
    Ok(Files {
        cluster: topology.name.clone(),
        placeholder,
        members: all,
    })
}

fn deployment(
    topology: &Topology,
    member: &Member,
    host: &SshHost,
    instance: &Instance,
    minor: (u32, u32),
) -> Result<Deployment, Error> {
    let here = match &member.binary {
        Binary::Included => Path::new("member"),
        Binary::Path(path) => path,
    };
    // `up` adds the program's checksum to its name; here nothing is read.
    let there = host
        .install_dir
        .join("bin")
        .join(here.file_name().unwrap_or_default());
    let server = Server::assumed(&member.binary, minor);
    let place = render::placed(instance, member)?;
    let home = place.host_dir.clone().unwrap_or_default();
    let given = render::given(topology, member, instance, server, &there, &home)?;
    let program = Program {
        here,
        there: &there,
        checksum: "",
    };
    Ok(Deployment::new(
        topology,
        host,
        &member.name,
        place,
        program,
        given,
    ))
}
