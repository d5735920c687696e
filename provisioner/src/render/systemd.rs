//! A member as a systemd unit.

use std::fmt::Write;
use std::path::Path;

use super::forms::{ENV, quote};

/// What a unit needs to know beside its member's arguments.
#[derive(Clone, Copy, Debug)]
pub struct Unit<'a> {
    /// The cluster.
    pub cluster: &'a str,
    /// The member.
    pub member: &'a str,
    /// The user that it runs as.
    pub user: &'a str,
    /// The member's directory, the only one that it may write to.
    pub home: &'a Path,
    /// Where its variables stand, if it has any.
    pub env_file: &'a Path,
    /// Its argument vector, program first.
    pub argv: &'a [String],
}

/// The unit of a member: restarted when it fails, ready when it says so, and shut off from everything but its directory and the
/// network.
#[must_use]
pub fn unit(unit: &Unit<'_>) -> String {
    let Unit {
        cluster,
        member,
        user,
        home,
        env_file,
        argv,
    } = unit;
    let (variables, command) = split(argv);
    let command: Vec<String> = command.iter().map(|word| escape(word)).collect();
    let home = home.display();
    let mut out = format!(
        "# Written by provision; `provision up` writes it again.\n\
         [Unit]\n\
         Description=Member {member} of etcd cluster {cluster}\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         # It is tried for ever: a member that is away counts against the quorum.\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=notify\n\
         User={user}\n\
         WorkingDirectory={home}\n"
    );
    if !variables.is_empty() {
        // Writing to a string does not fail.
        let _ = writeln!(out, "EnvironmentFile={}", env_file.display());
    }
    let _ = writeln!(out, "ExecStart={}", command.join(" "));
    out.push_str(
        "Restart=on-failure\n\
         RestartSec=1\n\
         # A member is ready once it knows a leader, which takes as long as the others need.\n\
         TimeoutStartSec=infinity\n\
         TimeoutStopSec=30\n\
         LimitNOFILE=65536\n\
         OOMScoreAdjust=-500\n\
         UMask=0077\n\
         \n\
         NoNewPrivileges=yes\n\
         CapabilityBoundingSet=\n\
         ProtectSystem=strict\n",
    );
    let _ = writeln!(out, "ReadWritePaths={home}");
    let below = |dir: &str| home.to_string().starts_with(dir);
    if !below("/home/") && !below("/root/") {
        out.push_str("ProtectHome=yes\n");
    }
    if !below("/tmp/") && !below("/var/tmp/") {
        out.push_str("PrivateTmp=yes\n");
    }
    out.push_str(
        "PrivateDevices=yes\n\
         ProtectClock=yes\n\
         ProtectControlGroups=yes\n\
         ProtectHostname=yes\n\
         ProtectKernelLogs=yes\n\
         ProtectKernelModules=yes\n\
         ProtectKernelTunables=yes\n\
         ProtectProc=invisible\n\
         RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK\n\
         RestrictNamespaces=yes\n\
         RestrictRealtime=yes\n\
         RestrictSUIDSGID=yes\n\
         LockPersonality=yes\n\
         MemoryDenyWriteExecute=yes\n\
         SystemCallArchitectures=native\n\
         SystemCallFilter=@system-service\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
    );
    out
}

/// The variables of a member's argument vector as an environment file, `None` where it has none.
#[must_use]
pub fn env_lines(argv: &[String]) -> Option<String> {
    let (variables, _) = split(argv);
    if variables.is_empty() {
        return None;
    }
    let mut out = String::new();
    for variable in variables {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        let _ = writeln!(out, "{name}={}", quote(value));
    }
    Some(out)
}

// What env(1) is given: variables, then the program.
fn split(argv: &[String]) -> (&[String], &[String]) {
    let Some(rest) = argv.strip_prefix(&[ENV.to_owned()]) else {
        return (&[], argv);
    };
    let variables = rest
        .iter()
        .take_while(|word| !word.starts_with('/') && word.contains('='));
    rest.split_at(variables.count())
}

// systemd.service(5), "Command lines": `%` and `$` have a meaning, and quotes hold what a shell's would.
pub(crate) fn escape(word: &str) -> String {
    let word = word.replace('%', "%%").replace('$', "$$");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+$[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word;
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_the_same_to_systemd() {
        assert_eq!(escape("--name=infra0"), "--name=infra0");
        assert_eq!(escape("100%"), "100%%");
        assert_eq!(escape("a b\"$HOME\\"), "\"a b\\\"$$HOME\\\\\"");
        assert_eq!(escape(""), "\"\"");
    }

    #[test]
    fn variables_go_to_their_own_file() {
        let argv = [
            "/usr/bin/env",
            "ETCD_NAME=infra0",
            "ETCD_X=a b",
            "/opt/m",
            "--data-dir=/d",
        ]
        .map(str::to_owned);
        assert_eq!(
            env_lines(&argv).unwrap(),
            "ETCD_NAME=infra0\nETCD_X='a b'\n"
        );
        assert_eq!(env_lines(&argv[3..]), None);
        let text = unit(&Unit {
            cluster: "demo",
            member: "infra0",
            user: "etcd",
            home: Path::new("/var/lib/provision/clusters/demo/members/infra0"),
            env_file: Path::new("/e"),
            argv: &argv,
        });
        assert!(
            text.contains("\nEnvironmentFile=/e\nExecStart=/opt/m --data-dir=/d\n"),
            "{text}"
        );
    }
}
