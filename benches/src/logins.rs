//! Login messages, made up: the n-th one is the same in every run.

use std::fmt::Write;

const LOCALES: [&str; 15] = [
    "RU", "PH", "ID", "FR", "PT", "BR", "CN", "US", "PL", "JP", "SE", "MX", "GR", "UA", "NG",
];

/// The body of the `number`-th login message, as the sample messages are written: one JSON object, a quarter of them
/// without a locale.
pub fn body(number: u64) -> String {
    let mut dice = Dice::new(number);
    let user_id = dice.uuid();
    let version = (dice.below(6), dice.below(10), dice.below(10));
    let device_type = if dice.below(2) == 0 { "android" } else { "ios" };
    let ip = (
        1 + dice.below(254),
        dice.below(256),
        dice.below(256),
        dice.below(256),
    );
    let locale = LOCALES.get(dice.below(LOCALES.len() as u64 * 4 / 3) as usize);
    let device = (dice.below(1000), dice.below(100), dice.below(10_000));

    let mut body = String::with_capacity(192);
    let _ = write!(
        body,
        r#"{{"user_id": "{user_id}", "app_version": "{}.{}.{}", "device_type": "{device_type}", "ip": "{}.{}.{}.{}", "#,
        version.0, version.1, version.2, ip.0, ip.1, ip.2, ip.3,
    );
    let _ = match locale {
        Some(locale) => write!(body, r#""locale": "{locale}", "#),
        None => write!(body, r#""locale": null, "#),
    };
    let _ = write!(
        body,
        r#""device_id": "{:03}-{:02}-{:04}"}}"#,
        device.0, device.1, device.2
    );
    body
}

/// A small generator of numbers that look random (splitmix64): the same seed gives the same numbers.
pub struct Dice(u64);

impl Dice {
    /// Numbers that depend on `seed` alone.
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0xD134_2543_DE82_EF95))
    }

    /// Any of the 2^64 numbers.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `bound - 1`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// A version 4 UUID in its usual text.
    pub fn uuid(&mut self) -> String {
        let (high, low) = (self.roll(), self.roll());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xFFFF,
            high & 0xFFF,
            0x8000 | low >> 48 & 0x3FFF,
            low & 0xFFFF_FFFF_FFFF,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_a_login_and_depends_on_its_number_alone() {
        let login: serde_json::Value = serde_json::from_str(&body(7)).unwrap();
        for key in ["user_id", "app_version", "device_type", "ip", "device_id"] {
            assert!(login[key].is_string(), "{key}");
        }
        assert_eq!(body(7), body(7));
        assert_ne!(body(7), body(8));
    }

    #[test]
    fn some_logins_have_no_locale() {
        let without = (0..1000)
            .filter(|&number| body(number).contains(r#""locale": null"#))
            .count();
        assert!((150..350).contains(&without), "{without}");
    }
}
