//! Where each key and value of the file stands.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The way from the top of the file to a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Key(String),
    Index(usize),
}

impl Path {
    /// The whole file.
    pub(super) fn root() -> Self {
        Self::default()
    }

    /// The value of a key below this one.
    pub(super) fn key(&self, key: &str) -> Self {
        let mut parts = self.0.clone();
        parts.push(Part::Key(key.to_owned()));
        Self(parts)
    }

    /// The element of the array here.
    pub(super) fn index(&self, index: usize) -> Self {
        let mut parts = self.0.clone();
        parts.push(Part::Index(index));
        Self(parts)
    }

    /// The last key.
    pub(super) fn last_key(&self) -> Option<&str> {
        self.0.iter().rev().find_map(|part| match part {
            Part::Key(key) => Some(key.as_str()),
            Part::Index(_) => None,
        })
    }

    /// How the file writes the table: `[tls]`, `[[member]]`, `the file` for the top.
    pub(super) fn table_name(&self) -> String {
        let keys: Vec<&str> = self
            .0
            .iter()
            .filter_map(|part| {
                if let Part::Key(key) = part {
                    Some(key.as_str())
                } else {
                    None
                }
            })
            .collect();
        match self.0.last() {
            None => "the topology".to_owned(),
            Some(Part::Key(_)) => format!("[{}]", keys.join(".")),
            Some(Part::Index(_)) => format!("[[{}]]", keys.join(".")),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            match part {
                Part::Key(key) if index == 0 => write!(f, "{key}")?,
                Part::Key(key) => write!(f, ".{key}")?,
                Part::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The parsed file with the position of everything in it.
pub(super) struct Spans<'t> {
    table: &'t DeTable<'t>,
}

impl<'t> Spans<'t> {
    pub(super) fn new(table: &'t DeTable<'t>) -> Self {
        Self { table }
    }

    /// Where the value stands, or the nearest table around it that is in the file.
    pub(super) fn value(&self, path: &Path) -> Range<usize> {
        self.find(path).1.map_or(0..0, |value| value.span())
    }

    /// Where the key stands, or the nearest one around it.
    pub(super) fn key(&self, path: &Path) -> Range<usize> {
        self.find(path).0.unwrap_or(0..0)
    }

    /// Whether the file has this value.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.walk(path).2 == path.0.len()
    }

    fn find(&self, path: &Path) -> (Option<Range<usize>>, Option<&'t Spanned<DeValue<'t>>>) {
        let (key, value, _) = self.walk(path);
        (key, value)
    }

    fn walk(
        &self,
        path: &Path,
    ) -> (
        Option<Range<usize>>,
        Option<&'t Spanned<DeValue<'t>>>,
        usize,
    ) {
        let mut key_span = None;
        let mut value: Option<&'t Spanned<DeValue<'t>>> = None;
        for (depth, part) in path.0.iter().enumerate() {
            let next = match part {
                Part::Key(key) => {
                    let table = match value {
                        None => Some(self.table),
                        Some(value) => value.get_ref().as_table(),
                    };
                    table
                        .and_then(|table| table.iter().find(|(name, _)| name.get_ref() == key))
                        .map(|(name, value)| (Some(name.span()), value))
                }
                Part::Index(index) => value
                    .and_then(|value| value.get_ref().as_array())
                    .and_then(|array| array.get(*index))
                    .map(|value| (None, value)),
            };
            let Some((span, found)) = next else {
                return (key_span, value, depth);
            };
            key_span = span.or_else(|| Some(found.span()));
            value = Some(found);
        }
        (key_span, value, path.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_the_text() {
        let text = "name = \"a\"\n[[member]]\nzone = \"x\"\n[[member]]\nzone = \"yy\"\n";
        let table = DeTable::parse(text).unwrap();
        let spans = Spans::new(table.get_ref());
        let zone = Path::root().key("member").index(1).key("zone");
        assert_eq!(&text[spans.value(&zone)], "\"yy\"");
        assert_eq!(&text[spans.key(&zone)], "zone");
        assert!(spans.has(&zone));
        let absent = Path::root().key("member").index(0).key("address");
        assert!(!spans.has(&absent));
        assert_eq!(&text[spans.value(&absent)], "[[member]]");
        assert_eq!(zone.to_string(), "member[1].zone");
        assert_eq!(
            Path::root().key("member").index(1).table_name(),
            "[[member]]"
        );
    }
}
