//! Numbers as users write and read them: sizes, durations, ages, points in time.
//!
//! Parsers take text and give plain integers or a sentence that says what is wrong; the option that the
//! text belongs to is added by the caller. Renderers follow Docker's to the letter, because scripts read them.

use std::fmt::Write as _;

/// Parses a size as in `--memory`: a number with an optional fraction and `b k m g t p`, `kb`, `kib`, … in
/// any case, all powers of 1,024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let split = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let power = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => {
            return Err(format!(
                "{text:?} is not a size; write for example 512m or 1.5g"
            ));
        }
    };
    let factor = 1u64 << (10 * power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole
            .checked_mul(factor)
            .ok_or_else(|| format!("{text:?} is too large"));
    }
    match number.parse::<f64>() {
        Ok(value)
            if value.is_finite() && value >= 0.0 && value * (factor as f64) < u64::MAX as f64 =>
        {
            Ok((value * factor as f64) as u64)
        }
        _ => Err(format!(
            "{text:?} is not a size; write for example 512m or 1.5g"
        )),
    }
}

/// Parses a size where -1 means unlimited.
pub(crate) fn parse_bytes_or_unlimited(text: &str) -> Result<i64, String> {
    if text.trim() == "-1" {
        return Ok(-1);
    }
    i64::try_from(parse_bytes(text)?).map_err(|_| format!("{text:?} is too large"))
}

/// Parses a duration as Go does (`1h2m3.5s`, `300ms`, `0`) into nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a duration; write for example 90s, 1m30s or 500ms");
    if text == "0" {
        return Ok(0);
    }
    let mut rest = text;
    let mut total: f64 = 0.0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let split = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(bad)?;
        let value: f64 = rest[..split].parse().map_err(|_| bad())?;
        rest = &rest[split..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let factor = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3_600e9,
            _ => return Err(bad()),
        };
        rest = &rest[end..];
        total += value * factor;
    }
    if total > u64::MAX as f64 {
        Err(format!("{text:?} is too long"))
    } else {
        Ok(total.round() as u64)
    }
}

/// Parses a number of CPUs (`0.25`, `2`) into microseconds of a period of 100,000.
pub(crate) fn parse_cpus(text: &str) -> Result<i64, String> {
    match text.parse::<f64>() {
        Ok(0.0) => Ok(-1),
        Ok(value) if value.is_finite() && (0.01..1e6).contains(&value) => {
            Ok((value * 100_000.0).round() as i64)
        }
        Ok(value) if value > 0.0 && value < 0.01 => Err(format!(
            "{text} CPUs is below what the kernel schedules; the least is 0.01"
        )),
        _ => Err(format!(
            "{text:?} is not a number of CPUs; write for example 0.5 or 2"
        )),
    }
}

/// Parses a point in time as `logs --since` and `events --until` take it: RFC 3339, a date or a date and time in
/// the local time zone, Unix seconds with an optional fraction, or a duration before `now`.
///
/// `now` and the result are Unix time in nanoseconds.
pub(crate) fn parse_time(text: &str, now: i128) -> Result<i128, String> {
    if let Ok(ago) = parse_duration(text)
        && text != "0"
    {
        return Ok(now - i128::from(ago));
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && !text.is_empty() {
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: u64 = seconds.parse().map_err(|_| bad_time(text))?;
        let digits: String = format!("{fraction:0<9}").chars().take(9).collect();
        let nanos: i128 = digits.parse().map_err(|_| bad_time(text))?;
        return Ok(i128::from(seconds) * 1_000_000_000 + nanos);
    }
    if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        return Ok(stamp.as_nanosecond());
    }
    let civil: jiff::civil::DateTime = text.parse().map_err(|_| bad_time(text))?;
    let zoned = civil
        .to_zoned(jiff::tz::TimeZone::system())
        .map_err(|_| bad_time(text))?;
    Ok(zoned.timestamp().as_nanosecond())
}

fn bad_time(text: &str) -> String {
    format!(
        "{text:?} is not a point in time; write for example 2026-01-31T12:00:00Z, 1767225600 or 10m (ago)"
    )
}

/// The present as Unix time in nanoseconds.
pub(crate) fn now() -> i128 {
    jiff::Timestamp::now().as_nanosecond()
}

/// Unix nanoseconds as RFC 3339 in UTC with nine digits of fraction, as Docker's documents have them.
pub(crate) fn rfc3339(nanos: i128) -> String {
    match jiff::Timestamp::from_nanosecond(nanos) {
        Ok(stamp) => format!("{stamp:.9}"),
        Err(_) => "0001-01-01T00:00:00Z".to_owned(),
    }
}

/// Unix nanoseconds in the local time zone by a strftime format; empty when out of range.
pub(crate) fn local_time(nanos: i128, format: &str) -> String {
    match jiff::Timestamp::from_nanosecond(nanos) {
        Ok(stamp) => stamp
            .to_zoned(jiff::tz::TimeZone::system())
            .strftime(format)
            .to_string(),
        Err(_) => String::new(),
    }
}

/// `2026-01-31 12:00:00 +0100 CET`: the `CreatedAt` of tables.
pub(crate) fn created_at(nanos: i128) -> String {
    local_time(nanos, "%Y-%m-%d %H:%M:%S %z %Z")
}

/// C's `%.{digits}g` for a value of 0 or more.
fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let exponent = value.abs().log10().floor() as i64;
    let decimals = (digits as i64 - 1 - exponent).max(0) as usize;
    let mut text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text
}

fn scaled(bytes: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut value = bytes;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// Decimal size with three digits, as in `images` and `ps -s`: `1.23MB`.
pub(crate) fn human_size(bytes: u64) -> String {
    scaled(
        bytes as f64,
        1000.0,
        &["B", "kB", "MB", "GB", "TB", "PB", "EB"],
        3,
    )
}

/// Decimal size with four digits, as in `system df` and `prune`: `1.234MB`.
pub(crate) fn human_size4(bytes: u64) -> String {
    scaled(
        bytes as f64,
        1000.0,
        &["B", "kB", "MB", "GB", "TB", "PB", "EB"],
        4,
    )
}

/// Binary size, as in `stats`: `1.5MiB`.
pub(crate) fn binary_size(bytes: u64) -> String {
    scaled(
        bytes as f64,
        1024.0,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"],
        4,
    )
}

/// A length of time in words: `3 seconds`, `About a minute`, `2 weeks`.
pub(crate) fn human_duration(nanos: i128) -> String {
    let seconds = (nanos / 1_000_000_000).max(0);
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    if seconds < 1 {
        "Less than a second".into()
    } else if seconds == 1 {
        "1 second".into()
    } else if seconds < 60 {
        format!("{seconds} seconds")
    } else if minutes == 1 {
        "About a minute".into()
    } else if minutes < 60 {
        format!("{minutes} minutes")
    } else if hours == 1 {
        "About an hour".into()
    } else if hours < 48 {
        format!("{hours} hours")
    } else if hours < 24 * 7 * 2 {
        format!("{} days", hours / 24)
    } else if hours < 24 * 30 * 2 {
        format!("{} weeks", hours / 24 / 7)
    } else if hours < 24 * 365 * 2 {
        format!("{} months", hours / 24 / 30)
    } else {
        format!("{} years", seconds / 3600 / 24 / 365)
    }
}

/// CPU time as `top` shows it: `00:01:02`.
pub(crate) fn cpu_time(ticks: u64) -> String {
    let seconds = ticks / 100;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Text in double quotes with Go's escapes.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                // Writing into a String cannot fail.
                let _ = write!(quoted, "\\x{:02x}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Shortens to `width` characters, the last of which is an ellipsis.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// A digest or id in its short form: 12 characters, without the algorithm.
pub(crate) fn short_id(id: &str) -> &str {
    let bare = id.strip_prefix("sha256:").unwrap_or(id);
    bare.get(..12).unwrap_or(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_in_every_spelling() {
        for (text, bytes) in [
            ("0", 0),
            ("42", 42),
            ("10b", 10),
            ("1k", 1 << 10),
            ("64KB", 64 << 10),
            ("64kib", 64 << 10),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("2 G", 2 << 30),
            ("1t", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "-1", "1x", "1.2.3m", "99999999999t", "1e3", "∞"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(parse_bytes_or_unlimited("-1"), Ok(-1));
        assert_eq!(parse_bytes_or_unlimited("1k"), Ok(1024));
    }

    #[test]
    fn durations_are_gos() {
        for (text, nanos) in [
            ("0", 0),
            ("1s", 1_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("300ms", 300_000_000),
            ("5us", 5_000),
            ("5µs", 5_000),
        ] {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
        }
        for text in ["", "5", "s", "1x", "1s2", "-1s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus_become_a_quota() {
        assert_eq!(parse_cpus("0.25"), Ok(25_000));
        assert_eq!(parse_cpus("2"), Ok(200_000));
        assert_eq!(parse_cpus("0"), Ok(-1));
        for text in ["0.001", "-1", "x", "inf", "NaN"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_absolute_or_ago() {
        let now = 1_000_000_000_000_000_000;
        assert_eq!(parse_time("10s", now), Ok(now - 10_000_000_000));
        assert_eq!(parse_time("1136073600", now), Ok(1_136_073_600_000_000_000));
        assert_eq!(
            parse_time("1136073600.5", now),
            Ok(1_136_073_600_500_000_000)
        );
        assert_eq!(
            parse_time("2006-01-01T00:00:00Z", now),
            Ok(1_136_073_600_000_000_000)
        );
        assert_eq!(
            parse_time("2006-01-01T01:00:00+01:00", now),
            Ok(1_136_073_600_000_000_000)
        );
        assert!(parse_time("2006-01-01", now).is_ok());
        assert!(parse_time("2006-01-01T10:11:12", now).is_ok());
        assert!(parse_time("soon", now).is_err());
        assert!(parse_time("99999999999999999999999999999999999999", now).is_err());
    }

    #[test]
    fn sizes_and_ages_read_as_dockers() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_234_567, "1.23MB"),
            (77_800_000, "77.8MB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
        assert_eq!(human_size4(1_234_567), "1.235MB");
        assert_eq!(binary_size(1_572_864), "1.5MiB");
        assert_eq!(binary_size(15_653_888), "14.93MiB");
        let second = 1_000_000_000i128;
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (3600 * 47, "47 hours"),
            (3600 * 48, "2 days"),
            (3600 * 24 * 14, "2 weeks"),
            (3600 * 24 * 61, "2 months"),
            (3600 * 24 * 800, "2 years"),
        ] {
            assert_eq!(human_duration(seconds * second), text);
        }
    }

    #[test]
    fn quoting_and_shortening() {
        assert_eq!(quote("sh -c \"a\n\""), r#""sh -c \"a\n\"""#);
        assert_eq!(ellipsis("abcdef", 4), "abc…");
        assert_eq!(ellipsis("abcd", 4), "abcd");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    }
}
