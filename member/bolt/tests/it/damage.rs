//! Files that are cut off, damaged, forged or something else: an error each, never a panic or an endless walk.

use member_bolt::ReadError;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::{Memory, Rows, large, read, write};

const PAGE: usize = 4096;

fn small() -> Memory {
    let rows = (0..600u32).map(|i| (i.to_be_bytes().to_vec(), vec![1; 40]));
    let rows: Rows = rows.collect();
    Memory(
        [("a", rows.clone()), ("b", Rows::new()), ("c", rows)]
            .map(|(n, r)| (n.to_owned(), r))
            .into(),
    )
}

#[test]
fn no_change_of_bytes_makes_the_reader_panic_or_run_on() {
    let good = write(&small());
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let below =
        |random: &mut TestRng, n: usize| usize::try_from(random.next_u64() % n as u64).unwrap();
    let mut refused = 0;
    for _ in 0..6000 {
        let mut bytes = good.clone();
        for _ in 0..=below(&mut random, 4) {
            // The beginnings of pages hold what leads a reader astray.
            let page = below(&mut random, good.len() / PAGE) * PAGE;
            let reach = [PAGE, 64][below(&mut random, 2)];
            let at = page + below(&mut random, reach);
            match below(&mut random, 3) {
                0 => bytes[at] ^= 1 << below(&mut random, 8),
                1 => bytes[at] = random.next_u32().to_le_bytes()[0],
                _ => {
                    let from = below(&mut random, good.len() / PAGE) * PAGE;
                    bytes.copy_within(from..from + PAGE, page);
                }
            }
        }
        refused += usize::from(read(&bytes).is_err());
    }
    assert!(
        refused > 1000,
        "only {refused} of 6000 were seen as damaged"
    );
}

#[test]
fn a_file_that_was_cut_off_is_refused_at_any_length() {
    let good = write(&small());
    for len in (0..good.len()).step_by(97) {
        let error = read(&good[..len]).unwrap_err();
        assert!(
            matches!(
                error,
                ReadError::TooSmall | ReadError::Truncated { .. } | ReadError::Invalid
            ),
            "{len}: {error}"
        );
    }
}

#[test]
fn what_is_no_database_is_told_apart() {
    assert!(matches!(read(b""), Err(ReadError::TooSmall)));
    assert!(matches!(read(b"hello"), Err(ReadError::TooSmall)));
    assert!(matches!(read(&[0; 3 * PAGE]), Err(ReadError::Invalid)));
    assert!(matches!(
        read(&vec![0x5A; 1 << 20]),
        Err(ReadError::Invalid)
    ));
    let mut bytes = write(&small());
    for meta in [0, PAGE] {
        bytes[meta + 16 + 40] ^= 1;
    }
    assert!(matches!(read(&bytes), Err(ReadError::Checksum)));
}

#[test]
fn one_damaged_meta_page_does_no_harm() {
    for meta in [0, PAGE] {
        let mut bytes = write(&small());
        bytes[meta..meta + PAGE].fill(0);
        assert_eq!(read(&bytes).unwrap(), small());
    }
}

fn page_of(bytes: &[u8], flag: u16) -> usize {
    (3..bytes.len() / PAGE)
        .find(|page| bytes[page * PAGE + 8..][..2] == flag.to_le_bytes())
        .unwrap()
}

#[test]
fn circles_and_pages_met_twice_are_found() {
    let good = write(&large());
    let branch = page_of(&good, 1);
    let mut circle = good.clone();
    circle[branch * PAGE + 16 + 8..][..8].copy_from_slice(&(branch as u64).to_le_bytes());
    assert!(matches!(read(&circle), Err(ReadError::Damaged { .. })));
    let mut twice = good.clone();
    let first: [u8; 8] = good[branch * PAGE + 24..][..8].try_into().unwrap();
    twice[branch * PAGE + 40..][..8].copy_from_slice(&first);
    assert!(matches!(read(&twice), Err(ReadError::Damaged { .. })));
}

#[test]
fn a_claim_of_more_pages_than_there_are_allocates_nothing() {
    let mut bytes = write(&small());
    let leaf = page_of(&bytes, 2);
    bytes[leaf * PAGE + 12..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read(&bytes), Err(ReadError::Truncated { page }) if page == leaf as u64));
}

#[test]
fn a_bucket_may_be_a_page_inside_the_roots() {
    let mut bytes = write(&Memory(
        [(
            "one".to_owned(),
            Rows::from([(b"k".to_vec(), b"v".to_vec())]),
        )]
        .into(),
    ));
    let root = bytes.len() - PAGE;
    let page = &mut bytes[root..];
    let leaf: Vec<u8> = {
        let mut leaf = vec![0; 8];
        leaf.extend_from_slice(&[2, 0, 1, 0, 0, 0, 0, 0]);
        for field in [0u32, 16, 1, 1] {
            leaf.extend_from_slice(&field.to_le_bytes());
        }
        leaf.extend_from_slice(b"kv");
        leaf
    };
    let value = 16 + leaf.len();
    page[16 + 12..][..4].copy_from_slice(&u32::try_from(value).unwrap().to_le_bytes());
    page[32 + 3..][..16].fill(0);
    page[32 + 3 + 16..][..leaf.len()].copy_from_slice(&leaf);
    let memory = read(&bytes).unwrap();
    assert_eq!(memory.0["one"][&b"k".to_vec()], b"v");
}

/// The page's bytes after its header.
fn elements(bytes: &mut [u8], page: usize) -> &mut [u8] {
    &mut bytes[page * PAGE + 16..]
}

#[test]
fn children_and_elements_beyond_the_end_are_found() {
    let good = write(&large());
    let branch = page_of(&good, 1);
    let leaf: [u8; 8] = good[branch * PAGE + 24..][..8].try_into().unwrap();
    let leaf = usize::try_from(u64::from_le_bytes(leaf)).unwrap();
    let high_water = (good.len() / PAGE) as u64;
    for child in [0, 1, high_water, u64::MAX / 4096, u64::MAX] {
        let mut bytes = good.clone();
        elements(&mut bytes, branch)[8..16].copy_from_slice(&child.to_le_bytes());
        assert!(matches!(read(&bytes), Err(ReadError::Damaged { .. })));
    }
    for page in [branch, leaf] {
        let mut bytes = good.clone();
        bytes[page * PAGE + 10..][..2].copy_from_slice(&u16::MAX.to_le_bytes());
        assert!(matches!(read(&bytes), Err(ReadError::Damaged { .. })));
    }
    // Offset and lengths of an element.
    for at in [4, 8, 12] {
        let mut bytes = good.clone();
        elements(&mut bytes, leaf)[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(read(&bytes), Err(ReadError::Damaged { .. })));
    }
}

#[test]
fn a_page_does_not_yield_more_bytes_than_it_has() {
    let rows: Rows = (0..4u8).map(|i| (vec![i; 8], vec![1; 700])).collect();
    let mut bytes = write(&Memory([("one".to_owned(), rows)].into()));
    let leaf = page_of(&bytes, 2);
    // The first value reaches over all the others.
    elements(&mut bytes, leaf)[12..16].copy_from_slice(&2000u32.to_le_bytes());
    assert!(matches!(
        read(&bytes),
        Err(ReadError::Damaged {
            what: "its elements lie over one another",
            ..
        })
    ));
}
