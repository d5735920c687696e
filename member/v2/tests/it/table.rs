//! Rows in memory, and the commands of tests.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;

use bytes::Bytes;
use member_v2::{Command, Damaged, Event, Method, Refusal, Request, Rows, RowsMut, Step, apply};

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Table(pub(crate) BTreeMap<Vec<u8>, Bytes>);

/// Never happens: what is read was written by the same program.
#[derive(Debug)]
pub(crate) struct Broken;

impl From<Damaged> for Broken {
    fn from(damaged: Damaged) -> Self {
        panic!("{damaged}");
    }
}

impl From<Infallible> for Broken {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Rows for Table {
    type Error = Broken;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Broken> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Step,
    ) -> Result<(), Broken> {
        let mut from = from.to_vec();
        loop {
            let range = (Bound::Included(&from[..]), Bound::Excluded(to));
            let mut seek = None;
            for (key, value) in self.0.range::<[u8], _>(range) {
                match visit(key, value) {
                    Step::Next => {}
                    Step::Stop => return Ok(()),
                    Step::Seek(next) => {
                        assert!(next > *key, "a walk goes forward");
                        seek = Some(next);
                        break;
                    }
                }
            }
            match seek.filter(|next| next.as_slice() < to) {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }
}

impl RowsMut for Table {
    fn put(&mut self, key: Vec<u8>, value: Bytes) {
        self.0.insert(key, value);
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.0.remove(&key);
    }
}

impl Table {
    /// What a request of `method path?form` does at `now`.
    pub(crate) fn write(
        &mut self,
        method: Method,
        path: &str,
        form: &str,
        now: i64,
    ) -> Result<Event, Refusal> {
        match Request::parse(method, path, form, None, now)? {
            Request::Write { command, .. } => {
                assert!(command.is_known());
                apply(self, &command).expect("whole").expect("an answer")
            }
            other => panic!("{method:?} writes: {other:?}"),
        }
    }

    pub(crate) fn expire(&mut self, now: i64) {
        let answer = apply(self, &Command::expire(now)).expect("whole");
        assert!(answer.is_none());
    }

    /// The answer to a read.
    pub(crate) fn read(&self, path: &str, form: &str, now: i64) -> Result<Event, Refusal> {
        match Request::parse(Method::Get, path, form, None, now)? {
            Request::Get(get) => member_v2::get(self, &get, now).expect("whole"),
            other => panic!("a read: {other:?}"),
        }
    }
}
