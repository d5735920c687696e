//! Static bootstrap: the initial members, their IDs, and the rules that they obey.
//!
//! Reads `--initial-cluster` only here, because a member that restarts over its data never does: a malformed list is
//! an error of the first start alone. Names are resolved by a closure of the caller. Nothing is asked of other members.
//!
//! Two errors begin with the sentence of etcd's clustering guide and go on with the one that etcd really prints.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    FlagError, Flags, Url, UrlError,
    error::{lengths_differ, resolved_differ},
    flags::DEFAULT_NAME,
    ids::{cluster_id, member_id},
};

/// Resolves a host name and a port to `IP:PORT`, IPv6 addresses in brackets; the error is the resolver's text.
pub type Resolve<'a> = dyn Fn(&str, u16) -> Result<String, String> + 'a;

/// `--initial-cluster-state`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// The listed members form a cluster together.
    New,
    /// The cluster runs, and has been told of this member.
    Existing,
}

impl ClusterState {
    /// The state's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Existing => "existing",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "new" => Some(Self::New),
            "existing" => Some(Self::Existing),
            _ => None,
        }
    }
}

/// The text of `--initial-cluster`, not yet read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialCluster(String);

impl InitialCluster {
    const DEFAULT: &str = "default=http://localhost:2380";

    /// Keeps the text; any text is taken, as on etcd's command line.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Writes a list; a member with several URLs takes several items.
    #[must_use]
    pub fn from_members<'a>(members: impl IntoIterator<Item = (&'a str, &'a Url)>) -> Self {
        Self(
            members
                .into_iter()
                .map(|(name, url)| format!("{name}={url}"))
                .collect::<Vec<_>>()
                .join(","),
        )
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is what etcd assumes without the flag.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.0 == Self::DEFAULT
    }

    /// Reads the list: the URLs of each name, sorted. As in etcd, empty items are passed over, blanks belong to names,
    /// an item without `=` has an empty URL, and a name that comes twice has both URLs.
    ///
    /// # Errors
    ///
    /// The first malformed URL in the order of names.
    pub fn members(&self) -> Result<BTreeMap<String, Vec<Url>>, UrlError> {
        let mut texts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for item in self.0.split(',').filter(|item| !item.is_empty()) {
            let (name, url) = item.split_once('=').unwrap_or((item, ""));
            texts.entry(name).or_default().push(url);
        }
        texts
            .into_iter()
            .map(|(name, urls)| {
                let mut urls = urls
                    .into_iter()
                    .map(Url::parse)
                    .collect::<Result<Vec<_>, _>>()?;
                urls.sort();
                Ok((name.to_owned(), urls))
            })
            .collect()
    }
}

impl Default for InitialCluster {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl fmt::Display for InitialCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A member of a new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialMember {
    /// Its ID.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its peer URLs, sorted.
    pub peer_urls: Vec<Url>,
}

/// What the first start of a member is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootstrap {
    /// Form a cluster.
    New {
        /// The cluster's ID.
        cluster_id: u64,
        /// This member's ID, which is among the members'.
        local_id: u64,
        /// All members, ascending by ID.
        members: Vec<InitialMember>,
    },
    /// Join a cluster. IDs are for the cluster to tell, because they depend on the second of each addition.
    Existing {
        /// The listed members' peer URLs by name, this member's included.
        members: BTreeMap<String, Vec<Url>>,
    },
}

impl Flags {
    /// The initial cluster that holds: the one given, or when it was left at its default and the name was not, this
    /// member alone with its advertised URLs.
    #[must_use]
    pub fn effective_initial_cluster(&self) -> InitialCluster {
        if self.initial_cluster.is_default() && self.name != DEFAULT_NAME {
            let name = if self.name.is_empty() {
                DEFAULT_NAME
            } else {
                self.name.as_str()
            };
            InitialCluster::from_members(
                self.initial_advertise_peer_urls
                    .iter()
                    .map(|url| (name, url)),
            )
        } else {
            self.initial_cluster.clone()
        }
    }

    /// Checks the rules of a first start over an empty data directory and computes the IDs.
    ///
    /// `resolve` is called only when the advertised URLs and the listed ones differ as texts, and only for host names
    /// other than `localhost`.
    ///
    /// # Errors
    ///
    /// The list is malformed, does not name this member, gives it other URLs than it advertises (new clusters only),
    /// or holds a URL twice.
    pub fn check_bootstrap(&self, resolve: &Resolve<'_>) -> Result<Bootstrap, FlagError> {
        let members = self
            .effective_initial_cluster()
            .members()
            .map_err(|source| FlagError::InitialCluster { source })?;
        let listed = members
            .get(&self.name)
            .ok_or_else(|| FlagError::NotListed {
                name: self.name.clone(),
            })?;
        if self.initial_cluster_state == ClusterState::New {
            self.check_advertised(listed, resolve)?;
        }
        check_unique(&members)?;
        if self.initial_cluster_state == ClusterState::Existing {
            return Ok(Bootstrap::Existing { members });
        }
        let mut members: Vec<InitialMember> = members
            .into_iter()
            .map(|(name, peer_urls)| {
                let texts: Vec<String> = peer_urls.iter().map(Url::to_string).collect();
                InitialMember {
                    id: member_id(&texts, &self.initial_cluster_token, None),
                    name,
                    peer_urls,
                }
            })
            .collect();
        members.sort_by_key(|member| member.id);
        let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
        let local_id = members
            .iter()
            .find(|member| member.name == self.name)
            .map_or(0, |member| member.id);
        Ok(Bootstrap::New {
            cluster_id: cluster_id(&ids),
            local_id,
            members,
        })
    }

    /// Finds the member that this one is to be in a running cluster: the one with the peer URLs that
    /// `--initial-cluster` gives to its name. `existing` are the cluster's members, by id, and `cluster` is the text
    /// by which an error names them.
    ///
    /// # Errors
    ///
    /// The running cluster has other members than those listed.
    pub fn match_existing(
        &self,
        listed: &BTreeMap<String, Vec<Url>>,
        existing: &[(u64, Vec<String>)],
        cluster: &str,
        resolve: &Resolve<'_>,
    ) -> Result<u64, FlagError> {
        let unlike = |reason: String| FlagError::ExistingCluster {
            cluster: cluster.to_owned(),
            reason,
        };
        if existing.len() != listed.len() {
            return Err(unlike("member count is unequal".to_owned()));
        }
        let mut own = None;
        for (id, texts) in existing {
            let no_match = |why: String| {
                unlike(format!(
                    "PeerURLs: no match found for existing member ({id:x}, [{}]), last resolver error ({why})",
                    texts.join(" ")
                ))
            };
            let mut urls = texts
                .iter()
                .map(|text| Url::parse(text))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| no_match(error.to_string()))?;
            urls.sort();
            let mut last = String::new();
            let found = listed.iter().find(|(_, listed)| {
                same_places(&urls, listed, resolve)
                    .map_err(|why| last = why)
                    .is_ok()
            });
            match found {
                Some((name, _)) if *name == self.name => own = Some(*id),
                Some(_) => {}
                None => return Err(no_match(last)),
            }
        }
        own.ok_or_else(|| FlagError::NotListed {
            name: self.name.clone(),
        })
    }

    fn check_advertised(&self, listed: &[Url], resolve: &Resolve<'_>) -> Result<(), FlagError> {
        let advertised = &self.initial_advertise_peer_urls;
        let Err(why) = same_places(advertised, listed, resolve) else {
            return Ok(());
        };
        let absent = |from: &[Url], of: &[Url]| -> BTreeSet<String> {
            of.iter()
                .filter(|url| !from.contains(url))
                .map(Url::to_string)
                .collect()
        };
        let join = |items: BTreeSet<String>| items.into_iter().collect::<Vec<_>>().join(",");
        let name = &self.name;
        let own_line =
            InitialCluster::from_members(advertised.iter().map(|url| (name.as_str(), url)));
        let not_advertised = absent(advertised, listed);
        let not_listed = absent(listed, advertised);
        let detail = if !not_advertised.is_empty() {
            let items = join(
                not_advertised
                    .into_iter()
                    .map(|url| format!("{name}={url}"))
                    .collect(),
            );
            format!(
                "--initial-cluster has {items} but missing from --initial-advertise-peer-urls={advertised} ({why})"
            )
        } else if !not_listed.is_empty() {
            format!(
                "--initial-advertise-peer-urls has {} but missing from --initial-cluster={own_line}",
                join(not_listed)
            )
        } else {
            format!("failed to resolve {advertised} to match --initial-cluster={own_line} ({why})")
        };
        Err(FlagError::AdvertiseMismatch {
            name: name.clone(),
            detail,
        })
    }
}

/// Whether two lists name the same places, by text or after resolution; the error is etcd's sentence.
fn same_places(advertised: &[Url], listed: &[Url], resolve: &Resolve<'_>) -> Result<(), String> {
    let texts = |urls: &[Url]| -> Vec<String> { urls.iter().map(Url::to_string).collect() };
    let (a, b) = (texts(advertised), texts(listed));
    if a.len() != b.len() {
        return Err(lengths_differ(&a, &b));
    }
    if a == b {
        return Ok(());
    }
    let resolved = |urls: &[Url]| -> Result<Vec<String>, String> {
        let mut resolved = urls
            .iter()
            .map(|url| resolve_url(url, resolve))
            .collect::<Result<Vec<_>, _>>()?;
        resolved.sort();
        Ok(resolved)
    };
    let (a, b) = (resolved(advertised)?, resolved(listed)?);
    match a.iter().zip(&b).find(|(a, b)| a != b) {
        Some((a, b)) => Err(resolved_differ(a, b)),
        None => Ok(()),
    }
}

/// etcd leaves addresses and `localhost` as they are.
fn resolve_url(url: &Url, resolve: &Resolve<'_>) -> Result<String, String> {
    match url.port() {
        Some(port)
            if url.ip().is_none() && url.host() != "localhost" && !url.scheme().is_unix() =>
        {
            Ok(format!(
                "{}://{}",
                url.scheme().as_str(),
                resolve(url.host(), port)?
            ))
        }
        _ => Ok(url.to_string()),
    }
}

fn check_unique(members: &BTreeMap<String, Vec<Url>>) -> Result<(), FlagError> {
    let mut seen = BTreeSet::new();
    if members.values().flatten().all(|url| seen.insert(url)) {
        return Ok(());
    }
    let mut pairs: Vec<String> = members
        .iter()
        .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")))
        .collect();
    pairs.sort();
    Err(FlagError::DuplicateUrl {
        cluster: pairs.join(","),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Urls;

    fn member(name: &str, advertised: &str, cluster: &str) -> Flags {
        Flags {
            name: name.to_owned(),
            initial_advertise_peer_urls: Urls::parse(advertised).unwrap(),
            initial_cluster: InitialCluster::new(cluster),
            ..Flags::default()
        }
    }

    fn no_network(host: &str, _: u16) -> Result<String, String> {
        Err(format!("lookup {host}: no such host"))
    }

    const THREE: &str =
        "infra0=http://10.0.1.10:2380,infra1=http://10.0.1.11:2380,infra2=http://10.0.1.12:2380";

    #[test]
    fn a_new_cluster_has_the_ids_of_etcd() {
        let flags = Flags {
            initial_cluster_token: "etcd-cluster-1".to_owned(),
            ..member("infra1", "http://10.0.1.11:2380", THREE)
        };
        let Bootstrap::New {
            cluster_id,
            local_id,
            members,
        } = flags.check_bootstrap(&no_network).unwrap()
        else {
            panic!("a new cluster");
        };
        assert_eq!(
            (cluster_id, local_id),
            (0xaccc_c891_2db0_cd57, 0xd5dc_5f8d_75d0_4e29)
        );
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["infra2", "infra0", "infra1"], "ascending by ID");
    }

    #[test]
    fn the_name_alone_makes_a_cluster_of_one() {
        let flags = member("abc", "http://127.0.0.1:2380", InitialCluster::DEFAULT);
        assert_eq!(
            flags.effective_initial_cluster().as_str(),
            "abc=http://127.0.0.1:2380"
        );
        assert!(flags.check_bootstrap(&no_network).is_ok());
        let unnamed = member("default", "http://127.0.0.1:2380", InitialCluster::DEFAULT);
        assert!(matches!(
            unnamed.check_bootstrap(&no_network),
            Err(FlagError::AdvertiseMismatch { .. })
        ));
    }

    #[test]
    fn a_host_name_may_stand_for_its_address() {
        let resolve = |host: &str, port: u16| match host {
            "infra0.example.com" => Ok(format!("10.0.1.10:{port}")),
            _ => Err("no such host".to_owned()),
        };
        let flags = member("infra0", "http://infra0.example.com:2380", THREE);
        assert!(flags.check_bootstrap(&resolve).is_ok());
        let flags = member("infra0", "http://other.example.com:2380", THREE);
        let error = flags.check_bootstrap(&resolve).unwrap_err().to_string();
        assert!(error.ends_with("(no such host)"), "{error}");
    }

    #[test]
    fn a_list_is_read_as_etcd_reads_it() {
        let names = |text: &str| {
            InitialCluster::new(text)
                .members()
                .map(|m| m.into_keys().collect::<Vec<_>>())
        };
        assert_eq!(names("a=http://h:1, b=http://h:2,").unwrap(), [" b", "a"]);
        assert_eq!(names("").unwrap(), [""; 0]);
        let merged = InitialCluster::new("a=http://h:2,a=http://h:1")
            .members()
            .unwrap();
        assert_eq!(
            merged["a"].iter().map(Url::as_str).collect::<Vec<_>>(),
            ["http://h:1", "http://h:2"]
        );
    }

    #[test]
    fn a_joining_member_may_advertise_other_urls() {
        let flags = Flags {
            initial_cluster_state: ClusterState::Existing,
            ..member("infra0", "http://127.0.0.1:2380", THREE)
        };
        assert!(
            matches!(flags.check_bootstrap(&no_network), Ok(Bootstrap::Existing { members }) if members.len() == 3)
        );
    }
}
