//! The configuration file: YAML whose keys are flag names.
//!
//! Takes what etcd takes, with etcd's errors for values of another type, and more where etcd would pass over a setting
//! in silence: durations may be written as on the command line and not only in nanoseconds, lists as one text, and TLS
//! keys outside their sections. An unknown key is a warning. Null is the default, as in JSON.

use std::collections::BTreeSet;

use serde_yaml_ng::{Mapping, Value};

use crate::{
    ClusterState, FlagDef, FlagError, Flags, Group, Kind, Urls, Warning, flags::Fault, lookup,
    suggest,
};

/// A nested section and the flags that its keys stand for. A dot in a key is a section inside the section.
struct Section {
    key: &'static str,
    keys: &'static [(&'static str, &'static str)],
}

/// etcd's sections. A key without a flag of its own stands for a feature that has none on the command line.
const SECTIONS: &[Section] = &[
    Section {
        key: "client-transport-security",
        keys: &[
            ("cert-file", "cert-file"),
            ("key-file", "key-file"),
            ("client-cert-file", "client-cert-file"),
            ("client-key-file", "client-key-file"),
            ("client-cert-auth", "client-cert-auth"),
            ("trusted-ca-file", "trusted-ca-file"),
            ("auto-tls", "auto-tls"),
            ("allowed-hostname", "client-cert-allowed-hostname"),
        ],
    },
    Section {
        key: "peer-transport-security",
        keys: &[
            ("cert-file", "peer-cert-file"),
            ("key-file", "peer-key-file"),
            ("client-cert-file", "peer-client-cert-file"),
            ("client-key-file", "peer-client-key-file"),
            ("client-cert-auth", "peer-client-cert-auth"),
            ("trusted-ca-file", "peer-trusted-ca-file"),
            ("auto-tls", "peer-auto-tls"),
            ("allowed-cn", "peer-cert-allowed-cn"),
            ("allowed-hostname", "peer-cert-allowed-hostname"),
            (
                "skip-client-san-verification",
                "peer-skip-client-san-verification",
            ),
        ],
    },
    Section {
        key: "discovery-config",
        keys: &[
            ("endpoints", "discovery-endpoints"),
            ("token", "discovery-token"),
            ("dial-timeout", "discovery-dial-timeout"),
            ("request-timeout", "discovery-request-timeout"),
            ("keepalive-time", "discovery-keepalive-time"),
            ("keepalive-timeout", "discovery-keepalive-timeout"),
            ("secure.cert", "discovery-cert"),
            ("secure.key", "discovery-key"),
            ("secure.cacert", "discovery-cacert"),
            ("secure.insecure-transport", "discovery-insecure-transport"),
            (
                "secure.insecure-skip-verify",
                "discovery-insecure-skip-tls-verify",
            ),
            ("auth.username", "discovery-user"),
            ("auth.password", "discovery-password"),
        ],
    },
];

/// Sections of etcd that this release honours no key of.
const REFUSED_SECTIONS: &[(&str, &str)] =
    &[("socket-options", "options of its sockets cannot be set yet")];

/// The section and the key inside it that stand for a flag, when etcd takes the flag only there.
pub(crate) fn section_of(flag: &str) -> Option<(&'static str, &'static str)> {
    SECTIONS.iter().find_map(|section| {
        section
            .keys
            .iter()
            .find(|(_, name)| *name == flag)
            .map(|(key, _)| (section.key, *key))
    })
}

/// Applies a file's text and tells which flags it set.
pub(crate) fn apply(
    flags: &mut Flags,
    text: &str,
    warnings: &mut Vec<Warning>,
) -> Result<BTreeSet<&'static str>, FlagError> {
    let root: Value = serde_yaml_ng::from_str(text).map_err(|error| syntax(&error))?;
    let mut taken = BTreeSet::new();
    let root = match root {
        Value::Null => return Ok(taken),
        Value::Mapping(mapping) => mapping,
        other => {
            return Err(wrong_type(
                &other,
                "value of type embed.configYAML".to_owned(),
            ));
        }
    };
    for (key, value) in &root {
        let key = key_text(key);
        if let Some(section) = SECTIONS.iter().find(|section| section.key == key) {
            apply_section(flags, section, "", value, &mut taken, warnings)?;
        } else if let Some((_, why)) = REFUSED_SECTIONS.iter().find(|(name, _)| *name == key) {
            if !matches!(value, Value::Null)
                && !matches!(value, Value::Mapping(mapping) if mapping.is_empty())
            {
                return Err(FlagError::Refused {
                    name: key,
                    why: (*why).to_owned(),
                });
            }
        } else if let Some(def) = lookup(&key).filter(|def| def.group != Group::Action) {
            if let Some((section, _)) = section_of(def.name) {
                warnings.push(Warning::KeyOutsideSection {
                    key: def.name,
                    section,
                });
            }
            if apply_value(flags, def, &key, "configYAML", value)? {
                taken.insert(def.name);
            }
        } else {
            warnings.push(Warning::UnknownKey {
                suggestion: suggest(&key),
                key,
            });
        }
    }
    Ok(taken)
}

fn apply_section(
    flags: &mut Flags,
    section: &Section,
    inside: &str,
    value: &Value,
    taken: &mut BTreeSet<&'static str>,
    warnings: &mut Vec<Warning>,
) -> Result<(), FlagError> {
    let mapping: &Mapping = match value {
        Value::Null => return Ok(()),
        Value::Mapping(mapping) => mapping,
        other => {
            return Err(wrong_type(
                other,
                format!(
                    "struct field configYAML.{}{} of type embed.securityConfig",
                    section.key,
                    inside
                        .strip_suffix('.')
                        .map(|key| format!(".{key}"))
                        .unwrap_or_default()
                ),
            ));
        }
    };
    for (key, value) in mapping {
        let key = format!("{inside}{}", key_text(key));
        let deeper = format!("{key}.");
        if section
            .keys
            .iter()
            .any(|(name, _)| name.starts_with(&deeper))
        {
            apply_section(flags, section, &deeper, value, taken, warnings)?;
            continue;
        }
        let path = format!("{}.{key}", section.key);
        let flag = section
            .keys
            .iter()
            .find(|(name, _)| *name == key)
            .and_then(|(_, flag)| lookup(flag));
        match flag {
            Some(def) => {
                if apply_value(flags, def, &path, "securityConfig", value)? {
                    taken.insert(def.name);
                }
            }
            None => {
                let near = section
                    .keys
                    .iter()
                    .map(|(name, _)| *name)
                    .find(|name| strsim::osa_distance(name, &key) <= 2);
                warnings.push(Warning::UnknownKey {
                    key: path,
                    suggestion: near,
                });
            }
        }
    }
    Ok(())
}

/// Applies one value; false when it is null and so leaves the default.
fn apply_value(
    flags: &mut Flags,
    def: &'static FlagDef,
    key: &str,
    parent: &str,
    value: &Value,
) -> Result<bool, FlagError> {
    let mistyped = || {
        wrong_type(
            value,
            format!("struct field {parent}.{key} of type {}", def.kind.go_type()),
        )
    };
    let text = match (def.kind, value) {
        (_, Value::Null) => return Ok(false),
        (Kind::Bool, Value::Bool(on)) => on.to_string(),
        // YAML 1.1, which etcd reads, has more words for a boolean.
        (Kind::Bool, Value::String(word)) => match word.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" => "true".to_owned(),
            "no" | "off" | "n" => "false".to_owned(),
            _ => return Err(mistyped()),
        },
        (Kind::Uint | Kind::Uint32 | Kind::Uint64, Value::Number(number)) if number.is_u64() => {
            number.to_string()
        }
        (Kind::Int | Kind::Int64, Value::Number(number)) if number.is_i64() => number.to_string(),
        (Kind::Duration, Value::Number(number)) if number.is_i64() => format!("{number}ns"),
        (Kind::Duration, Value::String(text)) => {
            def.check(text).map_err(|_| mistyped())?;
            text.clone()
        }
        (Kind::Text | Kind::Urls | Kind::OneOf(_) | Kind::List, Value::String(text)) => {
            text.clone()
        }
        (Kind::List, Value::Sequence(items)) => items
            .iter()
            .map(Value::as_str)
            .collect::<Option<Vec<_>>>()
            .ok_or_else(mistyped)?
            .join(","),
        // The allowed names of a section are lists there and a text on the command line.
        (Kind::Text, Value::Sequence(items)) if parent == "securityConfig" => items
            .iter()
            .map(Value::as_str)
            .collect::<Option<Vec<_>>>()
            .ok_or_else(mistyped)?
            .join(","),
        _ => return Err(mistyped()),
    };
    if def.name == "initial-cluster-state" {
        flags.initial_cluster_state = match text.as_str() {
            "" => ClusterState::New,
            word => ClusterState::parse(word).ok_or_else(|| FlagError::ClusterState {
                value: text.clone(),
            })?,
        };
        return Ok(true);
    }
    flags
        .assign(def, &text)
        .map(|()| true)
        .map_err(|fault| match fault {
            Fault::Error(error) => error,
            Fault::Malformed(reason) => match (def.kind, Urls::parse(&text)) {
                (Kind::Urls, Err(source)) => FlagError::ConfigUrl {
                    key: key.to_owned(),
                    source,
                },
                (Kind::Uint | Kind::Uint32 | Kind::Uint64 | Kind::Int | Kind::Int64, _) => {
                    mistyped()
                }
                _ => FlagError::ConfigValue {
                    key: key.to_owned(),
                    value: text.clone(),
                    reason,
                },
            },
        })
}

fn key_text(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        other => serde_yaml_ng::to_string(other)
            .unwrap_or_default()
            .trim()
            .to_owned(),
    }
}

fn wrong_type(value: &Value, target: String) -> FlagError {
    let found = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        // Go adds the digits when a number is of the right sort and does not fit.
        Value::Number(number)
            if [
                " uint",
                " uint32",
                " uint64",
                " int",
                " int64",
                " time.Duration",
            ]
            .iter()
            .any(|t| target.ends_with(t)) =>
        {
            format!("number {number}")
        }
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Sequence(_) => "array".to_owned(),
        Value::Mapping(_) => "object".to_owned(),
        Value::Tagged(tagged) => return wrong_type(&tagged.value, target),
    };
    FlagError::ConfigType { found, target }
}

/// Words a syntax error as etcd's YAML library does: the line, then the problem.
///
/// That library counts lines from 1 for what its scanner finds and from 0 for what its parser finds, and leaves line 0
/// out. Both begin alike, so the parser's problems are told apart by what was expected.
fn syntax(error: &serde_yaml_ng::Error) -> FlagError {
    const PARSER: &[&str] = &["',' or", "key", "'-' indicator", "node content", "<"];
    let text = error.to_string();
    let problem = text.split(" at line ").next().unwrap_or_default();
    let expected = problem.strip_prefix("did not find expected ");
    let by_parser = expected.is_some_and(|what| PARSER.iter().any(|known| what.starts_with(known)));
    let line = error.location().map_or(0, |location| {
        location.line().saturating_sub(usize::from(by_parser))
    });
    let reason = if line == 0 {
        problem.to_owned()
    } else {
        format!("line {line}: {problem}")
    };
    FlagError::ConfigSyntax { reason }
}
