//! Every file in `topologies/` is a test case.

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use member_flags::{Command, Flags, Warning};
use provisioner::cli::Template;
use provisioner::render::{self, Server};
use provisioner::topology::{self, Loaded, Topology};

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../topologies");
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    files.sort();
    assert!(files.len() >= 5, "{files:?}");
    files
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

fn load(path: &Path) -> Loaded {
    let text = std::fs::read_to_string(path).unwrap();
    topology::parse(&stem(path), &text, path.parent().unwrap(), &|_| None)
        .unwrap_or_else(|error| panic!("{}", error.report(false).unwrap()))
}

#[test]
fn every_shipped_topology_is_a_template() {
    use clap::ValueEnum;
    let names: Vec<String> = Template::value_variants()
        .iter()
        .map(|template| template.to_possible_value().unwrap().get_name().to_owned())
        .collect();
    for path in files() {
        assert!(names.contains(&stem(&path)), "{}", path.display());
    }
}

fn parsed(args: Vec<OsString>, env: Vec<(OsString, OsString)>, file: &str) -> Flags {
    match member_flags::parse(args, env, &|_| Ok(file.to_owned())).unwrap() {
        Command::Run(run) => {
            // That a file puts arguments and environment out of force is said for every file.
            let warnings: Vec<_> = run
                .warnings
                .iter()
                .filter(|warning| !matches!(warning, Warning::ConfigFileLoaded { .. }))
                .collect();
            assert!(warnings.is_empty(), "rendered settings warn: {warnings:?}");
            run.flags
        }
        other => panic!("not a start: {other:?}"),
    }
}

#[test]
fn every_shipped_topology_is_valid_without_warnings_and_says_what_it_shows() {
    for path in files() {
        let loaded = load(&path);
        assert_eq!(loaded.warnings, [], "{}", path.display());
        assert_eq!(
            loaded.topology.name,
            stem(&path),
            "a cluster is named as its file"
        );
        assert!(
            loaded.text.starts_with("# "),
            "{} opens with a comment",
            path.display()
        );
    }
}

#[test]
fn rendered_settings_parse_back_into_the_same_flags() {
    for path in files() {
        let topology = load(&path).topology;
        let instance = render::placeholder(&topology);
        for member in &topology.members {
            let flags = render::flags(&topology, member, &instance).unwrap();
            flags
                .check_first_start(&|host, port| Ok(format!("{host}:{port}")))
                .unwrap();
            let server = Server::assumed(&member.binary, (3, 6));
            let args = render::argv(&topology, member, &instance, server).unwrap();
            assert_eq!(
                parsed(args.into_iter().map(Into::into).collect(), vec![], ""),
                flags,
                "{} as arguments",
                path.display()
            );
            let env = render::env(&topology, member, &instance, server).unwrap();
            let env = env
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect();
            assert_eq!(
                parsed(vec![], env, ""),
                flags,
                "{} as environment",
                path.display()
            );
            let yaml = render::yaml(&topology, member, &instance, server).unwrap();
            assert_eq!(
                parsed(vec!["--config-file=x".into()], vec![], &yaml),
                flags,
                "{} as a file",
                path.display()
            );
        }
    }
}

fn rendered(topology: &Topology) -> String {
    let instance = render::placeholder(topology);
    let mut out = String::new();
    for member in &topology.members {
        let args = render::argv(topology, member, &instance, Server::Member).unwrap();
        out.push_str(&format!(
            "# {}\n{}\n",
            member.name,
            render::shell_line("member", &args)
        ));
    }
    let last = topology.members.last().unwrap();
    out.push_str(&format!(
        "\n# {} as environment\n{}",
        last.name,
        render::env_file(topology, last, &instance, Server::Member).unwrap()
    ));
    out.push_str(&format!(
        "\n# {} as configuration file\n{}",
        last.name,
        render::yaml(topology, last, &instance, Server::Member).unwrap()
    ));
    let old = match render::argv(topology, last, &instance, Server::Etcd { minor: (3, 4) }) {
        Ok(args) => render::shell_line("etcd", &args),
        Err(error) => match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    };
    out.push_str(&format!("\n# {} for etcd 3.4\n{old}\n", last.name));
    out.push_str(&format!("\n{}", render::zone(topology, &instance)));
    let apiserver = render::kube_apiserver(topology, &instance);
    out.push_str(&format!("\n# kube-apiserver\n{}\n", apiserver.join("\n")));
    out
}

#[test]
fn rendered_settings_are_golden() {
    for path in files() {
        insta::assert_snapshot!(
            format!("render-{}", stem(&path)),
            rendered(&load(&path).topology)
        );
    }
}

#[test]
fn the_resolved_form_is_the_same_topology() {
    for path in files() {
        let topology = load(&path).topology;
        let text = topology::to_toml(&topology);
        let again = topology::parse("resolved", &text, Path::new("/elsewhere"), &|_| None)
            .unwrap_or_else(|error| panic!("{}", error.report(false).unwrap()));
        assert_eq!(again.topology, topology, "{text}");
    }
}

#[test]
fn the_schema_is_golden_and_is_json() {
    insta::assert_snapshot!(
        "schema",
        serde_json::to_string_pretty(&topology::json_schema()).unwrap()
    );
}
