//! Go's spelling of values: how its flag package reads numbers, booleans and durations, and how `%q` prints text.
//!
//! etcd's accepted inputs and its error texts both come from there, so a value is accepted here when Go accepts it.
//! The functions are pure; an error is the reason that Go gives, ready to stand after the last colon of its message.

use std::time::Duration;

const PARSE_ERROR: &str = "parse error";
const OUT_OF_RANGE: &str = "value out of range";

/// Reads a boolean: `1 t T TRUE true True` and their opposites.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(PARSE_ERROR.to_owned()),
    }
}

/// Reads an unsigned number of 64 bits in any of Go's bases: `10`, `0x0a`, `0o12`, `012`, `0b1010`, `1_000`.
pub(crate) fn parse_u64(text: &str) -> Result<u64, String> {
    unsigned(text).map_err(str::to_owned)
}

/// Reads an unsigned number of 32 bits; etcd reports its errors with the name of the Go function.
pub(crate) fn parse_u32(text: &str) -> Result<u32, String> {
    let named = |why: &str| format!("strconv.ParseUint: parsing {}: {why}", quote(text));
    match unsigned(text) {
        Ok(number) => u32::try_from(number).map_err(|_| named(OUT_OF_RANGE)),
        Err(OUT_OF_RANGE) => Err(named(OUT_OF_RANGE)),
        Err(_) => Err(named("invalid syntax")),
    }
}

/// Reads a signed number of 64 bits, in the same bases.
pub(crate) fn parse_i64(text: &str) -> Result<i64, String> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = i128::from(unsigned(digits)?);
    i64::try_from(if negative { -magnitude } else { magnitude })
        .map_err(|_| OUT_OF_RANGE.to_owned())
}

fn unsigned(text: &str) -> Result<u64, &'static str> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    let mut number: u64 = 0;
    let mut any = false;
    let mut overflow = false;
    // An underscore may stand between digits, and between a base prefix and the first digit.
    let mut underscore_allowed = radix != 10;
    let mut last_underscore = false;
    for character in digits.chars() {
        if character == '_' {
            if !underscore_allowed || last_underscore {
                return Err(PARSE_ERROR);
            }
            last_underscore = true;
            continue;
        }
        let digit = character.to_digit(radix).ok_or(PARSE_ERROR)?;
        last_underscore = false;
        underscore_allowed = true;
        any = true;
        match number
            .checked_mul(u64::from(radix))
            .and_then(|n| n.checked_add(u64::from(digit)))
        {
            Some(next) => number = next,
            None => overflow = true,
        }
    }
    match (any, last_underscore, overflow) {
        (false, _, _) | (_, true, _) => Err(PARSE_ERROR),
        (_, _, true) => Err(OUT_OF_RANGE),
        _ => Ok(number),
    }
}

/// Reads a Go duration: `2h`, `1h30m`, `1.5s`, `100ms`, `10us`, `0`.
///
/// # Errors
///
/// The reason, in Go's words; a negative duration is refused, because no flag of the server gives it a meaning.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text.starts_with('-') && nanoseconds(&text[1..]).is_some_and(|nanos| nanos > 0) {
        return Err("must not be negative".to_owned());
    }
    let magnitude = text.strip_prefix(['+', '-']).unwrap_or(text);
    nanoseconds(magnitude)
        .map(Duration::from_nanos)
        .ok_or_else(|| PARSE_ERROR.to_owned())
}

fn nanoseconds(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(tail) => digits(tail),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let unit: u128 = match &after[..unit_end] {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: u128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        // Below a nanosecond nothing is kept, so that 18 digits of a fraction are all that can matter.
        let kept = &fraction[..fraction.len().min(18)];
        if !kept.is_empty() {
            let scale = 10u128.pow(u32::try_from(kept.len()).ok()?);
            total = total.checked_add(kept.parse::<u128>().ok()? * unit / scale)?;
        }
        rest = &after[unit_end..];
    }
    // Go keeps a duration in a signed 64-bit count of nanoseconds.
    i64::try_from(total)
        .ok()
        .and_then(|nanos| u64::try_from(nanos).ok())
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    )
}

/// Prints a duration as Go does: `2h0m0s`, `1m30s`, `1.5s`, `100ms`, `0s`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}\u{b5}s", decimal(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, m) => format!("{m}m{seconds}s"),
                (h, m) => format!("{h}h{m}m{seconds}s"),
            }
        }
    }
}

/// Prints `value / unit` exactly, without trailing zeros; `unit` is a power of ten.
fn decimal(value: u128, unit: u128) -> String {
    let (whole, fraction) = (value / unit, value % unit);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = unit.to_string().len() - 1;
    let digits = format!("{fraction:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// Quotes text as Go's `%q` does.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Prints a list of strings as Go's `%q` prints a slice: `["a" "b"]`.
pub(crate) fn quote_list<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    format!(
        "[{}]",
        items.into_iter().map(quote).collect::<Vec<_>>().join(" ")
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_read_in_every_base_of_go() {
        for (text, want) in [
            ("0", 0),
            ("10", 10),
            ("0x1F", 31),
            ("0b101", 5),
            ("0o17", 15),
            ("017", 15),
            ("1_000", 1000),
            ("0x_f", 15),
        ] {
            assert_eq!(parse_u64(text), Ok(want), "{text}");
        }
        for text in [
            "", "-1", "+1", "abc", "1.5", "0x", "08", "_1", "1_", "1__0", " 1",
        ] {
            assert_eq!(parse_u64(text), Err(PARSE_ERROR.to_owned()), "{text}");
        }
        assert_eq!(parse_u64("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(
            parse_u64("18446744073709551616"),
            Err(OUT_OF_RANGE.to_owned())
        );
        assert_eq!(parse_i64("-0x10"), Ok(-16));
        assert_eq!(
            parse_i64("9223372036854775808"),
            Err(OUT_OF_RANGE.to_owned())
        );
        assert_eq!(
            parse_u32("abc"),
            Err("strconv.ParseUint: parsing \"abc\": invalid syntax".to_owned())
        );
        assert_eq!(
            parse_u32("5000000000"),
            Err("strconv.ParseUint: parsing \"5000000000\": value out of range".to_owned())
        );
    }

    #[test]
    fn durations_are_read_and_printed_as_go_does() {
        for (text, nanos, printed) in [
            ("0", 0, "0s"),
            ("2h", 7_200_000_000_000, "2h0m0s"),
            ("1h30m", 5_400_000_000_000, "1h30m0s"),
            ("90s", 90_000_000_000, "1m30s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            (".5s", 500_000_000, "500ms"),
            ("100ms", 100_000_000, "100ms"),
            ("10us", 10_000, "10\u{b5}s"),
            ("1.5\u{3bc}s", 1_500, "1.5\u{b5}s"),
            ("7ns", 7, "7ns"),
            ("+5s", 5_000_000_000, "5s"),
            ("-0", 0, "0s"),
        ] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
            assert_eq!(format_duration(duration), printed, "{text}");
        }
        for text in ["", "abc", "5", "5 s", "s", ".s", "1.2.3s", "3000000h"] {
            assert_eq!(parse_duration(text), Err(PARSE_ERROR.to_owned()), "{text}");
        }
        assert_eq!(
            parse_duration("-5s"),
            Err("must not be negative".to_owned())
        );
    }

    #[test]
    fn text_is_quoted_as_go_does() {
        assert_eq!(
            quote("a\"b\\c\t\u{1}\u{7f}\u{85}\u{e9}"),
            "\"a\\\"b\\\\c\\t\\x01\\x7f\\u0085\u{e9}\""
        );
        assert_eq!(quote_list(["a", "b"]), "[\"a\" \"b\"]");
    }

    proptest! {
        #[test]
        fn a_printed_duration_reads_back(nanos in 0..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn reading_never_panics(text in ".*") {
            let _ = (parse_duration(&text), parse_u64(&text), parse_i64(&text), parse_u32(&text), quote(&text));
        }
    }
}
