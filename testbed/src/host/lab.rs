//! A lab as a whole: brought up, looked at, ended.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::command::{Argv, tail};
use super::error::HostError;
use super::nspawn::{self, BRIDGE, Disk};
use super::root::shared_root;
use super::space::Space;
use super::ssh::{Keys, write_private};

const DOMAIN: &str = "example.com";
// The operator's and the DNS server's side of the bridge.
const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const FIRST_HOST: u8 = 10;
const DNS_PART: &str = "dns";
// A TCP connection within one machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(10);

// program, package
const NEEDED: &[(&str, &str)] = &[
    ("debootstrap", "debootstrap"),
    ("systemd-nspawn", "systemd-container"),
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("setsid", "util-linux"),
    ("unshare", "util-linux"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
];

/// One host of a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name, `infra0` and so on; also its control group.
    pub name: String,
    /// Its name in the DNS.
    pub domain: String,
    /// Its address.
    pub address: Ipv4Addr,
}

/// A lab, running or not.
#[derive(Clone, Debug)]
pub struct Lab {
    dir: PathBuf,
    hosts: Vec<Host>,
    space: Space,
    keys: Keys,
}

/// What of a lab runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Network, disks and namespaces are there.
    pub base: bool,
    /// The DNS server runs.
    pub dns: bool,
    /// Each host, in their order.
    pub hosts: Vec<bool>,
}

/// What is being done while a lab comes up.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// The shared root is made; what is going on there.
    Root(&'a str),
    /// Network and disks are there.
    Base,
    /// The DNS server answers.
    Dns,
    /// This host is starting.
    Starting(&'a Host),
    /// This host is ready.
    Ready(&'a Host),
}

impl Seen {
    /// Whether nothing is missing.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.base && self.dns && self.hosts.iter().all(|runs| *runs)
    }
}

impl Lab {
    /// The lab of `hosts` hosts whose files are in `dir`, an absolute path. Touches nothing.
    ///
    /// # Errors
    /// This kernel has no control groups that can be used.
    pub fn new(dir: &Path, hosts: u8) -> Result<Self, HostError> {
        Ok(Self {
            dir: dir.to_owned(),
            hosts: (0..hosts).map(Host::new).collect(),
            space: Space::of(dir)?,
            keys: Keys::of(dir),
        })
    }

    /// Checks what making a lab needs of this machine.
    ///
    /// # Errors
    /// [`HostError::NotRoot`] or [`HostError::Missing`].
    pub fn check_machine() -> Result<(), HostError> {
        if !rustix::process::geteuid().is_root() {
            return Err(HostError::NotRoot);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        for (program, package) in NEEDED {
            if !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
                return Err(HostError::Missing { program, package });
            }
        }
        Ok(())
    }

    /// The hosts.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The address of the lab itself: of its DNS server, and of what runs inside without a host.
    #[must_use]
    pub fn own_address(&self) -> Ipv4Addr {
        OWN_ADDRESS
    }

    /// The file for `ssh -F`.
    #[must_use]
    pub fn ssh_config(&self) -> PathBuf {
        self.keys.config()
    }

    /// The zone that the DNS server answers from; it is read again when it changes.
    #[must_use]
    pub fn zone_file(&self) -> PathBuf {
        self.dir.join("zone")
    }

    /// What the consoles of a host, or the lab's other programs, printed.
    #[must_use]
    pub fn log(&self, part: &str) -> PathBuf {
        self.dir.join(format!("{part}.log"))
    }

    /// What runs now.
    #[must_use]
    pub fn look(&self) -> Seen {
        let runs = |part: &str| self.space.runs(Some(part));
        Seen {
            base: self.has_base(),
            dns: runs(DNS_PART),
            hosts: self.hosts.iter().map(|host| runs(&host.name)).collect(),
        }
    }

    /// Whether anything is left of it on this machine.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.space.exists()
    }

    /// Brings up what is missing. `cache` holds the shared root, `dns` is the command of the DNS server, to which
    /// address and zone file are added, and `connect` that of ssh's proxy, to which host and port are added.
    ///
    /// # Errors
    /// What could not be brought up; the rest stays, for the caller to keep or [`Lab::down`].
    pub async fn up(
        &self,
        cache: &Path,
        dns: &[OsString],
        connect: &[String],
        limit: Duration,
        tell: &dyn Fn(Change<'_>),
    ) -> Result<(), HostError> {
        if !self.has_base() {
            // Half a base cannot be told from a whole one by its parts: all of it or none.
            self.space.remove().await?;
            let shared = shared_root(cache, &|doing| tell(Change::Root(doing))).await?;
            self.base(&shared, connect).await?;
            tell(Change::Base);
        }
        if !self.look().dns {
            self.start_dns(dns, limit).await?;
            tell(Change::Dns);
        }
        // A host that runs may have been left by a run that was killed before it was ready.
        let hosts = self.hosts.iter().zip(self.look().hosts);
        try_join_all(hosts.map(|(host, runs)| async move {
            if runs {
                return self.ready(host, limit).await;
            }
            tell(Change::Starting(host));
            self.start(host, limit).await?;
            tell(Change::Ready(host));
            Ok(())
        }))
        .await
        .map(drop)
    }

    /// Ends everything of it on this machine: processes, mounts, namespaces, bridge. Its files stay.
    ///
    /// # Errors
    /// A process would not end.
    pub async fn down(&self) -> Result<(), HostError> {
        self.space.remove().await
    }

    /// Starts a host that does not run, and waits until it is ready.
    ///
    /// # Errors
    /// The lab is not up, or the host does not come up.
    pub async fn start(&self, host: &Host, limit: Duration) -> Result<(), HostError> {
        nspawn::boot(&self.space, host, &self.disk(host), &self.log(&host.name)).await?;
        self.ready(host, limit).await
    }

    async fn ready(&self, host: &Host, limit: Duration) -> Result<(), HostError> {
        nspawn::ready(&self.space, host, &self.keys, &self.log(&host.name), limit).await
    }

    /// Ends a host as a power cut does: its peers hear nothing more of it. Its disk stays.
    ///
    /// # Errors
    /// The lab is not up.
    pub async fn kill(&self, host: &Host) -> Result<(), HostError> {
        // Dying processes would say goodbye to their peers.
        nspawn::ip(&self.space, &[], &format!("link set {} down\n", host.name)).await?;
        self.space.kill(Some(&host.name)).await
    }

    /// The argument vector that runs `command` inside the lab, in the current directory.
    ///
    /// # Errors
    /// The lab is not up.
    pub fn inside(&self, command: Vec<OsString>) -> Result<Vec<OsString>, HostError> {
        self.space.inside_here(command)
    }

    /// Connects from inside the lab.
    ///
    /// # Errors
    /// The lab is not up; inside, that nothing listens there.
    pub fn connect(&self, address: SocketAddr) -> Result<io::Result<TcpStream>, HostError> {
        self.space.connect(address, CONNECT_LIMIT)
    }

    /// The host with this name, short or long, or address.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Host> {
        let address: Option<Ipv4Addr> = name.parse().ok();
        self.hosts
            .iter()
            .find(|host| host.name == name || host.domain == name || Some(host.address) == address)
    }

    fn disk(&self, host: &Host) -> Disk {
        Disk::of(&self.disks(), host)
    }

    fn disks(&self) -> PathBuf {
        self.dir.join("disks")
    }

    // Written last, where only the lab sees it: it goes away with what it stands for.
    fn base_mark(&self) -> Result<PathBuf, HostError> {
        self.space.path(&self.disks().join("complete"))
    }

    fn has_base(&self) -> bool {
        self.base_mark().is_ok_and(|mark| mark.exists())
    }

    async fn base(&self, shared: &Path, connect: &[String]) -> Result<(), HostError> {
        let space = &self.space;
        self.keys.make(&self.hosts, connect).await?;
        if !self.zone_file().exists() {
            write_private(&self.zone_file(), &self.zone())?;
        }
        let resolv_conf = format!("nameserver {OWN_ADDRESS}\nsearch {DOMAIN}\n");
        let own_files = [
            ("resolv.conf", resolv_conf.as_str()),
            // What else the machine asks for names, such as a resolver of its own, does not know the lab's.
            (
                "nsswitch.conf",
                "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
            ),
        ];
        for (name, text) in own_files {
            write_private(&self.dir.join(name), text)?;
        }
        for dir in [self.disks(), PathBuf::from("/run/netns")] {
            fs::create_dir_all(&dir).map_err(HostError::io("create", &dir))?;
        }

        space.create(&self.log("lab")).await?;
        let mut mounts = vec![
            Argv::new(["mount", "-t", "proc", "proc", "/proc"]),
            // One hierarchy of version 2 where systemd looks for it, whatever the machine has there.
            Argv::new(["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"]),
            Argv::new(["mount", "-t", "tmpfs", "tmpfs", "/run/netns"]),
            Argv::new(["mount", "-t", "tmpfs", "tmpfs"]).and([self.disks()]),
        ];
        for (name, _) in own_files {
            let over = Path::new("/etc").join(name);
            if over.exists() {
                mounts.push(Argv::new(["mount", "--bind"]).and([self.dir.join(name), over]));
            }
        }
        for mount in mounts {
            space.inside(mount)?.run().await?;
        }
        let bridge = format!(
            "link set lo up\nlink add {BRIDGE} type bridge\naddr add {OWN_ADDRESS}/24 dev {BRIDGE}\n\
             link set {BRIDGE} up\n"
        );
        nspawn::ip(space, &[], &bridge).await?;
        for host in &self.hosts {
            nspawn::connect(space, host).await?;
            let disk = self.disk(host);
            disk.make(space, shared, host, &self.keys, &resolv_conf)
                .await?;
        }
        let mark = self.base_mark()?;
        fs::write(&mark, "").map_err(HostError::io("write", &mark))
    }

    async fn start_dns(&self, dns: &[OsString], limit: Duration) -> Result<(), HostError> {
        let address = SocketAddr::new(IpAddr::V4(OWN_ADDRESS), 53);
        let server =
            Argv::new(dns).and([OsString::from(address.to_string()), self.zone_file().into()]);
        let log = self.log(DNS_PART);
        self.space.start(DNS_PART, server, &log).await?;
        let started = Instant::now();
        loop {
            match self.connect(address)? {
                Ok(_) => return Ok(()),
                Err(_) if !self.look().dns => {
                    return Err(HostError::Ended {
                        what: "the DNS server".to_owned(),
                        said: tail(&log),
                    });
                }
                Err(error) if started.elapsed() > limit => {
                    return Err(HostError::TimedOut {
                        what: "the start of the DNS server".to_owned(),
                        waited: limit,
                        last: error.to_string(),
                    });
                }
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    fn zone(&self) -> String {
        let mut text = format!(
            "; The names of this lab. The DNS server reads this file again when it changes.\n$TTL 5\n\
             {DOMAIN}. SOA ns.{DOMAIN}. root.{DOMAIN}. 1 60 60 60 5\n\
             {DOMAIN}. NS ns.{DOMAIN}.\nns.{DOMAIN}. A {OWN_ADDRESS}\n"
        );
        for host in &self.hosts {
            let [a, b, c, d] = host.address.octets();
            text.push_str(&format!(
                "{domain}. A {}\n{d}.{c}.{b}.{a}.in-addr.arpa. PTR {domain}.\n",
                host.address,
                domain = host.domain
            ));
        }
        text
    }
}

impl Host {
    fn new(index: u8) -> Self {
        let name = format!("infra{index}");
        Self {
            domain: format!("{name}.{DOMAIN}"),
            address: Ipv4Addr::new(10, 0, 1, FIRST_HOST.saturating_add(index)),
            name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::zone::Zone;

    #[test]
    fn hosts_have_the_names_and_addresses_of_the_guides() {
        let lab = Lab::new(Path::new("/nowhere/lab"), 3).unwrap();
        let last = lab.host("infra2.example.com").unwrap();
        assert_eq!(last.address, Ipv4Addr::new(10, 0, 1, 12));
        assert_eq!(lab.host("10.0.1.12"), Some(last));
        assert_eq!(lab.host("infra3"), None);
        Zone::parse(&lab.zone()).unwrap();
        assert!(!lab.look().complete() && !lab.exists());
    }
}
