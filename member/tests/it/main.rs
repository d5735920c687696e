//! The member as a process, against etcd's own client and etcd itself; and the shape of the workspace.

mod architecture;
mod auth;
mod bolt;
mod client;
mod cluster;
mod corruption;
mod differential;
mod discovery;
mod etcdctl;
mod fuzz;
mod gateway;
mod lease;
mod lock;
mod maint;
mod metrics;
mod process;
mod proxy;
mod server;
mod tcp_gateway;
mod tls;
mod v2;
mod watch;
