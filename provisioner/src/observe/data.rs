//! Whose data is in a data directory.
//!
//! A member's own start-up check comes too late: it would run another cluster's data under this cluster's name. So the
//! directory carries a file that names its owner, and the write-ahead log of an upstream etcd is asked as well.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::facts::{DataDir, Knows};
use crate::instance::Instance;

// etcd ignores a file that it does not know here and says so once in its log.
const OWNER_FILE: &str = "provision.json";

/// Why a data directory cannot be looked at or claimed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", .path.display())]
pub struct DataError {
    /// A verb.
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The system's reason.
    #[source]
    pub source: io::Error,
}

/// Whose a data directory is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataOwner {
    /// The cluster.
    pub cluster: String,
    /// Its instance.
    pub token: String,
    /// The member.
    pub member: String,
}

impl DataOwner {
    /// A member of an instance.
    #[must_use]
    pub fn of(instance: &Instance, member: &str) -> Self {
        Self {
            cluster: instance.cluster.clone(),
            token: instance.token.clone(),
            member: member.to_owned(),
        }
    }
}

/// The file in a data directory that says whose it is, and its content.
pub fn owner_file(dir: &Path, owner: &DataOwner) -> Result<(PathBuf, Vec<u8>), DataError> {
    let path = dir.join(OWNER_FILE);
    match serde_json::to_vec(owner) {
        Ok(bytes) => Ok((path, bytes)),
        Err(error) => Err(DataError {
            action: "write",
            path,
            source: error.into(),
        }),
    }
}

/// Looks whether a directory holds the data of `me`. `cluster_id` is what the members' peer URLs and token amount to.
pub fn inspect(dir: &Path, me: &DataOwner, cluster_id: u64) -> Result<DataDir, DataError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| DataError {
            action,
            path,
            source,
        }
    };
    let foreign = |why: String| Ok(DataDir::Foreign { why });
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries.count(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(DataDir::Empty),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return foreign("it is not a directory".to_owned());
        }
        Err(error) => return Err(failed("read", dir)(error)),
    };
    if entries == 0 {
        return Ok(DataDir::Empty);
    }
    let path = dir.join(OWNER_FILE);
    let owner = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice::<DataOwner>(&bytes).ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("read", &path)(error)),
    };
    let Some(owner) = owner else {
        return foreign("it was not made by provision".to_owned());
    };
    if owner.cluster != me.cluster {
        return foreign(format!(
            "it belongs to member {} of cluster {}",
            owner.member, owner.cluster
        ));
    }
    if owner.token != me.token {
        return foreign(format!(
            "it belongs to an earlier cluster {} with token {}",
            owner.cluster, owner.token
        ));
    }
    if owner.member != me.member {
        return foreign(format!("it belongs to member {}", owner.member));
    }
    match wal_cluster_id(dir).map_err(failed("read", dir))? {
        Some(found) if found != cluster_id => foreign(format!(
            "its write-ahead log is of cluster ID {found:x}, and this cluster's is {cluster_id:x}"
        )),
        // etcd and the included member both keep what they write below this name.
        _ if dir.join("member").exists() => Ok(DataDir::Ours),
        _ => Ok(DataDir::Claimed),
    }
}

/// Makes the data directory and writes its owner, unless that is done.
pub fn claim(instance: &Instance, member: &str) -> Result<(), DataError> {
    let Some(placement) = instance.members.get(member) else {
        return Ok(());
    };
    let dir = &placement.data_dir;
    let (path, owner) = owner_file(dir, &DataOwner::of(instance, member))?;
    let write = || -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        if path.exists() {
            return Ok(());
        }
        let beside = dir.join("provision.json.new");
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(&owner)?;
        fs::rename(&beside, &path)
    };
    write().map_err(|source| DataError {
        action: "write",
        path: path.clone(),
        source,
    })
}

// Every segment of etcd's log opens with a checksum record and a metadata record that holds the IDs.
fn wal_cluster_id(dir: &Path) -> io::Result<Option<u64>> {
    let segments = wal_segments(dir)?;
    let Some(first) = segments.first() else {
        return Ok(None);
    };
    let mut head = Vec::new();
    fs::File::open(first)?.take(512).read_to_end(&mut head)?;
    Ok(metadata_cluster_id(&head))
}

/// What the last state record of etcd's log says. `None`: there is no such log.
pub(super) fn wal_end(dir: &Path) -> io::Result<Option<Knows>> {
    // A new segment begins with the state that the one before ended in.
    for segment in wal_segments(dir)?.iter().rev() {
        let last = Records(&fs::read(segment)?).filter_map(state).last();
        if last.is_some() {
            return Ok(last);
        }
    }
    Ok(None)
}

fn wal_segments(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir.join("member/wal")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut segments: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "wal"))
        .collect();
    segments.sort();
    Ok(segments)
}

fn metadata_cluster_id(bytes: &[u8]) -> Option<u64> {
    const METADATA: u64 = 1;
    let metadata = Records(bytes)
        .take(2)
        .find(|record| field(record, 1).and_then(Field::number) == Some(METADATA))?;
    field(field(metadata, 3)?.bytes()?, 2)?.number()
}

fn state(record: &[u8]) -> Option<Knows> {
    const STATE: u64 = 3;
    if field(record, 1)?.number()? != STATE {
        return None;
    }
    let state = field(record, 3)?.bytes()?;
    let number = |wanted| field(state, wanted).and_then(Field::number).unwrap_or(0);
    Some(Knows {
        term: number(1),
        index: number(3),
    })
}

/// The records of a segment, up to the first that is not whole.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<8>()?;
        let length = u64::from_le_bytes(*length);
        // The rest of a segment is zero.
        if length == 0 {
            return None;
        }
        // The low 56 bits are the record's length; with the top bit set, three more say how much it is padded.
        let size = usize::try_from(length & 0x00ff_ffff_ffff_ffff).ok()?;
        let padding = if length >> 63 == 1 {
            usize::try_from(length >> 56 & 7).ok()?
        } else {
            0
        };
        let record = rest.get(..size)?;
        self.0 = rest.get(size + padding..).unwrap_or_default();
        Some(record)
    }
}

#[derive(Clone, Copy)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn number(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Bytes(_) => None,
        }
    }

    fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) => None,
        }
    }
}

// The first field `wanted` of a protobuf message of numbers and byte strings, which is all that a log record has.
fn field(mut message: &[u8], wanted: u64) -> Option<Field<'_>> {
    loop {
        let key = varint(&mut message)?;
        let value = varint(&mut message)?;
        let found = match key & 7 {
            0 => Field::Number(value),
            2 => {
                let (bytes, rest) = message.split_at_checked(usize::try_from(value).ok()?)?;
                message = rest;
                Field::Bytes(bytes)
            }
            _ => return None,
        };
        if key >> 3 == wanted {
            return Some(found);
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Placement;

    fn instance(dir: &Path, token: &str) -> Instance {
        let mut instance = Instance::new("demo", token, dir);
        for name in ["infra0", "infra1"] {
            instance
                .members
                .insert(name.to_owned(), Placement::new(dir, name, 1, 2));
        }
        instance
    }

    fn inspected(instance: &Instance, member: &str, cluster_id: u64) -> Result<DataDir, DataError> {
        let owner = DataOwner::of(instance, member);
        inspect(&instance.members[member].data_dir, &owner, cluster_id)
    }

    fn why(found: DataDir) -> String {
        match found {
            DataDir::Foreign { why } => why,
            other => panic!("not foreign: {other:?}"),
        }
    }

    // A checksum record and a metadata record as etcd 3.4 frames them.
    fn wal(cluster_id: u64) -> Vec<u8> {
        let number = |mut value: u64| {
            let mut bytes = Vec::new();
            while value > 0x7f {
                bytes.push(u8::try_from(value & 0x7f | 0x80).unwrap());
                value >>= 7;
            }
            bytes.push(u8::try_from(value).unwrap());
            bytes
        };
        let frame = |record: Vec<u8>| {
            let padding = (8 - record.len() % 8) % 8;
            let mut length = record.len() as u64;
            if padding != 0 {
                length |= (0x80 | padding as u64) << 56;
            }
            [length.to_le_bytes().to_vec(), record, vec![0; padding]].concat()
        };
        let metadata = [vec![8], number(7), vec![16], number(cluster_id)].concat();
        let second = [
            vec![8, 1, 16],
            number(99),
            vec![26, u8::try_from(metadata.len()).unwrap()],
            metadata,
        ]
        .concat();
        [frame(vec![8, 4, 16, 0]), frame(second)].concat()
    }

    #[test]
    fn a_claimed_directory_is_ours_and_nobody_elses() {
        let root = tempfile::tempdir().unwrap();
        let ours = instance(root.path(), "t1");
        assert_eq!(inspected(&ours, "infra0", 5).unwrap(), DataDir::Empty);
        claim(&ours, "infra0").unwrap();
        assert_eq!(inspected(&ours, "infra0", 5).unwrap(), DataDir::Claimed);
        fs::create_dir(ours.members["infra0"].data_dir.join("member")).unwrap();
        assert_eq!(inspected(&ours, "infra0", 5).unwrap(), DataDir::Ours);
        assert!(
            why(inspected(&instance(root.path(), "t2"), "infra0", 5).unwrap()).contains("token t1")
        );

        fs::rename(&ours.members["infra0"].data_dir, root.path().join("aside")).unwrap();
        fs::create_dir_all(ours.members["infra1"].data_dir.parent().unwrap()).unwrap();
        fs::rename(root.path().join("aside"), &ours.members["infra1"].data_dir).unwrap();
        assert_eq!(
            why(inspected(&ours, "infra1", 5).unwrap()),
            "it belongs to member infra0"
        );
    }

    #[test]
    fn data_without_an_owner_is_foreign() {
        let root = tempfile::tempdir().unwrap();
        let ours = instance(root.path(), "t1");
        fs::create_dir_all(ours.members["infra0"].data_dir.join("member")).unwrap();
        assert_eq!(
            why(inspected(&ours, "infra0", 5).unwrap()),
            "it was not made by provision"
        );
    }

    #[test]
    fn the_log_of_another_cluster_gives_itself_away() {
        let root = tempfile::tempdir().unwrap();
        let ours = instance(root.path(), "t1");
        claim(&ours, "infra0").unwrap();
        let dir = ours.members["infra0"].data_dir.join("member/wal");
        fs::create_dir_all(&dir).unwrap();
        fs::write(
            dir.join("0000000000000000-0000000000000000.wal"),
            wal(0xdead_beef_0000_0001),
        )
        .unwrap();
        assert_eq!(
            inspected(&ours, "infra0", 0xdead_beef_0000_0001).unwrap(),
            DataDir::Ours
        );
        assert!(why(inspected(&ours, "infra0", 5).unwrap()).contains("deadbeef00000001"));
    }

    #[test]
    fn a_torn_log_is_left_to_the_member() {
        for length in 0..wal(300).len() {
            assert!(matches!(
                metadata_cluster_id(&wal(300)[..length]),
                None | Some(300)
            ));
        }
    }
}
