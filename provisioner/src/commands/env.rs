//! `env`

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::EnvArgs;
use crate::cluster::{Known, unset_beside};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::output::{Document, Table};
use crate::topology::Network;

/// Variables by name.
#[derive(Debug, Serialize)]
struct Variables {
    #[serde(flatten)]
    set: BTreeMap<&'static str, String>,
    #[serde(skip)]
    unset: Vec<&'static str>,
}

impl Document for Variables {
    fn table(&self) -> Table {
        let mut text = String::new();
        for name in &self.unset {
            text.push_str(&format!("unset {name}\n"));
        }
        for (name, value) in &self.set {
            text.push_str(&format!("export {name}={}\n", quote(value)));
        }
        Table::text(text)
    }
}

/// Runs `env`.
///
/// # Errors
/// The cluster is unknown.
pub fn run(args: &EnvArgs, context: &Context) -> Result<ExitCode, Error> {
    let known = Known::open(&args.target, context)?;
    if known.topology.network == Network::Private {
        context.output.note(format!(
            "the cluster has a network of its own: only commands of `provision exec {}` reach it",
            known.dir.name()
        ));
    }
    let set = known.variables();
    let variables = Variables {
        unset: unset_beside(&set),
        set: set.into_iter().collect(),
    };
    context.output.data(&variables)?;
    Ok(ExitCode::Ok)
}

// Inside single quotes a POSIX shell takes everything as it is, except the quote itself.
fn quote(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_a_shell() {
        for value in ["/plain/path", "", "with space", "it's", "$(reboot)", "a;b"] {
            let script = format!("printf %s {}", quote(value));
            let output = std::process::Command::new("sh")
                .args(["-c", &script])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
        }
    }

    #[test]
    fn what_another_cluster_left_over_is_unset() {
        let variables = Variables {
            set: BTreeMap::from([("ETCDCTL_API", "3".to_owned())]),
            unset: vec!["ETCDCTL_CERT"],
        };
        assert_eq!(
            variables.table().render(),
            "unset ETCDCTL_CERT\nexport ETCDCTL_API=3\n"
        );
    }
}
