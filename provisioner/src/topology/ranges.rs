//! Brace ranges: `infra{0..2}` makes three members from one entry, in lock step with the other strings of the entry.
//!
//! `{0..2}` counts, `{08..11}` keeps the width, `{a..c}` takes letters, `{x,y,z}` takes words. Other braces stay as they are.

use std::collections::BTreeMap;

/// More than any cluster has; keeps a slip of the keyboard from filling memory.
const MOST: usize = 64;

/// Why a text cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The end is before the start.
    Backwards(String),
    /// More than [`MOST`] values.
    TooMany(String),
    /// Two ranges of the entry have different lengths.
    Uneven {
        first: (String, usize),
        second: (String, usize),
    },
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Backwards(range) => write!(f, "the range {range} runs backwards"),
            Self::TooMany(range) => write!(f, "the range {range} has more than {MOST} values"),
            Self::Uneven { first, second } => {
                write!(
                    f,
                    "the ranges {} and {} have {} and {} values, and ranges expand in lock step",
                    first.0, second.0, first.1, second.1
                )
            }
        }
    }
}

#[derive(Debug)]
enum Piece<'t> {
    Text(&'t str),
    Range {
        source: &'t str,
        values: Vec<String>,
    },
}

/// The strings of one entry, by any key, expanded together: one map per member. No range at all: one map.
pub(super) fn expand<K: Ord + Clone>(
    texts: &BTreeMap<K, String>,
) -> Result<Vec<BTreeMap<K, String>>, (K, Fault)> {
    let mut parsed = BTreeMap::new();
    let mut length: Option<(String, usize)> = None;
    for (key, text) in texts {
        let pieces = pieces(text).map_err(|fault| (key.clone(), fault))?;
        for piece in &pieces {
            let Piece::Range { source, values } = piece else {
                continue;
            };
            let this = ((*source).to_owned(), values.len());
            match &length {
                Some(first) if first.1 != this.1 => {
                    return Err((
                        key.clone(),
                        Fault::Uneven {
                            first: first.clone(),
                            second: this,
                        },
                    ));
                }
                Some(_) => {}
                None => length = Some(this),
            }
        }
        parsed.insert(key.clone(), pieces);
    }
    let count = length.map_or(1, |(_, count)| count);
    Ok((0..count)
        .map(|index| {
            parsed
                .iter()
                .map(|(key, pieces)| (key.clone(), pick(pieces, index)))
                .collect()
        })
        .collect())
}

fn pick(pieces: &[Piece<'_>], index: usize) -> String {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::Range { values, .. } => values.get(index).map_or("", String::as_str),
        })
        .collect()
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, Fault> {
    let mut pieces = Vec::new();
    let mut plain_from = 0;
    let mut at = 0;
    while let Some(open) = text[at..].find('{').map(|found| at + found) {
        let Some(close) = text[open..].find('}').map(|found| open + found) else {
            break;
        };
        let source = &text[open..=close];
        if let Some(values) = values(&text[open + 1..close], source)? {
            pieces.push(Piece::Text(&text[plain_from..open]));
            pieces.push(Piece::Range { source, values });
            plain_from = close + 1;
            at = plain_from;
        } else {
            at = open + 1;
        }
    }
    pieces.push(Piece::Text(&text[plain_from..]));
    Ok(pieces)
}

fn values(inner: &str, source: &str) -> Result<Option<Vec<String>>, Fault> {
    if let Some((from, to)) = inner.split_once("..") {
        return bounds(from, to, source);
    }
    let words: Vec<&str> = inner.split(',').collect();
    let plain = |word: &&str| {
        !word.is_empty()
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-:".contains(c))
    };
    if words.len() < 2 || !words.iter().all(plain) {
        return Ok(None);
    }
    if words.len() > MOST {
        return Err(Fault::TooMany(source.to_owned()));
    }
    Ok(Some(words.into_iter().map(str::to_owned).collect()))
}

fn bounds(from: &str, to: &str, source: &str) -> Result<Option<Vec<String>>, Fault> {
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    if digits(from) && digits(to) {
        let too_many = || Fault::TooMany(source.to_owned());
        let (low, high): (u64, u64) = (
            from.parse().map_err(|_| too_many())?,
            to.parse().map_err(|_| too_many())?,
        );
        let width = if from.len() > 1 && from.starts_with('0') {
            from.len()
        } else {
            0
        };
        check(low, high, source)?;
        return Ok(Some(
            (low..=high)
                .map(|number| format!("{number:0width$}"))
                .collect(),
        ));
    }
    let mut letters = (from.chars(), to.chars());
    if let (Some(low), None, Some(high), None) = (
        letters.0.next(),
        letters.0.next(),
        letters.1.next(),
        letters.1.next(),
    ) && (low.is_ascii_lowercase() && high.is_ascii_lowercase()
        || low.is_ascii_uppercase() && high.is_ascii_uppercase())
    {
        check(low.into(), high.into(), source)?;
        return Ok(Some((low..=high).map(String::from).collect()));
    }
    Ok(None)
}

fn check(low: u64, high: u64, source: &str) -> Result<(), Fault> {
    if high < low {
        return Err(Fault::Backwards(source.to_owned()));
    }
    if high - low >= MOST as u64 {
        return Err(Fault::TooMany(source.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> Result<Vec<String>, Fault> {
        expand(&BTreeMap::from([((), text.to_owned())]))
            .map(|maps| maps.into_iter().flat_map(BTreeMap::into_values).collect())
            .map_err(|(_, fault)| fault)
    }

    #[test]
    fn ranges_of_every_kind() {
        let cases: [(&str, &[&str]); 9] = [
            ("plain", &["plain"]),
            ("infra{0..2}", &["infra0", "infra1", "infra2"]),
            ("rack-{a..c}.x", &["rack-a.x", "rack-b.x", "rack-c.x"]),
            ("n{08..11}", &["n08", "n09", "n10", "n11"]),
            ("{eu,us}-{1..2}", &["eu-1", "us-2"]),
            ("{5..5}", &["5"]),
            ("{10.0.0.1,fd00::1}", &["10.0.0.1", "fd00::1"]),
            ("{json: 1}", &["{json: 1}"]),
            ("{a..5} {", &["{a..5} {"]),
        ];
        for (text, expected) in cases {
            assert_eq!(one(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn impossible_ranges_are_faults() {
        assert_eq!(one("{2..0}"), Err(Fault::Backwards("{2..0}".into())));
        assert_eq!(one("{0..64}"), Err(Fault::TooMany("{0..64}".into())));
        assert_eq!(
            one("{0..99999999999999999999999}"),
            Err(Fault::TooMany("{0..99999999999999999999999}".into()))
        );
        assert!(matches!(one("{0..1}{0..2}"), Err(Fault::Uneven { .. })));
    }

    #[test]
    fn strings_of_an_entry_expand_in_lock_step() {
        let texts = BTreeMap::from(
            [
                ("address", "10.0.1.{10..12}"),
                ("name", "infra{0..2}"),
                ("zone", "rack"),
            ]
            .map(|(k, v)| (k, v.to_owned())),
        );
        let members = expand(&texts).unwrap();
        assert_eq!(members.len(), 3);
        assert_eq!(members[2]["name"], "infra2");
        assert_eq!(members[2]["address"], "10.0.1.12");
        assert_eq!(members[2]["zone"], "rack");
    }

    #[test]
    fn uneven_ranges_name_both() {
        let texts =
            BTreeMap::from([("a", "{0..2}"), ("b", "{0..1}")].map(|(k, v)| (k, v.to_owned())));
        let (key, fault) = expand(&texts).unwrap_err();
        assert_eq!(key, "b");
        assert_eq!(
            fault.to_string(),
            "the ranges {0..2} and {0..1} have 3 and 2 values, and ranges expand in lock step"
        );
    }

    proptest! {
        #[test]
        fn expansion_never_panics(text in "[a-z0-9{}.,]{0,24}") {
            let _ = one(&text);
        }

        #[test]
        fn the_count_is_that_of_the_range(low in 0_u64..1000, more in 0_u64..64) {
            let values = one(&format!("x{{{low}..{}}}y", low + more)).unwrap();
            prop_assert_eq!(values.len() as u64, more + 1);
            let first = format!("x{low}y");
            prop_assert_eq!(&values[0], &first);
        }
    }
}
