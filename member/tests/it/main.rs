//! The member as a process, against etcd's own client and etcd itself; and the shape of the workspace.

mod architecture;
mod differential;
mod gateway;
mod lease;
mod lock;
mod process;
mod server;
mod watch;
