//! The command line of the gateway, read as Go's pflag reads it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use member_flags::parse_duration;

const GATEWAY: &str = "\
gateway related command

Usage:
  member gateway [command]

Available Commands:
  start       start the gateway

Flags:
  -h, --help   help for gateway

Use \"member gateway [command] --help\" for more information about a command.
";

const START: &str = "\
Usage:
  member gateway start [flags]

Flags:
      --discovery-srv string        DNS domain whose SRV records list the cluster's client endpoints
      --discovery-srv-name string   service name to query when using DNS discovery
      --endpoints strings           comma separated etcd cluster endpoints (default [127.0.0.1:2379])
  -h, --help                        help for start
      --insecure-discovery          take the endpoints of SRV records without asking for their certificates
      --listen-addr string          listen address (default \"127.0.0.1:23790\")
      --retry-delay duration        duration of delay before retrying failed endpoints, 0 for 5m0s (default 1m0s)
      --trusted-ca-file string      path to the CA file that the discovered endpoints' certificates are checked by
";

/// etcd's meaning of no delay.
const RETRY_DELAY_OF_ZERO: Duration = Duration::from_secs(300);

/// What the gateway is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) listen_addr: String,
    pub(super) endpoints: Vec<String>,
    /// Whether the endpoints are not the default ones.
    pub(super) endpoints_given: bool,
    pub(super) discovery_srv: String,
    pub(super) discovery_srv_name: String,
    pub(super) insecure_discovery: bool,
    pub(super) trusted_ca_file: Option<PathBuf>,
    pub(super) retry_delay: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen_addr: "127.0.0.1:23790".to_owned(),
            endpoints: vec!["127.0.0.1:2379".to_owned()],
            endpoints_given: false,
            discovery_srv: String::new(),
            discovery_srv_name: String::new(),
            insecure_discovery: false,
            trusted_ca_file: None,
            retry_delay: Duration::from_secs(60),
        }
    }
}

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Start(Options),
    Help(String),
    Wrong { error: String, usage: &'static str },
}

pub(super) fn parse(args: impl Iterator<Item = OsString>) -> Parsed {
    let mut args = args.map(|arg| arg.to_string_lossy().into_owned());
    let Some(first) = args.next() else {
        return Parsed::Help(GATEWAY.to_owned());
    };
    if first != "start" {
        return match first.strip_prefix('-') {
            Some("h" | "-help") | None => Parsed::Help(GATEWAY.to_owned()),
            Some(_) => Parsed::Wrong {
                error: format!("unknown flag: {first}"),
                usage: GATEWAY,
            },
        };
    }
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        if arg == "-h" || arg == "--help" {
            return Parsed::Help(format!("start the gateway\n\n{START}"));
        }
        if let Err(error) = options.take(&arg, &mut args) {
            return Parsed::Wrong {
                error,
                usage: START,
            };
        }
    }
    if options.insecure_discovery && options.trusted_ca_file.is_some() {
        return Parsed::Wrong {
            error: "--insecure-discovery asks for no certificates, so --trusted-ca-file has nothing to check".to_owned(),
            usage: START,
        };
    }
    Parsed::Start(options)
}

impl Options {
    fn take(&mut self, arg: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), String> {
        let Some(text) = arg.strip_prefix("--").filter(|text| !text.is_empty()) else {
            // etcd ignores it: what comes after a blank in a list of endpoints is lost there.
            return Err(format!("unexpected argument: {arg}"));
        };
        let (name, given) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name == "insecure-discovery" {
            let word = given.as_deref().unwrap_or("true");
            self.insecure_discovery = word.parse().map_err(|_| {
                format!("invalid argument {word:?} for \"--{name}\" flag: neither true nor false")
            })?;
            return Ok(());
        }
        let known = [
            "listen-addr",
            "endpoints",
            "discovery-srv",
            "discovery-srv-name",
            "trusted-ca-file",
            "retry-delay",
        ];
        if !known.contains(&name) {
            return Err(format!("unknown flag: --{name}"));
        }
        let value = given
            .or_else(|| rest.next())
            .ok_or_else(|| format!("flag needs an argument: --{name}"))?;
        match name {
            "listen-addr" => self.listen_addr = value,
            "discovery-srv" => self.discovery_srv = value,
            "discovery-srv-name" => self.discovery_srv_name = value,
            "trusted-ca-file" => {
                self.trusted_ca_file = Some(PathBuf::from(value)).filter(|path| path != "");
            }
            "retry-delay" => {
                let invalid = |reason: String| {
                    format!("invalid argument {value:?} for \"--{name}\" flag: {reason}")
                };
                let delay = parse_duration(&value)
                    .map_err(|_| invalid(format!("time: invalid duration {value:?}")))?;
                self.retry_delay = match delay.is_zero() {
                    true => RETRY_DELAY_OF_ZERO,
                    false => delay,
                };
            }
            _ => {
                // As pflag: the first one takes the place of the default, each further one adds to it.
                if !self.endpoints_given {
                    self.endpoints.clear();
                    self.endpoints_given = true;
                }
                let items = value.split(',').filter(|_| !value.is_empty());
                self.endpoints.extend(items.map(str::to_owned));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Parsed {
        parse(text.split_whitespace().map(OsString::from))
    }

    fn error(text: &str) -> String {
        match line(text) {
            Parsed::Wrong { error, .. } => error,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn options_are_read_as_etcd_reads_them() {
        let Parsed::Start(options) = line(
            "start --endpoints=a:1,b:2 --endpoints c:3 --retry-delay 5s --insecure-discovery=false --listen-addr=h:4",
        ) else {
            panic!("starts");
        };
        assert_eq!(options.endpoints, ["a:1", "b:2", "c:3"]);
        assert_eq!(options.retry_delay, Duration::from_secs(5));
        assert_eq!(line("start"), Parsed::Start(Options::default()));
        let Parsed::Start(zero) = line("start --retry-delay 0") else {
            panic!("starts");
        };
        assert_eq!(zero.retry_delay, RETRY_DELAY_OF_ZERO);
        let Parsed::Start(none) = line("start --endpoints=") else {
            panic!("starts");
        };
        assert!(none.endpoints.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(error("start --bogus"), "unknown flag: --bogus");
        assert_eq!(error("--bogus"), "unknown flag: --bogus");
        assert_eq!(
            error("start --endpoints"),
            "flag needs an argument: --endpoints"
        );
        assert_eq!(error("start extra"), "unexpected argument: extra");
        assert_eq!(
            error("start --retry-delay x"),
            "invalid argument \"x\" for \"--retry-delay\" flag: time: invalid duration \"x\""
        );
        assert!(error("start --retry-delay=-5s").contains("invalid duration"));
        for help in ["", "bogus", "--help", "start -h"] {
            assert!(matches!(line(help), Parsed::Help(_)), "{help}");
        }
    }
}
