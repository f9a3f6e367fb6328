//! Data keys: how they are made, named and kept.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{Recipients, SealError, wrap};

/// The 32 bytes of a data key. They stay where they were made, on the heap, and are wiped when dropped.
pub(crate) struct Secret(Box<Zeroizing<[u8; 32]>>);

impl Secret {
    /// `fill` writes them in their place, so that no copy is left behind on a stack.
    pub(crate) fn fill<E>(fill: impl FnOnce(&mut [u8; 32]) -> Result<(), E>) -> Result<Secret, E> {
        let mut secret = Secret(Box::default());
        fill(&mut secret.0)?;
        Ok(secret)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn id(&self) -> KeyId {
        let mut hash = Sha256::new();
        hash.update(KEY_ID_CONTEXT);
        hash.update(self.bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        KeyId(Uuid::new_v8(first))
    }
}

/// Hashed before the key, so that no other use of SHA-256 gives the same.
const KEY_ID_CONTEXT: &[u8] = b"user_logins_sqs vault data key";

/// What names a data key: a UUID of version 8 (RFC 9562), from a digest of the key. So a wrapped key cannot be passed
/// off as another, and the name gives nothing away about a key of 256 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Uuid);

/// A text is not a UUID.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("not the id of a key, which is a UUID")]
pub struct KeyIdError;

impl KeyId {
    /// What a Postgres `uuid` holds.
    pub fn from_bytes(bytes: [u8; 16]) -> KeyId {
        KeyId(Uuid::from_bytes(bytes))
    }

    /// As a Postgres `uuid` has it.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<KeyId, KeyIdError> {
        Uuid::try_parse(text).map(KeyId).map_err(|_| KeyIdError)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A data key as it is stored: a row of `sqs_vault_key`. What it sealed can be opened only with this.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrappedKey {
    id: KeyId,
    wrapped: Vec<u8>,
    recipients: Vec<String>,
    created: SystemTime,
}

impl WrappedKey {
    /// What names the data key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// An age file that holds the 32 bytes of the data key.
    pub fn wrapped(&self) -> &[u8] {
        &self.wrapped
    }

    /// The public keys that it is wrapped for, `age1…`, in order.
    pub fn recipients(&self) -> &[String] {
        &self.recipients
    }

    /// When the data key was made.
    pub fn created(&self) -> SystemTime {
        self.created
    }
}

/// A data key in use, and how it is stored.
pub(crate) struct DataKey {
    pub(crate) secret: Secret,
    pub(crate) wrapped: Arc<WrappedKey>,
}

impl DataKey {
    /// A new one, of the operating system's randomness.
    pub(crate) fn generate(recipients: &Recipients, now: SystemTime) -> Result<DataKey, SealError> {
        let secret = Secret::fill(|bytes| getrandom::fill(bytes))?;
        let wrapped = WrappedKey {
            id: secret.id(),
            wrapped: wrap::wrap(&secret, recipients)?,
            recipients: recipients.texts().to_vec(),
            created: now,
        };
        Ok(DataKey {
            secret,
            wrapped: Arc::new(wrapped),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// The example of `docs/vault.md`.
    #[test]
    fn a_key_id_is_a_uuid_of_the_keys_digest() {
        let Ok(secret) = Secret::fill(|bytes| {
            bytes.fill(1);
            Ok::<_, Infallible>(())
        });
        let id = secret.id();
        assert_eq!(id.to_string(), "df46b556-3601-8d5c-aec3-87c51d2b25be");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("".parse::<KeyId>(), Err(KeyIdError));
    }
}
