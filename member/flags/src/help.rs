//! The help text, written from the table under etcd's headings.

use crate::{DEFS, Group, Support};

/// The first block of the help, which also follows an error of the command line.
#[must_use]
pub fn usage() -> &'static str {
    "Usage:

  member [flags]
    Start a member of an etcd-compatible cluster.

  member gateway start [flags]
    Start a TCP proxy in front of a cluster; see member gateway start --help.

  member --version
    Show the version of member.

  member -h | --help
    Show the help information about member.

  member --config-file
    Path to the server configuration file. Note that if a configuration file is provided, other command line flags and environment variables will be ignored.
"
}

/// The whole help: the honoured flags by heading, then those that are accepted at their defaults only.
#[must_use]
pub fn help() -> String {
    const GROUPS: &[Group] = &[
        Group::Member,
        Group::Clustering,
        Group::Security,
        Group::Auth,
        Group::Monitoring,
        Group::Logging,
        Group::Tracing,
        Group::Proxy,
        Group::Features,
        Group::Unsafe,
        Group::Legacy,
    ];
    let mut text = usage().to_owned();
    for group in GROUPS {
        let mut flags = DEFS
            .iter()
            .filter(|def| def.group == *group && def.support == Support::Honoured)
            .peekable();
        if flags.peek().is_none() {
            continue;
        }
        text.push_str(&format!("\n{}:\n", group.title()));
        for def in flags {
            let default = if def.name == "data-dir" {
                "${name}.etcd"
            } else {
                def.default
            };
            text.push_str(&format!("  --{} '{default}'\n    {}\n", def.name, def.help));
        }
    }
    text.push_str("\nDeprecated:\n");
    for def in DEFS {
        if let Support::Deprecated { instead } = def.support {
            text.push_str(&format!("  --{}\n    Use --{instead}.\n", def.name));
        }
    }
    text.push_str(
        "\nAccepted at their default only, because this release of member cannot honour them:\n",
    );
    for def in DEFS {
        if let Support::Refused { why } = def.support {
            text.push_str(&format!(
                "  --{} '{}'\n    {} Refused otherwise: {why}.\n",
                def.name, def.default, def.help
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_flag_once() {
        let text = help();
        for def in DEFS
            .iter()
            .filter(|def| def.name != "config-file" && def.name != "version")
        {
            let line = format!("\n  --{}", def.name);
            let times = text
                .match_indices(&line)
                .filter(|(at, _)| text[at + line.len()..].starts_with([' ', '\n']))
                .count();
            assert_eq!(times, 1, "--{}", def.name);
        }
    }
}
