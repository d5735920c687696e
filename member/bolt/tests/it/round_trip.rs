//! What is written is read back.

use member_bolt::{Plan, Row, Source, WriteError};
use proptest::prelude::*;

use crate::{Memory, large, read, write};

#[test]
fn many_pages_and_levels_are_read_back() {
    assert_eq!(read(&write(&large())).unwrap(), large());
    let none = Memory::default();
    assert_eq!(read(&write(&none)).unwrap(), none);
}

#[test]
fn long_keys_are_read_back() {
    let mut memory = Memory::default();
    let rows = memory.0.entry("long".to_owned()).or_default();
    for i in 0..200u8 {
        rows.insert(vec![i; 32768], vec![i]);
    }
    assert_eq!(read(&write(&memory)).unwrap(), memory);
}

fn rows() -> impl Strategy<Value = crate::Rows> {
    let key = prop::collection::vec(any::<u8>(), 1..300);
    let size = prop_oneof![20 => 0usize..64, 4 => 0usize..3000, 1 => 3000usize..20_000];
    let value = (any::<u8>(), size).prop_map(|(byte, size)| vec![byte; size]);
    prop::collection::btree_map(key, value, 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_buckets_are_read_back(buckets in prop::collection::btree_map("[a-z]{1,40}", rows(), 0..6)) {
        let memory = Memory(buckets);
        prop_assert_eq!(read(&write(&memory)).unwrap(), memory);
    }
}

/// A source that is not as it should be.
struct Bad<'a>(&'a [&'a [u8]]);

impl Source for Bad<'_> {
    fn buckets(&self) -> Vec<&str> {
        vec!["b"]
    }

    fn walk(&self, _: &str, row: &mut Row<'_>) -> Result<(), WriteError> {
        self.0.iter().try_for_each(|key| row(key, &[]))
    }
}

#[test]
fn what_the_format_does_not_hold_is_refused() {
    let plan = |keys: &[&[u8]]| Plan::new(&Bad(keys)).map(drop).unwrap_err();
    let order = |error| matches!(error, WriteError::Order { bucket } if bucket == "b");
    assert!(order(plan(&[b"b", b"a"])));
    assert!(order(plan(&[b"a", b"a"])));
    let length = |error| matches!(error, WriteError::Length { bucket } if bucket == "b");
    assert!(length(plan(&[b""])));
    assert!(length(plan(&[&[1; 32769]])));
}

#[test]
fn a_source_that_changes_between_the_walks_is_noticed() {
    let plan = Plan::new(&large()).unwrap();
    let mut other = large();
    other.0.insert("zz".to_owned(), crate::Rows::new());
    assert!(matches!(
        plan.write(&other, &mut Vec::new()),
        Err(WriteError::Changed)
    ));
}
