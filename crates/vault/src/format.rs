//! An original as bytes that only its data key opens, version 1. `docs/vault.md` says the same for others.
//!
//! ```text
//! byte 0        the version, 1
//! byte 1        the kind: 1 ip, 2 device_id
//! bytes 2–25    the nonce, random
//! from 26       the padded original, encrypted: a multiple of 48 bytes (ip) or 64 (device_id)
//! the last 16   the tag
//! ```
//!
//! The cipher is XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03). Its associated data are bytes 0 and 1, and the mask's
//! 64 hex digits in ASCII. Padding is that of ISO/IEC 7816-4: a byte 0x80, then zeros up to the next multiple.

use zeroize::Zeroizing;

use crate::cipher::{self, NONCE, TAG};
use crate::key::Secret;
use crate::{Kind, Mask, OpenError, SealError};

const VERSION: u8 = 1;
const HEADER: usize = 2;
/// Where padding begins: a byte that is always there.
const PADDING: u8 = 0x80;

/// Seals `original` with a nonce that must never be used again with this key; a random one never is.
pub(crate) fn seal(
    secret: &Secret,
    nonce: &[u8; NONCE],
    kind: Kind,
    mask: Mask,
    original: &str,
) -> Result<Vec<u8>, SealError> {
    let padded = padded_length(kind, original.len());
    let mut sealed = Vec::with_capacity(HEADER + NONCE + padded + TAG);
    sealed.extend([VERSION, kind.byte()]);
    sealed.extend(nonce);
    sealed.extend(original.as_bytes());
    sealed.push(PADDING);
    sealed.resize(HEADER + NONCE + padded, 0);

    let associated = associated_data(VERSION, kind, mask);
    let tag = cipher::encrypt(
        secret.bytes(),
        nonce,
        &associated,
        &mut sealed[HEADER + NONCE..],
    )
    .map_err(|_| SealError::TooLong)?;
    sealed.extend(tag);
    Ok(sealed)
}

/// The kind and the original of what [`seal`] made with this key for this mask.
pub(crate) fn open(
    secret: &Secret,
    mask: Mask,
    sealed: &[u8],
) -> Result<(Kind, Zeroizing<String>), OpenError> {
    let (kind, nonce, encrypted, tag) = parts(sealed)?;
    let mut padded = Zeroizing::new(encrypted.to_vec());
    let associated = associated_data(VERSION, kind, mask);
    cipher::decrypt(secret.bytes(), nonce, &associated, &mut padded, tag)
        .map_err(|_| OpenError::Altered)?;
    let original = unpadded(kind, &padded).ok_or(OpenError::NotAnOriginal)?;
    let original = str::from_utf8(original).map_err(|_| OpenError::NotAnOriginal)?;
    Ok((kind, Zeroizing::new(original.to_string())))
}

/// Kind, nonce, encrypted original and tag.
type Parts<'a> = (Kind, &'a [u8; NONCE], &'a [u8], &'a [u8; TAG]);

fn parts(sealed: &[u8]) -> Result<Parts<'_>, OpenError> {
    let (&[version, kind], rest) = sealed.split_first_chunk().ok_or(OpenError::Cut)?;
    if version != VERSION {
        return Err(OpenError::UnknownVersion(version));
    }
    let kind = Kind::of_byte(kind).ok_or(OpenError::UnknownKind(kind))?;
    let (nonce, rest) = rest.split_first_chunk().ok_or(OpenError::Cut)?;
    let (encrypted, tag) = rest.split_last_chunk().ok_or(OpenError::Cut)?;
    if encrypted.is_empty() || encrypted.len() % kind.block() != 0 {
        return Err(OpenError::Cut);
    }
    Ok((kind, nonce, encrypted, tag))
}

fn associated_data(version: u8, kind: Kind, mask: Mask) -> [u8; HEADER + 64] {
    let mut data = [0; HEADER + 64];
    data[..HEADER].copy_from_slice(&[version, kind.byte()]);
    data[HEADER..].copy_from_slice(&mask.digits());
    data
}

fn padded_length(kind: Kind, length: usize) -> usize {
    (length + 1).next_multiple_of(kind.block())
}

fn unpadded(kind: Kind, padded: &[u8]) -> Option<&[u8]> {
    let end = padded.iter().rposition(|&byte| byte != 0)?;
    (padded[end] == PADDING && padded_length(kind, end) == padded.len()).then_some(&padded[..end])
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    const MASK: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const OTHER_MASK: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn secret(byte: u8) -> Secret {
        let Ok(secret) = Secret::fill(|bytes| {
            bytes.fill(byte);
            Ok::<_, Infallible>(())
        });
        secret
    }

    fn mask() -> Mask {
        MASK.parse().unwrap()
    }

    fn sealed(kind: Kind, original: &str) -> Vec<u8> {
        seal(&secret(1), &[2; NONCE], kind, mask(), original).unwrap()
    }

    fn error(sealed: &[u8]) -> OpenError {
        open(&secret(1), mask(), sealed).err().unwrap()
    }

    /// What is in databases must stay readable. Remade by another implementation in `tests/independent`.
    #[test]
    fn the_format_does_not_change() {
        assert_eq!(
            hex::encode(sealed(Kind::Ip, "199.172.111.135")),
            "0101020202020202020202020202020202020202020202020202\
             fd5f0fc19b40ce63915050bf43634c1ecdd5f1a835e62b174067bc6e71d1ff989078c5d166044d0d\
             5b6197e88fba38380d44c68b859ec1d1ee9cee9ee435abce"
        );
        assert_eq!(
            hex::encode(sealed(Kind::DeviceId, "593-47-5928")),
            "0102020202020202020202020202020202020202020202020202\
             f95f05c29e40d178995359117250799ecdd5f1a835e62b174067bc6e71d1ff989078c5d166044d0d\
             5b6197e88fba383843cf614c2d2713fbcb912e784f956381e0628e9e3851edbb8e7f7534a4f047ed"
        );
    }

    #[test]
    fn a_length_shows_only_its_block() {
        let overhead = HEADER + NONCE + TAG;
        for (kind, block) in [(Kind::Ip, 48), (Kind::DeviceId, 64)] {
            for (length, blocks) in [
                (0, 1),
                (1, 1),
                (block - 1, 1),
                (block, 2),
                (2 * block - 1, 2),
                (2 * block, 3),
            ] {
                let sealed = sealed(kind, &"x".repeat(length));
                assert_eq!(
                    sealed.len(),
                    overhead + blocks * block,
                    "{length} bytes of {kind:?}"
                );
            }
        }
    }

    #[test]
    fn nothing_opens_with_another_mask_or_another_key() {
        let sealed = sealed(Kind::Ip, "199.172.111.135");
        let other_mask = OTHER_MASK.parse().unwrap();
        assert_eq!(
            open(&secret(1), other_mask, &sealed).err(),
            Some(OpenError::Altered)
        );
        assert_eq!(
            open(&secret(2), mask(), &sealed).err(),
            Some(OpenError::Altered)
        );
    }

    #[test]
    fn what_one_kind_sealed_does_not_open_as_another() {
        // 191 bytes fill blocks of both kinds.
        let mut sealed = sealed(Kind::Ip, &"x".repeat(191));
        sealed[1] = Kind::DeviceId.byte();
        assert_eq!(error(&sealed), OpenError::Altered);
    }

    #[test]
    fn each_flipped_bit_is_refused() {
        let intact = sealed(Kind::Ip, "199.172.111.135");
        for bit in 0..intact.len() * 8 {
            let mut sealed = intact.clone();
            sealed[bit / 8] ^= 1 << (bit % 8);
            let expected = match (bit / 8, sealed[bit / 8]) {
                (0, version) => OpenError::UnknownVersion(version),
                // 1 and 3 are one bit from each other, and so are 2 and 3; 1 and 2 are not.
                (1, kind) => OpenError::UnknownKind(kind),
                _ => OpenError::Altered,
            };
            assert_eq!(error(&sealed), expected, "bit {bit}");
        }
    }

    #[test]
    fn what_is_cut_is_refused_wherever_it_is_cut() {
        let intact = sealed(Kind::Ip, &"x".repeat(100));
        for length in 0..intact.len() {
            let expected = match length {
                // Two whole blocks less.
                90 | 138 => OpenError::Altered,
                _ => OpenError::Cut,
            };
            assert_eq!(error(&intact[..length]), expected, "{length} bytes");
        }
        let mut longer = intact.clone();
        longer.push(0);
        assert_eq!(error(&longer), OpenError::Cut);
    }

    /// Anybody with the data key can seal anything; what comes out of it is still text or an error.
    #[test]
    fn what_is_authentic_but_not_an_original_is_refused() {
        for padded in [[0; 48], [1; 48], {
            let mut not_utf_8 = [0; 48];
            not_utf_8[..2].copy_from_slice(&[0xff, PADDING]);
            not_utf_8
        }] {
            let mut encrypted = padded;
            let associated = associated_data(VERSION, Kind::Ip, mask());
            let Ok(tag) =
                cipher::encrypt(secret(1).bytes(), &[2; NONCE], &associated, &mut encrypted)
            else {
                panic!("it is not too long");
            };
            let sealed = [&[VERSION, 1][..], &[2; NONCE], &encrypted, &tag].concat();
            assert_eq!(error(&sealed), OpenError::NotAnOriginal);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(open(&secret(1), mask(), &bytes).is_err());
        }

        #[test]
        fn any_bytes_behind_a_header_are_refused(mut bytes in proptest::collection::vec(any::<u8>(), 90..=90)) {
            bytes[..HEADER].copy_from_slice(&[VERSION, 1]);
            prop_assert_eq!(error(&bytes), OpenError::Altered);
        }
    }
}
