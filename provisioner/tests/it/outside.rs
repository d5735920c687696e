//! A cluster on machines of a lab, and a client outside of it that writes and reads all the time.

#![expect(
    clippy::print_stdout,
    reason = "what a run saw belongs in the test's output"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Child;

use crate::lab::Place;
use crate::sandbox::{Done, Server, finish, wait_until};

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

pub(crate) struct Outside {
    pub(crate) place: Place,
    pub(crate) file: String,
    server: Server,
}

impl Outside {
    /// A lab, and no cluster yet.
    pub(crate) fn new(server: Server, hosts: usize) -> Self {
        let place = Place::new();
        place.lab(&["up", "--hosts", &hosts.to_string()]).expect(0);
        let file = place.0.write("life.toml", "");
        Self {
            place,
            file,
            server,
        }
    }

    /// Members on these machines of the lab, in this order.
    pub(crate) fn want(&self, machines: &[usize]) {
        self.want_with(machines, "");
    }

    /// The same with flags of all members.
    pub(crate) fn want_with(&self, machines: &[usize], flags: &str) {
        let mut text = format!(
            "name = \"life\"\n[defaults]\n{flags}\n[tls]\npeer = \"mutual\"\nclient = \"mutual\"\n[host-defaults]\nssh-config = \"{}\"\n",
            self.place.dir().join("ssh_config").display()
        );
        for (member, machine) in machines.iter().enumerate() {
            text.push_str(&format!(
                "[[member]]\nname = \"m{member}\"\n{}\nhost = \"ssh://infra{machine}.example.com\"\naddress = \"10.0.1.{}\"\n",
                self.server.binary,
                10 + machine
            ));
        }
        fs::write(&self.file, text).unwrap();
    }

    /// Runs a verb, after which there is nothing to do, and which no client noticed for long.
    #[track_caller]
    pub(crate) fn verb(&self, args: &[&str]) -> Done {
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

    pub(crate) fn acknowledged(&self) -> BTreeSet<u64> {
        let text = fs::read_to_string(self.notes().join("acknowledged")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// A client that starts with number `after`, and has all addresses that members ever have.
    pub(crate) fn client(&self, after: u64) -> Child {
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
    pub(crate) fn works(&self) {
        let before = self.acknowledged().len();
        wait_until("writes are acknowledged", || {
            self.acknowledged().len() >= before + 5
        });
    }

    pub(crate) fn stop(&self, client: Child) {
        fs::write(self.notes().join("stop"), "").unwrap();
        finish(client).expect(0);
    }

    /// A command on the lab's network, with the variables of etcdctl.
    pub(crate) fn inside(&self, command: &[&str]) -> Done {
        let env = self.place.0.provision(&["env", "life", "-o", "json"]);
        let env = env.expect(0).json();
        let variables = env.as_object().unwrap().iter();
        let variables: Vec<String> = variables
            .filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?)))
            .collect();
        let mut all = vec!["env"];
        all.extend(variables.iter().map(String::as_str));
        all.extend(command);
        self.place.inside(&all)
    }

    /// Every acknowledged write is there, and none was read as something else.
    #[track_caller]
    pub(crate) fn judge(&self) {
        let keys = self.inside(&["etcdctl", "get", "seq/", "--prefix", "--keys-only"]);
        let keys = keys.expect(0).stdout;
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
