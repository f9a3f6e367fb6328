//! Masking: a text becomes 64 hex digits from which it cannot be read back.
//!
//! Without a key, short inputs can be found by trying them all: there are only 2³² IPv4 addresses. A key that the
//! table's readers do not have stops that, and equal texts still have equal masks.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::address::canonical;

/// SHA-256 or HMAC-SHA-256, in lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mask([u8; 64]);

impl Mask {
    /// The 64 hex digits.
    #[expect(
        clippy::expect_used,
        reason = "only hex digits are ever written into a mask"
    )]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("hex digits are ASCII")
    }

    #[expect(clippy::expect_used, reason = "both lengths are fixed")]
    fn of_digest(digest: &[u8; 32]) -> Mask {
        let mut digits = [0; 64];
        hex::encode_to_slice(digest, &mut digits).expect("two digits a byte");
        Mask(digits)
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How texts are masked. Not printable: it may hold a key.
#[derive(Clone)]
pub struct Masker(Function);

#[derive(Clone)]
enum Function {
    Sha256,
    /// The key is absorbed already: each mask starts from a copy of this state, not from the key.
    HmacSha256(Box<Hmac<Sha256>>),
}

impl Masker {
    /// SHA-256 of the text's UTF-8 bytes.
    pub fn plain() -> Masker {
        Masker(Function::Sha256)
    }

    /// HMAC-SHA-256 (RFC 2104) of the text's UTF-8 bytes. The key may have any length.
    #[expect(
        clippy::expect_used,
        reason = "HMAC is defined for keys of every length"
    )]
    pub fn keyed(key: &[u8]) -> Masker {
        let state = Hmac::new_from_slice(key).expect("HMAC takes keys of any length");
        Masker(Function::HmacSha256(Box::new(state)))
    }

    /// Every mask that `value` has, as an `ip` and as a `device_id`: one, unless it is another spelling of an IPv6
    /// address.
    pub fn masks_of(&self, value: &str) -> Vec<Mask> {
        let canonical = canonical(value);
        let mut masks = vec![self.mask(&canonical)];
        if canonical != value {
            masks.push(self.mask(value));
        }
        masks
    }

    pub(crate) fn mask(&self, text: &str) -> Mask {
        let digest = match &self.0 {
            Function::Sha256 => Sha256::digest(text),
            Function::HmacSha256(keyed) => {
                let mut hmac = Hmac::clone(keyed);
                hmac.update(text.as_bytes());
                hmac.finalize().into_bytes()
            }
        };
        Mask::of_digest(&digest.into())
    }
}

#[cfg(test)]
mod tests {
    use super::Masker;

    /// FIPS 180-4 examples and the empty string.
    #[test]
    fn plain_is_sha_256() {
        let masker = Masker::plain();
        assert_eq!(
            masker.mask("abc").as_str(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            masker.mask("").as_str(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    /// RFC 4231, test cases 2 and 6.
    #[test]
    fn keyed_is_hmac_sha_256() {
        let masker = Masker::keyed(b"Jefe");
        for _ in 0..2 {
            assert_eq!(
                masker.mask("what do ya want for nothing?").as_str(),
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
            );
        }
        let masker = Masker::keyed(&[0xaa; 131]);
        assert_eq!(
            masker
                .mask("Test Using Larger Than Block-Size Key - Hash Key First")
                .as_str(),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn another_spelling_of_an_address_has_the_mask_of_the_address_and_its_own() {
        let masker = Masker::plain();
        let [address, spelling] = masker.masks_of("2001:DB8::1")[..] else {
            panic!("two masks");
        };
        assert_eq!(address, masker.mask("2001:db8::1"));
        assert_eq!(spelling, masker.mask("2001:DB8::1"));
        for value in ["2001:db8::1", "199.172.111.135", "593-47-5928", ""] {
            assert_eq!(masker.masks_of(value), [masker.mask(value)]);
        }
    }

    #[test]
    fn a_text_is_hashed_as_utf_8() {
        assert_eq!(
            Masker::plain().mask("é").as_str(),
            "4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c"
        );
    }
}
