//! Opening, where the identities are.

use std::collections::HashMap;

use age::Identity;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::key::Secret;
use crate::{KeyId, Kind, Mask, format, wrap};

/// The data keys that some identities open, by their ids.
pub struct Keyring {
    identities: Vec<Box<dyn Identity>>,
    keys: HashMap<KeyId, Result<Secret, UnwrapError>>,
}

/// An original, opened. Wiped when it is dropped.
pub struct Original {
    kind: Kind,
    text: Zeroizing<String>,
}

/// Why a wrapped key cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum UnwrapError {
    /// It is wrapped for other recipients.
    #[error("the wrapped key is for other recipients")]
    NotForTheseIdentities,
    /// It is cut, altered, or not an age file with a data key in it.
    #[error("the wrapped key is damaged, or not a wrapped key")]
    Damaged,
    /// The data key in it has another id.
    #[error("the wrapped key has another id")]
    OfAnotherId,
}

/// Why an entry does not open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum OpenError {
    /// No wrapped key with this id was added.
    #[error("its key is not among the wrapped keys")]
    NoKey,
    /// A wrapped key with this id was added, but cannot be used.
    #[error(transparent)]
    Key(#[from] UnwrapError),
    /// It is sealed in another format, maybe a later one.
    #[error("sealed in an unknown format, version {0}")]
    UnknownVersion(u8),
    /// It is neither an address nor a device id.
    #[error("sealed as something unknown, kind {0}")]
    UnknownKind(u8),
    /// It is too short, or not a whole number of blocks.
    #[error("cut, or not a sealed value")]
    Cut,
    /// It was changed, or sealed for another mask or with another key. Nobody can tell which.
    #[error("altered, or sealed for another mask or with another key")]
    Altered,
    /// It was sealed with this key for this mask, by something that does not keep to the format.
    #[error("sealed by something else: not a padded text")]
    NotAnOriginal,
}

impl Keyring {
    /// Without data keys yet.
    pub fn new(identities: Vec<Box<dyn Identity>>) -> Keyring {
        Keyring {
            identities,
            keys: HashMap::new(),
        }
    }

    /// Unwraps a data key. If that fails, [`Keyring::open`] says so of each entry that needs it.
    ///
    /// # Errors
    /// If no identity opens `wrapped`, or what is in it is not the data key that `id` names.
    pub fn add(&mut self, id: KeyId, wrapped: &[u8]) -> Result<(), UnwrapError> {
        let key = self.unwrap(id, wrapped);
        let result = key.as_ref().map(|_| ()).map_err(|&error| error);
        // A key that opens is never displaced by a bad copy of it.
        if result.is_ok() || !matches!(self.keys.get(&id), Some(Ok(_))) {
            self.keys.insert(id, key);
        }
        result
    }

    fn unwrap(&self, id: KeyId, wrapped: &[u8]) -> Result<Secret, UnwrapError> {
        let secret = wrap::unwrap(wrapped, &self.identities)?;
        if secret.id() == id {
            Ok(secret)
        } else {
            Err(UnwrapError::OfAnotherId)
        }
    }

    /// The original behind `mask`, from its entry in `sqs_vault`.
    ///
    /// # Errors
    /// If its key is not there, or the entry is not what was sealed with that key for that mask.
    pub fn open(&self, mask: Mask, key: KeyId, sealed: &[u8]) -> Result<Original, OpenError> {
        let secret = match self.keys.get(&key) {
            Some(Ok(secret)) => secret,
            Some(&Err(error)) => return Err(OpenError::Key(error)),
            None => return Err(OpenError::NoKey),
        };
        let (kind, text) = format::open(secret, mask, sealed)?;
        Ok(Original { kind, text })
    }
}

impl Original {
    /// Which field of a login it is from.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// As the message had it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use age::x25519;

    use super::*;
    use crate::{Recipients, Sealed, Sealer};

    const MASK: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn sealed_for(identity: &x25519::Identity) -> Sealed {
        let recipients = Recipients::parse(identity.to_public().to_string().as_bytes()).unwrap();
        Sealer::new(recipients)
            .seal(Kind::Ip, MASK.parse().unwrap(), "199.172.111.135")
            .unwrap()
    }

    fn keyring(identity: &x25519::Identity) -> Keyring {
        Keyring::new(vec![Box::new(identity.clone())])
    }

    fn open(keyring: &Keyring, sealed: &Sealed) -> Result<String, OpenError> {
        keyring
            .open(sealed.mask(), sealed.key().id(), sealed.bytes())
            .map(|original| original.as_str().to_string())
    }

    #[test]
    fn nothing_opens_without_its_key() {
        let identity = x25519::Identity::generate();
        let sealed = sealed_for(&identity);
        let mut keyring = keyring(&identity);
        assert_eq!(open(&keyring, &sealed), Err(OpenError::NoKey));
        keyring
            .add(sealed.key().id(), sealed.key().wrapped())
            .unwrap();
        assert_eq!(open(&keyring, &sealed).unwrap(), "199.172.111.135");
    }

    #[test]
    fn nothing_opens_with_another_identity() {
        let sealed = sealed_for(&x25519::Identity::generate());
        let mut keyring = keyring(&x25519::Identity::generate());
        let refused = UnwrapError::NotForTheseIdentities;
        assert_eq!(
            keyring.add(sealed.key().id(), sealed.key().wrapped()),
            Err(refused)
        );
        assert_eq!(open(&keyring, &sealed), Err(OpenError::Key(refused)));
    }

    #[test]
    fn a_wrapped_key_is_refused_under_the_id_of_another() {
        let identity = x25519::Identity::generate();
        let (one, other) = (sealed_for(&identity), sealed_for(&identity));
        let mut keyring = keyring(&identity);
        assert_eq!(
            keyring.add(one.key().id(), other.key().wrapped()),
            Err(UnwrapError::OfAnotherId)
        );
    }

    #[test]
    fn a_key_is_not_displaced_by_a_bad_copy_of_it() {
        let identity = x25519::Identity::generate();
        let sealed = sealed_for(&identity);
        let (id, wrapped) = (sealed.key().id(), sealed.key().wrapped());
        let mut keyring = keyring(&identity);
        for _ in 0..2 {
            keyring.add(id, wrapped).unwrap();
            assert_eq!(keyring.add(id, b"bad"), Err(UnwrapError::Damaged));
        }
        assert!(open(&keyring, &sealed).is_ok());

        keyring.keys.clear();
        assert!(keyring.add(id, b"bad").is_err());
        keyring.add(id, wrapped).unwrap();
        assert!(open(&keyring, &sealed).is_ok());
    }

    #[test]
    fn a_damaged_wrapped_key_is_refused_wherever_the_damage_is() {
        let identity = x25519::Identity::generate();
        let sealed = sealed_for(&identity);
        let (id, wrapped) = (sealed.key().id(), sealed.key().wrapped());
        for length in 0..wrapped.len() {
            assert!(
                keyring(&identity).add(id, &wrapped[..length]).is_err(),
                "cut to {length}"
            );
        }
        for index in 0..wrapped.len() {
            let mut flipped = wrapped.to_vec();
            flipped[index] ^= 1;
            assert!(
                keyring(&identity).add(id, &flipped).is_err(),
                "flipped at {index}"
            );
        }
        assert!(
            keyring(&identity)
                .add(id, &[wrapped, &[0]].concat())
                .is_err()
        );
    }

    #[test]
    fn an_age_file_of_another_length_is_not_a_wrapped_key() {
        let identity = x25519::Identity::generate();
        let id = sealed_for(&identity).key().id();
        for length in [0, 31, 33, 100_000] {
            let recipient = identity.to_public();
            let recipients = [&recipient as &dyn age::Recipient];
            let mut file = Vec::new();
            let encryptor = age::Encryptor::with_recipients(recipients.into_iter()).unwrap();
            let mut writer = encryptor.wrap_output(&mut file).unwrap();
            writer.write_all(&vec![7; length]).unwrap();
            writer.finish().unwrap();
            assert_eq!(
                keyring(&identity).add(id, &file),
                Err(UnwrapError::Damaged),
                "{length}"
            );
        }
    }
}
