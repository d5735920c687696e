//! Texts and exit codes of the member, case by case, and what goes with them.

use std::fs;

use member_flags::{Command, DEFS, FlagError, Group, Kind, Support};

use crate::{cases::CASES, command, first_start, run};

#[test]
fn a_bad_line_gets_the_text_and_the_exit_code_of_etcd() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etcd.yaml");
    for case in CASES {
        if let Some(content) = case.file {
            fs::write(&path, content).unwrap();
        }
        let args: Vec<String> = case
            .args
            .iter()
            .map(|arg| arg.replace("{file}", path.to_str().unwrap()))
            .collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let error = first_start(&args, case.env).expect_err(case.text);
        assert_eq!(
            (error.to_string().as_str(), error.exit_code()),
            (case.text, case.exit),
            "{:?} {:?} {:?}",
            case.args,
            case.env,
            case.file
        );
    }
}

#[test]
fn every_refused_flag_is_refused_by_name_and_taken_at_its_default() {
    for def in DEFS {
        let Support::Refused { why } = def.support else {
            continue;
        };
        let value = match def.kind {
            Kind::Bool => {
                if def.accepts("true") {
                    "false"
                } else {
                    "true"
                }
            }
            Kind::Duration => "7m",
            Kind::Urls => "http://127.0.0.1:7",
            Kind::OneOf(words) => words
                .iter()
                .find(|word| !def.accepts(word))
                .copied()
                .unwrap_or(def.default),
            _ => "7",
        };
        if !def.accepts(value) {
            let error = command(&[&format!("--{}={value}", def.name)], &[]).unwrap_err();
            assert_eq!(
                error,
                FlagError::Refused {
                    name: def.name.to_owned(),
                    why: why.to_owned()
                }
            );
        }
        let mut flags = member_flags::Flags::default();
        assert_eq!(flags.set(def.name, def.default), Ok(()), "--{}", def.name);
        run(&[&format!("--{}={}", def.name, def.default)], &[]);
    }
}

#[test]
fn a_later_value_takes_a_refused_one_back() {
    run(&["--enable-pprof", "--enable-pprof=false"], &[]);
    assert!(matches!(
        command(&["--enable-pprof=false", "--enable-pprof"], &[]),
        Err(FlagError::Refused { .. })
    ));
}

#[test]
fn help_and_version_come_before_what_cannot_be_honoured() {
    for help in ["-h", "--h", "-help", "--help"] {
        assert_eq!(
            command(&["--enable-pprof", help, "--bogus"], &[]),
            Ok(Command::Help)
        );
    }
    assert_eq!(
        command(&["--enable-pprof", "--version"], &[]),
        Ok(Command::Version)
    );
    assert!(matches!(
        command(&["--version=false"], &[]),
        Ok(Command::Run(_))
    ));
}

#[test]
fn an_unknown_flag_gets_a_suggestion() {
    let error = command(&["--listen-client-url=http://127.0.0.1:1"], &[]).unwrap_err();
    assert_eq!(
        error.hint().as_deref(),
        Some("did you mean --listen-client-urls?")
    );
    let error = command(&["--pre-vote", "false"], &[]).unwrap_err();
    assert_eq!(
        error.hint().as_deref(),
        Some("a boolean flag takes its value after an equals sign, as in --pre-vote=false")
    );
}

#[test]
fn every_flag_but_actions_has_a_line_in_the_environment() {
    for def in DEFS.iter().filter(|def| {
        def.group != Group::Action && def.default.is_ascii() && !def.default.is_empty()
    }) {
        let variable = def.env_name();
        let run = run(&[], &[(variable.as_str(), def.default)]);
        assert!(run.origins.contains_key(def.name), "{variable}");
    }
}
