//! The arrows between crates, and what must not be linked or named where.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(args)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo prints text")
}

/// What the selected packages link, tests aside: a line each.
fn tree(selection: &[&str]) -> String {
    cargo(
        &[
            &["tree", "--locked", "--prefix", "none", "-e", "normal"],
            selection,
        ]
        .concat(),
    )
}

/// Crate to the workspace crates and fenced libraries that it depends on, tests aside.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let metadata: serde_json::Value = serde_json::from_str(&cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--locked",
    ]))
    .expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let own: BTreeSet<&str> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    let fenced = ["openraft", "rocksdb", "clap"];
    packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().expect("name").to_owned();
            let to = package["dependencies"]
                .as_array()
                .expect("dependencies")
                .iter();
            let to = to
                .filter(|dependency| dependency["kind"].is_null())
                .filter_map(|dependency| dependency["name"].as_str())
                .filter(|dependency| own.contains(dependency) || fenced.contains(dependency));
            (name, to.map(str::to_owned).collect())
        })
        .collect()
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let allowed: [(&str, &[&str]); 13] = [
        ("base2histogram", &[]),
        // `member snapshot restore` builds a data directory without a server: state, log and membership.
        (
            "member",
            &[
                "member-bolt",
                "member-discovery",
                "member-flags",
                "member-log",
                "member-server",
                "member-state",
                "member-store",
            ],
        ),
        ("member-bolt", &[]),
        ("member-discovery", &["member-flags", "member-proto"]),
        ("member-flags", &[]),
        ("member-log", &["openraft"]),
        ("member-proto", &[]),
        (
            "member-server",
            &[
                "member-bolt",
                "member-discovery",
                "member-flags",
                "member-log",
                "member-proto",
                "member-state",
                "member-v2",
                "openraft",
            ],
        ),
        ("member-state", &["member-v2"]),
        ("member-store", &["member-state", "rocksdb"]),
        ("member-v2", &[]),
        (
            "provisioner",
            &[
                "clap",
                "member-bolt",
                "member-discovery",
                "member-flags",
                "member-proto",
                "testbed",
            ],
        ),
        ("testbed", &["member-flags", "member-proto"]),
    ];
    let found = arrows();
    let known: BTreeSet<&str> = allowed.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        found.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        known,
        "a new crate needs its arrows here"
    );
    for (name, to) in allowed {
        for dependency in &found[name] {
            assert!(
                to.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn only_the_member_links_rocksdb() {
    for package in [
        "provisioner",
        "testbed",
        "member-server",
        "member-bolt",
        "member-log",
        "member-state",
        "member-v2",
    ] {
        let tree = tree(&["-p", package]);
        assert!(!tree.contains("librocksdb-sys"), "{package} links RocksDB");
    }
}

#[test]
fn the_state_has_no_clock_no_files_no_tasks() {
    let tree = tree(&["-p", "member-state"]);
    for banned in ["tokio", "rand", "time"] {
        assert!(
            !tree
                .lines()
                .any(|line| line.starts_with(&format!("{banned} "))),
            "member-state links {banned}"
        );
    }
    let v2 = sources("member/v2/src");
    for (path, text) in sources("member/state/src").into_iter().chain(v2) {
        let (text, _tests) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
        for banned in [
            "std::fs",
            "std::time",
            "std::net",
            "std::thread",
            "SystemTime",
            "Instant",
        ] {
            assert!(!text.contains(banned), "{} uses {banned}", path.display());
        }
    }
}

#[test]
fn the_file_format_has_no_tasks_and_no_network() {
    let tree = tree(&["-p", "member-bolt"]);
    for banned in ["tokio", "tonic", "openraft"] {
        assert!(
            !tree
                .lines()
                .any(|line| line.starts_with(&format!("{banned} "))),
            "member-bolt links {banned}"
        );
    }
}

#[test]
fn no_crate_brings_a_second_tls_provider() {
    let tree = tree(&["--workspace"]);
    for banned in ["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls"] {
        assert!(
            !tree.contains(banned),
            "{banned} is linked: rustls with ring is the only TLS"
        );
    }
}

#[test]
fn openraft_is_named_in_the_log_and_in_one_module_of_the_server() {
    for (path, text) in sources("member") {
        let allowed =
            path.starts_with("member/log") || path.starts_with("member/server/src/consensus");
        let names = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .any(|line| line.contains("openraft::"));
        assert!(
            allowed || !names || path.ends_with("architecture.rs"),
            "{} names openraft",
            path.display()
        );
    }
}

#[test]
fn only_hosts_spawn_processes() {
    for (path, text) in sources("provisioner/src")
        .into_iter()
        .chain(sources("testbed/src"))
    {
        let allowed =
            path.starts_with("provisioner/src/host") || path.starts_with("testbed/src/host");
        for call in ["process::Command", "Command::new("] {
            // In-file tests may start what they check.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            assert!(
                allowed || !code.contains(call),
                "{} spawns a process",
                path.display()
            );
        }
    }
}

/// Every Rust source below a directory, by its path from the root.
fn sources(below: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().join(below)];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("readable").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("readable");
                found.push((
                    path.strip_prefix(root())
                        .expect("below the root")
                        .to_owned(),
                    text,
                ));
            }
        }
    }
    assert!(!found.is_empty(), "{below} holds no sources");
    found
}
