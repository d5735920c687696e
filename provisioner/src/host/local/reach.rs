//! How this machine reaches others, for preflight checks: ports that are held open for as long as that takes, round trips, names and
//! the clock.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::error::Error;
use crate::host::remote::Ask;

const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const CONNECTS: usize = 5;

// What is open. The process that opened ports is the one that is asked to close them. Nobody accepts: the kernel does, and a
// connection that the far end closes first leaves nothing on the port that would be in the way of the next one to listen.
static OPEN: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());

/// Listens at these addresses, where nobody does, until [`ClosePorts`] or the end of this process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenPorts(pub Vec<SocketAddr>);

/// Stops to listen.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ClosePorts;

/// What became of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Opened {
    /// It answers.
    Open,
    /// Somebody else listens there.
    Taken,
    /// It is no address of this machine.
    NotHere,
    /// Why it cannot be listened at.
    Failed(String),
}

/// Connects to these, each `HOST:PORT`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reach(pub Vec<String>);

/// The median time of a connection, in microseconds, which is that of a round trip; or why there is none.
pub type RoundTrip = Result<u64, String>;

/// Looks up names as programs of this machine do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Resolve(pub Vec<String>);

/// What a name means on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The name.
    pub name: String,
    /// Its addresses, or why there are none.
    pub addresses: Result<BTreeSet<IpAddr>, String>,
    /// What its addresses are called.
    pub reverse: BTreeSet<String>,
}

/// What time it is, in microseconds since 1970.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Clock;

impl Ask for OpenPorts {
    const NAME: &'static str = "open-ports";
    type Answer = Vec<Opened>;

    async fn answer(self) -> Result<Vec<Opened>, Error> {
        let mut all = Vec::new();
        for address in self.0 {
            let opened = match TcpListener::bind(address) {
                Ok(listener) => {
                    open().push(listener);
                    Opened::Open
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => Opened::Taken,
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Opened::NotHere,
                Err(error) => Opened::Failed(error.to_string()),
            };
            all.push(opened);
        }
        Ok(all)
    }
}

impl Ask for ClosePorts {
    const NAME: &'static str = "close-ports";
    type Answer = ();

    async fn answer(self) -> Result<(), Error> {
        open().clear();
        Ok(())
    }
}

fn open() -> MutexGuard<'static, Vec<TcpListener>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ask for Reach {
    const NAME: &'static str = "reach";
    type Answer = Vec<RoundTrip>;

    async fn answer(self) -> Result<Vec<RoundTrip>, Error> {
        let mut all = Vec::new();
        for to in &self.0 {
            all.push(reach(to).await.map_err(|error| reason(&error)));
        }
        Ok(all)
    }
}

async fn reach(to: &str) -> io::Result<u64> {
    let address = lookup_host(to).await?.next();
    let address = address.ok_or_else(|| io::Error::other("it has no address"))?;
    let mut times = Vec::with_capacity(CONNECTS);
    for _ in 0..CONNECTS {
        let before = Instant::now();
        timeout(CONNECT_LIMIT, TcpStream::connect(address))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        times.push(before.elapsed());
    }
    times.sort();
    let median = times.get(CONNECTS / 2).copied().unwrap_or_default();
    Ok(u64::try_from(median.as_micros()).unwrap_or(u64::MAX))
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => format!("no answer within {} s", CONNECT_LIMIT.as_secs()),
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}

impl Ask for Resolve {
    const NAME: &'static str = "resolve";
    type Answer = Vec<Resolved>;

    async fn answer(self) -> Result<Vec<Resolved>, Error> {
        let mut all = Vec::new();
        for name in self.0 {
            // The port is not used.
            let found = lookup_host((name.as_str(), 0)).await;
            let found: Result<BTreeSet<IpAddr>, String> = found
                .map(|found| found.map(|address| address.ip()).collect())
                .map_err(|error| error.to_string());
            let ips: Vec<IpAddr> = found.iter().flatten().copied().collect();
            let reverse = tokio::task::spawn_blocking(move || {
                let names = ips.iter().filter_map(|ip| {
                    let name = dns_lookup::lookup_addr(ip).ok()?;
                    // Without a name the address comes back.
                    name.parse::<IpAddr>().is_err().then_some(name)
                });
                names.collect()
            });
            all.push(Resolved {
                name,
                addresses: found,
                reverse: reverse.await.unwrap_or_default(),
            });
        }
        Ok(all)
    }
}

impl Ask for Clock {
    const NAME: &'static str = "clock";
    type Answer = i64;

    async fn answer(self) -> Result<i64, Error> {
        Ok(now_us())
    }
}

/// Microseconds since 1970.
#[must_use]
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_open_until_it_is_closed() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        let open = OpenPorts(vec![address]);
        assert_eq!(open.clone().answer().await.unwrap(), [Opened::Taken]);
        drop(free);
        assert_eq!(open.answer().await.unwrap(), [Opened::Open]);
        let reach = Reach(vec![address.to_string()]);
        assert!(reach.clone().answer().await.unwrap()[0].is_ok());
        ClosePorts.answer().await.unwrap();
        assert_eq!(
            reach.answer().await.unwrap(),
            [Err("connection refused".to_owned())]
        );
        let elsewhere = OpenPorts(vec!["192.0.2.1:2380".parse().unwrap()]);
        assert_eq!(elsewhere.answer().await.unwrap(), [Opened::NotHere]);
    }

    #[tokio::test]
    async fn names_mean_what_they_mean_here() {
        let names = ["localhost".to_owned(), "nowhere.invalid".to_owned()];
        let all = Resolve(names.to_vec()).answer().await.unwrap();
        assert!(
            all[0]
                .addresses
                .as_ref()
                .unwrap()
                .iter()
                .all(IpAddr::is_loopback)
        );
        assert!(all[1].addresses.is_err() && all[1].reverse.is_empty());
    }
}
