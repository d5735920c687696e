//! Talking to one member as an etcd client does.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use member_proto::etcdserverpb::cluster_client::ClusterClient;
use member_proto::etcdserverpb::kv_client::KvClient;
use member_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use member_proto::etcdserverpb::{
    DeleteRangeRequest, HashKvRequest, MemberAddRequest, MemberListRequest, MemberPromoteRequest,
    MemberRemoveRequest, MemberUpdateRequest, MoveLeaderRequest, PutRequest, RangeRequest,
    SnapshotRequest, SnapshotResponse, StatusRequest,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status, Streaming};
use tower::service_fn;

use super::facts::{ListedMember, Vitals};
use crate::error::Error;
use crate::host::remote::{Hosts, SshError};
use crate::instance::Instance;
use crate::topology::{ClientTls, Member, Topology};

/// How to reach the members of one cluster: scheme and certificates.
#[derive(Clone, Debug)]
pub struct Access {
    trust: Trust,
    hosts: Hosts,
}

/// What a member must show.
#[derive(Clone, Debug)]
enum Trust {
    /// Nothing: plain HTTP.
    Plain,
    /// The certificate that it made itself, in a file by the member's name.
    Made(BTreeMap<String, PathBuf>),
    /// One that the CA has signed.
    Signed(Box<ClientTlsConfig>),
}

/// A connection to one member.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

/// Why a member did not answer as hoped.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The member has not made its certificate, or it cannot be read.
    #[error("cannot read its certificate {}: {source}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its machine is out of reach.
    #[error(transparent)]
    Host(#[from] SshError),
    /// No connection, or no TLS on it.
    #[error("{}", chain(.0))]
    Connect(#[source] tonic::transport::Error),
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// The member answered with an error.
    #[error("{}", .0.message())]
    Refused(#[source] Box<Status>),
}

/// A hash of the keys, and which of them it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeysHash {
    /// The hash.
    pub hash: u32,
    /// From which revision on.
    pub compact_revision: i64,
}

/// A snapshot as it arrives.
#[derive(Debug)]
pub struct SnapshotStream(Streaming<SnapshotResponse>);

impl SnapshotStream {
    /// The next bytes, and how many follow them; `None` at the end. Waits at most for `limit`.
    pub async fn next(&mut self, limit: Duration) -> Result<Option<(Bytes, u64)>, CallError> {
        let message = within(limit, async {
            let message = self.0.message().await;
            message.map_err(|status| CallError::Refused(Box::new(status)))
        });
        let message = message.await?;
        Ok(message.map(|part| (part.blob, part.remaining_bytes)))
    }
}

impl CallError {
    /// Whether the member does not know the call.
    #[must_use]
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code() == Code::Unimplemented)
    }
}

impl Access {
    /// With the operator's certificate.
    pub fn signed(instance: &Instance, hosts: &Hosts) -> Result<Self, Error> {
        let read = |path: PathBuf| std::fs::read(&path).map_err(Error::io("read", &path));
        let operator = instance.operator();
        let identity = Identity::from_pem(read(operator.cert)?, read(operator.key)?);
        let ca = Certificate::from_pem(read(instance.ca().cert)?);
        let tls = ClientTlsConfig::new().ca_certificate(ca).identity(identity);
        Ok(Self {
            trust: Trust::Signed(Box::new(tls)),
            hosts: hosts.clone(),
        })
    }

    /// Reads the operator's certificates. They must have been written.
    pub fn read(topology: &Topology, instance: &Instance, hosts: &Hosts) -> Result<Self, Error> {
        let read = |path: PathBuf| std::fs::read(&path).map_err(Error::io("read", &path));
        let trust = match topology.tls.client {
            // On the way from plain text to TLS there are members that do not have TLS yet; once all have it, the port is `Both` no more.
            ClientTls::Off | ClientTls::Both => Trust::Plain,
            ClientTls::Auto => {
                let leaving = instance.leaving.iter();
                let leaving = leaving.map(|(name, gone)| (name, &gone.placement));
                let members = instance.members.iter().chain(leaving);
                Trust::Made(
                    members
                        .map(|(name, place)| (name.clone(), place.made_cert()))
                        .collect(),
                )
            }
            ClientTls::Server => {
                let ca = Certificate::from_pem(read(instance.ca().cert)?);
                Trust::Signed(Box::new(ClientTlsConfig::new().ca_certificate(ca)))
            }
            ClientTls::Mutual => return Self::signed(instance, hosts),
        };
        Ok(Self {
            trust,
            hosts: hosts.clone(),
        })
    }

    /// Connects to the client port of a member.
    pub async fn connect(
        &self,
        member: &Member,
        port: u16,
        limit: Duration,
    ) -> Result<Client, CallError> {
        let address = SocketAddr::new(dialled(member), port);
        let tls = match &self.trust {
            Trust::Plain => None,
            Trust::Signed(tls) => Some((**tls).clone()),
            Trust::Made(files) => {
                let path = files.get(&member.name).cloned().unwrap_or_default();
                let pem = std::fs::read(&path)
                    .map_err(|source| CallError::Certificate { path, source })?;
                Some(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
            }
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint =
            Endpoint::from_shared(format!("{scheme}://{address}")).map_err(CallError::Connect)?;
        let endpoint = match tls {
            // The certificate is for the advertised name, whichever address was dialled.
            Some(tls) => endpoint
                .tls_config(tls.domain_name(&member.address))
                .map_err(CallError::Connect)?,
            None => endpoint,
        };
        let endpoint = endpoint.connect_timeout(limit).tcp_nodelay(true);
        let connect = async {
            match &member.host {
                None => endpoint.connect().await.map_err(CallError::Connect),
                Some(host) => {
                    let agent = self.hosts.agent(host).await?;
                    let through = service_fn(move |_uri| {
                        let agent = agent.clone();
                        async move { agent.tunnel(address).await }
                    });
                    let connected = endpoint.connect_with_connector(through).await;
                    connected.map_err(CallError::Connect)
                }
            }
        };
        let channel = within(limit, connect).await?;
        Ok(Client { channel })
    }
}

impl Client {
    /// Connects to a plain port of this machine.
    pub async fn plain(address: SocketAddr, limit: Duration) -> Result<Self, CallError> {
        let endpoint =
            Endpoint::from_shared(format!("http://{address}")).map_err(CallError::Connect)?;
        let connect = async { endpoint.connect().await.map_err(CallError::Connect) };
        let channel = within(limit, connect).await?;
        Ok(Self { channel })
    }

    /// What the member says about itself; whether it is ready is another question.
    pub async fn status(&self, limit: Duration) -> Result<Vitals, CallError> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        let answer = within(limit, async {
            answered(client.status(StatusRequest {}).await)
        })
        .await?;
        let header = answer.header.unwrap_or_default();
        Ok(Vitals {
            cluster_id: header.cluster_id,
            id: header.member_id,
            leader: answer.leader,
            term: answer.raft_term,
            revision: header.revision,
            raft_index: answer.raft_index,
            // etcd 3.3 and older do not report it.
            applied_index: if answer.raft_applied_index == 0 {
                answer.raft_index
            } else {
                answer.raft_applied_index
            },
            db_size: answer.db_size,
            version: answer.version,
            is_learner: answer.is_learner,
            errors: answer.errors,
            not_ready: None,
        })
    }

    /// A linearizable read of a key that need not exist.
    pub async fn linearizable_read(&self, limit: Duration) -> Result<(), CallError> {
        self.get(b"\0", limit).await.map(drop)
    }

    /// Whether a key exists, read linearizably.
    pub async fn get(&self, key: &'static [u8], limit: Duration) -> Result<bool, CallError> {
        let mut client = KvClient::new(self.channel.clone());
        let request = RangeRequest {
            key: key.into(),
            count_only: true,
            ..RangeRequest::default()
        };
        within(limit, async { answered(client.range(request).await) })
            .await
            .map(|answer| answer.count > 0)
    }

    /// Writes a key.
    pub async fn put(
        &self,
        key: &'static [u8],
        value: Vec<u8>,
        limit: Duration,
    ) -> Result<(), CallError> {
        let mut client = KvClient::new(self.channel.clone());
        let request = PutRequest {
            key: key.into(),
            value: value.into(),
            ..PutRequest::default()
        };
        within(limit, async { answered(client.put(request).await) })
            .await
            .map(drop)
    }

    /// Deletes a key.
    pub async fn delete(&self, key: &'static [u8], limit: Duration) -> Result<(), CallError> {
        let mut client = KvClient::new(self.channel.clone());
        let request = DeleteRangeRequest {
            key: key.into(),
            ..DeleteRangeRequest::default()
        };
        within(limit, async {
            answered(client.delete_range(request).await)
        })
        .await
        .map(drop)
    }

    /// The membership.
    pub async fn members(&self, limit: Duration) -> Result<Vec<ListedMember>, CallError> {
        let mut client = ClusterClient::new(self.channel.clone());
        let answer = within(limit, async {
            answered(
                client
                    .member_list(MemberListRequest {
                        linearizable: false,
                    })
                    .await,
            )
        })
        .await?;
        Ok(answer
            .members
            .into_iter()
            .map(|member| ListedMember {
                id: member.id,
                name: member.name,
                peer_urls: member.peer_ur_ls,
                client_urls: member.client_ur_ls,
                is_learner: member.is_learner,
            })
            .collect())
    }

    /// Adds a member that does not vote yet.
    pub async fn add_learner(&self, peer_url: &str, limit: Duration) -> Result<(), CallError> {
        let mut client = ClusterClient::new(self.channel.clone());
        let request = MemberAddRequest {
            peer_ur_ls: vec![peer_url.to_owned()],
            is_learner: true,
        };
        within(limit, async { answered(client.member_add(request).await) })
            .await
            .map(drop)
    }

    /// Has the cluster reach a member by other URLs.
    pub async fn update(
        &self,
        id: u64,
        peer_urls: Vec<String>,
        limit: Duration,
    ) -> Result<(), CallError> {
        let mut client = ClusterClient::new(self.channel.clone());
        let request = MemberUpdateRequest {
            id,
            peer_ur_ls: peer_urls,
        };
        within(limit, async {
            answered(client.member_update(request).await)
        })
        .await
        .map(drop)
    }

    /// Makes a learner a voter.
    pub async fn promote(&self, id: u64, limit: Duration) -> Result<(), CallError> {
        let mut client = ClusterClient::new(self.channel.clone());
        let request = MemberPromoteRequest { id };
        within(limit, async {
            answered(client.member_promote(request).await)
        })
        .await
        .map(drop)
    }

    /// Removes a member.
    pub async fn remove(&self, id: u64, limit: Duration) -> Result<(), CallError> {
        let mut client = ClusterClient::new(self.channel.clone());
        let request = MemberRemoveRequest { id };
        within(limit, async {
            answered(client.member_remove(request).await)
        })
        .await
        .map(drop)
    }

    /// The member's database, as an etcd snapshot.
    pub async fn snapshot(&self, limit: Duration) -> Result<SnapshotStream, CallError> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        let call = async { answered(client.snapshot(SnapshotRequest {}).await) };
        within(limit, call).await.map(SnapshotStream)
    }

    /// The hash of all keys that the member keeps up to a revision.
    pub async fn hash_kv(&self, revision: i64, limit: Duration) -> Result<KeysHash, CallError> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        let request = HashKvRequest { revision };
        let answer = within(limit, async { answered(client.hash_kv(request).await) }).await?;
        Ok(KeysHash {
            hash: answer.hash,
            compact_revision: answer.compact_revision,
        })
    }

    /// How many keys there were at a revision, 0 for now; read linearizably.
    pub async fn count(&self, revision: i64, limit: Duration) -> Result<i64, CallError> {
        let mut client = KvClient::new(self.channel.clone());
        let request = RangeRequest {
            key: b"\0".as_slice().into(),
            range_end: b"\0".as_slice().into(),
            revision,
            count_only: true,
            ..RangeRequest::default()
        };
        let call = async { answered(client.range(request).await) };
        within(limit, call).await.map(|answer| answer.count)
    }

    /// Asks the leader, which this member must be, to hand over to `target`.
    pub async fn move_leader(&self, target: u64, limit: Duration) -> Result<(), CallError> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        let request = MoveLeaderRequest { target_id: target };
        within(limit, async { answered(client.move_leader(request).await) })
            .await
            .map(drop)
    }
}

/// Where a member that runs on this host is dialled: where it listens. The name that others know it by need not resolve here.
pub(super) fn dialled(member: &Member) -> IpAddr {
    match member.listen {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or(Err(CallError::Late(limit)))
}

fn answered<T>(result: Result<tonic::Response<T>, Status>) -> Result<T, CallError> {
    result
        .map(tonic::Response::into_inner)
        .map_err(|status| CallError::Refused(Box::new(status)))
}

// The transport's own text is "transport error"; what happened is in its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
