//! The member as a process, against etcd's own client and etcd itself; and the shape of the workspace.

mod architecture;
mod bolt;
mod differential;
mod lease;
mod process;
mod server;
mod watch;
