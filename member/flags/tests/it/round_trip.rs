//! What is rendered parses back into the same settings.

use std::ffi::OsString;

use member_flags::{DEFS, FlagDef, Flags, Group, Kind, Support, format_duration, parse};
use proptest::prelude::*;

use crate::{run, run_file};

/// Any text but the empty one, which a variable cannot carry; a process cannot be given the zero byte.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z][a-z0-9-]{0,8}", "(?s)[^\\x00]{1,12}"]
}

fn urls() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        Just("127.0.0.1".to_owned()),
        Just("localhost".to_owned()),
        Just("[::1]".to_owned()),
        "[a-z]{1,8}(\\.[a-z]{2,3})?",
        (1..255u8, 0..255u8).prop_map(|(a, b)| format!("10.{a}.{b}.1")),
    ];
    let url = (any::<bool>(), host, any::<u16>()).prop_map(|(tls, host, port)| {
        format!("http{}://{host}:{port}", if tls { "s" } else { "" })
    });
    prop::collection::vec(url, 1..4).prop_map(|urls| urls.join(","))
}

fn value(def: &'static FlagDef) -> BoxedStrategy<String> {
    let words = |words: &'static [&'static str]| {
        prop::sample::select(words).prop_map(str::to_owned).boxed()
    };
    match (def.name, def.kind) {
        ("logger", _) => words(&["zap"]),
        ("log-format", _) => words(&["json", "console"]),
        ("log-level", _) => words(&["debug", "info", "warn", "error", "dpanic", "panic", "fatal"]),
        ("feature-gates", _) => words(&[
            "",
            "InitialCorruptCheck=true",
            "CompactHashCheck=true,InitialCorruptCheck=false",
        ]),
        ("log-outputs", _) => prop_oneof![
            Just("default".to_owned()),
            prop::collection::vec(
                prop_oneof![
                    Just("stderr".to_owned()),
                    Just("stdout".to_owned()),
                    "/[a-z \"']{1,9}"
                ],
                1..4
            )
            .prop_map(|outputs| outputs.join(",")),
        ]
        .boxed(),
        ("cipher-suites", _) => words(&[
            "",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        ]),
        ("cors", _) => prop_oneof![Just("*".to_owned()), urls()].boxed(),
        (_, Kind::Text | Kind::List) => text().boxed(),
        (_, Kind::Bool) => any::<bool>().prop_map(|on| on.to_string()).boxed(),
        (_, Kind::Uint | Kind::Uint64) => {
            any::<u64>().prop_map(|number| number.to_string()).boxed()
        }
        (_, Kind::Int | Kind::Int64) => any::<i64>().prop_map(|number| number.to_string()).boxed(),
        (_, Kind::Uint32) => any::<u32>().prop_map(|number| number.to_string()).boxed(),
        (_, Kind::Duration) => (0..i64::MAX as u64)
            .prop_map(|nanos| format_duration(std::time::Duration::from_nanos(nanos)))
            .boxed(),
        (_, Kind::Urls) => urls().boxed(),
        (_, Kind::OneOf(options)) => words(options),
    }
}

/// Settings in which any honoured flag may have any value; a flag added to the table is covered without a change here.
fn flags() -> impl Strategy<Value = Flags> {
    let settings: Vec<_> = DEFS
        .iter()
        .filter(|def| def.support == Support::Honoured && def.group != Group::Action)
        .map(|def| prop::option::of(value(def)).prop_map(move |value| (def.name, value)))
        .collect();
    settings.prop_map(|settings| {
        let mut flags = Flags::default();
        for (name, value) in settings {
            if let Some(value) = value {
                flags.set(name, &value).unwrap();
            }
        }
        flags
    })
}

proptest! {
    #[test]
    fn arguments_parse_back(flags in flags()) {
        let args = flags.to_args();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        prop_assert_eq!(run(&args, &[]).flags, flags);
    }

    #[test]
    fn variables_parse_back(flags in flags()) {
        let env = flags.to_env();
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        prop_assert_eq!(run(&[], &env).flags, flags);
    }

    #[test]
    fn a_file_parses_back(flags in flags()) {
        let text = flags.to_yaml();
        let run = run_file(&text).unwrap();
        prop_assert_eq!(run.warnings.len(), 1, "only that a file was loaded: {}", text);
        prop_assert_eq!(run.flags, flags, "{}", text);
    }

    #[test]
    fn what_get_gives_set_takes(flags in flags()) {
        let mut copy = Flags::default();
        for def in DEFS.iter().filter(|def| def.support == Support::Honoured && def.group != Group::Action) {
            copy.set(def.name, &flags.get(def.name).unwrap()).unwrap();
        }
        prop_assert_eq!(copy, flags);
    }

    #[test]
    fn arguments_for_an_upstream_mean_the_same(flags in flags()) {
        for minor in [(3, 4), (3, 5), (3, 6), (3, 7)] {
            let Ok(args) = flags.to_args_for(minor) else { continue };
            // An upstream's own defaults, then what was said to it.
            let mut upstream = Flags::default();
            for def in DEFS.iter().filter(|def| def.support == Support::Honoured && def.group != Group::Action && def.name != "logger") {
                upstream.set(def.name, def.default_in(minor)).unwrap();
            }
            for arg in &args {
                let (name, value) = arg.trim_start_matches('-').split_once('=').unwrap();
                prop_assert!(member_flags::lookup(name).unwrap().exists_in(minor));
                upstream.set(name, value).unwrap();
            }
            prop_assert_eq!(&upstream, &flags);
        }
    }

    #[test]
    fn parsing_never_panics(args in prop::collection::vec("-{0,3}(name|pre-vote|listen-peer-urls|config-file|h|x)?=?.{0,8}", 0..5),
                            env in prop::collection::vec(("ETCD_(NAME|PRE_VOTE|X)?", ".{0,5}"), 0..3), file in ".{0,30}") {
        let _ = parse(
            args.into_iter().map(OsString::from),
            env.into_iter().map(|(name, value)| (name.into(), value.into())),
            &|_| Ok(file.clone()),
        );
    }
}

#[test]
fn defaults_need_no_words() {
    let flags = Flags::default();
    assert_eq!(
        (flags.to_args(), flags.to_env(), flags.to_yaml().as_str()),
        (vec![], vec![], "")
    );
    assert_eq!(flags.to_args_for((3, 6)).unwrap(), [""; 0]);
    assert_eq!(
        flags.to_args_for((3, 4)).unwrap(),
        ["--snapshot-count=10000", "--pre-vote=true", "--logger=zap"]
    );
}

#[test]
fn an_advertised_default_is_said_beside_a_listener() {
    let mut flags = Flags::default();
    flags
        .set("listen-client-urls", "http://127.0.0.1:1")
        .unwrap();
    assert_eq!(
        flags.to_args(),
        [
            "--listen-client-urls=http://127.0.0.1:1",
            "--advertise-client-urls=http://localhost:2379"
        ]
    );
}

#[test]
fn what_an_upstream_lacks_is_an_error_that_names_it() {
    let mut flags = Flags::default();
    flags.set("log-format", "console").unwrap();
    assert_eq!(
        flags.to_args_for((3, 4)).unwrap_err().to_string(),
        "--log-format=console has no equivalent in etcd 3.4: this version does not have the flag"
    );
    let mut flags = Flags::default();
    flags
        .set("listen-peer-urls", "http://infra0.example.com:2380")
        .unwrap();
    assert_eq!(
        flags.to_args_for((3, 6)).unwrap_err().to_string(),
        "--listen-peer-urls=http://infra0.example.com:2380 has no equivalent in etcd 3.6: etcd listens on addresses and localhost only, not on host names"
    );
    let mut flags = Flags::default();
    flags.set("initial-cluster-token", "").unwrap();
    assert!(flags.to_env_for((3, 4)).is_err());
    assert!(flags.to_args_for((3, 3)).is_err());
}

#[test]
fn secrets_of_yaml_survive() {
    for name in [
        "~",
        "null",
        "yes",
        "1",
        "#",
        "a: b",
        "\"",
        "\\",
        "\u{85}\u{2028}\u{feff}",
        "\n\t\r",
        "\u{7f}\u{1f600}",
    ] {
        let flags = Flags {
            name: name.to_owned(),
            ..Flags::default()
        };
        assert_eq!(run_file(&flags.to_yaml()).unwrap().flags, flags, "{name:?}");
    }
}
