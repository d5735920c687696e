//! The remembered facts of one running instance of a cluster: what the topology does not fix and a restart must not change.
//!
//! Owns the shape and the paths inside it, not the file: the state directory reads and writes it. Invariant: every path is
//! absolute, and an instance of another format version is refused, never guessed at.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::topology::{Binary, Member, Role, SshHost};

/// The format that this release writes and reads.
pub const VERSION: u32 = 1;

/// One instance of a cluster; remade only by `down --purge` and `up`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Format of this record, [`VERSION`].
    pub version: u32,
    /// The cluster's name.
    pub cluster: String,
    /// `initial-cluster-token`: unique per instance, so that two clusters never mix.
    pub token: String,
    /// Directory of the CA and of the operator's certificate.
    pub pki_dir: PathBuf,
    /// By member name.
    pub members: BTreeMap<String, Placement>,
    /// Who formed the cluster, in the order of `initial-cluster`. Those members keep these settings whoever comes and goes later,
    /// and the cluster's ID follows from them. Empty until the membership changes: it is those who are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub founders: Vec<Founder>,
    /// Members that the topology has no more and that still have to leave the cluster, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub leaving: BTreeMap<String, Leaving>,
    /// Where members that are replaced on another machine were, until they are gone from there, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub former: BTreeMap<String, Leaving>,
    /// What members ran before the last upgrade, where that was another program, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub before_upgrade: BTreeMap<String, PathBuf>,
    /// How far the CA's replacement has come, while it is being replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<CaStage>,
    /// Ports of what runs beside the members, by what they are for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, u16>,
}

/// A member that took part in the first boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Founder {
    /// Its name.
    pub name: String,
    /// The peer URL that the others knew it by.
    pub peer_url: String,
}

/// What is needed of a member to take leave of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaving {
    /// Where it lives.
    pub placement: Placement,
    /// Its advertised host.
    pub address: String,
    /// Where it listens.
    pub listen: IpAddr,
    /// The machine that it lives on; `None`: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<SshHost>,
    /// Whether it was to stay a learner.
    pub learner: bool,
}

/// How a member comes into the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// It forms the cluster together with others.
    #[default]
    Founder,
    /// It has to be added to the cluster, and starts with an empty data directory.
    Joining,
    /// It was added and has been started with this `initial-cluster`.
    Joined(String),
}

/// How the other members reach one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// As the topology says.
    #[default]
    AsWanted,
    /// In plain text still.
    Plain,
    /// Over TLS, if the cluster has come to know that; the member itself listens in plain text.
    Unknown,
}

/// A stage of a CA's replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaStage {
    /// Everybody comes to trust the new CA beside the old one.
    Trust,
    /// Every certificate is issued anew, by the new CA.
    Reissue,
    /// Nobody trusts the old CA any more.
    Drop,
}

/// Where one member lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Port for clients.
    pub client_port: u16,
    /// Port for the other members.
    pub peer_port: u16,
    /// The member's `data-dir`.
    pub data_dir: PathBuf,
    /// Directory of the member's certificates and keys, on the operator's machine.
    pub cert_dir: PathBuf,
    /// The member's directory on its host, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_dir: Option<PathBuf>,
    /// How it comes into the cluster.
    #[serde(default, skip_serializing_if = "Origin::is_founder")]
    pub origin: Origin,
    /// How the others reach it, while the members go over to TLS one after another.
    #[serde(default, skip_serializing_if = "Reach::is_as_wanted")]
    pub reach: Reach,
}

/// A certificate and its key on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPaths {
    /// PEM certificate.
    pub cert: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
}

impl KeyPaths {
    fn in_dir(dir: &Path, stem: &str) -> Self {
        Self {
            cert: dir.join(format!("{stem}.crt")),
            key: dir.join(format!("{stem}.key")),
        }
    }
}

impl Instance {
    /// A new instance that has no members yet. `dir` is the cluster's state directory.
    pub fn new(cluster: impl Into<String>, token: impl Into<String>, dir: &Path) -> Self {
        Self {
            version: VERSION,
            cluster: cluster.into(),
            token: token.into(),
            pki_dir: dir.join("pki"),
            members: BTreeMap::new(),
            founders: Vec::new(),
            leaving: BTreeMap::new(),
            former: BTreeMap::new(),
            before_upgrade: BTreeMap::new(),
            rotation: None,
            services: BTreeMap::new(),
        }
    }

    /// Those who still have to leave, as members.
    pub fn leaving_members(&self) -> impl Iterator<Item = Member> {
        self.leaving
            .iter()
            .map(|(name, leaving)| leaving.member(name))
    }

    /// A member where it was before it was replaced on another machine, if it has not gone from there.
    #[must_use]
    pub fn former_member(&self, name: &str) -> Option<Member> {
        Some(self.former.get(name)?.member(name))
    }

    /// The place of a member that stays, comes or goes.
    #[must_use]
    pub fn place(&self, member: &str) -> Option<&Placement> {
        let leaving = || Some(&self.leaving.get(member)?.placement);
        self.members.get(member).or_else(leaving)
    }

    /// The CA. The key is absent on disk when the operator brings the CA; the certificate is always a copy here.
    pub fn ca(&self) -> KeyPaths {
        KeyPaths::in_dir(&self.pki_dir, "ca")
    }

    /// The CA that takes its place, while it is being replaced.
    pub fn next_ca(&self) -> KeyPaths {
        KeyPaths::in_dir(&self.pki_dir, "next-ca")
    }

    /// The certificate of the CA that is being replaced.
    pub fn old_ca(&self) -> PathBuf {
        self.pki_dir.join("old-ca.crt")
    }

    /// The certificates that members made for themselves, in one file: what clients trust when there is no CA.
    pub fn made_certs(&self) -> PathBuf {
        self.pki_dir.join("made-by-members.crt")
    }

    /// The certificate of a client that the topology names.
    pub fn client(&self, name: &str) -> KeyPaths {
        KeyPaths::in_dir(&self.pki_dir.join("clients"), name)
    }

    /// The operator's client certificate: what `env` and `exec` hand to etcdctl.
    pub fn operator(&self) -> KeyPaths {
        KeyPaths::in_dir(&self.pki_dir, "operator")
    }
}

impl Origin {
    fn is_founder(&self) -> bool {
        *self == Self::Founder
    }
}

impl Reach {
    fn is_as_wanted(&self) -> bool {
        *self == Self::AsWanted
    }
}

impl CaStage {
    /// What comes after it.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self {
            Self::Trust => Some(Self::Reissue),
            Self::Reissue => Some(Self::Drop),
            Self::Drop => None,
        }
    }
}

impl Leaving {
    fn member(&self, name: &str) -> Member {
        Member {
            name: name.to_owned(),
            role: if self.learner {
                Role::Learner
            } else {
                Role::Voter
            },
            binary: Binary::Included,
            host: self.host.clone(),
            address: self.address.clone(),
            listen: self.listen,
            zone: None,
            client_port: None,
            peer_port: None,
            flags: BTreeMap::new(),
        }
    }
}

impl Placement {
    /// The placement of a member of a topology. `dir` is the cluster's state directory.
    pub fn of(
        member: &Member,
        cluster: &str,
        dir: &Path,
        client_port: u16,
        peer_port: u16,
    ) -> Self {
        let here = Self::new(dir, &member.name, client_port, peer_port);
        match &member.host {
            Some(host) => here.on(host, cluster, &member.name),
            None => here,
        }
    }

    /// A placement under the cluster's state directory: `members/NAME/data` and `members/NAME/certs`.
    pub fn new(dir: &Path, member: &str, client_port: u16, peer_port: u16) -> Self {
        let home = dir.join("members").join(member);
        Self {
            client_port,
            peer_port,
            data_dir: home.join("data"),
            cert_dir: home.join("certs"),
            host_dir: None,
            origin: Origin::Founder,
            reach: Reach::AsWanted,
        }
    }

    // On a host, whose directories have the layout of a state directory.
    fn on(mut self, host: &SshHost, cluster: &str, member: &str) -> Self {
        let home = host
            .data_dir
            .join("clusters")
            .join(cluster)
            .join("members")
            .join(member);
        self.data_dir = home.join("data");
        self.host_dir = Some(home);
        self
    }

    /// With paths as they are on the member's own machine.
    #[must_use]
    pub fn seen_there(&self) -> Self {
        let mut there = self.clone();
        if let Some(home) = &self.host_dir {
            there.cert_dir = home.join("certs");
        }
        there
    }

    /// The certificate of the client port.
    pub fn server(&self) -> KeyPaths {
        KeyPaths::in_dir(&self.cert_dir, "server")
    }

    /// The certificate of the peer port, for both directions.
    pub fn peer(&self) -> KeyPaths {
        KeyPaths::in_dir(&self.cert_dir, "peer")
    }

    /// The certificate that the member makes for its client port under `--auto-tls`.
    pub fn made_cert(&self) -> PathBuf {
        self.data_dir.join("fixtures/client/cert.pem")
    }

    /// The CA certificate beside the member's own, so that a member needs one directory only.
    pub fn ca_cert(&self) -> PathBuf {
        self.cert_dir.join("ca.crt")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_its_own_json() {
        let dir = Path::new("/s/clusters/demo");
        let mut instance = Instance::new("demo", "demo-1", dir);
        instance
            .members
            .insert("infra0".into(), Placement::new(dir, "infra0", 2379, 2380));
        let text = serde_json::to_string(&instance).unwrap();
        assert_eq!(serde_json::from_str::<Instance>(&text).unwrap(), instance);
    }

    #[test]
    fn what_an_older_release_wrote_is_read_and_written_the_same() {
        let text = r#"{"version":1,"cluster":"a","token":"b","pki_dir":"/p","members":{"m0":{"client_port":1,"peer_port":2,"data_dir":"/d","cert_dir":"/c"}}}"#;
        let instance: Instance = serde_json::from_str(text).unwrap();
        assert_eq!(instance.members["m0"].origin, Origin::Founder);
        assert_eq!(serde_json::to_string(&instance).unwrap(), text);
    }

    #[test]
    fn unknown_fields_are_refused() {
        let text =
            r#"{"version":1,"cluster":"a","token":"b","pki_dir":"/p","members":{},"extra":1}"#;
        assert!(serde_json::from_str::<Instance>(text).is_err());
    }
}
