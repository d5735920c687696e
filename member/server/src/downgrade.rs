//! Announcing that the cluster goes back to the version before.
//!
//! Only the announcement is kept, with etcd's checks: clients and tools see it in the status. The member's
//! storage is its own, so no older etcd can take its place; data goes there by snapshot.

use member_state::{Downgrade, Op};

use crate::engine::Engine;
use crate::node::Node;
use crate::write::WriteError;

/// The version on which the cluster agrees, as far as downgrades go.
const CLUSTER: (u64, u64) = (3, 6);

/// Why a downgrade is refused. `Display` is etcd's message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DowngradeError {
    #[error("etcdserver: wrong downgrade target version format")]
    Format,
    #[error("etcdserver: invalid downgrade target version")]
    Target,
    #[error("etcdserver: cluster has a downgrade job in progress")]
    InProgress,
    #[error("etcdserver: no inflight downgrade job")]
    NoneInProgress,
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    State(#[from] member_state::Error),
}

/// Reads `3.5` or `3.5.1`, of which only the first two numbers count.
fn parse(version: &str) -> Option<(u64, u64)> {
    let core = version.split(['-', '+']).next()?;
    let numbers: Option<Vec<u64>> = core
        .split('.')
        .map(|part| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|_| digits)
        })
        .collect();
    match numbers?.as_slice() {
        [major, minor] | [major, minor, _] => Some((*major, *minor)),
        _ => None,
    }
}

/// Whether the cluster may go to `version`; the target as etcd prints it.
fn target(version: &str, in_progress: bool) -> Result<String, DowngradeError> {
    let (major, minor) = parse(version).ok_or(DowngradeError::Format)?;
    if (major, minor + 1) != CLUSTER {
        return Err(DowngradeError::Target);
    }
    if in_progress {
        return Err(DowngradeError::InProgress);
    }
    Ok(format!("{major}.{minor}.0"))
}

/// The cluster's version as the answers give it.
pub(crate) fn cluster_version() -> String {
    format!("{}.{}", CLUSTER.0, CLUSTER.1)
}

/// Whether a downgrade to `version` could begin.
pub(crate) fn validate<E: Engine>(node: &Node<E>, version: &str) -> Result<(), DowngradeError> {
    let in_progress = node.store().downgrade_target()?.is_some();
    target(version, in_progress).map(drop)
}

/// Announces a downgrade to `version`.
pub(crate) async fn enable<E: Engine>(node: &Node<E>, version: &str) -> Result<(), DowngradeError> {
    let in_progress = node.store().downgrade_target()?.is_some();
    let target = target(version, in_progress)?;
    tracing::warn!(
        "target-version" = target,
        "The downgrade is ready to go; take snapshots of the data to older members, this release cannot run as one"
    );
    node.write(Op::Downgrade(Downgrade { target })).await?;
    Ok(())
}

/// Calls a downgrade off.
pub(crate) async fn cancel<E: Engine>(node: &Node<E>) -> Result<(), DowngradeError> {
    if node.store().downgrade_target()?.is_none() {
        return Err(DowngradeError::NoneInProgress);
    }
    let target = String::new();
    node.write(Op::Downgrade(Downgrade { target })).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_version_before_is_a_target() {
        let told = |version: &str| target(version, false).map_err(|error| error.to_string());
        for good in ["3.5", "3.5.0", "3.5.17", "3.5.0-rc.1"] {
            assert_eq!(told(good), Ok("3.5.0".to_owned()), "{good}");
        }
        for other in ["3.4.0", "3.6.0", "3.7", "2.5.0"] {
            let error = "etcdserver: invalid downgrade target version".to_owned();
            assert_eq!(told(other), Err(error), "{other}");
        }
        for bad in ["", "3", "3.", "three", "3.5.0.1", "v3.5.0", "+3.5"] {
            let error = "etcdserver: wrong downgrade target version format".to_owned();
            assert_eq!(told(bad), Err(error), "{bad}");
        }
        assert_eq!(
            target("3.5.0", true).map_err(|error| error.to_string()),
            Err("etcdserver: cluster has a downgrade job in progress".to_owned())
        );
    }
}
