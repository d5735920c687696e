//! The certificates that members make for themselves, gathered for those who connect.

use super::error::PkiError;
use super::write::{NewFile, write_files};
use crate::instance::Instance;

/// Writes what the members have made so far into one file, which clients can be told to trust.
///
/// # Errors
/// A certificate cannot be read, or the file not be written.
pub fn collect(instance: &Instance) -> Result<(), PkiError> {
    let mut bytes = Vec::new();
    let leaving = instance.leaving.values().map(|gone| &gone.placement);
    for place in instance.members.values().chain(leaving) {
        let path = place.made_cert();
        match std::fs::read(&path) {
            Ok(pem) => bytes.extend(pem),
            // A member that has not started yet: it is gathered when it has.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(PkiError::io("read", &path)(error)),
        }
    }
    let file = NewFile {
        path: instance.made_certs(),
        bytes,
        mode: 0o644,
    };
    write_files(&instance.pki_dir, &[file])
}
