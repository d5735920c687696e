//! `${VAR}` and `${VAR:-default}` in the strings of a topology.
//!
//! Works on parsed strings, not on the file's text: a value can hold quotes or line feeds without changing what the file says,
//! and positions stay those of the file.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::invalid::Problem;

/// Looks up a variable of the environment.
pub(super) type Lookup<'l> = dyn Fn(&str) -> Option<String> + 'l;

/// Expands every string value below `table`.
pub(super) fn expand_table(table: &mut DeTable<'_>, env: &Lookup<'_>, problems: &mut Vec<Problem>) {
    for (_, value) in table.iter_mut() {
        expand_value(value, env, problems);
    }
}

fn expand_value(value: &mut Spanned<DeValue<'_>>, env: &Lookup<'_>, problems: &mut Vec<Problem>) {
    let span = value.span();
    match value.get_mut() {
        DeValue::String(text) => match expand(text, env) {
            Ok(Cow::Borrowed(_)) => {}
            Ok(Cow::Owned(expanded)) => *text = Cow::Owned(expanded),
            Err(problem) => problems.push(problem.at(span)),
        },
        DeValue::Array(array) => {
            for item in array.iter_mut() {
                expand_value(item, env, problems);
            }
        }
        DeValue::Table(table) => expand_table(table, env, problems),
        _ => {}
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Unset(String),
    Open,
    BadName(String),
}

impl Fault {
    fn at(self, span: std::ops::Range<usize>) -> Problem {
        match self {
            Self::Unset(name) => Problem::error(
                span,
                format!("the environment variable {name} is not set"),
                "used here",
            )
            .help(format!("set it, or give a default: ${{{name}:-value}}")),
            Self::Open => Problem::error(span, "`${` is not closed", "needs a `}`")
                .help("write ${NAME}, or $${ for the characters themselves"),
            Self::BadName(name) => Problem::error(
                span,
                format!("{name:?} is not the name of an environment variable"),
                "used here",
            )
            .help("write ${NAME} or ${NAME:-default}; $${ stands for the characters themselves"),
        }
    }
}

fn expand<'t>(text: &'t str, env: &Lookup<'_>) -> Result<Cow<'t, str>, Fault> {
    if !text.contains("${") {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            out.push_str(&rest[..start]);
            out.push('{');
            rest = &rest[start + 2..];
            continue;
        }
        out.push_str(&rest[..start]);
        let body = &rest[start + 2..];
        let end = body.find('}').ok_or(Fault::Open)?;
        let inner = &body[..end];
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        if !is_name(name) {
            return Err(Fault::BadName(name.to_owned()));
        }
        // As in a shell, `:-` also covers a variable that is set to nothing.
        match (
            env(name).filter(|value| default.is_none() || !value.is_empty()),
            default,
        ) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => return Err(Fault::Unset(name.to_owned())),
        }
        rest = &body[end + 1..];
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("10.0.0.1".into()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("\"\n${HOST}".into()),
            _ => None,
        }
    }

    #[test]
    fn expands_as_a_shell_does() {
        let cases = [
            ("plain", "plain"),
            ("${HOST}", "10.0.0.1"),
            ("a${HOST}b${NONE:-c}d", "a10.0.0.1bcd"),
            ("${NONE:-}", ""),
            ("${EMPTY}", ""),
            ("${EMPTY:-x}", "x"),
            ("$HOST {0..2}", "$HOST {0..2}"),
            ("$${HOST}", "${HOST}"),
            ("${NONE:-a:-b}", "a:-b"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &env).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_value_is_not_expanded_again() {
        assert_eq!(expand("${TRICKY}", &env).unwrap(), "\"\n${HOST}");
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(expand("${NONE}", &env), Err(Fault::Unset("NONE".into())));
        assert_eq!(expand("${HOST", &env), Err(Fault::Open));
        assert_eq!(
            expand("${HO ST}", &env),
            Err(Fault::BadName("HO ST".into()))
        );
        assert_eq!(expand("${}", &env), Err(Fault::BadName(String::new())));
    }
}
