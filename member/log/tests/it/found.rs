//! A cluster that is founded over a state that exists.

use std::collections::BTreeMap;

use member_log::{Identity, Log, LogError, Peer};
use openraft::storage::RaftLogStorage;

use crate::support::{block_on, entry, id, scratch, small};

#[test]
fn a_founded_log_begins_after_the_members() {
    let dir = scratch();
    let identity = Identity {
        cluster_id: 7,
        member_id: 1,
    };
    let peer = |port| Peer {
        peer_urls: vec![format!("http://127.0.0.1:{port}")],
    };
    let members = BTreeMap::from([(1, peer(1)), (2, peer(2))]);
    let log = Log::open(small(dir.path())).unwrap();
    let stored = log.found(identity, members.clone()).unwrap();
    assert_eq!(*stored.log_id(), Some(id(0, 0)));
    assert_eq!(stored.voter_ids().collect::<Vec<_>>(), [1, 2]);
    log.close();
    let log = Log::open(small(dir.path())).unwrap();
    assert!(log.has_history());
    assert_eq!(log.identity(), Some(identity));
    // Nobody can be brought here from an empty state by the log alone.
    let state = block_on(log.clone().get_log_state()).unwrap();
    assert_eq!(state.last_purged_log_id, Some(id(0, 0)));
    assert_eq!(state.last_log_id, Some(id(0, 0)));
    crate::support::append(&log, vec![entry(1, 1, 10)]).unwrap();
    assert!(matches!(
        log.found(identity, members),
        Err(LogError::Stopped { .. })
    ));
}
