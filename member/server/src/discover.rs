//! A first start's way to the list of its members, from the flags, a discovery service or the DNS.

use member_discovery::Registration;
use member_flags::{Bootstrap, ClusterState, FlagError, Flags, Source};

use crate::member::MemberError;

/// The name that peers' certificates must carry, when it is not that of the URL's host. As in etcd: with SRV records and
/// no authority of the cluster's own, it is the domain, which the records cannot change.
pub(crate) fn peer_name(flags: &Flags) -> Option<String> {
    let domain = &flags.discovery.srv;
    (!domain.is_empty() && flags.peer_trusted_ca_file.is_none()).then(|| domain.clone())
}

/// etcd does the same before it registers.
pub(crate) fn check_writable(flags: &Flags) -> Result<(), MemberError> {
    let dir = flags.effective_data_dir();
    let touch = dir.join(".touch");
    std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::write(&touch, ""))
        .and_then(|()| std::fs::remove_file(&touch))
        .map_err(|source| MemberError::DataDir { dir, source })
}

/// Checks the bootstrap rules beside the runtime, because names are resolved by calls that block.
pub(crate) async fn check_bootstrap(flags: Flags) -> Result<Bootstrap, MemberError> {
    let checked =
        tokio::task::spawn_blocking(move || flags.check_bootstrap(&crate::resolve::address)).await;
    let checked = checked.map_err(|error| MemberError::Consensus {
        reason: error.to_string(),
    })?;
    Ok(checked?)
}

/// Finds the members in the way that the flags choose, and checks that this one may be among them.
pub(crate) async fn discover(
    flags: &Flags,
    registration: Registration,
) -> Result<Bootstrap, MemberError> {
    if flags.initial_cluster_state == ClusterState::Existing
        && matches!(flags.source(), Source::V2 | Source::V3)
    {
        return Err(FlagError::DiscoveryWhenJoining.into());
    }
    let flags = match member_discovery::find(flags, registration).await? {
        Some(found) => flags.with_found(found.cluster, &found.token),
        None => flags.clone(),
    };
    check_bootstrap(flags).await
}
