//! The port of the members among each other. Whoever passes as a member of the cluster may vote and replicate: here it
//! is what others send, and messages that are none.

use super::grpc::talk;
use super::wire::{framed, http2_call};
use super::{assert_well, each_seed, started};
use crate::process::etcdctl;

const METHODS: [&str; 4] = ["Append", "Control", "Forward", "Snapshot"];

#[test]
fn a_member_outlives_any_bytes_on_its_peer_port() {
    let server = started();
    let (ok, out, err) = etcdctl(&server.endpoint(), &["put", "k", "v", "-w", "json"]);
    assert!(ok, "{err}");
    let put: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let cluster = put["header"]["cluster_id"].as_u64().expect("an id");
    let cluster = format!("{cluster:x}");
    each_seed(|random| {
        for _ in 0..16 {
            let method = format!("/peerpb.Peer/{}", random.pick(&METHODS));
            // A message that is cut off is none, whoever sends it.
            let mut message = vec![0x0a, 0x7f];
            message.extend(random.bytes(60));
            let (metadata, mutable) = match random.below(4) {
                0 => (vec![("cluster-id", cluster.as_str())], false),
                1 => (
                    vec![("cluster-id", "1"), ("member-id", "ffffffffffffffff")],
                    true,
                ),
                _ => (Vec::new(), true),
            };
            let mut bytes = http2_call(&method, &metadata, &framed(&message));
            if random.one_in(4) {
                bytes = random.bytes(300);
            } else if mutable {
                random.mutate(&mut bytes);
            }
            talk(server.peer_port, &bytes);
        }
        assert_well(&server);
    });
    let (ok, out, err) = etcdctl(&server.endpoint(), &["get", "k"]);
    assert!(ok && out == "k\nv\n", "{err}");
}
