//! A real etcd as the judge: the same bad lines end with the same words, and rendered settings start it.
//!
//! Runs where Debian's etcd 3.4 is installed, loopback only. Elsewhere there is nothing to compare with.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use member_flags::{Flags, InitialCluster, Urls};
use rustix::process::{Pid, Signal, kill_process};

use crate::cases::{CASES, Etcd};

const ETCD: &str = "/usr/bin/etcd";
const DEADLINE: Duration = Duration::from_secs(60);

/// A process that does not outlive its test.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn etcd(dir: &Path) -> Command {
    let mut command = Command::new(ETCD);
    command
        .current_dir(dir)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Sends the process's error output line by line; the channel closes with the output.
fn lines(child: &mut Child) -> mpsc::Receiver<String> {
    let stderr = child.stderr.take().unwrap();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

#[test]
fn a_real_etcd_says_the_same() {
    if !Path::new(ETCD).exists() {
        return;
    }
    for case in CASES {
        let text = match case.etcd {
            Etcd::Same => case.text,
            Etcd::Ends(text) => text,
            Etcd::Differs => continue,
        };
        assert!(case.text.ends_with(text));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("etcd.yaml");
        if let Some(content) = case.file {
            fs::write(&file, content).unwrap();
        }
        let args = case
            .args
            .iter()
            .map(|arg| arg.replace("{file}", file.to_str().unwrap()));
        let mut child = Owned(
            etcd(dir.path())
                .args(args)
                .envs(case.env.iter().copied())
                .spawn()
                .unwrap(),
        );
        let output = lines(&mut child.0);
        let deadline = Instant::now() + DEADLINE;
        let mut said = Vec::new();
        loop {
            match output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => said.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("etcd runs on with {:?}:\n{}", case.args, said.join("\n"))
                }
            }
        }
        let status = child.0.wait().unwrap();
        let said = said.join("\n");
        assert!(
            said.contains(text),
            "{:?} {:?}\nwanted: {text}\nsaid: {said}",
            case.args,
            case.env
        );
        assert_eq!(status.code(), Some(i32::from(case.exit)), "{:?}", case.args);
    }
}

fn settings(dir: &Path) -> Flags {
    let [peer, client, metrics] = testbed::port::claim();
    let urls = |port: u16| Urls::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    Flags {
        name: "infra0".to_owned(),
        data_dir: Some(dir.join("data")),
        wal_dir: Some(dir.join("wal")),
        snapshot_count: 12_345,
        heartbeat_interval_ms: 70,
        election_timeout_ms: 700,
        listen_peer_urls: urls(peer),
        initial_advertise_peer_urls: urls(peer),
        listen_client_urls: urls(client),
        advertise_client_urls: urls(client),
        listen_metrics_urls: urls(metrics),
        initial_cluster: InitialCluster::new(format!("infra0=http://127.0.0.1:{peer}")),
        initial_cluster_token: "token 1".to_owned(),
        max_txn_ops: 99,
        max_request_bytes: 2_000_000,
        max_concurrent_streams: 500,
        grpc_keepalive_interval: Duration::from_millis(1500),
        log_outputs: [member_flags::LogOutput::Stderr].into(),
        ..Flags::default()
    }
}

/// Starts etcd, waits until it serves, and checks that it has taken the settings over; then it is told to end.
fn starts(mut command: Command, flags: &Flags) {
    let member_flags::Bootstrap::New {
        local_id,
        cluster_id,
        ..
    } = flags
        .check_first_start(&|_, _| Err("no network".to_owned()))
        .unwrap()
    else {
        panic!("a new cluster");
    };
    let mut child = Owned(command.spawn().unwrap());
    let output = lines(&mut child.0);
    let deadline = Instant::now() + DEADLINE;
    let mut said = String::new();
    while !said.contains("serving client traffic") {
        match output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => said = said + &line + "\n",
            Err(error) => panic!("{error}: {said}"),
        }
    }
    for fact in [
        "\"name\":\"infra0\"",
        "\"heartbeat-interval\":\"70ms\"",
        "\"election-timeout\":\"700ms\"",
        "\"snapshot-count\":12345",
        "\"initial-cluster-token\":\"token 1\"",
        "\"max-request-bytes\":2000000",
        "\"max-concurrent-streams\":500",
        "\"pre-vote\":true",
        &format!("\"local-member-id\":\"{local_id:x}\""),
        &format!("\"cluster-id\":\"{cluster_id:x}\""),
    ] {
        assert!(said.contains(fact), "{fact} is missing:\n{said}");
    }
    let pid = Pid::from_raw(i32::try_from(child.0.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let ended = output.iter().collect::<Vec<_>>().join("\n");
    assert_eq!(child.0.wait().unwrap().signal(), Some(15), "{ended}");
}

#[test]
fn rendered_arguments_start_a_real_etcd() {
    if Path::new(ETCD).exists() {
        let dir = tempfile::tempdir().unwrap();
        let flags = settings(dir.path());
        let mut command = etcd(dir.path());
        command.args(flags.to_args_for((3, 4)).unwrap());
        starts(command, &flags);
    }
}

#[test]
fn rendered_variables_start_a_real_etcd() {
    if Path::new(ETCD).exists() {
        let dir = tempfile::tempdir().unwrap();
        let flags = settings(dir.path());
        let mut command = etcd(dir.path());
        command.envs(flags.to_env_for((3, 4)).unwrap());
        starts(command, &flags);
    }
}

#[test]
fn a_rendered_file_starts_a_real_etcd() {
    if Path::new(ETCD).exists() {
        let dir = tempfile::tempdir().unwrap();
        let flags = settings(dir.path());
        let file = dir.path().join("etcd.yaml");
        fs::write(&file, flags.to_yaml_for((3, 4)).unwrap()).unwrap();
        let mut command = etcd(dir.path());
        command.arg("--config-file").arg(file);
        starts(command, &flags);
    }
}

/// etcd's help names its flags and their defaults; each must be in the table for version 3.4.
#[test]
fn the_table_holds_the_help_of_a_real_etcd() {
    if !Path::new(ETCD).exists() {
        return;
    }
    let mut child = Owned(
        Command::new(ETCD)
            .arg("--help")
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut help = String::new();
    child
        .0
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut help)
        .unwrap();
    let mut seen = 0;
    for line in help.lines() {
        let Some((name, default)) = line
            .strip_prefix("  --")
            .and_then(|line| line.split_once(' '))
        else {
            continue;
        };
        let default = match default.trim_matches('\'') {
            "${name}.etcd" => "",
            "math.MaxUint32" => "4294967295",
            "" if name == "backend-batch-interval" => "0s",
            default => default,
        };
        let def =
            member_flags::lookup(name).unwrap_or_else(|| panic!("--{name} is not in the table"));
        assert!(def.exists_in((3, 4)), "--{name}");
        assert!(
            def.same(def.default_in((3, 4)), default),
            "--{name}: {default} is not {}",
            def.default_in((3, 4))
        );
        seen += 1;
    }
    assert!(seen >= 80, "{help}");
}
