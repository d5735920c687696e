//! JSON as Go's `encoding/json` reads it: the same values, and for what is malformed the same words, which clients of
//! etcd see. Numbers keep their text, because 64-bit integers do not fit a double.

/// Deeper nesting is refused; no message nests like that.
const MAX_DEPTH: usize = 200;

/// A JSON value; of an object's equal keys the last one counts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(String),
    /// The text, and what stood between the quotes.
    String(String, Vec<u8>),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// What Go's errors call it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(..) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Unread {
    /// Nothing but white space.
    Blank,
    /// The text ends within a value.
    Cut,
    /// Go's sentence.
    Malformed(String),
}

/// Reads the first value of `text`; also returns where it ends.
pub(super) fn first(text: &[u8]) -> Result<(Json, usize), Unread> {
    let mut reader = Reader { text, at: 0 };
    reader.skip_space();
    if reader.at == text.len() {
        return Err(Unread::Blank);
    }
    let value = reader.value(0)?;
    Ok((value, reader.at))
}

/// Reads a text that is one value, as Go's `json.Unmarshal` does.
pub(crate) fn only(text: &[u8]) -> Result<Json, String> {
    let ended = || "unexpected end of JSON input".to_owned();
    let (value, end) = first(text).map_err(|unread| match unread {
        Unread::Blank | Unread::Cut => ended(),
        Unread::Malformed(text) => text,
    })?;
    let mut rest = Reader { text, at: end };
    rest.skip_space();
    match rest.peek() {
        None => Ok(value),
        Some(byte) => Err(invalid(byte, "after top-level value")),
    }
}

/// The brackets and quotes of a text that comes in pieces: tells when its first value may be whole, looking at each
/// byte once.
#[derive(Debug, Default)]
pub(super) struct Outline {
    seen: usize,
    depth: usize,
    quoted: bool,
    escaped: bool,
}

impl Outline {
    /// Whether what came since the last call ends an object, an array or a string that is in no other. `text` begins
    /// with what it was then.
    pub(super) fn closes(&mut self, text: &[u8]) -> bool {
        while let Some(byte) = text.get(self.seen) {
            self.seen += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = self.quoted,
                b'"' => self.quoted = !self.quoted,
                b'{' | b'[' if !self.quoted => self.depth += 1,
                b'}' | b']' if !self.quoted => self.depth = self.depth.saturating_sub(1),
                _ => continue,
            }
            if self.depth == 0 && !self.quoted {
                return true;
            }
        }
        false
    }
}

fn invalid(byte: u8, place: &str) -> String {
    let shown = match byte {
        b'\'' => "\\'".to_owned(),
        b'"' => "\"".to_owned(),
        b'\\' => "\\\\".to_owned(),
        7 => "\\a".to_owned(),
        8 => "\\b".to_owned(),
        b'\t' => "\\t".to_owned(),
        b'\n' => "\\n".to_owned(),
        11 => "\\v".to_owned(),
        12 => "\\f".to_owned(),
        b'\r' => "\\r".to_owned(),
        0..0x20 | 0x7f => format!("\\x{byte:02x}"),
        0x80..=0xa0 | 0xad => format!("\\u{byte:04x}"),
        _ => char::from(byte).to_string(),
    };
    format!("invalid character '{shown}' {place}")
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn next(&mut self) -> Result<u8, Unread> {
        let byte = self.peek().ok_or(Unread::Cut)?;
        self.at += 1;
        Ok(byte)
    }

    /// The next byte after white space.
    fn token(&mut self) -> Result<u8, Unread> {
        self.skip_space();
        self.next()
    }

    fn refuse<T>(byte: u8, place: &str) -> Result<T, Unread> {
        Err(Unread::Malformed(invalid(byte, place)))
    }

    fn value(&mut self, depth: usize) -> Result<Json, Unread> {
        if depth > MAX_DEPTH {
            return Err(Unread::Malformed("exceeded max depth".to_owned()));
        }
        match self.token()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => {
                let start = self.at;
                let text = self.string()?;
                Ok(Json::String(text, self.text[start..self.at - 1].to_vec()))
            }
            b't' => self.literal("true", Json::Bool(true)),
            b'f' => self.literal("false", Json::Bool(false)),
            b'n' => self.literal("null", Json::Null),
            first @ (b'-' | b'0'..=b'9') => self.number(first),
            other => Self::refuse(other, "looking for beginning of value"),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, Unread> {
        let mut fields = Vec::new();
        let mut byte = self.token()?;
        if byte == b'}' {
            return Ok(Json::Object(fields));
        }
        loop {
            if byte != b'"' {
                return Self::refuse(byte, "looking for beginning of object key string");
            }
            let key = self.string()?;
            match self.token()? {
                b':' => {}
                other => return Self::refuse(other, "after object key"),
            }
            let value = self.value(depth + 1)?;
            fields.push((key, value));
            match self.token()? {
                b',' => byte = self.token()?,
                b'}' => return Ok(Json::Object(fields)),
                other => return Self::refuse(other, "after object key:value pair"),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, Unread> {
        let mut items = Vec::new();
        if self.token()? == b']' {
            return Ok(Json::Array(items));
        }
        self.at -= 1;
        loop {
            items.push(self.value(depth + 1)?);
            match self.token()? {
                b',' => {}
                b']' => return Ok(Json::Array(items)),
                other => return Self::refuse(other, "after array element"),
            }
        }
    }

    fn literal(&mut self, word: &str, value: Json) -> Result<Json, Unread> {
        for expected in word.bytes().skip(1) {
            let byte = self.next()?;
            if byte != expected {
                let place = format!("in literal {word} (expecting '{}')", char::from(expected));
                return Self::refuse(byte, &place);
            }
        }
        Ok(value)
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn digit(&mut self, place: &str) -> Result<u8, Unread> {
        match self.next()? {
            digit @ b'0'..=b'9' => Ok(digit),
            other => Self::refuse(other, place),
        }
    }

    fn number(&mut self, first: u8) -> Result<Json, Unread> {
        let start = self.at - 1;
        let leading = if first == b'-' {
            self.digit("in numeric literal")?
        } else {
            first
        };
        if leading != b'0' {
            self.digits();
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digit("in exponent of numeric literal")?;
            self.digits();
        }
        let text = String::from_utf8_lossy(&self.text[start..self.at]).into_owned();
        Ok(Json::Number(text))
    }

    /// After the opening quote, to behind the closing one.
    fn string(&mut self) -> Result<String, Unread> {
        let mut text = Vec::new();
        loop {
            match self.next()? {
                b'"' => break,
                b'\\' => self.escape(&mut text)?,
                control @ 0..0x20 => return Self::refuse(control, "in string literal"),
                byte => text.push(byte),
            }
        }
        Ok(match String::from_utf8(text) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), Unread> {
        let byte = match self.next()? {
            same @ (b'"' | b'\\' | b'/') => same,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let unit = self.hex4()?;
                let character = self.scalar(unit)?;
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            other => return Self::refuse(other, "in string escape code"),
        };
        text.push(byte);
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, Unread> {
        let mut unit = 0;
        for _ in 0..4 {
            let byte = self.next()?;
            match char::from(byte).to_digit(16) {
                Some(digit) => unit = unit * 16 + digit,
                None => return Self::refuse(byte, "in \\u hexadecimal character escape"),
            }
        }
        Ok(unit)
    }

    /// The character of a UTF-16 unit, which may be half of a pair; half without the other is replaced.
    fn scalar(&mut self, unit: u32) -> Result<char, Unread> {
        if (0xd800..0xdc00).contains(&unit) && self.text[self.at..].starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low) {
                let pair = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(pair).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        match first(text.as_bytes()) {
            Err(Unread::Malformed(words)) => words,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn malformed_text_is_refused_in_the_words_of_go() {
        let beginning = "looking for beginning of value";
        for (text, words) in [
            ("key=foo", format!("invalid character 'k' {beginning}")),
            (
                "{\"a\" \"x\"}",
                "invalid character '\"' after object key".into(),
            ),
            (
                "{'key':1}",
                "invalid character '\\'' looking for beginning of object key string".into(),
            ),
            (
                "{\"a\":01}",
                "invalid character '1' after object key:value pair".into(),
            ),
            ("[1 2]", "invalid character '2' after array element".into()),
            (
                "nul]",
                "invalid character ']' in literal null (expecting 'l')".into(),
            ),
            ("-x", "invalid character 'x' in numeric literal".into()),
            ("\"\n\"", "invalid character '\\n' in string literal".into()),
            (
                "\"\\q\"",
                "invalid character 'q' in string escape code".into(),
            ),
            ("[1,]", format!("invalid character ']' {beginning}")),
        ] {
            assert_eq!(refusal(text), words);
        }
    }

    #[test]
    fn a_text_that_ends_early_is_told_from_a_blank_one() {
        for text in ["{", "{\"a\"", "[1,", "\"a", "tru", "{\"a\":1"] {
            assert_eq!(first(text.as_bytes()), Err(Unread::Cut), "{text}");
        }
        assert_eq!(first(b" \n"), Err(Unread::Blank));
        assert_eq!(only(b"").unwrap_err(), "unexpected end of JSON input");
        assert_eq!(
            only(b"1 2").unwrap_err(),
            "invalid character '2' after top-level value"
        );
    }

    #[test]
    fn an_outline_closes_with_the_value() {
        for text in [
            r#"{"a":"\\\"}","b":[{}]}"#,
            r#"["]",{"}":1}]"#,
            r#""a\"b{""#,
            " {}",
        ] {
            let mut outline = Outline::default();
            let closed = (1..=text.len()).find(|end| outline.closes(&text.as_bytes()[..*end]));
            assert_eq!(closed, Some(text.len()), "{text}");
            assert!(first(text.as_bytes()).is_ok(), "{text}");
        }
        assert!(!Outline::default().closes(b" 12 true"));
    }

    #[test]
    fn nesting_is_bounded() {
        assert_eq!(refusal(&"[".repeat(10_000)), "exceeded max depth");
    }

    #[test]
    fn escapes_are_read_and_written() {
        let (value, end) = first(b"\"a\\u00e4\\ud83d\\ude00\\n\" 1").expect("a string");
        assert!(matches!(value, Json::String(text, _) if text == "a\u{e4}\u{1f600}\n"));
        assert_eq!(end, 23);
        let mut out = String::new();
        member_v2::write_string(&mut out, "<a&\"\u{1}>\n");
        assert_eq!(out, r#""\u003ca\u0026\"\u0001\u003e\n""#);
    }
}
