//! `/v2/members` and `/v2/machines`: the members as etcd's second API lists and changes them.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use member_flags::Url;
use member_proto::etcdserverpb as pb;
use member_v2::write_string;
use tonic::body::Body;

use super::{V2, empty, json, refuse_method};
use crate::consensus::Refusal;
use crate::engine::Engine;
use crate::gateway::json::{Json, only};
use crate::http::{self as plain, refuse};

/// A refusal with its status.
type Refused = (StatusCode, String);

impl<E: Engine> V2<E> {
    /// Answers a request whose path goes on with `rest`.
    pub(super) async fn members(&self, rest: &str, request: Request<Incoming>) -> Response<Body> {
        let method = request.method().clone();
        let changes = match method {
            Method::GET => false,
            Method::POST | Method::PUT | Method::DELETE => true,
            _ => return refuse_method("GET,POST,DELETE,PUT"),
        };
        let mut response = if changes && self.node.replica.auth_enabled() {
            // This API knows no users; those of v3 keep the members from everyone else.
            refused((
                StatusCode::UNAUTHORIZED,
                "Insufficient credentials".to_owned(),
            ))
        } else if rest.is_empty() && matches!(method, Method::PUT | Method::DELETE) {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        } else {
            let answer = match method {
                Method::POST => self.add(request).await,
                Method::PUT => self.update(rest, request).await,
                Method::DELETE => self.remove(rest).await,
                _ => self.list(rest),
            };
            answer.unwrap_or_else(refused)
        };
        self.name_cluster(response.headers_mut());
        response
    }

    fn list(&self, rest: &str) -> Result<Response<Body>, Refused> {
        let members = self.known()?;
        match rest {
            "" => {
                let shown: Vec<String> = members.iter().map(shown).collect();
                let body = format!("{{\"members\":[{}]}}\n", shown.join(","));
                Ok(json(StatusCode::OK, body))
            }
            "leader" => {
                let leader = self.node.seen_leadership().leader;
                let leader = members.iter().find(|member| Some(member.id) == leader);
                let leader = leader.ok_or((
                    StatusCode::SERVICE_UNAVAILABLE,
                    "During election".to_owned(),
                ))?;
                Ok(json(StatusCode::OK, shown(leader) + "\n"))
            }
            _ => Err((StatusCode::NOT_FOUND, "Not found".to_owned())),
        }
    }

    fn known(&self) -> Result<Vec<pb::Member>, Refused> {
        let members = self.node.members();
        members.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.text()))
    }

    async fn add(&self, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
        let urls = self.peer_urls(request).await?;
        let added = self.node.add_member(&urls, false).await;
        let id = added.map_err(|refusal| self.unchanged(refusal, "", 0))?;
        let members = self.known()?;
        let member = members.iter().find(|member| member.id == id);
        let body = member.map(shown).unwrap_or_default() + "\n";
        Ok(json(StatusCode::CREATED, body))
    }

    async fn update(
        &self,
        rest: &str,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refused> {
        let id = id(rest)?;
        let urls = self.peer_urls(request).await?;
        let updated = self.node.update_member(id, &urls).await;
        updated.map_err(|refusal| self.unchanged(refusal, rest, id))?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    async fn remove(&self, rest: &str) -> Result<Response<Body>, Refused> {
        let id = id(rest)?;
        // Before anything that may stand against a removal: a client that repeats its request must learn that it is done.
        if self.node.removals.contains(id) {
            return Err(self.unchanged(Refusal::MemberNotFound, rest, id));
        }
        let removed = self.node.remove_member(id).await;
        removed.map_err(|refusal| self.unchanged(refusal, rest, id))?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    /// etcd's status and words for a change that was not made. Where etcd only says `Internal Server Error`, the
    /// reason.
    fn unchanged(&self, refusal: Refusal, shown: &str, id: u64) -> Refused {
        match refusal {
            Refusal::MemberNotFound if self.node.removals.contains(id) => (
                StatusCode::GONE,
                format!("Member permanently removed: {shown}"),
            ),
            Refusal::MemberNotFound => no_such(shown),
            Refusal::IdExists => (StatusCode::CONFLICT, "membership: ID exists".to_owned()),
            Refusal::PeerUrlExists => (
                StatusCode::CONFLICT,
                "membership: peerURL exists".to_owned(),
            ),
            other => (StatusCode::INTERNAL_SERVER_ERROR, other.to_string()),
        }
    }

    /// The peer URLs that a request brings, checked.
    async fn peer_urls(&self, request: Request<Incoming>) -> Result<Vec<String>, Refused> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let plain = kind.split(';').next().unwrap_or_default().trim();
        if !plain.eq_ignore_ascii_case("application/json") {
            return Err((
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!("Bad Content-Type {kind}, accept application/json"),
            ));
        }
        let body = self.body(request).await;
        let urls = body
            .map_err(|refusal| refusal.cause)
            .and_then(|body| read_urls(&body));
        urls.map_err(|reason| (StatusCode::BAD_REQUEST, reason))
    }

    /// The members' client URLs, for clients that know no JSON.
    pub(super) fn machines(&self, request: &Request<Incoming>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return refuse_method("GET,HEAD");
        }
        match self.known() {
            Ok(members) => {
                let mut urls: Vec<String> = members
                    .into_iter()
                    .flat_map(|member| member.client_ur_ls)
                    .collect();
                urls.sort();
                plain::text(StatusCode::OK, urls.join(", "))
            }
            Err(refusal) => refused(refusal),
        }
    }
}

/// Reads `{"peerURLs": [...]}`, in the words of Go where it is something else.
fn read_urls(body: &Bytes) -> Result<Vec<String>, String> {
    let mismatch = |kind: &str, of: &str| {
        format!("json: cannot unmarshal {kind} into Go struct field .peerURLs of type {of}")
    };
    let urls = match only(body)? {
        Json::Object(fields) => fields
            .into_iter()
            .rfind(|(name, _)| name.eq_ignore_ascii_case("peerURLs")),
        Json::Null => None,
        other => {
            let kind = other.kind();
            return Err(format!(
                "json: cannot unmarshal {kind} into Go value of type struct {{ PeerURLs []string \"json:\\\"peerURLs\\\"\" }}"
            ));
        }
    };
    let urls: Vec<String> = match urls {
        Some((_, Json::Array(urls))) => urls
            .into_iter()
            .map(|url| match url {
                Json::String(url, _) => Ok(url),
                other => Err(mismatch(other.kind(), "string")),
            })
            .collect::<Result<_, _>>()?,
        None | Some((_, Json::Null)) => Vec::new(),
        Some((_, other)) => return Err(mismatch(other.kind(), "[]string")),
    };
    if urls.is_empty() {
        return Err("no valid URLs given".to_owned());
    }
    for url in &urls {
        Url::parse(url).map_err(|error| error.to_string())?;
    }
    Ok(urls)
}

/// A member as this API shows it.
fn shown(member: &pb::Member) -> String {
    let list = |out: &mut String, urls: &[String]| {
        for (at, url) in urls.iter().enumerate() {
            out.push(if at == 0 { '[' } else { ',' });
            write_string(out, url);
        }
        out.push_str(if urls.is_empty() { "[]" } else { "]" });
    };
    let mut out = format!("{{\"id\":\"{:x}\",\"name\":", member.id);
    write_string(&mut out, &member.name);
    out.push_str(",\"peerURLs\":");
    list(&mut out, &member.peer_ur_ls);
    out.push_str(",\"clientURLs\":");
    list(&mut out, &member.client_ur_ls);
    out.push('}');
    out
}

fn id(text: &str) -> Result<u64, Refused> {
    // Go takes no sign here.
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match u64::from_str_radix(text, 16) {
        Ok(id) if digits => Ok(id),
        _ => Err(no_such(text)),
    }
}

fn no_such(shown: &str) -> Refused {
    let text = format!("No such member: {shown}");
    (StatusCode::NOT_FOUND, text)
}

fn refused((status, message): Refused) -> Response<Body> {
    let mut body = "{\"message\":".to_owned();
    write_string(&mut body, &message);
    body.push('}');
    json(status, body)
}
