//! Member flags in a topology: `[defaults]` and each member's `flags`, checked by `member-flags`, which defines them.

use std::collections::BTreeMap;

use member_flags::{Flags, Support};

use super::invalid::Problem;
use super::model::{Binary, Topology};
use super::schema::File;
use super::spans::{Path, Spans};
use crate::render::{self, Server};

/// Flags that `provision` sets itself, with the reason that a file may not.
const GENERATED: &[(&str, &str)] = &[
    ("name", "it is the member's `name`"),
    ("data-dir", "it lies in the cluster's state directory"),
    (
        "listen-client-urls",
        "it follows from `listen`, `client-port` and [tls]",
    ),
    (
        "listen-peer-urls",
        "it follows from `listen`, `peer-port` and [tls]",
    ),
    (
        "advertise-client-urls",
        "it follows from `address`, `client-port` and [tls]",
    ),
    (
        "initial-advertise-peer-urls",
        "it follows from `address`, `peer-port` and [tls]",
    ),
    ("initial-cluster", "it follows from the members"),
    ("initial-cluster-state", "it follows from what runs already"),
    ("initial-cluster-token", "it is `token` in [bootstrap]"),
    ("cert-file", "it follows from [tls]"),
    ("key-file", "it follows from [tls]"),
    ("client-cert-auth", "it follows from `client` in [tls]"),
    ("trusted-ca-file", "it follows from [tls]"),
    ("auto-tls", "it follows from `client` in [tls]"),
    ("peer-cert-file", "it follows from [tls]"),
    ("peer-key-file", "it follows from [tls]"),
    ("peer-client-cert-auth", "it follows from `peer` in [tls]"),
    ("peer-trusted-ca-file", "it follows from [tls]"),
    ("peer-auto-tls", "it follows from `peer` in [tls]"),
    ("config-file", "with it a member ignores every other flag"),
    ("force-new-cluster", "it throws the other members away"),
    ("proxy", "what runs is a proxy then, and no member"),
];

/// Flags whose value two members on one machine cannot share.
const PER_MEMBER: &[&str] = &["wal-dir", "listen-metrics-urls"];

/// Checks the names in `[defaults]`.
pub(super) fn check_defaults(raw: &File, spans: &Spans<'_>, problems: &mut Vec<Problem>) {
    let defaults = Path::root().key("defaults");
    for name in raw.defaults.keys() {
        let path = defaults.key(name);
        if PER_MEMBER.contains(&name.as_str()) {
            problems.push(
                Problem::error(
                    spans.key(&path),
                    format!("`{name}` cannot be the same for all members"),
                    "per member",
                )
                .help(format!(
                    "write it in a [[member]]: flags = {{ {name} = ... }}"
                )),
            );
        } else {
            problems.extend(name_problem(name, &path, spans));
        }
    }
}

/// The flags of one member: those of `[defaults]` with its own over them. Checks names of its own and all values.
pub(super) fn merge(
    raw: &File,
    own: &BTreeMap<String, String>,
    binary: &Binary,
    path: &Path,
    spans: &Spans<'_>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, String> {
    let mut merged: BTreeMap<String, (String, Path)> = BTreeMap::new();
    let defaults = Path::root().key("defaults");
    for (name, value) in &raw.defaults {
        merged.insert(name.clone(), (value.text(), defaults.key(name)));
    }
    for (name, value) in own {
        let path = path.key("flags").key(name);
        problems.extend(name_problem(name, &path, spans));
        merged.insert(name.clone(), (value.clone(), path));
    }
    for (name, (value, path)) in &merged {
        let Some(def) = member_flags::lookup(name) else {
            continue;
        };
        if generated(name).is_some() {
            continue;
        }
        // An upstream etcd may have what the included member refuses; it checks the value itself.
        if matches!(def.support, Support::Refused { .. })
            && Server::assumed(binary, (3, 6)) != Server::Member
        {
            continue;
        }
        if let Err(error) = Flags::default().set(name, value) {
            let problem = Problem::error(
                spans.value(path),
                error.to_string(),
                format!("the value of {name}"),
            );
            problems.push(match def.support {
                Support::Refused { .. } => problem.help(format!(
                    "remove `{name}`, or run a server that has it: binary = \"/usr/bin/etcd\""
                )),
                _ => problem,
            });
        }
    }
    merged
        .into_iter()
        .map(|(name, (value, _))| (name, value))
        .collect()
}

/// Checks the settings of each member as a whole: what is impossible only together with another value.
///
/// `places` are the entries of the file that the members come from.
pub(super) fn check_together(
    topology: &Topology,
    places: &[Path],
    spans: &Spans<'_>,
    problems: &mut Vec<Problem>,
) {
    let instance = render::placeholder(topology);
    for (member, place) in topology.members.iter().zip(places) {
        let fault = match render::flags(topology, member, &instance) {
            Ok(flags) => flags.validate().err().map(|error| error.to_string()),
            Err(error) => Some(
                std::error::Error::source(&error)
                    .map_or_else(|| error.to_string(), ToString::to_string),
            ),
        };
        let Some(message) = fault else { continue };
        // The flag that the message is about, if the file sets it.
        let named = member
            .flags
            .keys()
            .filter(|name| message.contains(name.as_str()))
            .max_by_key(|name| name.len());
        let candidates = named.map(|name| {
            [
                place.key("flags").key(name),
                Path::root().key("defaults").key(name),
            ]
        });
        let path = candidates
            .into_iter()
            .flatten()
            .find(|path| spans.has(path))
            .unwrap_or_else(|| place.clone());
        problems.push(Problem::error(
            spans.value(&path),
            message,
            format!("refused for {}", member.name),
        ));
    }
}

/// Why a flag is not one for the file.
fn generated(name: &str) -> Option<&'static str> {
    // All flags of discovery, of which there are many, are of one piece.
    if name.starts_with("discovery") {
        return Some("it follows from [bootstrap]");
    }
    let found = GENERATED.iter().find(|(generated, _)| *generated == name);
    found.map(|(_, why)| *why)
}

fn name_problem(name: &str, path: &Path, spans: &Spans<'_>) -> Option<Problem> {
    let place = spans.key(path);
    if let Some(why) = generated(name) {
        return Some(
            Problem::error(
                place,
                format!("`{name}` is set by provision"),
                "not a flag for the file",
            )
            .help(format!("remove it: {why}")),
        );
    }
    if member_flags::lookup(name).is_some() {
        return None;
    }
    let bare = name.trim_start_matches('-');
    let help = match member_flags::suggest(bare) {
        _ if bare != name && member_flags::lookup(bare).is_some() => {
            format!("write it without dashes in front: `{bare}`")
        }
        Some(near) => format!("did you mean `{near}`?"),
        None => "flags are spelled as etcd's, without the dashes in front; see `member --help`"
            .to_owned(),
    };
    Some(Problem::error(place, format!("unknown flag `{name}`"), "unknown flag").help(help))
}
