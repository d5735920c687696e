//! Forms as Go reads them: the body's fields before those of the query, the first of a name counts.

use crate::error::{Code, Refusal};

/// The fields of a request.
#[derive(Debug, Default)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads the body, if it is a form, then the query.
    pub(crate) fn parse(body: Option<&[u8]>, query: &str) -> Result<Self, Refusal> {
        let mut fields = Vec::new();
        for text in [body.unwrap_or_default(), query.as_bytes()] {
            for field in text.split(|byte| *byte == b'&') {
                if field.contains(&b';') {
                    let cause = "invalid semicolon separator in query";
                    return Err(Refusal::early(Code::InvalidForm, cause));
                }
                if field.is_empty() {
                    continue;
                }
                let end = field.iter().position(|byte| *byte == b'=');
                let (name, value) = match end {
                    Some(end) => (&field[..end], &field[end + 1..]),
                    None => (field, &[][..]),
                };
                fields.push((unescape(name)?, unescape(value)?));
            }
        }
        Ok(Form(fields))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Reads `+` and `%XX`. Bytes that are no text become the replacement character, as answers would show them.
fn unescape(text: &[u8]) -> Result<String, Refusal> {
    let text: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    percent_decode(&text).map_err(|escape| {
        let cause = format!("invalid URL escape {:?}", String::from_utf8_lossy(escape));
        Refusal::early(Code::InvalidForm, cause)
    })
}

/// Reads `%XX`. Bytes that are no text become the replacement character.
///
/// # Errors
/// The escape that is none.
pub fn percent_decode(text: &[u8]) -> Result<String, &[u8]> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if *byte != b'%' {
            out.push(*byte);
            at += 1;
            continue;
        }
        let digit = |at: usize| {
            let digit = text.get(at).map(|byte| char::from(*byte))?.to_digit(16)?;
            u8::try_from(digit).ok()
        };
        let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
            return Err(&text[at..text.len().min(at + 3)]);
        };
        out.push(high << 4 | low);
        at += 3;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_comes_before_the_query() {
        let form = Form::parse(Some(b"value=a+b%26&dir"), "value=x&ttl=5&&=y").unwrap();
        assert_eq!(form.get("value"), Some("a b&"));
        assert_eq!(form.get("dir"), Some(""));
        assert_eq!(form.get("ttl"), Some("5"));
        assert_eq!(form.get("wait"), None);
    }

    #[test]
    fn a_bad_escape_is_named() {
        for (text, escape) in [("a=%zz1", "%zz"), ("a=%1", "%1"), ("%", "%")] {
            let refusal = Form::parse(None, text).unwrap_err();
            assert_eq!(refusal.cause, format!("invalid URL escape \"{escape}\""));
        }
    }
}
