//! Finding the program that a member runs.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Overrides where the included `member` binary is.
const OVERRIDE: &str = "PROVISION_MEMBER";

/// Why a program cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// No such file in any of the places.
    #[error("no {name} binary: looked at {}", list(.looked_at))]
    Missing {
        /// What was looked for.
        name: String,
        /// Every path that was tried.
        looked_at: Vec<PathBuf>,
    },
    /// The file is there and cannot be executed.
    #[error("{} is not an executable file", .path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
    },
}

/// Finds the included `member`: `PROVISION_MEMBER`, else beside the running executable.
pub fn included_member() -> Result<PathBuf, BinaryError> {
    if let Some(path) = env::var_os(OVERRIDE).filter(|path| !path.is_empty()) {
        return resolve(Path::new(&path));
    }
    let beside = env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(|dir| dir.join("member")));
    let looked_at: Vec<PathBuf> = beside.into_iter().collect();
    first_executable("member", looked_at)
}

/// Finds a program by path, or by bare name in PATH. The answer is absolute.
pub fn resolve(program: &Path) -> Result<PathBuf, BinaryError> {
    let name = program.display().to_string();
    if program.components().count() > 1 {
        let path = std::path::absolute(program).unwrap_or_else(|_| program.to_owned());
        return first_executable(&name, vec![path]);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    first_executable(
        &name,
        env::split_paths(&path)
            .map(|dir| dir.join(program))
            .collect(),
    )
}

/// Finds what makes data directories of snapshots for an upstream etcd: `etcdutl` or `etcdctl` beside it.
pub fn restorer(etcd: &Path) -> Result<PathBuf, BinaryError> {
    let real = fs::canonicalize(etcd).ok();
    let dirs = [Some(etcd), real.as_deref()].into_iter().flatten();
    let dirs: Vec<&Path> = dirs.filter_map(Path::parent).collect();
    let mut looked_at: Vec<PathBuf> = ["etcdutl", "etcdctl"]
        .iter()
        .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)))
        .collect();
    looked_at.dedup();
    first_executable("etcdutl or etcdctl", looked_at)
}

fn first_executable(name: &str, looked_at: Vec<PathBuf>) -> Result<PathBuf, BinaryError> {
    let mut blocked = None;
    for path in &looked_at {
        let Ok(meta) = fs::metadata(path) else {
            continue;
        };
        if meta.is_file() && meta.permissions().mode() & 0o111 != 0 {
            return Ok(path.clone());
        }
        blocked.get_or_insert_with(|| path.clone());
    }
    Err(match blocked {
        Some(path) => BinaryError::NotExecutable { path },
        None => BinaryError::Missing {
            name: name.to_owned(),
            looked_at,
        },
    })
}

fn list(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "no place, because PATH is empty".to_owned();
    }
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_binary_names_every_place() {
        let error = resolve(Path::new("/nowhere/etcd")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no /nowhere/etcd binary: looked at /nowhere/etcd"
        );
        let error = resolve(Path::new("no-such-program-anywhere"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/no-such-program-anywhere"), "{error}");
    }

    #[test]
    fn a_plain_file_is_not_a_program() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = resolve(file.path()).unwrap_err();
        assert!(
            matches!(error, BinaryError::NotExecutable { .. }),
            "{error}"
        );
    }

    #[test]
    fn a_bare_name_is_found_in_path() {
        assert!(resolve(Path::new("sh")).unwrap().is_absolute());
    }
}
