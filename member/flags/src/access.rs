//! `--cors` and `--host-whitelist`: which of something is let in.

use std::collections::BTreeSet;
use std::fmt;

use crate::Urls;

/// Any, or those of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed(Option<BTreeSet<String>>);

impl Allowed {
    /// Reads `--cors`: `*`, or origins as URLs with a port, separated by commas.
    pub(crate) fn origins(value: &str) -> Result<Self, String> {
        if value == "*" {
            return Ok(Self(None));
        }
        let urls = Urls::parse(value).map_err(|error| error.to_string())?;
        Ok(Self(Some(urls.to_strings().into_iter().collect())))
    }

    /// Reads `--host-whitelist`: host names without ports, separated by commas; one that is `*` lets in all.
    pub(crate) fn hosts(value: &str) -> Self {
        let hosts: BTreeSet<String> = value.split(',').map(str::to_owned).collect();
        Self((!hosts.contains("*")).then_some(hosts))
    }

    /// Whether all are let in.
    #[must_use]
    pub fn any(&self) -> bool {
        self.0.is_none()
    }

    /// Whether that one is let in.
    #[must_use]
    pub fn allows(&self, item: &str) -> bool {
        self.0.as_ref().is_none_or(|items| items.contains(item))
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("*"),
            Some(items) => {
                let items: Vec<&str> = items.iter().map(String::as_str).collect();
                f.write_str(&items.join(","))
            }
        }
    }
}
