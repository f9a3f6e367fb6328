//! Masks, as the vault's keys.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use thiserror::Error;

/// A mask: 256 bits, written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mask([u8; 32]);

/// A text is not 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("not a mask, which is 64 lower-case hex digits")]
pub struct MaskError;

impl Mask {
    /// 64 of its bits. All bits are as good as random, so these tell masks apart as well as a hash of all would.
    pub(crate) fn first_bits(&self) -> u64 {
        let (first, _) = self.0.as_chunks();
        u64::from_be_bytes(first[0])
    }

    /// The 64 digits, in ASCII: what a mask is in the tables, and what an original is bound to.
    #[expect(clippy::expect_used, reason = "both lengths are fixed")]
    pub fn digits(&self) -> [u8; 64] {
        let mut digits = [0; 64];
        hex::encode_to_slice(self.0, &mut digits).expect("two digits a byte");
        digits
    }
}

impl Hash for Mask {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.first_bits());
    }
}

/// The value of each character. Capital letters are not digits: of two spellings of a mask only one is in the tables.
/// A table, since masks are read by the thousand.
const VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    values
};
const NO_DIGIT: u8 = 0xff;

impl FromStr for Mask {
    type Err = MaskError;

    fn from_str(text: &str) -> Result<Mask, MaskError> {
        let digits: &[u8; 64] = text.as_bytes().try_into().map_err(|_| MaskError)?;
        let (pairs, _) = digits.as_chunks::<2>();
        let mut mask = Mask([0; 32]);
        for (byte, pair) in mask.0.iter_mut().zip(pairs) {
            let [high, low] = pair.map(|digit| VALUES[usize::from(digit)]);
            if high == NO_DIGIT || low == NO_DIGIT {
                return Err(MaskError);
            }
            *byte = high << 4 | low;
        }
        Ok(mask)
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Mask, MaskError};

    #[test]
    fn only_64_lower_case_hex_digits_are_a_mask() {
        let mask = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(mask.parse::<Mask>().unwrap().to_string(), mask);
        for text in [
            "",
            &mask[1..],
            &mask[2..],
            &mask.to_uppercase(),
            &"g".repeat(64),
            &format!("{mask} "),
        ] {
            assert_eq!(text.parse::<Mask>(), Err(MaskError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_mask_is_written_as_it_was_read(bytes: [u8; 32]) {
            let mask = Mask(bytes);
            let text = mask.to_string();
            prop_assert_eq!(text.parse::<Mask>(), Ok(mask));
            prop_assert_eq!(text.as_bytes(), mask.digits());
        }
    }
}
