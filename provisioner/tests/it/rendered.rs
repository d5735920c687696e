//! What `render` writes for systemd, compose, the kubelet and Ansible: read back, and golden.

use std::path::Path;

use member_flags::{Command, Flags};
use serde::Deserialize;
use serde_json::Value;

use crate::sandbox::{Done, Sandbox};

// Nothing of provision's own runs beside these members.
const STANDALONE: [&str; 8] = [
    "dns-srv-tls",
    "five-node-kubernetes",
    "gateway",
    "mixed-flags",
    "single-node",
    "ssh-three-host",
    "static-tls",
    "three-node-tls",
];

fn shipped(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../topologies");
    dir.join(name).with_extension("toml").display().to_string()
}

fn render(format: &str, topology: &str, more: &[&str]) -> Done {
    let file = shipped(topology);
    let mut args = vec!["render", "--format", format, &file];
    args.extend(more);
    Sandbox::new()
        .command(&args)
        .env_remove("PROVISION_SSH_CONFIG")
        .output()
        .unwrap()
        .into()
}

fn documents(text: &str) -> Vec<Value> {
    serde_yaml_ng::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

fn words(value: &Value) -> Vec<String> {
    let words = value.as_array().unwrap().iter();
    words
        .map(|word| word.as_str().unwrap().to_owned())
        .collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn flags(args: &[String]) -> Flags {
    let args: Vec<_> = args.iter().map(std::ffi::OsString::from).collect();
    match member_flags::parse(args, vec![], &|_| unreachable!("no file is named")).unwrap() {
        Command::Run(run) => run.flags,
        other => panic!("not a start: {other:?}"),
    }
}

// Without the port for probes, and every path the same.
fn alike(args: &[String]) -> Flags {
    let alike = |arg: &String| {
        let (name, value) = arg.split_once('=').unwrap();
        let is_path = ["-file", "-dir"].iter().any(|end| name.ends_with(end));
        let value = if is_path { "x" } else { value };
        (name != "--listen-metrics-urls").then(|| format!("{name}={value}"))
    };
    flags(&args.iter().filter_map(alike).collect::<Vec<_>>())
}

// The command lines of all members as `--format flags` has them, but for the paths.
fn same_but_for_paths(topology: &str, commands: &[Vec<String>]) {
    let plain = render("flags", topology, &["-o", "json"]).expect(0).json();
    let members = plain["members"].as_array().unwrap();
    assert_eq!(members.len(), commands.len());
    for (member, command) in members.iter().zip(commands) {
        assert_eq!(command[0], "/usr/local/bin/etcd");
        let (wanted, found) = (alike(&words(&member["args"])), alike(&command[1..]));
        assert_eq!(found, wanted, "{topology}");
    }
}

#[test]
fn a_compose_file_has_every_member_with_its_flags() {
    for topology in STANDALONE {
        let text = render("compose", topology, &[]).expect(0).stdout;
        let file: Value = serde_yaml_ng::from_str(&text).unwrap();
        // The schema allows no other keys.
        assert_eq!(keys(&file), ["name", "services", "volumes"]);
        let project = file["name"].as_str().unwrap();
        assert!(
            project.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && project
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c)),
            "{project}"
        );
        let services = file["services"].as_object().unwrap();
        let mut commands = Vec::new();
        for (name, service) in services {
            assert_eq!(
                keys(service),
                [
                    "command",
                    "healthcheck",
                    "image",
                    "network_mode",
                    "restart",
                    "stop_grace_period",
                    "ulimits",
                    "volumes"
                ]
            );
            let image = service["image"].as_str().unwrap();
            assert!(
                image.starts_with("gcr.io/etcd-development/etcd:v3.6."),
                "{image}"
            );
            let health = &service["healthcheck"];
            assert_eq!(
                keys(health),
                ["interval", "retries", "start_period", "test", "timeout"]
            );
            let test = words(&health["test"]);
            assert_eq!(test[0], "CMD");
            assert_eq!(test[test.len() - 2..], ["endpoint", "health"]);
            let command = words(&service["command"]);
            let all = flags(&command[1..]);
            for mount in service["volumes"].as_array().unwrap() {
                match mount["type"].as_str().unwrap() {
                    "volume" => {
                        assert_eq!(mount["target"], "/var/lib/etcd");
                        let volume = mount["source"].as_str().unwrap();
                        assert_eq!(volume, format!("{name}-data"));
                        assert!(file["volumes"].get(volume).is_some());
                    }
                    "bind" => {
                        assert_eq!(mount["read_only"], true);
                        assert_eq!(mount["target"], "/etc/etcd/certs");
                    }
                    other => panic!("{other}"),
                }
            }
            assert_eq!(all.name, *name);
            commands.push(command);
        }
        same_but_for_paths(topology, &commands);
    }
}

#[test]
fn a_pod_per_node_is_probed_where_etcd_answers() {
    for topology in ["single-node", "ssh-three-host", "static-tls"] {
        let text = render("static-pod", topology, &[]).expect(0).stdout;
        let pods = documents(&text);
        let mut commands = Vec::new();
        for pod in &pods {
            assert_eq!(
                (&pod["apiVersion"], &pod["kind"]),
                (&"v1".into(), &"Pod".into())
            );
            assert_eq!(pod["metadata"]["namespace"], "kube-system");
            let spec = &pod["spec"];
            assert_eq!(spec["hostNetwork"], true);
            assert_eq!(spec["priorityClassName"], "system-node-critical");
            let container = &spec["containers"][0];
            let command = words(&container["command"]);
            let metrics = flags(&command[1..]).listen_metrics_urls.to_string();
            for probe in ["livenessProbe", "startupProbe"] {
                let get = &container[probe]["httpGet"];
                assert!(get["path"].as_str().unwrap().starts_with("/health?"));
                let url = format!("http://{}:{}", get["host"].as_str().unwrap(), get["port"]);
                assert_eq!(url, metrics);
            }
            let volumes = spec["volumes"].as_array().unwrap();
            let mounts = container["volumeMounts"].as_array().unwrap();
            assert_eq!(volumes.len(), mounts.len());
            for (volume, mount) in volumes.iter().zip(mounts) {
                assert_eq!(volume["name"], mount["name"]);
                assert_eq!(volume["hostPath"]["path"], mount["mountPath"]);
            }
            commands.push(command);
        }
        same_but_for_paths(topology, &commands);
    }
    let own = Sandbox::new();
    let file = own.write(
        "own.toml",
        "name = \"own\"\n[[member]]\nname = \"m\"\nflags = { listen-metrics-urls = \"http://0.0.0.0:9000\" }\n",
    );
    let done = own
        .provision(&["render", "--format", "static-pod", &file])
        .expect(0);
    let pod = &documents(&done.stdout)[0];
    let get = &pod["spec"]["containers"][0]["livenessProbe"]["httpGet"];
    assert_eq!(
        (&get["host"], &get["port"]),
        (&"127.0.0.1".into(), &9000.into())
    );
}

#[test]
fn an_inventory_says_how_hosts_are_reached_and_what_runs_there() {
    for topology in STANDALONE {
        let text = render("ansible-inventory", topology, &[]).expect(0).stdout;
        let inventory: Value = serde_yaml_ng::from_str(&text).unwrap();
        assert_eq!(keys(&inventory), ["etcd"]);
        let plain = render("env", topology, &["-o", "json"]).expect(0).json();
        for member in plain["members"].as_array().unwrap() {
            let host = &inventory["etcd"]["hosts"][member["name"].as_str().unwrap()];
            assert_eq!(host["etcd_environment"], member["env"], "{topology}");
            assert_eq!(
                host["etcd_client_url"],
                member["env"]["ETCD_ADVERTISE_CLIENT_URLS"]
            );
            assert_eq!(host["etcd_data_dir"], member["env"]["ETCD_DATA_DIR"]);
        }
    }
    let sandbox = Sandbox::new();
    let file = sandbox.write(
        "jump.toml",
        "name = \"jump\"\n[host-defaults]\nuser = \"ops\"\nsudo = true\njump = [\"bastion.example.com\"]\nidentity = \"/k/id\"\n\
         [[member]]\nname = \"infra0\"\nhost = \"ssh://h.example.com:2222\"\naddress = \"10.0.0.1\"\n",
    );
    let done = sandbox
        .provision(&["render", "--format", "ansible-inventory", &file])
        .expect(0);
    let inventory: Value = serde_yaml_ng::from_str(&done.stdout).unwrap();
    let host = &inventory["etcd"]["hosts"]["infra0"];
    for (name, value) in [
        ("ansible_host", Value::from("h.example.com")),
        ("ansible_user", "ops".into()),
        ("ansible_port", 2222.into()),
        ("ansible_become", true.into()),
        ("ansible_ssh_private_key_file", "/k/id".into()),
        (
            "ansible_ssh_common_args",
            "-o ProxyJump=bastion.example.com".into(),
        ),
    ] {
        assert_eq!(host[name], value, "{name}");
    }
}

#[test]
fn a_unit_comes_with_every_file_that_it_needs() {
    for topology in STANDALONE {
        let files = render("systemd", topology, &["-o", "json"])
            .expect(0)
            .json();
        for member in files["members"].as_array().unwrap() {
            let files = member["files"].as_array().unwrap();
            let all: Vec<&str> = files
                .iter()
                .map(|file| file["path"].as_str().unwrap())
                .collect();
            let text = |part: &str| {
                let file = files
                    .iter()
                    .find(|file| file["path"].as_str().unwrap().ends_with(part));
                file.map(|file| file["content"].as_str().unwrap().to_owned())
            };
            let unit = text(".service").unwrap();
            let program = unit
                .lines()
                .find_map(|line| line.strip_prefix("ExecStart="))
                .unwrap();
            let program = program.split(' ').next().unwrap();
            assert!(all.contains(&program), "{program} of {all:?}");
            let settings = unit + &text("member.env").unwrap_or_default();
            for word in settings.split(['=', ' ', '\n', '\'']) {
                let file = [".crt", ".key", ".env"]
                    .iter()
                    .any(|end| word.ends_with(end));
                assert!(
                    !file || all.contains(&word),
                    "{topology}: {word} of {all:?}"
                );
            }
        }
    }
}

#[test]
fn what_others_run_is_golden() {
    for (format, topology) in [
        ("systemd", "ssh-three-host"),
        ("systemd", "three-node-tls"),
        ("compose", "three-node-tls"),
        ("static-pod", "ssh-three-host"),
        ("ansible-inventory", "ssh-three-host"),
        ("ansible-inventory", "single-node"),
    ] {
        let text = render(format, topology, &["--member", "infra0"])
            .expect(0)
            .stdout;
        insta::assert_snapshot!(format!("{format}-{topology}"), text);
    }
}

#[test]
fn what_cannot_run_without_provision_is_refused() {
    for format in ["systemd", "compose", "static-pod"] {
        render(format, "discovery-private", &[])
            .expect(2)
            .says(&["discovery service that provision runs", "fix:"]);
    }
    render("static-pod", "three-node-tls", &[])
        .expect(2)
        .says(&["infra0 and infra1 are both at 127.0.0.1", "fix:"]);
    render("compose", "three-node", &["--etcd-version", "3.9"])
        .expect(2)
        .says(&["no image of etcd 3.9 is known", "--image"]);
    let own = [
        "--etcd-version",
        "3.5",
        "--image",
        "registry.example.com/etcd:1",
    ];
    render("compose", "three-node", &own)
        .expect(0)
        .shows(&["image: registry.example.com/etcd:1"])
        .says(&["stock etcd"]);
    for format in ["static-pod", "kube-apiserver"] {
        let done = render(format, "ssh-three-host", &[]).expect(0);
        done.says(&["recommends five members in production, and ssh-three-host has 3"]);
    }
}
