//! Bytes as Postgres writes them.

use thiserror::Error;

/// A text is not a `bytea` in hex format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("not a bytea in hex format, \\x…")]
pub struct NotHex;

/// The bytes of `\x` and hex digits.
pub fn bytes(text: &str) -> Result<Vec<u8>, NotHex> {
    let digits = text.strip_prefix("\\x").ok_or(NotHex)?;
    hex::decode(digits).map_err(|_| NotHex)
}

#[cfg(test)]
mod tests {
    use super::{NotHex, bytes};

    #[test]
    fn bytes_are_hex_behind_a_backslash_and_an_x() {
        assert_eq!(bytes("\\x00ff1A"), Ok(vec![0, 0xff, 0x1a]));
        assert_eq!(bytes("\\x"), Ok(vec![]));
        for text in ["", "00ff", "\\x0", "\\x0g", "\\\\x00", "\\000\\377"] {
            assert_eq!(bytes(text), Err(NotHex), "{text}");
        }
    }
}
