//! The systemd units that take backups by themselves. Pure: text.

use std::path::{Path, PathBuf};

use crate::render::systemd_word;

/// Who runs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// The system.
    System,
    /// A user's own.
    User,
}

/// What the units need to know.
#[derive(Clone, Debug)]
pub struct Timer<'a> {
    /// The cluster.
    pub cluster: &'a str,
    /// When, as systemd.time(7) says it.
    pub schedule: &'a str,
    /// This program.
    pub program: &'a Path,
    /// Where clusters are remembered.
    pub state_root: &'a Path,
    /// Directories that backups are written to.
    pub writes: &'a [PathBuf],
    /// Variables that the program needs.
    pub variables: &'a [(String, String)],
    /// Who runs them.
    pub manager: Manager,
}

/// The units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Units {
    /// The name of the one that takes a backup.
    pub service: String,
    /// The name of the one that says when.
    pub timer: String,
    /// Text of the first.
    pub service_text: String,
    /// Text of the second.
    pub timer_text: String,
}

impl Units {
    /// The names of a cluster's units: service and timer.
    #[must_use]
    pub fn names(cluster: &str) -> [String; 2] {
        ["service", "timer"].map(|kind| format!("provision-backup-{cluster}.{kind}"))
    }
}

impl Timer<'_> {
    /// Writes the units. The service reads what `provision` reads, writes backups only, and keeps no privileges.
    #[must_use]
    pub fn units(&self) -> Units {
        let [service, timer] = Units::names(self.cluster);
        let cluster = self.cluster;
        let word = |path: &Path| systemd_word(&path.to_string_lossy());
        let head = "# Written by provision; `provision backup --install-timer` writes it again.\n";
        let mut text = format!(
            "{head}[Unit]\n\
             Description=Backup of etcd cluster {cluster}\n\
             Wants=network-online.target\n\
             After=network-online.target\n\
             \n\
             [Service]\n\
             Type=oneshot\n"
        );
        for (name, value) in self.variables {
            text.push_str(&format!(
                "Environment={}\n",
                systemd_word(&format!("{name}={value}"))
            ));
        }
        text.push_str(&format!(
            "ExecStart={} --state-dir {} backup {}\n\
             UMask=0077\n\
             NoNewPrivileges=yes\n\
             LockPersonality=yes\n\
             MemoryDenyWriteExecute=yes\n\
             RestrictRealtime=yes\n\
             RestrictSUIDSGID=yes\n\
             SystemCallArchitectures=native\n",
            word(self.program),
            word(self.state_root),
            systemd_word(cluster),
        ));
        // The rest needs privileges that a user's manager does not have.
        if self.manager == Manager::System {
            text.push_str(
                "CapabilityBoundingSet=\n\
                 PrivateDevices=yes\n\
                 ProtectClock=yes\n\
                 ProtectControlGroups=yes\n\
                 # Keys for ssh are read there.\n\
                 ProtectHome=read-only\n\
                 ProtectHostname=yes\n\
                 ProtectKernelLogs=yes\n\
                 ProtectKernelModules=yes\n\
                 ProtectKernelTunables=yes\n\
                 ProtectSystem=strict\n\
                 RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK\n\
                 SystemCallFilter=@system-service\n",
            );
            let in_tmp = |path: &Path| path.starts_with("/tmp") || path.starts_with("/var/tmp");
            let mut all = self.writes.iter().map(PathBuf::as_path);
            if !all.any(in_tmp) && !in_tmp(self.state_root) && !in_tmp(self.program) {
                text.push_str("PrivateTmp=yes\n");
            }
            for path in self.writes {
                text.push_str(&format!("ReadWritePaths={}\n", word(path)));
            }
        }
        let timer_text = format!(
            "{head}[Unit]\n\
             Description=When etcd cluster {cluster} is backed up\n\
             \n\
             [Timer]\n\
             OnCalendar={}\n\
             # One that was missed is made up for.\n\
             Persistent=yes\n\
             \n\
             [Install]\n\
             WantedBy=timers.target\n",
            self.schedule
        );
        Units {
            service,
            timer,
            service_text: text,
            timer_text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_can_write_backups_only() {
        let writes = [PathBuf::from("/var/backups/my etcd")];
        let variables = [("HOME".to_owned(), "/root".to_owned())];
        let timer = |manager| Timer {
            cluster: "demo",
            schedule: "*-*-* 03:00:00",
            program: Path::new("/usr/bin/provision"),
            state_root: Path::new("/root/.local/state/provision"),
            writes: &writes,
            variables: &variables,
            manager,
        };
        let units = timer(Manager::System).units();
        assert_eq!(units.timer, "provision-backup-demo.timer");
        for line in [
            "ExecStart=/usr/bin/provision --state-dir /root/.local/state/provision backup demo",
            "Environment=HOME=/root",
            "ProtectSystem=strict",
            "ReadWritePaths=\"/var/backups/my etcd\"",
        ] {
            assert!(
                units.service_text.lines().any(|it| it == line),
                "{line}: {}",
                units.service_text
            );
        }
        assert!(units.timer_text.contains("\nOnCalendar=*-*-* 03:00:00\n"));
        let own = timer(Manager::User).units();
        assert!(!own.service_text.contains("ProtectSystem"));
    }
}
