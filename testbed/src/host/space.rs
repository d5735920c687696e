//! The control group and the namespaces of one lab.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sha2::{Digest, Sha256};

use super::command::Argv;
use super::error::HostError;

const INIT: &str = "init";
// The kernel takes a killed process away within milliseconds; a busy machine needs more, and a disk that hangs most.
const KILL_LIMIT: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(5);
// Writes its own pid, becomes the program: the only way into a control group without code between fork and exec.
const JOIN: &str = "echo 0 > \"$0\" && exec \"$@\"";

/// The control group and the namespaces of one lab. They may not exist.
#[derive(Clone, Debug)]
pub(super) struct Space {
    group: PathBuf,
}

impl Space {
    /// That of the lab whose state is at `dir`: the same for the same path, even if the state was lost.
    pub(super) fn of(dir: &Path) -> Result<Self, HostError> {
        let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
        let id: String = digest
            .iter()
            .take(5)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self {
            group: control_groups()?.join(format!("provision-lab-{id}")),
        })
    }

    /// The process that holds the namespaces, as this process sees it.
    pub(super) fn init(&self) -> Result<u32, HostError> {
        let pids = fs::read_to_string(self.part(INIT).join("cgroup.procs"));
        pids.unwrap_or_default()
            .lines()
            .filter_map(|line| line.parse().ok())
            .find(|pid| is_first_of_its_namespace(*pid))
            .ok_or(HostError::Down)
    }

    /// Whether a process runs in this part, or anywhere.
    pub(super) fn runs(&self, part: Option<&str>) -> bool {
        let group = part.map_or_else(|| self.group.clone(), |part| self.part(part));
        fs::read_to_string(group.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    }

    /// Whether anything is left of it, a dead control group included.
    pub(super) fn exists(&self) -> bool {
        self.group.exists()
    }

    /// Makes the control group and the namespaces.
    pub(super) async fn create(&self, log: &Path) -> Result<(), HostError> {
        // The holder ignores the ends of its children, so that the kernel keeps no zombies for it.
        let holder = Argv::new(["unshare", "--mount", "--net", "--pid", "--"]).and([
            "setsid",
            "--fork",
            "env",
            "--ignore-signal=CHLD",
            "sleep",
            "infinity",
        ]);
        self.join(INIT, holder)?.launch(log).await?;
        let started = Instant::now();
        while self.init().is_err() {
            if started.elapsed() > KILL_LIMIT {
                return Err(HostError::TimedOut {
                    what: "the start of the lab's first process".to_owned(),
                    waited: KILL_LIMIT,
                    last: super::command::tail(log),
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// `program` inside the namespaces.
    pub(super) fn inside(&self, program: Argv) -> Result<Argv, HostError> {
        Ok(self.enter()?.and(["--"]).and(program.into_vec()))
    }

    /// `program` inside the namespaces, in the directory of this process.
    pub(super) fn inside_here(&self, program: Vec<OsString>) -> Result<Vec<OsString>, HostError> {
        let here = std::env::current_dir().map_err(HostError::io("find", Path::new(".")))?;
        let mut directory = OsString::from("--wdns=");
        directory.push(here);
        Ok(self
            .enter()?
            .and([directory, "--".into()])
            .and(program)
            .into_vec())
    }

    fn enter(&self) -> Result<Argv, HostError> {
        let init = self.init()?.to_string();
        Ok(Argv::new([
            "nsenter", "--target", &init, "--mount", "--net", "--pid",
        ]))
    }

    /// Starts `program` inside the namespaces, in the control group of `part`, as a child of their holder.
    pub(super) async fn start(
        &self,
        part: &str,
        program: Argv,
        log: &Path,
    ) -> Result<(), HostError> {
        // nsenter waits for setsid, which ends at once and leaves the program to the holder.
        let program = self.inside(Argv::new(["setsid", "--fork"]).and(program.into_vec()))?;
        self.join(part, program)?.launch(log).await
    }

    fn join(&self, part: &str, program: Argv) -> Result<Argv, HostError> {
        let group = self.part(part);
        fs::create_dir_all(&group).map_err(HostError::io("create", &group))?;
        Ok(Argv::new([
            "sh".into(),
            "-c".into(),
            JOIN.into(),
            group.join("cgroup.procs").into_os_string(),
        ])
        .and(program.into_vec()))
    }

    /// A path as the lab sees it: its mounts are nobody else's.
    pub(super) fn path(&self, path: &Path) -> Result<PathBuf, HostError> {
        let root = PathBuf::from(format!("/proc/{}/root", self.init()?));
        Ok(root.join(path.strip_prefix("/").unwrap_or(path)))
    }

    /// Connects from inside.
    pub(super) fn connect(
        &self,
        address: SocketAddr,
        limit: Duration,
    ) -> Result<io::Result<TcpStream>, HostError> {
        let path = PathBuf::from(format!("/proc/{}/ns/net", self.init()?));
        let namespace = fs::File::open(&path).map_err(HostError::io("open", &path))?;
        // The namespace is the thread's alone, and a connection stays in the one that it was made in.
        let connecting = std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            TcpStream::connect_timeout(&address, limit)
        });
        Ok(connecting
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the connecting thread panicked"))))
    }

    /// Kills everything in this part, or all of it, and waits until it is gone.
    pub(super) async fn kill(&self, part: Option<&str>) -> Result<(), HostError> {
        let group = part.map_or_else(|| self.group.clone(), |part| self.part(part));
        let switch = group.join("cgroup.kill");
        match fs::write(&switch, "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            written => written.map_err(HostError::io("write", &switch))?,
        }
        let started = Instant::now();
        while self.runs(part) {
            if started.elapsed() > KILL_LIMIT {
                return Err(HostError::TimedOut {
                    what: format!("the end of the processes in {}", group.display()),
                    waited: KILL_LIMIT,
                    last: String::new(),
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Kills everything and removes the control group; the kernel removes the rest.
    pub(super) async fn remove(&self) -> Result<(), HostError> {
        self.kill(None).await?;
        remove_group(&self.group).map_err(HostError::io("remove", &self.group))
    }

    fn part(&self, name: &str) -> PathBuf {
        self.group.join(name)
    }
}

// systemd of a host leaves groups of its own below the host's.
fn remove_group(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

fn is_first_of_its_namespace(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    pids.and_then(|pids| pids.split_ascii_whitespace().last()) == Some("1")
}

// Where version 2 is mounted: everywhere on a system of today, below `unified` on one that keeps version 1 beside it.
fn control_groups() -> Result<PathBuf, HostError> {
    let path = Path::new("/proc/self/mountinfo");
    let mounts = fs::read_to_string(path).map_err(HostError::io("read", path))?;
    mounts
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .filter(|(_, kind)| kind.starts_with("cgroup2 "))
        .find_map(|(place, _)| place.split(' ').nth(4).map(PathBuf::from))
        .ok_or(HostError::NoControlGroups)
}
