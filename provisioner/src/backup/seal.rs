//! Encryption of backups with age: to X25519 recipients, as the bytes come.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use age::stream::StreamWriter;
use age::x25519;
use age::{DecryptError, Decryptor, Encryptor, IdentityFile};

use crate::error::Error;

const MAGIC: &[u8] = b"age-encryption.org/";

/// Who can read a backup. Nobody named: everybody who can read the file.
#[derive(Clone, Debug, Default)]
pub struct Recipients {
    texts: Vec<String>,
    keys: Vec<x25519::Recipient>,
}

/// Why text names no recipient.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no age recipient: {why}")]
pub struct NoRecipient {
    text: String,
    why: String,
}

impl Recipients {
    /// Reads `age1...` public keys.
    ///
    /// # Errors
    /// The first that is none.
    pub fn parse(texts: &[String]) -> Result<Self, NoRecipient> {
        let keys = texts.iter().map(|text| {
            text.parse().map_err(|why: &str| NoRecipient {
                // Somebody may have pasted the secret key.
                text: if text.starts_with("AGE-SECRET-KEY") {
                    "AGE-SECRET-KEY...".to_owned()
                } else {
                    text.clone()
                },
                why: why.to_owned(),
            })
        });
        Ok(Self {
            keys: keys.collect::<Result<_, _>>()?,
            texts: texts.to_vec(),
        })
    }

    /// Whether anything is encrypted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// As they were written.
    #[must_use]
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Writes to `file` what only they can read.
    pub(super) fn seal(&self, file: File) -> io::Result<Sealed> {
        let file = BufWriter::with_capacity(1 << 18, file);
        if self.keys.is_empty() {
            return Ok(Sealed::Plain(file));
        }
        let keys = self.keys.iter().map(|key| key as &dyn age::Recipient);
        let encryptor = Encryptor::with_recipients(keys).map_err(io::Error::other)?;
        Ok(Sealed::Encrypted(Box::new(encryptor.wrap_output(file)?)))
    }
}

/// A file that takes a backup.
pub(super) enum Sealed {
    Plain(BufWriter<File>),
    Encrypted(Box<StreamWriter<BufWriter<File>>>),
}

impl Write for Sealed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Encrypted(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Encrypted(file) => file.flush(),
        }
    }
}

impl Sealed {
    /// Writes what is left, and flushes the file to disk.
    pub(super) fn finish(self) -> io::Result<()> {
        let file = match self {
            Self::Plain(file) => file,
            Self::Encrypted(file) => file.finish()?,
        };
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()
    }
}

/// Opens a backup, encrypted or not, as the snapshot that it is.
///
/// # Errors
/// It cannot be read, or the identity is missing, unreadable or not one of its recipients'.
pub fn open(path: &Path, identity: Option<&Path>) -> Result<Box<dyn Read>, Error> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut file = BufReader::with_capacity(1 << 18, file);
    let head = file.fill_buf().map_err(Error::io("read", path))?;
    if !head.starts_with(MAGIC) {
        return Ok(Box::new(file));
    }
    let Some(identity) = identity else {
        return Err(Error::usage(
            format!("{} is encrypted", path.display()),
            "pass --identity FILE with the secret key of one of its recipients",
        ));
    };
    let keys = identities(identity)?;
    let keys = keys.iter().map(|key| &**key as &dyn age::Identity);
    let opened = Decryptor::new_buffered(file).and_then(|decryptor| decryptor.decrypt(keys));
    match opened {
        Ok(content) => Ok(Box::new(content)),
        Err(error @ DecryptError::NoMatchingKeys) => Err(Error::Failed {
            what: format!("no key in {} opens {}", identity.display(), path.display()),
            fix: Some(
                "pass the secret key of one of its recipients: `provision backup --list` names them"
                    .to_owned(),
            ),
            source: Some(error.into()),
        }),
        Err(error) => Err(damaged(path, error)),
    }
}

/// The error of a backup that cannot be decrypted to its end.
pub(super) fn damaged(path: &Path, why: impl Into<crate::error::Cause>) -> Error {
    Error::Failed {
        what: format!("{} is damaged", path.display()),
        fix: Some("use another backup: `provision backup --list` shows them".to_owned()),
        source: Some(why.into()),
    }
}

fn identities(path: &Path) -> Result<Vec<Box<dyn age::Identity + Send + Sync>>, Error> {
    let fix = || {
        Some("give the file that `age-keygen` wrote, with a line AGE-SECRET-KEY-1...".to_owned())
    };
    let file = File::open(path).map_err(Error::io("open", path))?;
    // The reason may quote the line that holds the secret.
    let none = || Error::Failed {
        what: format!("{} holds no age identity", path.display()),
        fix: fix(),
        source: None,
    };
    let keys = IdentityFile::from_buffer(BufReader::new(file)).map_err(|_| none())?;
    let keys = keys.into_identities().map_err(|_| none())?;
    if keys.is_empty() {
        Err(none())
    } else {
        Ok(keys)
    }
}

/// The path with a further extension.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use age::secrecy::ExposeSecret;

    fn identity(dir: &Path, name: &str) -> (PathBuf, String) {
        let key = x25519::Identity::generate();
        let path = dir.join(name);
        std::fs::write(&path, key.to_string().expose_secret()).unwrap();
        (path, key.to_public().to_string())
    }

    fn read(path: &Path, identity: Option<&Path>) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let mut content = open(path, identity)?;
        content
            .read_to_end(&mut bytes)
            .map_err(|error| damaged(path, error))?;
        Ok(bytes)
    }

    #[test]
    fn only_recipients_read_what_is_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let (mine, me) = identity(dir.path(), "mine");
        let (second, other) = identity(dir.path(), "second");
        let (wrong, _) = identity(dir.path(), "wrong");
        let path = dir.path().join("x.db.age");
        let content = vec![7; 200_000];
        let to = Recipients::parse(&[me, other]).unwrap();
        let mut sealed = to.seal(File::create(&path).unwrap()).unwrap();
        sealed.write_all(&content).unwrap();
        sealed.finish().unwrap();
        assert_eq!(read(&path, Some(&mine)).unwrap(), content);
        assert_eq!(read(&path, Some(&second)).unwrap(), content);
        let error = read(&path, None).unwrap_err();
        assert!(error.fix().unwrap().contains("--identity"), "{error}");
        let error = read(&path, Some(&wrong)).unwrap_err();
        assert!(error.to_string().contains("no key in"), "{error}");

        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(
            read(&path, Some(&mine))
                .unwrap_err()
                .to_string()
                .ends_with("is damaged")
        );
        bytes.truncate(last / 2);
        std::fs::write(&path, &bytes).unwrap();
        assert!(
            read(&path, Some(&mine))
                .unwrap_err()
                .to_string()
                .ends_with("is damaged")
        );
    }

    #[test]
    fn what_is_not_encrypted_needs_no_identity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let mut plain = Recipients::default()
            .seal(File::create(&path).unwrap())
            .unwrap();
        plain.write_all(b"abc").unwrap();
        plain.finish().unwrap();
        assert_eq!(read(&path, None).unwrap(), b"abc");
    }

    #[test]
    fn a_secret_key_among_the_recipients_is_not_repeated() {
        let key = "AGE-SECRET-KEY-1QQQQ".to_owned();
        let error = Recipients::parse(std::slice::from_ref(&key))
            .unwrap_err()
            .to_string();
        assert!(!error.contains(&key), "{error}");
        assert!(Recipients::parse(&["age1nonsense".to_owned()]).is_err());
        assert!(Recipients::parse(&[]).unwrap().is_empty());
    }
}
