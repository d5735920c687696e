//! From arguments, environment and configuration file to [`Flags`].
//!
//! The command line follows Go's flag package, the environment etcd's rules: a variable counts when it is not empty and
//! its flag is not given, and conflicts when its flag is. A configuration file puts both out of force. Values are not
//! checked against one another here.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
};

use crate::{
    DEFS, FlagDef, FlagError, Flags, ProxyMode, Support, Urls, Warning,
    flags::{Fault, malformed},
    lookup, yaml,
};

/// Reads a file; the reader of the configuration file.
pub type ReadFile<'a> = dyn Fn(&Path) -> io::Result<String> + 'a;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once in a process and taken apart at once"
)]
pub enum Command {
    /// Start a member.
    Run(Run),
    /// Print the help and exit 0.
    Help,
    /// Print the version and exit 0.
    Version,
}

/// A start, with how its settings were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The settings.
    pub flags: Flags,
    /// What to log before anything else.
    pub warnings: Vec<Warning>,
    /// Where each flag came from that was given a value, by name.
    pub origins: BTreeMap<&'static str, Origin>,
}

/// Where a flag's value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An argument.
    CommandLine,
    /// A variable of the environment.
    Environment {
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
    },
    /// The configuration file.
    ConfigFile(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("the command line"),
            Self::Environment { variable, .. } => write!(f, "the environment variable {variable}"),
            Self::ConfigFile(path) => write!(f, "the configuration file {}", path.display()),
        }
    }
}

/// Parses arguments without the program's name, the environment, and the configuration file if either names one.
///
/// # Errors
///
/// The first of: what Go's flag package refuses (exit code 2), an argument that is not a flag, a variable that
/// conflicts with its flag, a malformed variable, a fault of the configuration file, a flag that this release cannot
/// honour (exit code 1).
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    read: &ReadFile<'_>,
) -> Result<Command, FlagError> {
    let line = match CommandLine::parse(args)? {
        Parsed::Help => return Ok(Command::Help),
        Parsed::Line(line) => line,
    };
    if let Some(arg) = line.positional {
        return Err(if arg == "grpc-proxy" {
            FlagError::SubCommand { name: arg }
        } else {
            FlagError::NotAFlag { arg }
        });
    }
    if line.version {
        return Ok(Command::Version);
    }
    let env = etcd_variables(env)?;
    let from_env = || {
        env.iter()
            .find(|(name, _)| name == "ETCD_CONFIG_FILE")
            .map(|(_, value)| value.clone())
    };
    let config_file = line
        .config_file
        .clone()
        .filter(|path| !path.is_empty())
        .or_else(from_env)
        .filter(|path| !path.is_empty());
    match config_file {
        Some(path) => from_file(PathBuf::from(path), &line, &env, read),
        None => from_line_and_env(line, &env),
    }
    .map(Command::Run)
}

/// The arguments, read but for what this release refuses.
#[derive(Default)]
struct CommandLine {
    flags: Flags,
    given: BTreeSet<&'static str>,
    order: Vec<&'static str>,
    refusals: Refusals,
    positional: Option<String>,
    version: bool,
    config_file: Option<String>,
}

enum Parsed {
    Help,
    Line(Box<CommandLine>),
}

impl CommandLine {
    fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed, FlagError> {
        let mut args = args.into_iter();
        let mut next = || -> Result<Option<String>, FlagError> {
            args.next()
                .map(|arg| {
                    arg.into_string().map_err(|arg| FlagError::NotUtf8 {
                        what: format!("argument {}", arg.display()),
                    })
                })
                .transpose()
        };
        let mut line = Self::default();
        while let Some(arg) = next()? {
            if arg == "--" {
                line.positional = next()?;
                break;
            }
            let Some(body) = arg
                .strip_prefix("--")
                .or_else(|| arg.strip_prefix('-'))
                .filter(|_| arg != "-")
            else {
                line.positional = Some(arg);
                break;
            };
            if body.is_empty() || body.starts_with(['-', '=']) {
                return Err(FlagError::BadSyntax { arg });
            }
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            let Some(def) = lookup(name) else {
                if matches!(name, "help" | "h") {
                    return Ok(Parsed::Help);
                }
                return Err(FlagError::Undefined {
                    name: name.to_owned(),
                });
            };
            let value = match value {
                Some(value) => value,
                None if def.is_bool() => "true".to_owned(),
                None => next()?.ok_or_else(|| FlagError::NeedsArgument {
                    name: name.to_owned(),
                })?,
            };
            line.take(def, value)?;
        }
        Ok(Parsed::Line(Box::new(line)))
    }

    fn take(&mut self, def: &'static FlagDef, value: String) -> Result<(), FlagError> {
        match def.name {
            "version" => {
                def.check(&value)
                    .map_err(|reason| malformed(def, &value, reason))?;
                self.version = def.same(&value, "true");
            }
            "config-file" => self.config_file = Some(value),
            _ => {
                match self.refusals.assign(&mut self.flags, def, &value) {
                    Ok(()) => {}
                    Err(Fault::Malformed(reason)) => return Err(malformed(def, &value, reason)),
                    Err(Fault::Error(error)) => return Err(error),
                }
                self.order.push(def.name);
            }
        }
        self.given.insert(def.name);
        Ok(())
    }
}

/// Refusals wait until it is known that the settings count: `--help`, `--version` and a configuration file come first,
/// and a later value may take an earlier one back.
#[derive(Default)]
struct Refusals(Vec<(&'static str, FlagError)>);

impl Refusals {
    fn assign(
        &mut self,
        flags: &mut Flags,
        def: &'static FlagDef,
        value: &str,
    ) -> Result<(), Fault> {
        self.0.retain(|(name, _)| *name != def.name);
        match flags.assign(def, value) {
            Err(Fault::Error(error @ FlagError::Refused { .. })) => {
                self.0.push((def.name, error));
                Ok(())
            }
            other => other,
        }
    }

    fn into_result(self) -> Result<(), FlagError> {
        self.0
            .into_iter()
            .next()
            .map_or(Ok(()), |(_, error)| Err(error))
    }
}

/// The variables that begin with `ETCD_`, in the order of the environment.
fn etcd_variables(
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, FlagError> {
    let mut variables = Vec::new();
    for (name, value) in env {
        let Some(name) = name.to_str().filter(|name| name.starts_with("ETCD_")) else {
            continue;
        };
        match value.into_string() {
            Ok(value) => variables.push((name.to_owned(), value)),
            Err(_) => {
                return Err(FlagError::NotUtf8 {
                    what: format!("the environment variable {name}"),
                });
            }
        }
    }
    Ok(variables)
}

fn from_line_and_env(line: Box<CommandLine>, env: &[(String, String)]) -> Result<Run, FlagError> {
    let CommandLine {
        mut flags,
        given,
        order,
        mut refusals,
        ..
    } = *line;
    let mut warnings = Vec::new();
    let mut origins: BTreeMap<&'static str, Origin> = order
        .iter()
        .map(|name| (*name, Origin::CommandLine))
        .collect();
    let mut malformed_variable = None;

    // etcd goes through its flags by name and reports the last malformed variable, after conflicts.
    let mut defs: Vec<&'static FlagDef> = DEFS.iter().filter(|def| def.name != "version").collect();
    defs.sort_by_key(|def| def.name);
    for def in defs.into_iter().filter(|def| !given.contains(def.name)) {
        let variable = def.env_name();
        let Some((_, value)) = env
            .iter()
            .find(|(name, value)| *name == variable && !value.is_empty())
        else {
            continue;
        };
        match refusals.assign(&mut flags, def, value) {
            Ok(()) => {}
            Err(Fault::Malformed(reason)) => {
                malformed_variable = Some(FlagError::EnvValue {
                    variable: variable.clone(),
                    value: value.clone(),
                    reason,
                });
            }
            Err(Fault::Error(error)) => malformed_variable = Some(error),
        }
        origins.insert(
            def.name,
            Origin::Environment {
                variable,
                value: value.clone(),
            },
        );
    }

    for (name, value) in env {
        match DEFS.iter().find(|def| def.env_name() == *name) {
            Some(def) if def.name == "version" => {
                warnings.push(Warning::SpecialEnv { name: name.clone() })
            }
            Some(def) if given.contains(def.name) => {
                return Err(FlagError::EnvConflict {
                    variable: name.clone(),
                });
            }
            Some(_) if !value.is_empty() => {}
            // Read by etcd itself and no flag.
            None if name == "ETCD_UNSUPPORTED_ARCH" => {}
            _ => warnings.push(Warning::UnrecognizedEnv {
                name: name.clone(),
                value: value.clone(),
            }),
        }
    }
    if let Some(error) = malformed_variable {
        return Err(error);
    }
    refusals.into_result()?;

    // etcd: who says where to listen must say where clients find it. A proxy tells nobody.
    if flags.proxy.mode == ProxyMode::Off
        && origins.contains_key("listen-client-urls")
        && !origins.contains_key("advertise-client-urls")
    {
        flags.advertise_client_urls = Urls::default();
    }
    for name in origins.keys() {
        push_deprecated(&mut warnings, name);
    }
    Ok(Run {
        flags,
        warnings,
        origins,
    })
}

fn from_file(
    path: PathBuf,
    line: &CommandLine,
    env: &[(String, String)],
    read: &ReadFile<'_>,
) -> Result<Run, FlagError> {
    let text = read(&path).map_err(|error| FlagError::ConfigRead {
        path: path.clone(),
        reason: go_reason(&error),
    })?;
    let mut warnings = vec![Warning::ConfigFileLoaded { path: path.clone() }];
    let variables = env.iter().map(|(name, _)| name).filter(|name| {
        *name != "ETCD_CONFIG_FILE" && DEFS.iter().any(|def| def.env_name() == **name)
    });
    let names: Vec<String> = line
        .order
        .iter()
        .map(|name| format!("--{name}"))
        .chain(variables.cloned())
        .collect();
    if !names.is_empty() {
        warnings.push(Warning::IgnoredByConfigFile { names });
    }
    let mut flags = Flags::default();
    let taken = yaml::apply(&mut flags, &text, &mut warnings)?;
    for name in &taken {
        push_deprecated(&mut warnings, name);
    }
    let origins = taken
        .into_iter()
        .map(|name| (name, Origin::ConfigFile(path.clone())))
        .collect();
    Ok(Run {
        flags,
        warnings,
        origins,
    })
}

fn push_deprecated(warnings: &mut Vec<Warning>, name: &str) {
    if let Some(FlagDef {
        name: flag,
        support: Support::Deprecated { instead },
        ..
    }) = lookup(name)
    {
        let instead = if *flag == "debug" {
            "log-level=debug"
        } else {
            instead
        };
        warnings.push(Warning::Deprecated { flag, instead });
    }
}

/// The system's reason as Go words it: `no such file or directory`.
fn go_reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    characters
        .next()
        .map(|first| first.to_lowercase().chain(characters).collect())
        .unwrap_or_default()
}
