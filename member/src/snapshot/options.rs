//! The command line of the sub-commands, read as Go's pflag reads it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::Failure;

/// Options that take a value, by name.
const VALUES: [&str; 8] = [
    "bump-revision",
    "data-dir",
    "initial-advertise-peer-urls",
    "initial-cluster",
    "initial-cluster-token",
    "name",
    "wal-dir",
    "write-out",
];
/// Options that are on when they are named.
const SWITCHES: [&str; 3] = ["help", "mark-compacted", "skip-hash-check"];

/// What was given.
#[derive(Debug, Default)]
pub(super) struct Options {
    positional: Vec<String>,
    given: BTreeMap<&'static str, String>,
}

impl Options {
    pub(super) fn parse(args: impl Iterator<Item = OsString>) -> Result<Self, Failure> {
        let mut options = Self::default();
        let mut args = args.map(|arg| arg.to_string_lossy().into_owned());
        while let Some(arg) = args.next() {
            if arg == "--" {
                options.positional.extend(args.by_ref());
            } else if let Some(text) = arg.strip_prefix("--") {
                let (name, value) = match text.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (text, None),
                };
                options.set(name, value, &arg, &mut args)?;
            } else if let Some(rest) = arg.strip_prefix("-w") {
                let value = Some(rest.trim_start_matches('=').to_owned());
                options.set(
                    "write-out",
                    value.filter(|value| !value.is_empty()),
                    &arg,
                    &mut args,
                )?;
            } else if arg == "-h" {
                options.set("help", None, &arg, &mut args)?;
            } else if arg.starts_with('-') && arg != "-" {
                return Err(unknown(&arg));
            } else {
                options.positional.push(arg);
            }
        }
        Ok(options)
    }

    fn set(
        &mut self,
        name: &str,
        value: Option<String>,
        arg: &str,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), Failure> {
        if let Some(known) = VALUES.into_iter().find(|known| *known == name) {
            let value = value
                .or_else(|| rest.next())
                .ok_or_else(|| plain(format!("flag needs an argument: {arg}")))?;
            self.given.insert(known, value);
        } else if let Some(known) = SWITCHES.into_iter().find(|known| *known == name) {
            let value = value.unwrap_or_else(|| "true".to_owned());
            if !["true", "false"].contains(&&value[..]) {
                return Err(plain(format!(
                    "invalid argument \"{value}\" for \"--{name}\" flag: true or false"
                )));
            }
            self.given.insert(known, value);
        } else {
            return Err(unknown(&format!("--{name}")));
        }
        Ok(())
    }

    /// The sub-command; none when help is asked for.
    pub(super) fn command(&self) -> Option<&str> {
        let first = self.positional.first().map(String::as_str);
        first.filter(|_| !self.is_on("help"))
    }

    /// The one argument of the sub-command.
    pub(super) fn file(&self) -> Result<PathBuf, Failure> {
        match &self.positional[..] {
            [_, file] => Ok(file.into()),
            _ => Err(Failure::bad_arguments(format!(
                "snapshot {} requires exactly one argument",
                self.command().unwrap_or_default()
            ))),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    pub(super) fn is_on(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }
}

fn plain(text: String) -> Failure {
    Failure { text, code: 1 }
}

fn unknown(flag: &str) -> Failure {
    plain(format!("unknown flag: {flag}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, Failure> {
        Options::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn values_may_follow_or_be_joined() {
        let options = parse(
            "restore f --name=a --data-dir d --skip-hash-check --mark-compacted=false -w json",
        )
        .unwrap();
        assert_eq!(options.command(), Some("restore"));
        assert_eq!(options.file().unwrap(), PathBuf::from("f"));
        assert_eq!(
            (options.get("name"), options.get("data-dir")),
            (Some("a"), Some("d"))
        );
        assert!(options.is_on("skip-hash-check") && !options.is_on("mark-compacted"));
        assert_eq!(options.get("write-out"), Some("json"));
        assert_eq!(
            parse("status f -wtable").unwrap().get("write-out"),
            Some("table")
        );
    }

    #[test]
    fn what_is_wrong_is_said_as_etcdctl_says_it() {
        let error = |line| parse(line).unwrap_err().text;
        assert_eq!(error("restore --foo f"), "unknown flag: --foo");
        assert_eq!(error("restore f --name"), "flag needs an argument: --name");
        let failure = parse("restore").unwrap().file().unwrap_err();
        assert_eq!(
            failure.text,
            "snapshot restore requires exactly one argument"
        );
        assert_eq!(failure.code, 128);
    }
}
