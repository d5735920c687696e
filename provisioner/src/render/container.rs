//! What compose files and pods have in common: a member as stock etcd in a container, at paths that are the same for every member.

use std::path::{Path, PathBuf};

use super::error::RenderError;
use super::forms::argv;
use super::server::Server;
use super::urls::client_url;
use crate::instance::{Instance, Placement};
use crate::topology::{Bootstrap, ClientTls, Discovery, Member, Topology};

/// Where the images of etcd's own releases are.
const REPOSITORY: &str = "gcr.io/etcd-development/etcd";
/// A patch release of each minor one that has an image.
const PATCHES: [((u32, u32), u32); 3] = [((3, 4), 35), ((3, 5), 21), ((3, 6), 12)];

/// A release of etcd in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The image.
    pub name: String,
    /// Major and minor version of the etcd in it.
    pub minor: (u32, u32),
}

impl Image {
    /// The image of an etcd release, `None` where no patch release of the minor one is known.
    #[must_use]
    pub fn of_release(minor: (u32, u32), patch: Option<u32>) -> Option<Self> {
        let known = || PATCHES.iter().find(|(of, _)| *of == minor);
        let patch = patch.or_else(|| Some(known()?.1))?;
        Some(Self {
            name: format!("{REPOSITORY}:v{}.{}.{patch}", minor.0, minor.1),
            minor,
        })
    }
}

/// Paths inside a container.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paths {
    pub(super) data: &'static str,
    pub(super) certs: &'static str,
}

impl Paths {
    /// The member's place as its process sees it.
    fn place(self, place: &Placement) -> Placement {
        Placement {
            data_dir: PathBuf::from(self.data),
            cert_dir: PathBuf::from(self.certs),
            host_dir: None,
            ..place.clone()
        }
    }

    /// The member's command line.
    pub(super) fn command(
        self,
        topology: &Topology,
        member: &Member,
        instance: &Instance,
        image: &Image,
    ) -> Result<Vec<String>, RenderError> {
        let mut inside = instance.clone();
        if let Some(place) = inside.members.get_mut(&member.name) {
            *place = self.place(place);
        }
        let server = Server::Etcd { minor: image.minor };
        let mut command = vec!["/usr/local/bin/etcd".to_owned()];
        command.extend(argv(topology, member, &inside, server)?);
        Ok(command)
    }

    /// The command that tells whether the member serves reads. It shows the member's own certificate, which is good for clients
    /// too: etcd's gateway needs that.
    pub(super) fn health(
        self,
        topology: &Topology,
        member: &Member,
        place: &Placement,
    ) -> Vec<String> {
        let inside = self.place(place);
        let path = |path: &Path| path.display().to_string();
        let mut command = vec![
            "/usr/local/bin/etcdctl".to_owned(),
            format!("--endpoints={}", client_url(topology, member, &inside)),
        ];
        let tls = topology.tls.client;
        if tls == ClientTls::Auto {
            command.push("--insecure-skip-tls-verify".to_owned());
        }
        if tls.is_signed() {
            command.push(format!("--cacert={}", path(&inside.ca_cert())));
        }
        if tls == ClientTls::Mutual {
            let files = inside.server();
            command.push(format!("--cert={}", path(&files.cert)));
            command.push(format!("--key={}", path(&files.key)));
        }
        command.extend(["endpoint", "health"].map(str::to_owned));
        command
    }
}

/// Whether members need certificates that somebody has to bring.
pub(super) fn needs_certificates(topology: &Topology) -> bool {
    topology.tls.peer.is_signed() || topology.tls.client.is_signed()
}

/// Refuses what only `provision` can run.
///
/// # Errors
/// The members find each other through a service that `provision` runs beside them.
pub fn stands_alone(topology: &Topology) -> Result<(), RenderError> {
    match topology.bootstrap {
        Bootstrap::Discovery {
            service: Discovery::BuiltIn(_),
            ..
        } => Err(RenderError::BuiltInDiscovery),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_release_that_is_named_is_taken() {
        let name = |minor, patch| Image::of_release(minor, patch).map(|image| image.name);
        assert_eq!(
            name((3, 5), Some(1)).unwrap(),
            "gcr.io/etcd-development/etcd:v3.5.1"
        );
        assert!(name((3, 6), None).unwrap().contains(":v3.6."));
        assert_eq!(name((3, 9), None), None);
        assert!(name((3, 9), Some(0)).is_some());
    }
}
