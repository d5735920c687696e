//! The whole life of a cluster on machines, with a client outside of it that writes and reads all the time.

#![expect(
    clippy::print_stdout,
    reason = "what a run saw belongs in the test's output"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Child;

use crate::lab::Place;
use crate::sandbox::{Done, finish, wait_until};

const OLD: &str = "/usr/bin/etcd";
const NEW: &str = "/usr/local/lib/etcd-3.5.1/etcd";

/// Writes a number under a key of its own, and once that is acknowledged notes it and reads it back.
const CLIENT: &str = r#"
i=$1
while [ ! -e "$2/stop" ] && [ $i -lt 100000 ]; do
  i=$((i + 1))
  if etcdctl --command-timeout 2s put seq/$i $i >/dev/null 2>&1; then
    echo $i >> "$2/acknowledged"
    read=$(etcdctl --command-timeout 2s get seq/$i --print-value-only 2>/dev/null) || continue
    [ "$read" = $i ] || echo "$i is $read" >> "$2/wrong"
  fi
done
"#;

struct Life {
    place: Place,
    file: String,
}

impl Life {
    /// Members on these machines of the lab, in this order.
    fn want(&self, machines: &[usize]) {
        let mut text = format!(
            "name = \"life\"\n[tls]\npeer = \"mutual\"\nclient = \"mutual\"\n[host-defaults]\nssh-config = \"{}\"\n",
            self.place.dir().join("ssh_config").display()
        );
        for (member, machine) in machines.iter().enumerate() {
            text.push_str(&format!(
                "[[member]]\nname = \"m{member}\"\nbinary = \"{OLD}\"\nhost = \"ssh://infra{machine}.example.com\"\naddress = \"10.0.1.{}\"\n",
                10 + machine
            ));
        }
        fs::write(&self.file, text).unwrap();
    }

    /// Runs a verb, after which there is nothing to do, and which no client noticed for long.
    #[track_caller]
    fn verb(&self, args: &[&str]) -> Done {
        let done = self.place.0.provision(args).expect(0);
        for line in done.stderr.lines() {
            if line.contains("longest write gap") {
                println!("{}: {line}", args.join(" "));
                assert!(line.contains(" 0 of "), "{line}");
            }
        }
        self.place
            .0
            .provision(&["plan", "--detailed-exitcode", &self.file])
            .expect(0);
        done
    }

    fn notes(&self) -> PathBuf {
        self.place.0.path().join("notes")
    }

    fn acknowledged(&self) -> BTreeSet<u64> {
        let text = fs::read_to_string(self.notes().join("acknowledged")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// A client that starts with number `after`, and has all addresses that members ever have.
    fn client(&self, after: u64) -> Child {
        let notes = self.notes();
        fs::create_dir_all(&notes).unwrap();
        let _none_yet = fs::remove_file(notes.join("stop"));
        let pki = self.place.0.cluster("life").join("pki");
        let endpoints: Vec<String> = (10..17)
            .map(|ip| format!("https://10.0.1.{ip}:2379"))
            .collect();
        let variables = [
            "ETCDCTL_API=3".to_owned(),
            format!("ETCDCTL_ENDPOINTS={}", endpoints.join(",")),
            format!("ETCDCTL_CACERT={}/ca.crt", pki.display()),
            format!("ETCDCTL_CERT={}/operator.crt", pki.display()),
            format!("ETCDCTL_KEY={}/operator.key", pki.display()),
        ];
        let mut args = vec![
            "lab".to_owned(),
            "exec".to_owned(),
            "--".to_owned(),
            "env".to_owned(),
        ];
        args.extend(variables);
        args.extend(["sh", "-c", CLIENT, "client"].map(str::to_owned));
        args.extend([after.to_string(), notes.display().to_string()]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let client = self.place.0.spawn(&args);
        self.works();
        client
    }

    /// Waits for more acknowledged writes.
    #[track_caller]
    fn works(&self) {
        let before = self.acknowledged().len();
        wait_until("writes are acknowledged", || {
            self.acknowledged().len() >= before + 5
        });
    }

    fn stop(&self, client: Child) {
        fs::write(self.notes().join("stop"), "").unwrap();
        finish(client).expect(0);
    }

    /// Every acknowledged write is there, and none was read as something else.
    #[track_caller]
    fn judge(&self) {
        let env = self.place.0.provision(&["env", "life", "-o", "json"]);
        let env = env.expect(0).json();
        let mut command = vec!["env".to_owned()];
        command.extend(
            env.as_object()
                .unwrap()
                .iter()
                .filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?))),
        );
        command.extend(["etcdctl", "get", "seq/", "--prefix", "--keys-only"].map(str::to_owned));
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let keys = self.place.inside(&command).expect(0).stdout;
        let there: BTreeSet<u64> = keys
            .lines()
            .filter_map(|line| line.strip_prefix("seq/")?.parse().ok())
            .collect();
        let acknowledged = self.acknowledged();
        let lost: Vec<&u64> = acknowledged.difference(&there).collect();
        println!("{} acknowledged, {} there", acknowledged.len(), there.len());
        assert_eq!(lost, [&0; 0]);
        let wrong = fs::read_to_string(self.notes().join("wrong")).unwrap_or_default();
        assert_eq!(wrong, "");
    }
}

#[test]
fn a_cluster_on_machines_lives_through_everything() {
    let place = Place::new();
    place.lab(&["up", "--hosts", "7"]).expect(0);
    let file = place.0.write("life.toml", "");
    let life = Life { place, file };
    let file = life.file.as_str();
    life.want(&[0, 1, 2]);
    life.verb(&["up", file]);
    let client = life.client(0);

    life.want(&[0, 1, 2, 3, 4]);
    life.verb(&["up", file]);
    life.works();

    life.place.lab(&["kill", "infra1"]).expect(0);
    let with = [
        "--with",
        "ssh://infra5.example.com",
        "--address",
        "10.0.1.15",
    ];
    life.verb(&[&["replace", file, "m1"], &with[..]].concat());
    life.works();

    life.verb(&["rotate", "ca", file]);
    life.works();
    life.verb(&["rotate", "certs", file]);
    life.works();

    life.verb(&["upgrade", "--binary", NEW, file]);
    life.works();

    life.verb(&["backup", "--verify", file]);
    life.works();

    life.stop(client);
    life.judge();

    // Three of five are gone for good. What was acknowledged is known to all by now: the client has read it.
    for machine in ["infra0", "infra2", "infra5"] {
        life.place.lab(&["kill", machine]).expect(0);
    }
    let recover = ["recover", "--accept-data-loss", file];
    life.place.0.provision(&recover).expect(0).says(&[
        "goes on",
        "m0 is not in the cluster: its machine is out of reach",
    ]);
    life.judge();
    let last = life.acknowledged().last().copied().unwrap();
    let client = life.client(last);
    // The machines of two are given up, and the third member comes anew elsewhere.
    let text = fs::read_to_string(file).unwrap();
    let kept: Vec<&str> = text
        .split("[[member]]\n")
        .filter(|entry| !entry.contains("\"m0\"") && !entry.contains("\"m2\""))
        .collect();
    fs::write(file, kept.join("[[member]]\n")).unwrap();
    let with = [
        "--with",
        "ssh://infra6.example.com",
        "--address",
        "10.0.1.16",
    ];
    life.verb(&[&["replace", file, "m1"], &with[..]].concat());
    life.works();
    life.stop(client);
    life.judge();
}
