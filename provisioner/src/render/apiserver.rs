//! What kube-apiserver is given to use a cluster.

use super::urls::{client_scheme, client_urls};
use crate::instance::Instance;
use crate::services::gateway_address;
use crate::topology::{ClientTls, Topology};

/// The client whose certificate kube-apiserver shows, if the topology has it; the operator's otherwise.
const CLIENT: &str = "kube-apiserver";
/// Its default, written out so that two Kubernetes clusters on one etcd are told apart on purpose.
const PREFIX: &str = "/registry";

/// The flags `--etcd-...` of kube-apiserver. Gateways stand in front of the members where there are some.
pub fn kube_apiserver(topology: &Topology, instance: &Instance) -> Vec<String> {
    let gateways = topology.gateways.iter().enumerate();
    let mut servers: Vec<String> = gateways
        .map(|(index, gateway)| {
            let address = gateway_address(gateway, index, instance);
            format!("{}://{address}", client_scheme(topology))
        })
        .collect();
    if servers.is_empty() {
        servers = client_urls(topology, instance);
    }
    let mut flags = vec![format!("--etcd-servers={}", servers.join(","))];
    let ca = match topology.tls.client {
        ClientTls::Off => None,
        ClientTls::Auto => Some(instance.made_certs()),
        ClientTls::Both | ClientTls::Server | ClientTls::Mutual => Some(instance.ca().cert),
    };
    flags.extend(ca.map(|path| format!("--etcd-cafile={}", path.display())));
    if topology.tls.client.has_clients_certificates() {
        let own = topology.tls.clients.iter().any(|name| name == CLIENT);
        let files = if own {
            instance.client(CLIENT)
        } else {
            instance.operator()
        };
        flags.push(format!("--etcd-certfile={}", files.cert.display()));
        flags.push(format!("--etcd-keyfile={}", files.key.display()));
    }
    flags.push(format!("--etcd-prefix={PREFIX}"));
    flags
}
