//! Timers of this machine's systemd, or of the user's own.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::put::{Put, output};
use crate::error::Error;

/// A systemd that units are given to.
#[derive(Clone, Debug)]
pub struct Systemd {
    units: PathBuf,
    user: bool,
}

impl Systemd {
    /// The system's for root, else the user's own.
    ///
    /// # Errors
    /// It is not known where that keeps its units.
    pub fn of_this_user() -> Result<Self, Error> {
        if rustix::process::geteuid().is_root() {
            return Ok(Self {
                units: "/etc/systemd/system".into(),
                user: false,
            });
        }
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let config = variable("XDG_CONFIG_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| Some(variable("HOME")?.join(".config")));
        let config = config
            .ok_or_else(|| Error::usage("no directory for your units is known", "set HOME"))?;
        Ok(Self {
            units: config.join("systemd/user"),
            user: true,
        })
    }

    /// Whether it is the user's own.
    #[must_use]
    pub fn is_user(&self) -> bool {
        self.user
    }

    /// Where a unit is.
    #[must_use]
    pub fn path(&self, unit: &str) -> PathBuf {
        self.units.join(unit)
    }

    /// Writes units and starts the timer among them, now and at boot.
    ///
    /// # Errors
    /// There is no systemd, or it refuses.
    pub async fn install(&self, units: &[(&str, &str)], timer: &str) -> Result<(), Error> {
        // Before anything is written.
        self.systemctl(&["daemon-reload"]).await?;
        fs::create_dir_all(&self.units).map_err(Error::io("create", &self.units))?;
        for (name, text) in units {
            let put = Put {
                path: self.path(name),
                mode: 0o644,
                owner: None,
                keep: false,
            };
            put.write(text.as_bytes())?;
        }
        self.systemctl(&["daemon-reload"]).await?;
        self.systemctl(&["enable", timer]).await?;
        // One that runs already takes a new schedule.
        self.systemctl(&["restart", timer]).await
    }

    /// Stops the timer and removes the units. Answers whether there were any.
    ///
    /// # Errors
    /// There is no systemd, or it refuses.
    pub async fn remove(&self, units: &[&str], timer: &str) -> Result<bool, Error> {
        if !self.path(timer).exists() {
            return Ok(false);
        }
        self.systemctl(&["disable", "--now", timer]).await?;
        for name in units {
            let path = self.path(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("delete", &path)(error));
                }
                _ => {}
            }
        }
        self.systemctl(&["daemon-reload"]).await?;
        Ok(true)
    }

    async fn systemctl(&self, args: &[&str]) -> Result<(), Error> {
        let mut all = if self.user {
            vec!["--user"]
        } else {
            Vec::new()
        };
        all.extend(args);
        match output("systemctl", &all).await {
            Ok((true, _)) => Ok(()),
            Ok((false, said)) => Err(Error::Failed {
                what: format!("systemctl {} failed", all.join(" ")),
                fix: Some(format!(
                    "where no systemd runs, have another scheduler run the backup: nothing is timed by units in {}",
                    self.units.display()
                )),
                source: Some(said.trim().to_owned().into()),
            }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(Error::failed(
                "there is no systemd on this machine",
                "have another scheduler run `provision backup`",
            )),
            Err(source) => Err(Error::because("cannot run systemctl", source)),
        }
    }
}

/// Asks systemd whether it knows a calendar event, where it is installed. Answers when the next one is.
///
/// # Errors
/// It does not.
pub async fn next_event(schedule: &str) -> Result<Option<String>, Error> {
    match output("systemd-analyze", &["calendar", "--", schedule]).await {
        Ok((true, said)) => {
            let mut lines = said.lines().map(str::trim);
            let next = lines.find_map(|line| line.strip_prefix("Next elapse: "));
            Ok(next.map(str::to_owned))
        }
        Ok((false, said)) => Err(Error::Failed {
            what: format!("{schedule:?} is no calendar event"),
            fix: Some(
                "correct `schedule` in [backup]: daily, hourly, or such as *-*-* 03:00:00"
                    .to_owned(),
            ),
            source: said.lines().next().map(|line| line.to_owned().into()),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::because("cannot run systemd-analyze", source)),
    }
}
