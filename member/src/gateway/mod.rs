//! `member gateway start`: a TCP proxy in front of a cluster, for clients that know one address.
//!
//! Options, texts and exit codes are etcd's. It never takes an endpoint that it was not given: where etcd falls back to
//! 127.0.0.1:2379 because no discovered endpoint has TLS, it uses those that there are, with a warning.

mod options;
mod pool;
mod proxy;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use member_discovery::{Dns, Record, srv};
use member_flags::{Flags, Scheme};
use member_server::bind_host;
use tokio::signal::unix::{SignalKind, signal};

use options::{Options, Parsed};
use pool::Pool;

/// How long a discovered endpoint may take to show its certificate.
const VERIFY_PATIENCE: Duration = Duration::from_secs(5);

/// Runs the sub-command if the arguments name it.
pub(crate) fn run(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if args.next()? != "gateway" {
        return None;
    }
    let options = match options::parse(args) {
        Parsed::Help(text) => {
            // A closed pipe is the reader's wish.
            let _ = io::stdout().write_all(text.as_bytes());
            return Some(ExitCode::SUCCESS);
        }
        Parsed::Wrong { error, usage } => return Some(fail(&format!("Error: {error}\n{usage}"))),
        Parsed::Start(options) => options,
    };
    if let Err(error) = crate::logging::init(&Flags::default()) {
        return Some(fail(&format!("cannot open the log output: {error}")));
    }
    let runtime = match crate::run::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return Some(fail(&format!("cannot start the runtime: {error}"))),
    };
    Some(match runtime.block_on(start(options)) {
        Ok(signal) => {
            runtime.shutdown_background();
            crate::run::end_by(signal)
        }
        Err(error) => fail(&error),
    })
}

fn fail(text: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::FAILURE
}

/// Proxies until a signal; which one.
async fn start(options: Options) -> Result<i32, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut stop = std::pin::pin!(async {
        tokio::select! {
            _ = terminate.recv() => signal_hook::consts::SIGTERM,
            _ = interrupt.recv() => signal_hook::consts::SIGINT,
        }
    });
    let preparing = prepare(&options);
    let (listener, pool) = tokio::select! {
        prepared = preparing => prepared?,
        signal = &mut stop => return Ok(signal),
    };
    Ok(proxy::run(listener, pool, options.retry_delay, stop).await)
}

async fn prepare(options: &Options) -> Result<(tokio::net::TcpListener, Pool), String> {
    let records = endpoints(options).await?;
    let bad = || format!("failed to validate listen address: {}", options.listen_addr);
    let (host, port) = split(&options.listen_addr).ok_or_else(bad)?;
    let own = lookup(&host)
        .await
        .map_err(|()| format!("failed to resolve listen host: {host}"))?;
    for record in &records {
        let addresses = lookup(&record.target)
            .await
            .map_err(|()| format!("failed to resolve endpoint host: {}", record.target))?;
        let itself = addresses
            .iter()
            .find(|ip| own.contains(ip) && record.port == port && port != 0);
        if let Some(ip) = itself {
            return Err(format!(
                "SRV or endpoint ({record}->{ip}:{port}) should not resolve to the gateway listen addr ({})",
                options.listen_addr
            ));
        }
    }
    if records.is_empty() {
        return Err("no endpoints found".to_owned());
    }
    let listener = bind_host(&host, port)
        .await
        .map_err(|error| error.to_string())?;
    let texts: Vec<String> = records.iter().map(Record::to_string).collect();
    tracing::info!(endpoints = ?texts, "ready to proxy client requests");
    Ok((listener, Pool::new(records)))
}

/// The endpoints that the options name: those of the SRV records, or the list.
async fn endpoints(options: &Options) -> Result<Vec<Record>, String> {
    if options.discovery_srv.is_empty() {
        return listed(&options.endpoints);
    }
    let domain = &options.discovery_srv;
    let dns = Dns::from_system().map_err(|error| error.to_string())?;
    let found = srv::clients(&dns, domain, &options.discovery_srv_name).await?;
    let texts: Vec<String> = found
        .iter()
        .map(|(scheme, record)| format!("{}://{record}", scheme.as_str()))
        .collect();
    tracing::info!("srv-server" = domain, endpoints = ?texts, "discovered cluster from SRV");
    let mut usable = Vec::new();
    for (scheme, record) in found {
        if options.insecure_discovery {
            usable.push(record);
        } else if scheme == Scheme::Http {
            tracing::warn!(
                "srv-server" = domain,
                endpoint = %record,
                "discovered endpoint is insecure; using it as it is (--insecure-discovery says that this is meant)"
            );
            usable.push(record);
        } else {
            let address = record.to_string();
            let ca = options.trusted_ca_file.as_deref();
            let verified = member_discovery::verify_server(&address, domain, ca);
            match tokio::time::timeout(VERIFY_PATIENCE, verified).await {
                Ok(Ok(())) => usable.push(record),
                Ok(Err(error)) => refuse(domain, &record, &error),
                Err(_) => refuse(domain, &record, "i/o timeout"),
            }
        }
    }
    if usable.is_empty() && options.endpoints_given {
        tracing::warn!("no discovered endpoint can be used; using --endpoints");
        return listed(&options.endpoints);
    }
    Ok(usable)
}

fn refuse(domain: &str, record: &Record, error: &str) {
    tracing::warn!(
        "srv-server" = domain,
        endpoint = %record,
        error,
        "failed to validate discovered endpoints"
    );
}

/// Of a URL host and port are left, as in etcd, because bytes are passed on as they are.
fn listed(endpoints: &[String]) -> Result<Vec<Record>, String> {
    endpoints
        .iter()
        .map(|endpoint| {
            let (url, rest) = match endpoint.split_once("://") {
                Some((_, rest)) => (true, rest),
                None => (false, endpoint.as_str()),
            };
            let address = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let address = match address.rsplit_once('@') {
                Some((_, address)) if url => address,
                _ => address,
            };
            split(address)
                .filter(|(host, port)| !host.is_empty() && *port != 0)
                .map(|(target, port)| Record {
                    target,
                    port,
                    priority: 0,
                    weight: 0,
                })
                .ok_or_else(|| format!("error parsing endpoint {address:?}"))
        })
        .collect()
}

/// Splits `host:port`, with brackets around an IPv6 address.
fn split(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if inner.is_none() && host.contains(':') {
        return None;
    }
    Some((inner.unwrap_or(host).to_owned(), port.parse().ok()?))
}

async fn lookup(host: &str) -> Result<Vec<IpAddr>, ()> {
    let found = tokio::net::lookup_host((host, 0)).await.map_err(drop)?;
    Ok(found.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_lose_what_is_around_host_and_port_and_need_both() {
        let list = |items: &[&str]| {
            let items: Vec<String> = items.iter().map(|item| (*item).to_owned()).collect();
            listed(&items).map(|records| records.iter().map(Record::to_string).collect::<Vec<_>>())
        };
        assert_eq!(
            list(&["http://10.0.1.10:2379", "h:1"]).unwrap(),
            ["10.0.1.10:2379", "h:1"]
        );
        for whole in [
            "https://10.0.1.10:2379/",
            "https://10.0.1.10:2379/a/b?c=d#e",
            "https://user:secret@10.0.1.10:2379",
            "10.0.1.10:2379/",
        ] {
            assert_eq!(list(&[whole]).unwrap(), ["10.0.1.10:2379"], "{whole}");
        }
        for bad in ["10.0.1.10", "h:0", "h:x", ":1", "::1:2379", "u@h@i:"] {
            assert_eq!(list(&[bad]), Err(format!("error parsing endpoint {bad:?}")));
        }
    }
}
