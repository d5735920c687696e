//! From [`Flags`] back to arguments, environment and YAML.
//!
//! Written is what differs from the default of the binary that will read it, so that a line holds what the operator
//! decided and nothing else. For this release's member that is etcd 3.6's default. For an upstream etcd of another
//! version it is that version's own: `--snapshot-count=10000` is silent for a member and spoken for etcd 3.4, and the
//! settings mean the same to both.
//!
//! Invariant: `parse(to_args(f)) == f`, and the same for the environment and the file, for settings that pass
//! [`Flags::validate`]. The one value that a variable cannot carry is the empty text.

use crate::{FlagDef, FlagError, Flags, Kind, Minor, go::parse_duration, lookup, yaml::section_of};

/// The version whose defaults the member's are.
const OWN: Minor = (3, 6);

/// The oldest version that the table describes.
const OLDEST: Minor = (3, 4);

impl Flags {
    /// Arguments for this release's member, as `--name=value`.
    #[must_use]
    pub fn to_args(&self) -> Vec<String> {
        args(self.spoken(OWN))
    }

    /// Variables for this release's member.
    #[must_use]
    pub fn to_env(&self) -> Vec<(String, String)> {
        env(self.spoken(OWN))
    }

    /// A configuration file for this release's member; etcd 3.6 reads it too.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        yaml(self.spoken(OWN))
    }

    /// Arguments with which an upstream etcd of that version runs with these settings.
    ///
    /// # Errors
    ///
    /// A setting that this version cannot be given.
    pub fn to_args_for(&self, minor: Minor) -> Result<Vec<String>, FlagError> {
        self.spoken_for(minor).map(args)
    }

    /// Variables with which an upstream etcd of that version runs with these settings.
    ///
    /// # Errors
    ///
    /// A setting that this version cannot be given.
    pub fn to_env_for(&self, minor: Minor) -> Result<Vec<(String, String)>, FlagError> {
        let spoken = self.spoken_for(minor)?;
        match spoken.iter().find(|(_, value)| value.is_empty()) {
            Some((def, value)) => Err(no_equivalent(
                def,
                value,
                minor,
                "an empty variable counts as not set; use arguments",
            )),
            None => Ok(env(spoken)),
        }
    }

    /// A configuration file with which an upstream etcd of that version runs with these settings.
    ///
    /// # Errors
    ///
    /// A setting that this version cannot be given.
    pub fn to_yaml_for(&self, minor: Minor) -> Result<String, FlagError> {
        self.spoken_for(minor).map(yaml)
    }

    /// The flags that have to be said to a binary with the defaults of that version.
    fn spoken(&self, minor: Minor) -> Vec<(&'static FlagDef, String)> {
        let mut spoken: Vec<(&'static FlagDef, String)> = self
            .values()
            .into_iter()
            .filter_map(|(name, value)| lookup(name).map(|def| (def, value)))
            .filter(|(def, value)| !def.same(value, def.default_in(minor)))
            // Its default has changed, which matters to a member that asks a discovery service and to no other.
            .filter(|(def, value)| {
                def.name != "discovery-fallback"
                    || value == "proxy"
                    || !self.discovery.url.is_empty()
            })
            .collect();
        // Listening for clients on a given address makes the advertised one obligatory, be it the default.
        let position = |name: &str| spoken.iter().position(|(def, _)| def.name == name);
        if let (Some(listen), None, Some(def)) = (
            position("listen-client-urls"),
            position("advertise-client-urls"),
            lookup("advertise-client-urls"),
        ) {
            spoken.insert(listen + 1, (def, self.advertise_client_urls.to_string()));
        }
        spoken
    }

    fn spoken_for(&self, minor: Minor) -> Result<Vec<(&'static FlagDef, String)>, FlagError> {
        if minor < OLDEST {
            let def = lookup("name").map_or("name", |def| def.name);
            return Err(FlagError::NoEquivalent {
                flag: def,
                value: self.name.clone(),
                minor,
                why: "flags of versions before 3.4 are not known",
            });
        }
        let spoken = self.spoken(minor);
        let mut known = Vec::with_capacity(spoken.len());
        for (def, value) in spoken {
            if def.exists_in(minor) {
                known.push((def, value));
            } else if !def.same(&value, def.default) {
                return Err(no_equivalent(
                    def,
                    &value,
                    minor,
                    "this version does not have the flag",
                ));
            }
        }
        let listen = [
            ("listen-peer-urls", &self.listen_peer_urls),
            ("listen-client-urls", &self.listen_client_urls),
            ("listen-metrics-urls", &self.listen_metrics_urls),
        ];
        for (name, urls) in listen {
            let named = urls
                .iter()
                .any(|url| url.ip().is_none() && url.host() != "localhost");
            if let (true, Some(def)) = (named, lookup(name)) {
                return Err(no_equivalent(
                    def,
                    &urls.to_string(),
                    minor,
                    "etcd listens on addresses and localhost only, not on host names",
                ));
            }
        }
        Ok(known)
    }
}

fn no_equivalent(def: &FlagDef, value: &str, minor: Minor, why: &'static str) -> FlagError {
    FlagError::NoEquivalent {
        flag: def.name,
        value: value.to_owned(),
        minor,
        why,
    }
}

fn args(spoken: Vec<(&'static FlagDef, String)>) -> Vec<String> {
    spoken
        .into_iter()
        .map(|(def, value)| format!("--{}={value}", def.name))
        .collect()
}

fn env(spoken: Vec<(&'static FlagDef, String)>) -> Vec<(String, String)> {
    spoken
        .into_iter()
        .map(|(def, value)| (def.env_name(), value))
        .collect()
}

fn yaml(spoken: Vec<(&'static FlagDef, String)>) -> String {
    let mut top = String::new();
    let mut sections: Vec<(&'static str, String)> = Vec::new();
    for (def, value) in spoken {
        let value = scalar(def.kind, &value);
        match section_of(def.name) {
            None => top.push_str(&format!("{}: {value}\n", def.name)),
            Some((section, key)) => {
                // The keys of a section inside the section follow one another in the table of sections.
                let (inner, line) = match key.split_once('.') {
                    Some((inner, key)) => {
                        (format!("  {inner}:\n"), format!("    {key}: {value}\n"))
                    }
                    None => (String::new(), format!("  {key}: {value}\n")),
                };
                match sections.iter_mut().find(|(name, _)| *name == section) {
                    Some((_, lines)) if lines.contains(&inner) => lines.push_str(&line),
                    Some((_, lines)) => lines.push_str(&(inner + &line)),
                    None => sections.push((section, inner + &line)),
                }
            }
        }
    }
    for (section, lines) in sections {
        top.push_str(&format!("{section}:\n{lines}"));
    }
    top
}

/// One value as etcd's configuration file takes it: durations in nanoseconds, lists as sequences, texts quoted.
fn scalar(kind: Kind, value: &str) -> String {
    match kind {
        Kind::Bool | Kind::Uint | Kind::Uint32 | Kind::Uint64 | Kind::Int | Kind::Int64 => {
            value.to_owned()
        }
        Kind::Duration => parse_duration(value)
            .map(|duration| duration.as_nanos().to_string())
            .unwrap_or_else(|_| quoted(value)),
        Kind::List => format!(
            "[{}]",
            value.split(',').map(quoted).collect::<Vec<_>>().join(", ")
        ),
        Kind::Text | Kind::Urls | Kind::OneOf(_) => quoted(value),
    }
}

/// A YAML text in double quotes; every character that a quoted text may not hold is escaped.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            // Line separators and the byte order mark are not control characters and yet not text to YAML.
            c if c.is_control()
                || matches!(
                    c,
                    '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
                ) =>
            {
                quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
