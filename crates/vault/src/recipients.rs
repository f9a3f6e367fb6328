//! The file that names the recipients: `age1…`, one a line, as `age-keygen` prints them.

use std::str;

use age::x25519;
use bech32::FromBase32;
use thiserror::Error;

/// The public keys that data keys are wrapped for: at least one, in the order of their texts, each once.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipients {
    texts: Vec<String>,
    keys: Vec<x25519::Recipient>,
}

/// Why a file names no recipients. Never quotes the file: what stands there by mistake may be a private key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum RecipientsError {
    /// No line holds a recipient.
    #[error("it holds no recipient")]
    None,
    /// A line holds something else than a recipient.
    #[error("line {line} {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// What is wrong with a line that should hold a recipient.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Problem {
    /// It holds an age identity, which must not be where the recipients are.
    #[error("is a private key, which must never be on the server")]
    PrivateKey,
    /// It holds a recipient that needs a plugin or a newer age, such as `age1yubikey1…`.
    #[error("is a recipient of a kind that is not supported: only X25519 keys are, age1…")]
    OtherKind,
    /// It holds an SSH key, which age itself can encrypt to.
    #[error("is an SSH key, not an age recipient")]
    SshKey,
    /// Everybody can compute what is wrapped for this key.
    #[error("is a weak key, which protects nothing")]
    Weak,
    /// It holds anything else, such as a recipient with a typing error.
    #[error("is not an age recipient")]
    NotARecipient,
}

impl Recipients {
    /// Reads a file of recipients: one a line; white space around it, empty lines and lines that begin with `#` are
    /// ignored.
    ///
    /// # Errors
    /// If a line holds something else, or none holds a recipient.
    pub fn parse(file: &[u8]) -> Result<Recipients, RecipientsError> {
        let mut texts = Vec::new();
        for (index, line) in file.split(|&byte| byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let key = recipient(line).map_err(|problem| RecipientsError::Line {
                line: index + 1,
                problem,
            })?;
            texts.push((key.to_string(), key));
        }
        texts.sort_by(|(one, _), (other, _)| one.cmp(other));
        texts.dedup_by(|(one, _), (other, _)| one == other);
        if texts.is_empty() {
            return Err(RecipientsError::None);
        }
        let (texts, keys) = texts.into_iter().unzip();
        Ok(Recipients { texts, keys })
    }

    /// Their texts, `age1…`, in order.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &x25519::Recipient> {
        self.keys.iter()
    }
}

fn recipient(line: &[u8]) -> Result<x25519::Recipient, Problem> {
    let line = str::from_utf8(line).map_err(|_| Problem::NotARecipient)?;
    let (prefix, data, _) = match bech32::decode(line) {
        Ok(parts) => parts,
        // With a typing error in it, too.
        Err(_) if line.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") => {
            return Err(Problem::PrivateKey);
        }
        Err(_) if line.starts_with("ssh-") => return Err(Problem::SshKey),
        Err(_) => return Err(Problem::NotARecipient),
    };
    match prefix.as_str() {
        "age" => {}
        prefix if prefix.starts_with("age-secret-key-") || prefix.starts_with("age-plugin-") => {
            return Err(Problem::PrivateKey);
        }
        prefix if prefix.starts_with("age1") => return Err(Problem::OtherKind),
        _ => return Err(Problem::NotARecipient),
    }
    let bytes = Vec::from_base32(&data).map_err(|_| Problem::NotARecipient)?;
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| Problem::NotARecipient)?;
    if is_weak(bytes) {
        return Err(Problem::Weak);
    }
    line.parse().map_err(|_| Problem::NotARecipient)
}

/// Whether the key is one of the few points of small order (RFC 7748, section 6.1): any secret agreed on with it is
/// zero. age takes that for broken randomness, and panics.
fn is_weak(key: [u8; 32]) -> bool {
    let any_scalar = [0x55; 32];
    x25519_dalek::x25519(any_scalar, key) == [0; 32]
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret;
    use bech32::{ToBase32, Variant};
    use proptest::prelude::*;

    use super::*;

    const ONE: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

    fn other() -> String {
        x25519::Identity::generate().to_public().to_string()
    }

    fn problem(file: &str) -> RecipientsError {
        match Recipients::parse(file.as_bytes()) {
            Ok(_) => panic!("{file} was taken"),
            Err(error) => error,
        }
    }

    #[test]
    fn recipients_are_read_between_comments() {
        let other = other();
        let file =
            format!("# the auditor\n{ONE}\r\n\n   # the court, since May\n\t{other}  \n{ONE}\n");
        let recipients = Recipients::parse(file.as_bytes()).unwrap();
        let mut expected = [ONE.to_string(), other];
        expected.sort();
        assert_eq!(recipients.texts(), expected);
    }

    #[test]
    fn the_order_of_recipients_does_not_matter() {
        let other = other();
        let one_way = Recipients::parse(format!("{ONE}\n{other}").as_bytes()).unwrap();
        let other_way = Recipients::parse(format!("{other}\n{ONE}").as_bytes()).unwrap();
        assert!(one_way == other_way);
    }

    #[test]
    fn a_file_without_recipients_is_an_error() {
        for file in [
            "",
            "\n\n",
            "# age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa",
        ] {
            assert_eq!(problem(file), RecipientsError::None);
        }
    }

    #[test]
    fn each_mistake_has_its_word_and_its_line() {
        let identity = x25519::Identity::generate();
        let identity = identity.to_string();
        let identity = identity.expose_secret();
        let plugin = bech32::encode("age1yubikey", [0; 33].to_base32(), Variant::Bech32).unwrap();
        let plugin_identity =
            bech32::encode("age-plugin-yubikey-", [0; 33].to_base32(), Variant::Bech32).unwrap();
        let short = bech32::encode("age", [1; 31].to_base32(), Variant::Bech32).unwrap();
        let newer_checksum = bech32::encode("age", [9; 32].to_base32(), Variant::Bech32m).unwrap();
        for (text, expected) in [
            (identity, Problem::PrivateKey),
            (&identity.to_lowercase(), Problem::PrivateKey),
            (&identity[..40], Problem::PrivateKey),
            (&plugin_identity, Problem::PrivateKey),
            (&plugin, Problem::OtherKind),
            (
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN",
                Problem::SshKey,
            ),
            (&ONE.replace('t', "q"), Problem::NotARecipient),
            (&ONE[..61], Problem::NotARecipient),
            (&format!("{ONE} # the auditor"), Problem::NotARecipient),
            (&short, Problem::NotARecipient),
            (&newer_checksum, Problem::NotARecipient),
            ("auditor@example.com", Problem::NotARecipient),
        ] {
            let expected = RecipientsError::Line {
                line: 3,
                problem: expected,
            };
            assert_eq!(
                problem(&format!("# them\n{ONE}\n{text}\n")),
                expected,
                "{text}"
            );
        }
        let not_utf_8 = RecipientsError::Line {
            line: 1,
            problem: Problem::NotARecipient,
        };
        assert_eq!(Recipients::parse(b"age1\xff").err(), Some(not_utf_8));
    }

    /// The points of small order on the curve and its twist, with and without the bit that is ignored.
    #[test]
    fn a_key_that_protects_nothing_is_refused() {
        let mut points = [[0; 32]; 5];
        points[1][0] = 1;
        hex::decode_to_slice(
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            &mut points[2],
        )
        .unwrap();
        hex::decode_to_slice(
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            &mut points[3],
        )
        .unwrap();
        hex::decode_to_slice(
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            &mut points[4],
        )
        .unwrap();
        for mut point in points {
            for top_bit in [0, 0x80] {
                point[31] |= top_bit;
                let text = bech32::encode("age", point.to_base32(), Variant::Bech32).unwrap();
                let expected = RecipientsError::Line {
                    line: 1,
                    problem: Problem::Weak,
                };
                assert_eq!(problem(&text), expected, "{text}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(file in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Recipients::parse(&file);
        }

        #[test]
        fn any_line_is_read_or_refused(line in "(age1|AGE-SECRET-KEY-1)[02-9ac-hj-np-z]{0,70}") {
            prop_assert!(Recipients::parse(line.as_bytes()).is_err());
        }
    }
}
