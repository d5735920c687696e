//! Answers as etcd writes them: the order of fields, what is left out, and Go's escapes.

use std::fmt::Write as _;

use crate::event::{Action, Event, Node};

const NANOS: i64 = 1_000_000_000;

impl Event {
    /// The body of the answer. Without `nodes` it only says what was done, where that is a write of a value.
    #[must_use]
    pub fn json(&self, nodes: bool) -> String {
        let mut out = format!("{{\"action\":\"{}\"", self.action().name());
        let writes = matches!(
            self.action(),
            Action::Set | Action::CompareAndSwap | Action::Create | Action::Update
        );
        if nodes || !writes {
            out.push_str(",\"node\":");
            write_node(&mut out, &self.node, self.time);
            if let Some(prev) = &self.prev {
                out.push_str(",\"prevNode\":");
                write_node(&mut out, prev, self.time);
            }
        }
        out.push_str("}\n");
        out
    }
}

/// Writes a node as of `time`. Nests as deep as a path, which is bounded.
fn write_node(out: &mut String, node: &Node, time: i64) {
    out.push('{');
    let mut comma = "";
    let mut field = |out: &mut String, name: &str| {
        let _ = write!(out, "{comma}\"{name}\":");
        comma = ",";
    };
    if node.path != "/" {
        field(out, "key");
        write_string(out, &node.path);
    }
    if let Some(value) = &node.value {
        field(out, "value");
        write_string(out, value);
    }
    if node.dir {
        field(out, "dir");
        out.push_str("true");
    }
    if node.expires != 0 {
        field(out, "expiration");
        let _ = write!(out, "\"{}\"", timestamp(node.expires));
        let left = node.expires.saturating_sub(time);
        // Rounded up, towards zero for what is late.
        let ttl = left / NANOS + i64::from(left % NANOS > 0);
        if ttl != 0 {
            field(out, "ttl");
            let _ = write!(out, "{ttl}");
        }
    }
    if !node.nodes.is_empty() {
        field(out, "nodes");
        for (at, node) in node.nodes.iter().enumerate() {
            out.push(if at == 0 { '[' } else { ',' });
            write_node(out, node, time);
        }
        out.push(']');
    }
    for (name, index) in [
        ("modifiedIndex", node.modified),
        ("createdIndex", node.created),
    ] {
        if index != 0 {
            field(out, name);
            let _ = write!(out, "{index}");
        }
    }
    out.push('}');
}

/// Writes a string as Go does: also safe inside HTML. What stands for bytes that were no text is escaped.
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..'\x20' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\u{fffd}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
}

/// A moment in nanoseconds since 1970 as Go writes it: RFC 3339 in UTC with as many decimals as it takes.
#[must_use]
pub fn timestamp(nanos: i64) -> String {
    let (seconds, rest) = (nanos.div_euclid(NANOS), nanos.rem_euclid(NANOS));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let mut out = format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    if rest != 0 {
        let decimals = format!("{rest:09}");
        let _ = write!(out, ".{}", decimals.trim_end_matches('0'));
    }
    out.push('Z');
    out
}

/// Year, month and day of a day counted from 1970, in years that begin in March so that leap days come last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let in_month = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next_year, month, in_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_go_does() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400 * NANOS, "2000-02-29T00:00:00Z"),
            (951_868_799 * NANOS + 500_000_000, "2000-02-29T23:59:59.5Z"),
            (1_795_248_667_692_301_676, "2026-11-21T08:11:07.692301676Z"),
            (4_107_542_400 * NANOS, "2100-03-01T00:00:00Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
        ] {
            assert_eq!(timestamp(nanos), text);
        }
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        let mut out = String::new();
        write_string(&mut out, "\"\\\n\u{8}<&>\u{2028}ä\u{fffd}");
        assert_eq!(out, r#""\"\\\n\u0008\u003c\u0026\u003e\u2028ä\ufffd""#);
    }

    #[test]
    fn what_is_left_is_rounded_up() {
        let node = |expires| Node {
            path: "/a".into(),
            expires,
            ..Node::default()
        };
        for (expires, ttl) in [
            (10 * NANOS + 1, "\"ttl\":1"),
            (11 * NANOS, "\"ttl\":1"),
            (12 * NANOS, "\"ttl\":2"),
            (8 * NANOS, "\"ttl\":-2"),
        ] {
            let mut out = String::new();
            write_node(&mut out, &node(expires), 10 * NANOS);
            assert!(out.contains(ttl), "{out}");
        }
        let mut out = String::new();
        write_node(&mut out, &node(10 * NANOS - 1), 10 * NANOS);
        assert!(!out.contains("ttl"), "{out}");
    }
}
