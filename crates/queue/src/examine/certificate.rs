//! The one thing of a certificate that is of interest here: when it ends. RFC 5280, 4.1.

use std::time::{Duration, SystemTime};

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version, which the first version of certificates lacks.
const EXPLICIT_0: u8 = 0xa0;

/// When a certificate, in DER, ends; `None` for what cannot be understood.
pub(super) fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut rest, _) = element(certificate)?;
    if rest.first() == Some(&EXPLICIT_0) {
        rest = element(rest)?.2;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (tag, validity, _) = element(rest)?;
    if tag != SEQUENCE {
        return None;
    }
    let (_, _, not_after) = element(validity)?;
    let (tag, text, _) = element(not_after)?;
    time(tag, str::from_utf8(text).ok()?)
}

/// The first element: its tag, its content, and what comes after it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = der.split_first_chunk()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, of the years 1950 to 2049, or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &str) -> Option<SystemTime> {
    let digits = text.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let number = |at: usize| -> Option<i64> { rest.get(at..at + 2)?.parse().ok() };
    let (month, day) = (number(0)?, number(2)?);
    let of_day = number(4)? * 3_600 + number(6)? * 60 + number(8)?;
    let seconds = days_since_1970(year, month, day) * 86_400 + of_day;
    let since_1970 = Duration::from_secs(u64::try_from(seconds).ok()?);
    Some(SystemTime::UNIX_EPOCH + since_1970)
}

/// A day of the Gregorian calendar. The year is counted from March, so that the leap day is its last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let days_of_years =
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    const FROM_YEAR_0_TO_1970: i64 = 719_468;
    days_of_years + (153 * month + 2) / 5 + day - 1 - FROM_YEAR_0_TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(tag: u8, text: &str) -> Option<u64> {
        let since_1970 = time(tag, text)?.duration_since(SystemTime::UNIX_EPOCH);
        Some(since_1970.unwrap().as_secs())
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(seconds(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, "000229000001Z"), Some(951_782_401));
        assert_eq!(seconds(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(
            seconds(GENERALIZED_TIME, "20500101000000Z"),
            Some(2_524_608_000)
        );
        assert_eq!(seconds(UTC_TIME, "7001"), None);
        assert_eq!(seconds(SEQUENCE, "700101000000Z"), None);
    }

    #[test]
    fn the_end_is_the_second_of_two_times_behind_three_elements() {
        let element = |tag: u8, content: &[u8]| [&[tag, content.len() as u8], content].concat();
        let of_parts = |parts: &[Vec<u8>]| element(SEQUENCE, &element(SEQUENCE, &parts.concat()));
        let others = [
            element(2, &[1]),
            element(SEQUENCE, &[]),
            element(SEQUENCE, &[]),
        ]
        .concat();
        let validity = element(
            SEQUENCE,
            &[
                element(UTC_TIME, b"200101000000Z"),
                element(UTC_TIME, b"700101000010Z"),
            ]
            .concat(),
        );
        let expected = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(10));
        let first_version = of_parts(&[others.clone(), validity.clone()]);
        assert_eq!(not_after(&first_version), expected);
        let later_version = of_parts(&[element(EXPLICIT_0, &[2, 1, 2]), others, validity]);
        assert_eq!(not_after(&later_version), expected);
        for cut in 0..first_version.len() {
            assert_eq!(not_after(&first_version[..cut]), None);
        }
    }
}
