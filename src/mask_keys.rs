//! The keys of the masks: the file that `mask_key_file` names.
//!
//! It holds nothing but one key, or several keys with names, one a line as `name: key`. The first is the one that new
//! rows are masked with; the others are those of older rows.

use std::fs;

use login::Masker;

use crate::errors::Failure;
use crate::settings;

/// What the fingerprint of a key is the mask of; no `ip` and no `device_id` is spelt so.
const FINGERPRINTED: &str = "user_logins_sqs: fingerprint of a mask key";

/// Digits of a fingerprint: enough to tell keys apart, and far too few to find one by.
const FINGERPRINT_DIGITS: usize = 8;

/// SHA-256's output is as long as a key need be; half of that is the least that cannot be guessed.
const SHORTEST: usize = 16;

/// A key. Not printable.
#[derive(Clone, PartialEq, Eq)]
pub struct MaskKey(Vec<u8>);

impl MaskKey {
    /// What masks with it.
    pub fn masker(&self) -> Masker {
        Masker::keyed(&self.0)
    }

    /// Eight hex digits that are the same on every server that has this key.
    fn fingerprint(&self) -> String {
        let masks = self.masker().masks_of(FINGERPRINTED);
        let digits = masks.first().map_or("", |mask| mask.as_str());
        digits.chars().take(FINGERPRINT_DIGITS).collect()
    }
}

/// The keys of this server, the current one first. None: masks have no key.
pub struct MaskKeys(Vec<MaskKey>);

impl MaskKeys {
    /// Reads the file, if the setting names one.
    ///
    /// # Errors
    /// [`Failure::MaskKeyUnreadable`], [`Failure::MaskKeyMalformed`], [`Failure::MaskKeyTooShort`].
    pub fn read() -> Result<MaskKeys, Failure> {
        let Some(file) = settings::mask_key_file() else {
            return Ok(MaskKeys(Vec::new()));
        };
        let content = match fs::read(&file) {
            Ok(content) => content,
            Err(why) => return Err(Failure::MaskKeyUnreadable { file, why }),
        };
        let keys = match parse(&content) {
            Ok(keys) => keys,
            Err(line) => return Err(Failure::MaskKeyMalformed { file, line }),
        };
        if let Some(short) = keys.iter().find(|key| key.len() < SHORTEST) {
            return Err(Failure::MaskKeyTooShort {
                file,
                bytes: short.len(),
                least: SHORTEST,
            });
        }
        Ok(MaskKeys(
            keys.into_iter().map(|key| MaskKey(key.to_vec())).collect(),
        ))
    }

    /// The key of new rows.
    pub fn current(&self) -> Option<MaskKey> {
        self.0.first().cloned()
    }

    /// The fingerprint of each, the current one's first: to see that servers have the same keys.
    pub fn fingerprints(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(MaskKey::fingerprint)
    }

    /// What masked each row there may be: with each key, and without one, as rows are that are older than the keys.
    pub fn maskers(&self) -> impl Iterator<Item = Masker> {
        let keyed = self.0.iter().map(MaskKey::masker);
        keyed.chain([Masker::plain()])
    }
}

/// The keys in a file. If one of its lines names a key, all of them must: the error is the number of the first that
/// does not.
fn parse(content: &[u8]) -> Result<Vec<&[u8]>, usize> {
    let lines = || {
        content
            .split(|byte| *byte == b'\n')
            .map(|line| line.trim_ascii())
            .enumerate()
            .filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"))
    };
    if !lines().any(|(_, line)| named_key(line).is_some()) {
        return bare_key(content).map(|key| vec![key]);
    }
    lines()
        .map(|(number, line)| named_key(line).ok_or(number + 1))
        .collect()
}

/// A key may be any bytes; but a text of several lines, or with a comment, was probably meant as several keys.
fn bare_key(content: &[u8]) -> Result<&[u8], usize> {
    let key = content.trim_ascii();
    let is_doubtful = key.starts_with(b"#") || key.contains(&b'\n');
    if is_doubtful && str::from_utf8(key).is_ok() {
        return Err(1);
    }
    Ok(key)
}

/// The key in `name: key`; a name is letters, digits, hyphens, underscores and dots.
fn named_key(line: &[u8]) -> Option<&[u8]> {
    let colon = line.windows(2).position(|pair| pair == b": ")?;
    let (name, key) = line.split_at(colon);
    let is_name = !name.is_empty()
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte));
    is_name.then(|| key[2..].trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bare_key_is_the_whole_file_without_white_space_at_its_ends() {
        for content in [
            "0123456789abcdef
",
            "  spaced out 
",
            "a:b",
            ": x",
            "",
            "odd name: x",
        ] {
            assert_eq!(
                parse(content.as_bytes()),
                Ok(vec![content.trim().as_bytes()])
            );
        }
        assert_eq!(parse(&[0, 255, b'\n']), Ok(vec![&[0u8, 255][..]]));
    }

    #[test]
    fn a_text_that_may_be_meant_as_several_keys_is_none() {
        for content in [
            "one line\nand another",
            "# a comment\n0123456789abcdef",
            "# k1: 0123456789abcdef",
        ] {
            assert_eq!(parse(content.as_bytes()), Err(1), "{content}");
        }
        let binary = b"\xff0123456789\n#abcdef";
        assert_eq!(parse(binary), Ok(vec![&binary[..]]));
    }

    #[test]
    fn named_keys_are_one_a_line() {
        let content = b"# since 2026\nk2: 0123456789abcdef\n\n  k-1.old_:   a b: c \n";
        assert_eq!(
            parse(content),
            Ok(vec![&b"0123456789abcdef"[..], &b"a b: c"[..]])
        );
    }

    #[test]
    fn a_line_without_a_name_among_named_ones_is_told() {
        assert_eq!(parse(b"k2: 0123456789abcdef\nfedcba9876543210\n"), Err(2));
        assert_eq!(parse(b"\n0123456789abcdef\nk1: fedcba9876543210\n"), Err(2));
    }
}
