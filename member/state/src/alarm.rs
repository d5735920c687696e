//! Alarms: what is wrong with members, and which commands that refuses.
//!
//! The alarms themselves are entries of the table of metadata. Which kinds are on at all is cached in
//! the published state, since every command asks.

use bytes::Bytes;

use crate::backend::{Backend, Batch, Cursor, Table};
use crate::command::{Alarm, AlarmAction, AlarmMember, AlarmType, Op, Put, Txn, TxnOp, TxnRequest};
use crate::error::{Corruption, Error};
use crate::layout::meta;
use crate::view::View;

/// The kinds of alarms that are on, whoever they are about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Alarmed {
    pub(crate) nospace: bool,
    pub(crate) corrupt: bool,
}

impl Alarmed {
    pub(crate) fn of(alarms: &[AlarmMember]) -> Self {
        let on = |kind| alarms.iter().any(|alarm| alarm.alarm == kind);
        Alarmed {
            nospace: on(AlarmType::Nospace),
            corrupt: on(AlarmType::Corrupt),
        }
    }

    /// Refuses what may not run while alarms are on.
    ///
    /// etcd 3.6: without space what could grow the state is refused, whichever branch a transaction takes;
    /// with a corrupt member everything about keys and leases is.
    pub(crate) fn admit(self, op: &Op) -> Result<(), Error> {
        if self.corrupt {
            return match op {
                Op::Publish(_)
                | Op::ClusterVersion(_)
                | Op::LeaseCheckpoint(_)
                | Op::Alarm(_)
                | Op::Auth(_)
                | Op::Downgrade(_)
                // The alarm says nothing of them.
                | Op::V2(_) => Ok(()),
                _ => Err(Error::CorruptAlarm),
            };
        }
        if self.nospace && op.cost() > 0 {
            return Err(Error::NoSpace);
        }
        Ok(())
    }
}

/// What a version of a key takes beside its key and value, as etcd's quota counts it.
const KEY_OVERHEAD: u64 = 256;

/// What a lease takes.
const LEASE_OVERHEAD: u64 = 64;

impl Op {
    /// The bytes by which the command may grow the state, as etcd's quota counts them: a nested transaction counts
    /// nothing.
    #[must_use]
    pub fn cost(&self) -> u64 {
        match self {
            Op::Put(put) => cost_put(put),
            Op::Txn(txn) => cost_txn(txn),
            Op::LeaseGrant(_) => LEASE_OVERHEAD,
            Op::V2(command) => match command.added_bytes() {
                0 => 0,
                bytes => KEY_OVERHEAD + bytes,
            },
            _ => 0,
        }
    }
}

fn cost_put(put: &Put) -> u64 {
    KEY_OVERHEAD + put.key.len() as u64 + put.value.len() as u64
}

fn cost_txn(txn: &Txn) -> u64 {
    let branch = |ops: &[TxnOp]| -> u64 {
        ops.iter()
            .map(|op| match &op.request {
                Some(TxnRequest::Put(put)) => cost_put(put),
                _ => 0,
            })
            .sum()
    };
    branch(&txn.success).max(branch(&txn.failure))
}

/// Every alarm that is on, by type, then by member.
pub(crate) fn list<B: Backend>(view: View<'_, B>) -> Result<Vec<AlarmMember>, Error> {
    let mut alarms = Vec::new();
    let mut cursor = view.cursor(Table::Meta, meta::ALARMS, Some(meta::ALARMS_END))?;
    while let Some((key, _)) = cursor.next()? {
        let parse = || {
            let (kind, member) = key.get(meta::ALARMS.len()..)?.split_first_chunk()?;
            Some(AlarmMember {
                member_id: u64::from_be_bytes(member.try_into().ok()?),
                alarm: AlarmType::try_from(i32::from_be_bytes(*kind)).ok()?,
            })
        };
        alarms.push(parse().ok_or(Corruption {
            table: "meta",
            what: "an alarm",
        })?);
    }
    Ok(alarms)
}

/// Raises or clears alarms; which ones. An alarm that is raised again is named again, as in etcd.
pub(crate) fn change<B: Backend>(
    backend: &B,
    batch: &mut Batch,
    request: Alarm,
) -> Result<Vec<AlarmMember>, Error> {
    match request.action() {
        AlarmAction::Get => Ok(Vec::new()),
        AlarmAction::Activate if request.alarm() == AlarmType::None => Ok(Vec::new()),
        AlarmAction::Activate => {
            let key = meta::alarm(request.alarm, request.member_id);
            batch.put(Table::Meta, key, Bytes::new());
            Ok(vec![AlarmMember {
                member_id: request.member_id,
                alarm: request.alarm(),
            }])
        }
        AlarmAction::Deactivate => {
            let mut cleared = list(View::within(backend, batch))?;
            cleared.retain(|on| {
                (request.member_id == 0 || on.member_id == request.member_id)
                    && (request.alarm() == AlarmType::None || on.alarm == request.alarm())
            });
            for alarm in &cleared {
                batch.delete(
                    Table::Meta,
                    meta::alarm(alarm.alarm as i32, alarm.member_id),
                );
            }
            Ok(cleared)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Compact, DeleteRange, Range, Response};
    use crate::memory::MemoryBackend;
    use crate::store::{LogPosition, Store};

    fn put(key: &'static str) -> Put {
        Put {
            key: key.into(),
            value: "12345".into(),
            ..Put::default()
        }
    }

    fn txn(success: Vec<TxnRequest>, failure: Vec<TxnRequest>) -> Op {
        let ops = |requests: Vec<TxnRequest>| requests.into_iter().map(TxnOp::from).collect();
        Op::Txn(Txn {
            compare: Vec::new(),
            success: ops(success),
            failure: ops(failure),
        })
    }

    struct Line(Store<MemoryBackend>, u64);

    impl Line {
        fn apply(&mut self, op: Op) -> Result<Response, Error> {
            self.1 += 1;
            let position = LogPosition {
                term: 1,
                node: 0,
                index: self.1,
            };
            let mut applier = self.0.begin();
            let answer = applier.apply(position, Some(&Command::new(self.1, op)), true);
            applier.commit().unwrap();
            answer
        }

        fn alarm(&mut self, action: AlarmAction, member_id: u64, alarm: AlarmType) -> usize {
            let op = Op::Alarm(Alarm {
                action: action.into(),
                member_id,
                alarm: alarm.into(),
            });
            match self.apply(op).unwrap() {
                Response::Alarm(alarms) => alarms.len(),
                other => panic!("{other:?}"),
            }
        }
    }

    fn line() -> Line {
        Line(Store::open(MemoryBackend::new()).unwrap(), 0)
    }

    #[test]
    fn costs_are_etcds() {
        let key = || TxnRequest::Put(put("abc"));
        assert_eq!(Op::Put(put("abc")).cost(), 256 + 3 + 5);
        assert_eq!(txn(vec![key(), key()], vec![key()]).cost(), 2 * 264);
        assert_eq!(txn(vec![], vec![key()]).cost(), 264);
        let Op::Txn(nested) = txn(vec![key()], vec![]) else {
            unreachable!("made above")
        };
        assert_eq!(txn(vec![TxnRequest::Txn(nested)], vec![]).cost(), 0);
        assert_eq!(Op::DeleteRange(DeleteRange::default()).cost(), 0);
    }

    #[test]
    fn without_space_only_what_grows_the_state_is_refused() {
        let mut line = line();
        line.apply(Op::Put(put("a"))).unwrap();
        assert_eq!(line.alarm(AlarmAction::Activate, 7, AlarmType::Nospace), 1);
        let refused = |answer: Result<Response, Error>| matches!(answer, Err(Error::NoSpace));
        assert!(refused(line.apply(Op::Put(put("b")))));
        let growing = txn(vec![], vec![TxnRequest::Put(put("b"))]);
        assert!(refused(line.apply(growing)));
        let shrinking = txn(
            vec![TxnRequest::DeleteRange(DeleteRange {
                key: "a".into(),
                ..DeleteRange::default()
            })],
            vec![],
        );
        line.apply(shrinking).unwrap();
        line.apply(Op::Compact(Compact {
            revision: 3,
            physical: false,
        }))
        .unwrap();
        line.0
            .range(&Range {
                key: "a".into(),
                ..Range::default()
            })
            .unwrap();
        assert_eq!(
            line.alarm(AlarmAction::Deactivate, 7, AlarmType::Corrupt),
            0
        );
        assert_eq!(
            line.alarm(AlarmAction::Deactivate, 8, AlarmType::Nospace),
            0
        );
        assert_eq!(
            line.alarm(AlarmAction::Deactivate, 7, AlarmType::Nospace),
            1
        );
        line.apply(Op::Put(put("b"))).unwrap();
    }

    #[test]
    fn with_a_corrupt_member_nothing_is_written_and_what_is_there_can_be_read() {
        let mut line = line();
        assert_eq!(line.alarm(AlarmAction::Activate, 7, AlarmType::Corrupt), 1);
        let answer = line.apply(Op::DeleteRange(DeleteRange {
            key: "a".into(),
            ..DeleteRange::default()
        }));
        assert!(matches!(answer, Err(Error::CorruptAlarm)));
        let read = line.0.range(&Range {
            key: "a".into(),
            ..Range::default()
        });
        assert!(read.is_ok());
        assert_eq!(line.alarm(AlarmAction::Deactivate, 0, AlarmType::None), 1);
        line.apply(Op::Put(put("b"))).unwrap();
    }

    #[test]
    fn alarms_outlive_a_restart() {
        let backend = MemoryBackend::new();
        let mut line = Line(Store::open(backend.clone()).unwrap(), 0);
        line.alarm(AlarmAction::Activate, 9, AlarmType::Nospace);
        line.alarm(AlarmAction::Activate, 8, AlarmType::Nospace);
        let mut line = Line(Store::open(backend).unwrap(), 2);
        let on: Vec<u64> = line
            .0
            .alarms()
            .unwrap()
            .iter()
            .map(|a| a.member_id)
            .collect();
        assert_eq!(on, [8, 9]);
        assert!(matches!(line.apply(Op::Put(put("b"))), Err(Error::NoSpace)));
        assert_eq!(
            line.alarm(AlarmAction::Deactivate, 0, AlarmType::Nospace),
            2
        );
        line.apply(Op::Put(put("b"))).unwrap();
    }
}
