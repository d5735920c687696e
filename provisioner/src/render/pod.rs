//! Members as static pods of the kubelet, as kubeadm's `etcd.yaml` has them.

use member_flags::{Scheme, Url};
use serde_json::{Value, json};

use super::container::{Image, Paths, needs_certificates, stands_alone};
use super::error::RenderError;
use super::flags::placed;
use super::urls::client_url;
use crate::instance::Instance;
use crate::topology::{Member, Topology};

// kubeadm's own places, with the names that certificates have there.
const PATHS: Paths = Paths {
    data: "/var/lib/etcd",
    certs: "/etc/kubernetes/pki/etcd",
};
/// Where the kubelet looks for manifests.
pub const MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";
const METRICS: &str = "listen-metrics-urls";
// Where kubeadm has etcd answer probes, without a certificate and on loopback alone.
const PROBED: &str = "http://127.0.0.1:2381";

/// One pod for each of these members.
///
/// # Errors
/// The settings cannot be rendered for the image's etcd, or two members live on one machine.
pub fn pods(
    topology: &Topology,
    members: &[&Member],
    instance: &Instance,
    image: &Image,
) -> Result<Vec<Value>, RenderError> {
    stands_alone(topology)?;
    for (index, member) in topology.members.iter().enumerate() {
        let same = |other: &&Member| other.address == member.address;
        if let Some(other) = topology.members[..index].iter().find(same) {
            return Err(RenderError::SharedMachine {
                members: (other.name.clone(), member.name.clone()),
                address: member.address.clone(),
            });
        }
    }
    members
        .iter()
        .map(|member| pod(topology, member, instance, image))
        .collect()
}

fn pod(
    topology: &Topology,
    member: &Member,
    instance: &Instance,
    image: &Image,
) -> Result<Value, RenderError> {
    let place = placed(instance, member)?;
    let (member, probed) = with_probed_port(member);
    let probe = |query: &str, failures: u32| {
        json!({
            "httpGet": {
                "host": probed.host,
                "port": probed.port,
                "path": format!("/health{query}"),
                "scheme": "HTTP",
            },
            "initialDelaySeconds": 10,
            "periodSeconds": 10,
            "timeoutSeconds": 15,
            "failureThreshold": failures,
        })
    };
    let mut volumes = vec![json!({
        "name": "etcd-data",
        "hostPath": { "path": PATHS.data, "type": "DirectoryOrCreate" },
    })];
    let mut mounts = vec![json!({ "name": "etcd-data", "mountPath": PATHS.data })];
    if needs_certificates(topology) {
        volumes.push(json!({
            "name": "etcd-certs",
            "hostPath": { "path": PATHS.certs, "type": "DirectoryOrCreate" },
        }));
        mounts.push(json!({ "name": "etcd-certs", "mountPath": PATHS.certs, "readOnly": true }));
    }
    let mut command = PATHS.command(topology, &member, instance, image)?;
    // The kubelet expands $(NAME).
    for word in &mut command {
        *word = word.replace("$(", "$$(");
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "etcd",
            "namespace": "kube-system",
            "labels": { "component": "etcd", "tier": "control-plane" },
            "annotations": {
                "kubeadm.kubernetes.io/etcd.advertise-client-urls": client_url(topology, &member, place),
            },
        },
        "spec": {
            "containers": [{
                "name": "etcd",
                "image": image.name,
                "imagePullPolicy": "IfNotPresent",
                "command": command,
                // A full database and a lost quorum are not healed by a restart.
                "livenessProbe": probe("?exclude=NOSPACE&serializable=true", 8),
                "startupProbe": probe("?serializable=false", 24),
                "resources": { "requests": { "cpu": "100m", "memory": "100Mi" } },
                "volumeMounts": mounts,
            }],
            "hostNetwork": true,
            "priority": 2_000_001_000,
            "priorityClassName": "system-node-critical",
            "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } },
            "volumes": volumes,
        },
    }))
}

struct Probed {
    host: String,
    port: u16,
}

// The member with a plain URL for probes, which is one of its own if it has one.
fn with_probed_port(member: &Member) -> (Member, Probed) {
    let mut member = member.clone();
    let own = member.flags.get(METRICS).cloned().unwrap_or_default();
    let plain = own
        .split(',')
        .filter_map(|text| Url::parse(text).ok())
        .find(|url| url.scheme() == Scheme::Http);
    if let Some((url, port)) = plain.and_then(|url| Some((url.clone(), url.port()?))) {
        let host = match url.host() {
            "0.0.0.0" | "::" | "[::]" | "" => "127.0.0.1".to_owned(),
            host => host.trim_matches(['[', ']']).to_owned(),
        };
        return (member, Probed { host, port });
    }
    let all = if own.is_empty() {
        PROBED.to_owned()
    } else {
        format!("{own},{PROBED}")
    };
    member.flags.insert(METRICS.to_owned(), all);
    let host = "127.0.0.1".to_owned();
    (member, Probed { host, port: 2381 })
}
