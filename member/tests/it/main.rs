//! The member as a process, against etcd's own client and etcd itself; and the shape of the workspace.

mod architecture;
mod auth;
mod differential;
mod process;
mod server;
