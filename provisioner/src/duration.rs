//! Durations as users write them: `500ms`, `10s`, `1m30s`.

use std::time::Duration;

/// Reads `500ms`, `10s`, `1m30s`, `2h`, `30d`; a bare number needs a unit.
///
/// # Errors
/// A sentence that says what is wrong with the text.
pub fn parse(text: &str) -> Result<Duration, String> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("a duration is empty: write one such as 30s".into());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .ok_or_else(|| format!("{text:?} has no unit: write {text}s or {text}ms"))?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let bad = || format!("{text:?} is not a duration: write one such as 500ms, 30s or 1m30s");
        let number: u64 = number.parse().map_err(|_| bad())?;
        let millis = match unit {
            "ms" => Some(number),
            "s" => number.checked_mul(1000),
            "m" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            "d" => number.checked_mul(86_400_000),
            _ => return Err(bad()),
        };
        total = millis
            .and_then(|ms| total.checked_add(Duration::from_millis(ms)))
            .ok_or_else(bad)?;
        rest = tail;
    }
    Ok(total)
}

/// Writes a duration for people: `312 ms` below a second, `1.4s` below a minute, then `2m05s`.
pub fn show(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return format!("{millis} ms");
    }
    let seconds = duration.as_secs();
    if seconds < 60 {
        let tenths = duration.subsec_millis() / 100;
        return if tenths == 0 {
            format!("{seconds}s")
        } else {
            format!("{seconds}.{tenths}s")
        };
    }
    format!("{}m{:02}s", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_users_write() {
        for (text, millis) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for text in [
            "",
            "10",
            "s",
            "10x",
            "-1s",
            "1.5s",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(
            parse("10"),
            Err("\"10\" has no unit: write 10s or 10ms".into())
        );
    }

    #[test]
    fn shows_for_people() {
        for (millis, text) in [
            (312, "312 ms"),
            (1000, "1s"),
            (1420, "1.4s"),
            (125_000, "2m05s"),
        ] {
            assert_eq!(show(Duration::from_millis(millis)), text);
        }
    }
}
