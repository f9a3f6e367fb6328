//! `app_version` as an integer.

use crate::Rule;

/// The room of the second and of the third number of a sortable version: they end at 999.
const SORTABLE_STEP: i32 = 1_000;

/// Which integer a version becomes. A version is dotted numbers (`2.3.0`), of ASCII digits; what follows the first
/// `-` or `+` is a pre-release or build suffix (semver.org, items 9 and 10) and is ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VersionEncoding {
    /// The digits joined: `2.3.0` is 230, `0.2.6` is 26, and `0.26` as well.
    Digits,
    /// major · 10⁶ + minor · 10³ + patch, parts that are missing are 0: `2.3.0` is 2003000. Keeps order and never
    /// collides. Second and third part end at 999; a fourth part is refused, whatever it is.
    Sortable,
}

impl VersionEncoding {
    pub(crate) fn encode(self, version: &str) -> Result<i32, Rule> {
        let numbers = numbers(version)?;
        match self {
            VersionEncoding::Digits => joined(numbers),
            VersionEncoding::Sortable => sortable(numbers),
        }
    }
}

/// The dotted numbers of a version, checked to be such.
fn numbers(version: &str) -> Result<&str, Rule> {
    let end = version.find(['-', '+']).unwrap_or(version.len());
    let numbers = &version[..end];
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if numbers.split('.').all(is_number) {
        Ok(numbers)
    } else {
        Err(Rule::NotAVersion)
    }
}

fn joined(numbers: &str) -> Result<i32, Rule> {
    number(numbers.bytes().filter(u8::is_ascii_digit))
}

fn sortable(numbers: &str) -> Result<i32, Rule> {
    let mut parts = numbers.split('.').map(|part| number(part.bytes()));
    let major = parts.next().unwrap_or(Ok(0))?;
    let minor = parts.next().unwrap_or(Ok(0))?;
    let patch = parts.next().unwrap_or(Ok(0))?;
    if parts.next().is_some() {
        return Err(Rule::TooManyNumbers);
    }
    if minor >= SORTABLE_STEP || patch >= SORTABLE_STEP {
        return Err(Rule::VersionTooLarge);
    }
    major
        .checked_mul(SORTABLE_STEP * SORTABLE_STEP)
        .and_then(|sum| sum.checked_add(minor * SORTABLE_STEP + patch))
        .ok_or(Rule::VersionTooLarge)
}

fn number(digits: impl Iterator<Item = u8>) -> Result<i32, Rule> {
    digits
        .map(|digit| i32::from(digit - b'0'))
        .try_fold(0_i32, |sum, digit| sum.checked_mul(10)?.checked_add(digit))
        .ok_or(Rule::VersionTooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::VersionEncoding::{Digits, Sortable};
    use crate::Rule;

    #[test]
    fn digits_are_joined() {
        for (version, expected) in [
            ("2.3.0", 230),
            ("0.2.6", 26),
            ("0.96", 96),
            ("7", 7),
            ("0.0.0", 0),
            ("1.2.3.4.5", 12345),
            ("0000000000000.1", 1),
            ("2147483.647", i32::MAX),
        ] {
            assert_eq!(Digits.encode(version), Ok(expected), "{version}");
        }
    }

    #[test]
    fn a_sortable_version_has_room_for_three_digits_a_part() {
        for (version, expected) in [
            ("2.3.0", 2_003_000),
            ("2.3", 2_003_000),
            ("2", 2_000_000),
            ("0.0.1", 1),
            ("0.999.999", 999_999),
            ("02.003.0004", 2_003_004),
            ("2147.483.647", i32::MAX),
        ] {
            assert_eq!(Sortable.encode(version), Ok(expected), "{version}");
        }
    }

    #[test]
    fn pre_release_and_build_are_ignored() {
        for version in [
            "2.3.0-beta.1",
            "2.3.0+77",
            "2.3.0-rc.1+77",
            "2.3.0+77-x",
            "2.3.0-",
        ] {
            assert_eq!(Digits.encode(version), Ok(230), "{version}");
            assert_eq!(Sortable.encode(version), Ok(2_003_000), "{version}");
        }
    }

    #[test]
    fn what_is_not_dotted_numbers_is_refused() {
        for version in [
            "",
            ".",
            "1.",
            ".1",
            "1..2",
            "v1.2",
            "1.2b",
            "-1",
            "+1",
            " 1.2",
            "1.2 ",
            "1,2",
            "1_0",
            "0x1",
            "\u{661}.2",
        ] {
            assert_eq!(Digits.encode(version), Err(Rule::NotAVersion), "{version}");
            assert_eq!(
                Sortable.encode(version),
                Err(Rule::NotAVersion),
                "{version}"
            );
        }
        assert_eq!(Digits.encode("99999999999.x"), Err(Rule::NotAVersion));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(Digits.encode("2147483.648"), Err(Rule::VersionTooLarge));
        assert_eq!(
            Digits.encode("99999999999999999999"),
            Err(Rule::VersionTooLarge)
        );
        for version in [
            "2147.483.648",
            "2148",
            "0.1000",
            "0.0.1000",
            "99999999999.0",
            "0.99999999999",
            "0.0.99999999999",
        ] {
            assert_eq!(
                Sortable.encode(version),
                Err(Rule::VersionTooLarge),
                "{version}"
            );
        }
        for version in ["1.2.3.4", "1.2.3.0"] {
            assert_eq!(
                Sortable.encode(version),
                Err(Rule::TooManyNumbers),
                "{version}"
            );
        }
    }

    proptest! {
        #[test]
        fn digits_is_what_the_script_computed(version in r"[0-9]{1,6}(\.[0-9]{1,4}){0,3}") {
            let expected: Option<i32> = version.replace('.', "").parse().ok();
            prop_assert_eq!(Digits.encode(&version).ok(), expected);
        }

        #[test]
        fn sortable_keeps_order(
            a in (0..2147_u32, 0..1000_u32, 0..1000_u32),
            b in (0..2147_u32, 0..1000_u32, 0..1000_u32),
        ) {
            let encode = |(major, minor, patch)| Sortable.encode(&format!("{major}.{minor}.{patch}")).unwrap();
            prop_assert_eq!(encode(a).cmp(&encode(b)), a.cmp(&b));
        }

        #[test]
        fn no_version_panics(version in r"[0-9.+\-v\PC]{0,40}") {
            let _ = Digits.encode(&version);
            let _ = Sortable.encode(&version);
        }
    }
}
