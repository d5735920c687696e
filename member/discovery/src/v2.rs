//! The v2 discovery service: registrations are keys below the path of a URL.
//!
//! etcd's rules: `_config/size` says how many members there are to be, each member creates a key with its ID, and the
//! first of them, in the order of creation, are the cluster.

use std::time::Duration;

use http::StatusCode;
use member_flags::Url;
use serde::Deserialize;

use crate::Refusal;
use crate::http::{Answer, Fault, Host, split};
use crate::patience::{Patience, WATCH};
use crate::roster::{Registered, Registry, Roster, parse_size};

/// etcd's limit for a request.
const REQUEST: Duration = Duration::from_secs(5);

/// etcd's numbers of errors.
const KEY_EXISTS: u32 = 105;

pub(crate) struct Service {
    host: Host,
    path: String,
    patience: Patience,
}

#[derive(Deserialize)]
struct Node {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    nodes: Vec<Node>,
    #[serde(default, rename = "createdIndex")]
    created: u64,
}

#[derive(Deserialize)]
struct Found {
    node: Node,
}

#[derive(Deserialize)]
struct KeyError {
    #[serde(rename = "errorCode")]
    code: u32,
    message: String,
    #[serde(default)]
    cause: String,
    #[serde(default)]
    index: u64,
}

impl Service {
    pub(crate) fn new(token: &str, proxy: &str) -> Result<Self, Refusal> {
        let (url, path) = split(token)?;
        let proxy = match proxy {
            "" => None,
            proxy => Some(proxy_url(proxy)?),
        };
        if let Some(proxy) = &proxy {
            tracing::info!("proxy-url" = proxy.as_str(), "running proxy with discovery");
        }
        let host = Host::new(url, proxy).map_err(|reason| Refusal::Setup { reason })?;
        Ok(Self {
            patience: Patience::new(host.name().to_owned()),
            host,
            path,
        })
    }

    async fn value(&mut self, id: &str) -> Result<String, Refusal> {
        let path = format!(
            "{}/{id}?quorum=false&recursive=false&sorted=false",
            self.path
        );
        Ok(self.ask("register", &path).await?.0.node.value)
    }

    /// Reads a key, again and again while the service is out of order.
    async fn ask(&mut self, step: &'static str, path: &str) -> Result<(Found, u64), Refusal> {
        loop {
            let answer = self.host.ask(path, None, REQUEST).await;
            let index = answer.as_ref().ok().and_then(|answer| answer.index);
            match read(answer) {
                Ok(found) => {
                    self.patience.answered();
                    return Ok((found, index.unwrap_or_default()));
                }
                Err(Fault::Final(refusal)) => return Err(refusal),
                Err(Fault::Passing(error)) => self.patience.pause(step, error).await?,
            }
        }
    }
}

impl Registry for Service {
    async fn roster(&mut self) -> Result<Roster, Refusal> {
        const STEP: &str = "cluster status check";
        let path = format!(
            "{}/_config/size?quorum=false&recursive=false&sorted=false",
            self.path
        );
        let size = self.ask(STEP, &path).await?.0.node.value;
        let size = parse_size(&size)?;
        let path = format!("{}?quorum=false&recursive=false&sorted=false", self.path);
        let (found, index) = self.ask(STEP, &path).await?;
        let members = found.node.nodes.into_iter().filter_map(|node| {
            let id = node.key.rsplit('/').next().unwrap_or_default().to_owned();
            (id != "_config").then_some(Registered {
                id,
                line: node.value,
                created: node.created,
            })
        });
        Ok(Roster::new(size, index, members.collect()))
    }

    async fn register(&mut self, id: &str, line: &str) -> Result<(), Refusal> {
        let path = format!("{}/{id}?prevExist=false", self.path);
        let form = format!("value={}", escape(line));
        let mut doubtful = false;
        loop {
            let answer = self.host.ask(&path, Some(form.clone()), REQUEST).await;
            match read::<Found>(answer) {
                Ok(_) => return Ok(()),
                Err(Fault::Final(Refusal::Key {
                    code: KEY_EXISTS, ..
                })) => {
                    // The answer to an earlier attempt may have been lost.
                    let own = doubtful && self.value(id).await? == line;
                    return if own {
                        Ok(())
                    } else {
                        Err(Refusal::DuplicateId)
                    };
                }
                Err(Fault::Final(refusal)) => return Err(refusal),
                Err(Fault::Passing(error)) => {
                    doubtful = true;
                    self.patience.pause("register", error).await?;
                }
            }
        }
    }

    async fn wait(&mut self, index: u64) -> Result<(), Refusal> {
        let path = format!("{}?recursive=true&wait=true&waitIndex={index}", self.path);
        let Ok(answer) = tokio::time::timeout(WATCH, self.host.ask(&path, None, 2 * WATCH)).await
        else {
            return Ok(());
        };
        match read::<Found>(answer) {
            // What is refused, such as an index that is history by now, the next look will show.
            Ok(_) | Err(Fault::Final(_)) => Ok(()),
            Err(Fault::Passing(error)) => {
                self.patience.pause("waiting for other nodes", error).await
            }
        }
    }

    fn patience(&mut self) -> &mut Patience {
        &mut self.patience
    }
}

/// etcd: what is no JSON is no etcd, and an error of the server passes.
fn read<T: for<'de> Deserialize<'de>>(answer: Result<Answer, Fault>) -> Result<T, Fault> {
    let Answer { status, body, .. } = answer?;
    if status.is_server_error() {
        return Err(Fault::Passing(format!("server error [{status}]")));
    }
    let foreign = || {
        let start: String = String::from_utf8_lossy(&body).chars().take(80).collect();
        Fault::Final(Refusal::BadEndpoint {
            answer: format!("{status} {start:?}"),
        })
    };
    if matches!(status, StatusCode::OK | StatusCode::CREATED) {
        return serde_json::from_slice(&body).map_err(|_| foreign());
    }
    let error: KeyError = serde_json::from_slice(&body).map_err(|_| foreign())?;
    Err(Fault::Final(Refusal::Key {
        code: error.code,
        message: error.message,
        cause: error.cause,
        index: error.index,
    }))
}

/// etcd: a proxy without a scheme is one of plain HTTP.
pub(crate) fn proxy_url(text: &str) -> Result<Url, Refusal> {
    let whole = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let (url, path) = split(&whole)?;
    if url.scheme().is_tls() || !path.is_empty() {
        return Err(Refusal::Setup {
            reason: format!(
                "--discovery-proxy {text:?} is not the URL of an HTTP proxy: http://HOST:PORT"
            ),
        });
    }
    Ok(url)
}

/// A form's value.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_is_escaped_as_etcds() {
        assert_eq!(
            escape("infra0=http://10.0.1.10:2380"),
            "infra0%3Dhttp%3A%2F%2F10.0.1.10%3A2380"
        );
    }

    #[test]
    fn a_proxy_needs_no_scheme() {
        assert_eq!(
            proxy_url("10.0.1.2:3128")
                .ok()
                .map(|url| url.to_string())
                .as_deref(),
            Some("http://10.0.1.2:3128")
        );
        for bad in ["https://h:1", "h:1/x", "http://%zz", "foo bar", "h:99999"] {
            assert!(proxy_url(bad).is_err(), "{bad}");
        }
    }
}
