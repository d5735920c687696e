//! What every verb is given: where to print and where clusters are remembered.

use std::path::{Path, PathBuf};

use crate::cli::GlobalArgs;
use crate::error::Error;
use crate::output::Output;

/// What every verb is given.
#[derive(Clone, Debug)]
pub struct Context {
    /// Data to standard output, progress to standard error.
    pub output: Output,
    /// Root of the state: a cluster lives in `clusters/NAME` below it. May not exist yet. Absolute.
    pub state_root: PathBuf,
}

impl Context {
    /// Builds the context of one run.
    ///
    /// # Errors
    /// [`Error::Usage`] when no place for the state is known.
    pub fn new(args: &GlobalArgs, output: Output) -> Result<Self, Error> {
        let state_root = state_root(args.state_dir.as_deref(), &|name| {
            std::env::var_os(name).map(PathBuf::from)
        })?;
        let state_root =
            std::path::absolute(&state_root).map_err(Error::io("resolve", &state_root))?;
        Ok(Self { output, state_root })
    }

    /// The state directory of one cluster.
    pub fn cluster_dir(&self, name: &str) -> PathBuf {
        self.state_root.join("clusters").join(name)
    }
}

fn state_root(
    given: Option<&Path>,
    env: &dyn Fn(&str) -> Option<PathBuf>,
) -> Result<PathBuf, Error> {
    if let Some(dir) = given.filter(|dir| !dir.as_os_str().is_empty()) {
        return Ok(dir.to_path_buf());
    }
    xdg("XDG_STATE_HOME", ".local/state", env).ok_or_else(|| {
        Error::usage(
            "no directory for the state of clusters is known",
            "pass --state-dir DIR, or set XDG_STATE_HOME or HOME",
        )
    })
}

/// Where things are kept that can be made again.
///
/// # Errors
/// [`Error::Usage`] when no such place is known.
pub fn cache_root() -> Result<PathBuf, Error> {
    let env = |name: &str| std::env::var_os(name).map(PathBuf::from);
    xdg("XDG_CACHE_HOME", ".cache", &env).ok_or_else(|| {
        Error::usage(
            "no directory for the cache is known",
            "set XDG_CACHE_HOME or HOME",
        )
    })
}

fn xdg(variable: &str, below_home: &str, env: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // The XDG rule: a relative or empty value counts as unset.
    let absolute = |name| env(name).filter(|path| path.is_absolute());
    absolute(variable)
        .or_else(|| absolute("HOME").map(|home| home.join(below_home)))
        .map(|dir| dir.join("provision"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(given: Option<&str>, vars: &[(&str, &str)]) -> Option<PathBuf> {
        let env = |name: &str| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| PathBuf::from(value))
        };
        state_root(given.map(Path::new), &env).ok()
    }

    #[test]
    fn the_flag_wins_then_xdg_then_home() {
        let vars = [("XDG_STATE_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(root(Some("/s"), &vars), Some("/s".into()));
        assert_eq!(root(None, &vars), Some("/x/provision".into()));
        assert_eq!(
            root(None, &vars[1..]),
            Some("/h/.local/state/provision".into())
        );
        assert_eq!(
            root(None, &[("XDG_STATE_HOME", "relative"), ("HOME", "/h")]),
            Some("/h/.local/state/provision".into())
        );
        assert_eq!(root(None, &[]), None);
    }
}
