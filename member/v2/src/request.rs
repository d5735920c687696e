//! Requests: from method, path and form to what is asked for.

use crate::command::{
    Command, CompareAndDelete, CompareAndSwap, Create, Delete, Set, Update, Write, WriteOp,
};
use crate::error::{Code, Refusal};
use crate::form::Form;
use crate::path::clean;

/// Parts of a path. What walks over the tree must not need a stack as deep as a client likes; etcd has no such bound.
const MAX_DEPTH: usize = 256;

const NANOS: i64 = 1_000_000_000;

/// A method that the keys have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "HTTP's names")]
pub enum Method {
    Get,
    Head,
    Put,
    Post,
    Delete,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// To read.
    Get(Get),
    /// To wait for a change.
    Watch(Watch),
    /// To write.
    Write {
        /// What is to be replicated.
        command: Command,
        /// Whether the answer of a write of a value leaves the nodes out.
        brief: bool,
    },
}

/// A read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Get {
    /// The path, clean.
    pub path: String,
    /// Directories with all that is below them.
    pub recursive: bool,
    /// Whether the read must see every write that was answered before it.
    pub quorum: bool,
}

/// A watch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Watch {
    /// The path, clean.
    pub path: String,
    /// Also what happens below it.
    pub recursive: bool,
    /// One change after the other, without end.
    pub stream: bool,
    /// The first index of interest; 0 is the next one.
    pub since: u64,
}

impl Request {
    /// Reads a request: its path behind `/v2/keys`, its query as it came over the wire, and its body if that is a
    /// form, at `now` in nanoseconds since 1970.
    ///
    /// # Errors
    /// When a field is not what it must be, or the path is too deep.
    pub fn parse(
        method: Method,
        path: &str,
        query: &str,
        form: Option<&[u8]>,
        now: i64,
    ) -> Result<Self, Refusal> {
        let form = Form::parse(form, query)?;
        let path = clean(path);
        if path.split('/').count() > MAX_DEPTH {
            let cause = format!("the key has more than {MAX_DEPTH} parts");
            return Err(Refusal::early(Code::InvalidField, cause));
        }
        let fields = Fields::read(method, &form, now)?;
        Ok(fields.request(method, path, now))
    }
}

/// The fields that requests have in common, checked in etcd's order.
struct Fields {
    prev_index: u64,
    wait_index: u64,
    recursive: bool,
    wait: bool,
    dir: bool,
    quorum: bool,
    stream: bool,
    prev_value: String,
    brief: bool,
    /// 0 is never.
    expires: i64,
    prev_exist: Option<bool>,
    refresh: bool,
    value: String,
}

impl Fields {
    fn read(method: Method, form: &Form, now: i64) -> Result<Self, Refusal> {
        let prev_index = number(form, "prevIndex", Code::IndexNotNumber)?.unwrap_or(0);
        let wait_index = number(form, "waitIndex", Code::IndexNotNumber)?.unwrap_or(0);
        let flag = |name| Ok(truth(form, name, &format!("\"{name}\""))?.unwrap_or(false));
        let recursive = flag("recursive")?;
        // What is listed is sorted in any case.
        flag("sorted")?;
        let wait = flag("wait")?;
        let dir = flag("dir")?;
        let quorum = flag("quorum")?;
        let stream = flag("stream")?;
        if wait && method != Method::Get {
            let cause = "\"wait\" can only be used with GET requests";
            return Err(Refusal::early(Code::InvalidField, cause));
        }
        let prev_value = form.get("prevValue").unwrap_or_default();
        if form.get("prevValue") == Some("") {
            let cause = "\"prevValue\" cannot be empty";
            return Err(Refusal::early(Code::PrevValueRequired, cause));
        }
        let brief = flag("noValueOnSuccess")?;
        let ttl = match form.get("ttl") {
            None | Some("") => None,
            Some(_) => number(form, "ttl", Code::TtlNotNumber)?,
        };
        let prev_exist = truth(form, "prevExist", "prevExist")?;
        let refresh = truth(form, "refresh", "refresh")?.unwrap_or(false);
        let value = form.get("value").unwrap_or_default();
        if refresh && !value.is_empty() {
            let cause = "A value was provided on a refresh";
            return Err(Refusal::early(Code::RefreshValue, cause));
        }
        if refresh && ttl.is_none() {
            return Err(Refusal::early(Code::RefreshTtlRequired, "No TTL value set"));
        }
        Ok(Fields {
            prev_index,
            wait_index,
            recursive,
            wait,
            dir,
            quorum,
            stream,
            prev_value: prev_value.to_owned(),
            brief,
            expires: ttl.map_or(0, |ttl| moment(ttl, now)),
            prev_exist,
            refresh,
            value: value.to_owned(),
        })
    }

    fn request(self, method: Method, path: String, now: i64) -> Request {
        let op = match method {
            Method::Get if self.wait && !self.quorum => {
                return Request::Watch(Watch {
                    path,
                    recursive: self.recursive,
                    stream: self.stream,
                    since: self.wait_index,
                });
            }
            Method::Get | Method::Head => {
                return Request::Get(Get {
                    path,
                    recursive: self.recursive,
                    quorum: self.quorum && method == Method::Get,
                });
            }
            Method::Put => return self.put(path, now),
            Method::Post => WriteOp::Create(Create {
                dir: self.dir,
                value: self.value,
                expires: self.expires,
                in_order: true,
            }),
            Method::Delete if self.compares() => WriteOp::CompareAndDelete(CompareAndDelete {
                prev_value: self.prev_value,
                prev_index: self.prev_index,
            }),
            Method::Delete => WriteOp::Delete(Delete {
                dir: self.dir,
                recursive: self.recursive,
            }),
        };
        write(path, now, op, self.brief)
    }

    fn compares(&self) -> bool {
        self.prev_index > 0 || !self.prev_value.is_empty()
    }

    fn put(self, path: String, now: i64) -> Request {
        let brief = self.brief;
        let op = match self.prev_exist {
            Some(false) => WriteOp::Create(Create {
                dir: self.dir,
                value: self.value,
                expires: self.expires,
                in_order: false,
            }),
            _ if self.compares() => WriteOp::CompareAndSwap(CompareAndSwap {
                prev_value: self.prev_value,
                prev_index: self.prev_index,
                value: self.value,
                expires: self.expires,
                refresh: self.refresh,
            }),
            Some(true) => WriteOp::Update(Update {
                value: self.value,
                expires: self.expires,
                refresh: self.refresh,
            }),
            None => WriteOp::Set(Set {
                dir: self.dir,
                value: self.value,
                expires: self.expires,
                refresh: self.refresh,
            }),
        };
        write(path, now, op, brief)
    }
}

fn write(path: String, time: i64, op: WriteOp, brief: bool) -> Request {
    let op = Some(op);
    Request::Write {
        command: Command::write(Write { path, time, op }),
        brief,
    }
}

/// The moment `ttl` seconds from now, or the last that can be told. Never 0, which stands for never.
fn moment(ttl: u64, now: i64) -> i64 {
    let nanos = i64::try_from(ttl).map_or(i64::MAX, |ttl| ttl.saturating_mul(NANOS));
    now.saturating_add(nanos).max(1)
}

fn number(form: &Form, name: &str, code: Code) -> Result<Option<u64>, Refusal> {
    let Some(text) = form.get(name) else {
        return Ok(None);
    };
    // Go takes no sign here.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(Some(number)),
        _ => Err(Refusal::early(
            code,
            format!("invalid value for \"{name}\""),
        )),
    }
}

fn truth(form: &Form, name: &str, shown: &str) -> Result<Option<bool>, Refusal> {
    match form.get(name) {
        None => Ok(None),
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(Some(true)),
        Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(Some(false)),
        Some(_) => Err(Refusal::early(
            Code::InvalidField,
            format!("invalid value for {shown}"),
        )),
    }
}
