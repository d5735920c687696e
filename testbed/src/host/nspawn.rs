//! One host: its disk, its network, and systemd-nspawn on them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::command::{Argv, LIMIT, tail};
use super::error::HostError;
use super::lab::Host;
use super::space::Space;
use super::ssh::{Keys, write_private};

/// The bridge that hosts are on; it has the lab's own address.
pub(super) const BRIDGE: &str = "lab0";
// In memory, and taken as it is written to. Enough for etcd's largest database beside the system.
const DISK_SIZE: &str = "4g";
const LOOK_EVERY: Duration = Duration::from_millis(50);
// A boot takes a second or two; one that takes longer may be waiting for something.
const BOOT_SECONDS: &str = "3";
// The exit code of timeout(1).
const TIMED_OUT: i32 = 124;
// The root's own units are elsewhere.
const ADDED_UNITS: &str = "/etc/systemd/system/";

/// The files of a host as seen from inside its lab.
pub(super) struct Disk {
    dir: PathBuf,
}

impl Disk {
    pub(super) fn of(disks: &Path, host: &Host) -> Self {
        Self {
            dir: disks.join(&host.name),
        }
    }

    fn part(&self, part: &str) -> PathBuf {
        self.dir.join(part)
    }

    /// Mounts an empty disk over the shared root and writes what is the host's own. systemd-nspawn's own
    /// `--volatile=overlay` is not used because it forgets the disk when the host stops, as no disk does.
    pub(super) async fn make(
        &self,
        space: &Space,
        shared: &Path,
        host: &Host,
        keys: &Keys,
        resolv_conf: &str,
    ) -> Result<(), HostError> {
        let visible = |path: &Path| space.path(path);
        create_dir(&visible(&self.dir)?)?;
        let options = format!("size={DISK_SIZE},mode=0755");
        let tmpfs = Argv::new(["mount", "-t", "tmpfs", "-o", &options, "tmpfs"]).and([&self.dir]);
        space.inside(tmpfs)?.run().await?;
        for part in ["work", "root", "upper"] {
            create_dir(&visible(&self.part(part))?)?;
        }
        self.personalise(&visible(&self.part("upper"))?, host, keys, resolv_conf)?;
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            escaped(shared),
            escaped(&self.part("upper")),
            escaped(&self.part("work"))
        );
        let overlay = Argv::new(["mount", "-t", "overlay", "-o", &layers, "overlay"])
            .and([self.part("root")]);
        space.inside(overlay)?.run().await.map(drop)
    }

    fn personalise(
        &self,
        upper: &Path,
        host: &Host,
        keys: &Keys,
        resolv_conf: &str,
    ) -> Result<(), HostError> {
        for dir in ["etc", "etc/ssh", "root", "root/.ssh"] {
            create_dir(&upper.join(dir))?;
        }
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid")
            .map_err(HostError::io(
                "read",
                Path::new("/proc/sys/kernel/random/uuid"),
            ))?
            .replace('-', "");
        let (private, public) = keys.of_host(host)?;
        write_private(&upper.join("etc/ssh/ssh_host_ed25519_key"), &private)?;
        write_private(
            &upper.join("root/.ssh/authorized_keys"),
            &keys.public_identity()?,
        )?;
        let hosts = format!(
            "127.0.0.1 localhost\n{} {} {}\n",
            host.address, host.domain, host.name
        );
        for (file, text) in [
            ("etc/ssh/ssh_host_ed25519_key.pub", public.as_str()),
            ("etc/machine-id", &id),
            ("etc/hostname", &format!("{}\n", host.name)),
            ("etc/hosts", &hosts),
            ("etc/resolv.conf", resolv_conf),
        ] {
            let path = upper.join(file);
            fs::write(&path, text).map_err(HostError::io("write", &path))?;
        }
        // An overlay takes the modes of directories from the layer above.
        let private = upper.join("root");
        fs::set_permissions(
            &private,
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        )
        .map_err(HostError::io("protect", &private))
    }
}

/// Makes the host's network namespace, with its address, on the bridge.
pub(super) async fn connect(space: &Space, host: &Host) -> Result<(), HostError> {
    let name = &host.name;
    let outside = format!(
        "netns add {name}\nlink add {name} type veth peer name eth0 netns {name}\n\
         link set {name} master {BRIDGE} up\n"
    );
    ip(space, &[], &outside).await?;
    let inside = format!(
        "link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\n",
        host.address
    );
    ip(space, &["-n", name], &inside).await
}

/// Runs a batch of ip(8) commands in the lab.
pub(super) async fn ip(space: &Space, options: &[&str], batch: &str) -> Result<(), HostError> {
    let ip = Argv::new(["ip"]).and(options).and(["-batch", "-"]);
    space.inside(ip)?.run_with(batch, LIMIT).await.map(drop)
}

/// Starts systemd of the host.
pub(super) async fn boot(
    space: &Space,
    host: &Host,
    disk: &Disk,
    log: &Path,
) -> Result<(), HostError> {
    ip(space, &[], &format!("link set {} up\n", host.name)).await?;
    let nspawn = Argv::new([
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--register=no",
        "--keep-unit",
    ])
    .and([
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=read-only",
    ])
    // A host may filter and shape its own traffic, and set up its network anew.
    .and([
        "--capability=CAP_NET_ADMIN".to_owned(),
        format!("--machine={}", host.name),
    ])
    .and([format!("--network-namespace-path=/run/netns/{}", host.name)])
    .and(["--directory".into(), disk.part("root").into_os_string()]);
    space.start(&host.name, nspawn, log).await
}

/// Waits until systemd of the host has started everything and answers over ssh. What was put on the host since it was made may take
/// as long as it likes: a member waits for the others, which may be away.
pub(super) async fn ready(
    space: &Space,
    host: &Host,
    keys: &Keys,
    log: &Path,
    limit: Duration,
) -> Result<(), HostError> {
    let started = Instant::now();
    let mut last = String::new();
    let ask = |words: &[&str]| {
        // Inside the lab no proxy is needed.
        space.inside(
            Argv::new(["ssh".into(), "-F".into(), keys.config().into_os_string()])
                .and(["-o", "ProxyCommand=none", &host.name])
                .and(words),
        )
    };
    while started.elapsed() < limit {
        if !space.runs(Some(&host.name)) {
            return Err(HostError::Ended {
                what: format!("host {}", host.name),
                said: tail(log),
            });
        }
        let wait = [
            "timeout",
            BOOT_SECONDS,
            "systemctl",
            "is-system-running",
            "--wait",
        ];
        let wait = ask(&wait)?.end("");
        let left = limit.saturating_sub(started.elapsed());
        let Ok(ended) = tokio::time::timeout(left, wait).await else {
            break;
        };
        let ended = ended?;
        match ended.stdout.trim() {
            "running" => return Ok(()),
            state @ ("degraded" | "maintenance") => {
                let units = ask(&["systemctl", "--failed", "--plain", "--no-legend"])?
                    .end("")
                    .await?;
                return Err(HostError::Degraded {
                    host: host.name.clone(),
                    state: state.to_owned(),
                    units: units.stdout.trim().replace('\n', "; "),
                });
            }
            _ if ended.status.code() == Some(TIMED_OUT) => {
                let jobs = ask(&["systemctl", "list-jobs", "--no-legend"])?.end("");
                let starting = running_jobs(&jobs.await?.stdout);
                let show = ["systemctl", "show", "-p", "FragmentPath", "--value"];
                let starting: Vec<&str> = starting.iter().map(String::as_str).collect();
                let files = ask(&[&show[..], &starting].concat())?.end("").await?.stdout;
                let mut files = files.lines().filter(|line| !line.is_empty()).peekable();
                if files.peek().is_some() && files.all(|file| file.starts_with(ADDED_UNITS)) {
                    return Ok(());
                }
                last = format!("it is starting {}", starting.join(", "));
            }
            _ => last = ended.stderr.trim().to_owned(),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(HostError::TimedOut {
        what: format!("the start of host {}", host.name),
        waited: limit,
        last,
    })
}

// Of what `systemctl list-jobs` prints, the units whose turn it is: number, unit, type, state.
fn running_jobs(listed: &str) -> Vec<String> {
    let jobs = listed.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let unit = words.next()?;
        (words.nth(1) == Some("running")).then(|| unit.to_owned())
    });
    jobs.collect()
}

fn create_dir(path: &Path) -> Result<(), HostError> {
    fs::create_dir_all(path).map_err(HostError::io("create", path))
}

// In an overlay's options a comma ends an option and a colon a layer.
fn escaped(path: &Path) -> String {
    let path = path.display().to_string();
    ['\\', ',', ':'].iter().fold(path, |path, special| {
        path.replace(*special, &format!("\\{special}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_waits_for_another_is_not_running() {
        let listed = "  1 multi-user.target         start waiting\n\
                      100 provision-a-m0.service    start running\n\nbad line\n";
        assert_eq!(running_jobs(listed), ["provision-a-m0.service"]);
        assert_eq!(running_jobs(""), [""; 0]);
    }

    #[test]
    fn odd_paths_stay_one_layer() {
        assert_eq!(escaped(Path::new(r"/a,b:c\d e")), r"/a\,b\:c\\d e");
    }
}
