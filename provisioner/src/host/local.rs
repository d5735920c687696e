//! The machine that `provision` itself runs on.

mod attended;
mod binary;
mod claim;
mod network;
mod port;
mod process;
mod spawn;

pub use attended::{Attend, Attended};
pub use binary::{BinaryError, included_member, resolve};
pub use claim::Claim;
pub use network::{NetworkError, enter};
pub use port::{Listener, Owner, PortError, free_block, listeners, owner_of};
pub use process::{Process, find_by_argument, host_name};
pub use spawn::{
    Exit, Launch, Launched, LogTail, SpawnError, foreground_owns_terminal, replace_with,
    run_foreground, version_text,
};
