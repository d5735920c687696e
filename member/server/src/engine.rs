//! What the server asks of a storage engine beyond reading and writing: durable points and checkpoints.
//!
//! The server never links an engine; the composition root passes one in.

use std::io;
use std::path::{Path, PathBuf};

use member_state::Backend;

/// Opens, makes durable, exports and replaces the replicated state.
pub trait Engine: Send + Sync + 'static {
    /// What the state is kept in.
    type Backend: Backend;

    /// Opens the state of the last durable point.
    fn open(&self) -> io::Result<Self::Backend>;

    /// Returns after everything written so far is on disk.
    fn flush(&self, backend: &Self::Backend) -> io::Result<()>;

    /// Writes a complete copy of the state into `dir`, which does not exist yet. Cheap: hard links where possible.
    fn checkpoint(&self, backend: &Self::Backend, dir: &Path) -> io::Result<()>;

    /// Gives back the space of what was overwritten or deleted. Takes as long as rewriting everything does.
    fn defragment(&self, backend: &Self::Backend) -> io::Result<()>;

    /// A directory, on the state's own file system, for checkpoints on their way in and out. Empty after a start.
    fn scratch(&self) -> PathBuf;

    /// Makes the complete checkpoint in `dir` the state, atomically and durably, and opens it. A crash at any
    /// moment leaves either the old state or the new one.
    fn replace(&self, dir: &Path) -> io::Result<Self::Backend>;
}
