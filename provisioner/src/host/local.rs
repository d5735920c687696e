//! The machine that `provision` itself runs on.

mod attended;
mod binary;
mod claim;
mod hold;
mod keep;
mod network;
mod port;
mod process;
mod put;
mod reach;
mod snapshot;
mod spawn;
mod survey;
mod units;

pub use attended::{Attend, Attended};
pub use binary::{BinaryError, included_member, resolve, restorer};
pub use claim::Claim;
pub use hold::{KeepCopy, ReadCopy, TakeLock};
pub use keep::{AwaitEnd, Disable, Kept, Lines, StartMember, StopMember, Tail, main_process};
pub use network::{NetworkError, enter};
pub use port::{Listener, Owner, PortError, free_block, listeners, owner_of};
pub(crate) use process::AFTER_KILL;
pub use process::{Process, find_by_argument, host_name};
pub use put::{
    Dir, EnsureUser, MakeDirs, PUT_HEADER, Put, Remove, SetAside, UserId, checksum, checksum_of,
};
pub use reach::{
    Clock, ClosePorts, OpenPorts, Opened, Reach, Resolve, Resolved, RoundTrip, now_us,
};
pub use snapshot::RestoreSnapshot;
pub use spawn::{
    Exit, Launch, Launched, LogTail, SpawnError, foreground_owns_terminal, replace_with,
    run_foreground, version_text,
};
pub use survey::{Directory, Survey, Surveyed, SyncTime, TimeSync};
pub use units::{Systemd, next_event};
