//! Sealing, and when a data key has served its time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use crate::key::DataKey;
use crate::nonces::Nonces;
use crate::{Kind, Mask, Recipients, WrappedKey, format};

/// A data key found in memory opens at most a day of what its process sealed.
const LONGEST_USE: Duration = Duration::from_secs(24 * 60 * 60);
/// Far fewer than would make two equal nonces likely, which are 192 random bits each.
const MOST_VALUES: u64 = 1 << 32;

/// Seals originals, with data keys that it makes itself and never gives away.
///
/// It belongs to one process, which must not fork: the copy would use the same nonces with the same key.
pub struct Sealer {
    recipients: Recipients,
    nonces: Nonces,
    key: Option<InUse>,
}

struct InUse {
    key: DataKey,
    values: u64,
}

/// A sealed original: a row of `sqs_vault`, and the row of `sqs_vault_key` without which it cannot be opened.
#[derive(Clone, Debug)]
pub struct Sealed {
    mask: Mask,
    kind: Kind,
    key: Arc<WrappedKey>,
    bytes: Vec<u8>,
}

/// Why an original could not be sealed. No message causes it: none is that long.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SealError {
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes: {0}")]
    Randomness(#[from] getrandom::Error),
    /// age could not wrap a data key for the recipients.
    #[error("a data key could not be wrapped for the recipients")]
    Wrap,
    /// The original has more than 256 GiB, where the cipher's counter ends.
    #[error("the value is too long to be sealed")]
    TooLong,
}

impl Sealer {
    /// Makes its first data key when it seals its first original.
    pub fn new(recipients: Recipients) -> Sealer {
        Sealer {
            recipients,
            nonces: Nonces::default(),
            key: None,
        }
    }

    /// Seals for these recipients from now on. A change of recipients ends the data key in use.
    pub fn set_recipients(&mut self, recipients: Recipients) {
        if self.recipients != recipients {
            *self = Sealer::new(recipients);
        }
    }

    /// The public keys that it seals for.
    pub fn recipients(&self) -> &Recipients {
        &self.recipients
    }

    /// Wipes the data key in use. The next original gets another one.
    pub fn wipe(&mut self) {
        self.key = None;
    }

    /// Wipes the data key in use if it has served its time. Nothing else would while nothing is sealed.
    pub fn wipe_if_spent(&mut self) {
        self.wipe_if_spent_at(SystemTime::now());
    }

    fn wipe_if_spent_at(&mut self, now: SystemTime) {
        if self.key.as_ref().is_some_and(|key| key.is_spent(now)) {
            self.wipe();
        }
    }

    /// Seals `original`, whose mask is `mask`. Sealed twice, it gives different bytes.
    ///
    /// # Errors
    /// If there is no randomness, or a new data key cannot be wrapped.
    pub fn seal(&mut self, kind: Kind, mask: Mask, original: &str) -> Result<Sealed, SealError> {
        self.seal_at(SystemTime::now(), kind, mask, original)
    }

    fn seal_at(
        &mut self,
        now: SystemTime,
        kind: Kind,
        mask: Mask,
        original: &str,
    ) -> Result<Sealed, SealError> {
        let nonce = self.nonces.take()?;
        let key = self.key_for_one_more(now)?;
        let bytes = format::seal(&key.secret, &nonce, kind, mask, original)?;
        Ok(Sealed {
            mask,
            kind,
            key: Arc::clone(&key.wrapped),
            bytes,
        })
    }

    /// The data key to seal one more value with: a new one if there is none, or if it has served its time.
    fn key_for_one_more(&mut self, now: SystemTime) -> Result<&DataKey, SealError> {
        let in_use = match self.key.take() {
            Some(in_use) if !in_use.is_spent(now) => in_use,
            _ => InUse {
                key: DataKey::generate(&self.recipients, now)?,
                values: 0,
            },
        };
        let in_use = self.key.insert(in_use);
        in_use.values += 1;
        Ok(&in_use.key)
    }
}

impl InUse {
    fn is_spent(&self, now: SystemTime) -> bool {
        // A clock that was set back says nothing about the key's age.
        let age = now
            .duration_since(self.key.wrapped.created())
            .unwrap_or(LONGEST_USE);
        age >= LONGEST_USE || self.values >= MOST_VALUES
    }
}

impl Sealed {
    /// The mask that it belongs to, and opens with.
    pub fn mask(&self) -> Mask {
        self.mask
    }

    /// Which field the original is from.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The data key that it is sealed with. Its row must be there when this one is committed, or nobody can open it.
    pub fn key(&self) -> &Arc<WrappedKey> {
        &self.key
    }

    /// The sealed original, in the format of `docs/vault.md`.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use age::x25519;
    use proptest::prelude::*;

    use super::*;
    use crate::Keyring;

    const MASK: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const DAY: Duration = Duration::from_secs(86_400);

    fn mask() -> Mask {
        MASK.parse().unwrap()
    }

    fn recipients(identities: &[&x25519::Identity]) -> Recipients {
        let file: Vec<String> = identities
            .iter()
            .map(|identity| identity.to_public().to_string())
            .collect();
        Recipients::parse(file.join("\n").as_bytes()).unwrap()
    }

    fn sealer() -> Sealer {
        Sealer::new(recipients(&[&x25519::Identity::generate()]))
    }

    fn keyring(identity: &x25519::Identity) -> Keyring {
        Keyring::new(vec![Box::new(identity.clone())])
    }

    #[test]
    fn what_is_sealed_can_be_handed_to_another_thread() {
        fn assert_send<T: Send>() {}
        assert_send::<Sealer>();
        assert_send::<Sealed>();
    }

    #[test]
    fn an_original_sealed_twice_gives_different_bytes() {
        let mut sealer = sealer();
        let one = sealer.seal(Kind::Ip, mask(), "199.172.111.135").unwrap();
        let other = sealer.seal(Kind::Ip, mask(), "199.172.111.135").unwrap();
        // Nonce and ciphertext, not just one of them.
        assert_ne!(one.bytes()[2..26], other.bytes()[2..26]);
        assert_ne!(one.bytes()[26..], other.bytes()[26..]);
    }

    #[test]
    fn a_data_key_seals_for_a_day() {
        let mut sealer = sealer();
        let start = SystemTime::now();
        let mut key_at = |now| {
            sealer
                .seal_at(now, Kind::Ip, mask(), "")
                .unwrap()
                .key()
                .clone()
        };

        let first = key_at(start);
        assert_eq!(first.created(), start);
        assert_eq!(key_at(start + DAY - Duration::from_nanos(1)), first);
        let second = key_at(start + DAY);
        assert_ne!(second.id(), first.id());
        assert_eq!(second.created(), start + DAY);
        assert_eq!(key_at(start + DAY), second);
    }

    #[test]
    fn a_data_key_that_nothing_is_sealed_with_is_wiped_after_a_day() {
        let mut sealer = sealer();
        let start = SystemTime::now();
        sealer.seal_at(start, Kind::Ip, mask(), "").unwrap();
        sealer.wipe_if_spent_at(start + DAY - Duration::from_nanos(1));
        assert!(sealer.key.is_some());
        sealer.wipe_if_spent_at(start + DAY);
        assert!(sealer.key.is_none());
    }

    #[test]
    fn a_data_key_that_was_wiped_is_replaced() {
        let mut sealer = sealer();
        let first = sealer.seal(Kind::Ip, mask(), "").unwrap();
        sealer.wipe();
        assert!(sealer.key.is_none());
        let second = sealer.seal(Kind::Ip, mask(), "").unwrap();
        assert_ne!(first.key().id(), second.key().id());
    }

    #[test]
    fn a_clock_that_is_set_back_ends_a_data_key() {
        let mut sealer = sealer();
        let start = SystemTime::now();
        let first = sealer.seal_at(start, Kind::Ip, mask(), "").unwrap();
        let second = sealer.seal_at(start - DAY, Kind::Ip, mask(), "").unwrap();
        assert_ne!(first.key().id(), second.key().id());
        let third = sealer.seal_at(start - DAY, Kind::Ip, mask(), "").unwrap();
        assert_eq!(second.key().id(), third.key().id());
    }

    #[test]
    fn a_data_key_seals_at_most_2_to_the_32_values() {
        let mut sealer = sealer();
        let first = sealer.seal(Kind::Ip, mask(), "").unwrap();
        sealer.key.as_mut().unwrap().values = (1 << 32) - 1;
        let last = sealer.seal(Kind::Ip, mask(), "").unwrap();
        assert_eq!(last.key().id(), first.key().id());
        let next = sealer.seal(Kind::Ip, mask(), "").unwrap();
        assert_ne!(next.key().id(), first.key().id());
    }

    #[test]
    fn other_recipients_get_another_data_key_and_the_same_ones_do_not() {
        let (one, other) = (x25519::Identity::generate(), x25519::Identity::generate());
        let mut sealer = Sealer::new(recipients(&[&one]));
        let before = sealer.seal(Kind::Ip, mask(), "before").unwrap();

        sealer.set_recipients(recipients(&[&one]));
        let same = sealer.seal(Kind::Ip, mask(), "same").unwrap();
        assert_eq!(same.key(), before.key());

        sealer.set_recipients(recipients(&[&other]));
        let after = sealer.seal(Kind::Ip, mask(), "after").unwrap();
        assert_ne!(after.key().id(), before.key().id());
        assert_eq!(after.key().recipients(), [other.to_public().to_string()]);
        assert!(
            keyring(&one)
                .add(after.key().id(), after.key().wrapped())
                .is_err()
        );
        assert!(
            keyring(&other)
                .add(before.key().id(), before.key().wrapped())
                .is_err()
        );
    }

    #[test]
    fn each_recipient_opens_what_is_sealed_for_several() {
        let identities: Vec<_> = (0..3).map(|_| x25519::Identity::generate()).collect();
        let mut sealer = Sealer::new(recipients(&identities.iter().collect::<Vec<_>>()));
        let sealed = sealer.seal(Kind::DeviceId, mask(), "593-47-5928").unwrap();
        assert_eq!(sealed.key().recipients().len(), 3);
        for identity in &identities {
            let mut keyring = keyring(identity);
            keyring
                .add(sealed.key().id(), sealed.key().wrapped())
                .unwrap();
            let original = keyring
                .open(mask(), sealed.key().id(), sealed.bytes())
                .unwrap();
            assert_eq!(original.as_str(), "593-47-5928");
        }
    }

    proptest! {
        #[test]
        fn every_text_opens_as_it_was_sealed(
            original in prop_oneof!["\\PC{0,200}", any::<String>(), "[\0\u{80}]{0,200}"],
            is_ip: bool,
            mask: [u8; 32],
        ) {
            let identity = x25519::Identity::generate();
            let kind = if is_ip { Kind::Ip } else { Kind::DeviceId };
            let mask: Mask = hex::encode(mask).parse().unwrap();
            let sealed = Sealer::new(recipients(&[&identity])).seal(kind, mask, &original).unwrap();
            let mut keyring = keyring(&identity);
            keyring.add(sealed.key().id(), sealed.key().wrapped()).unwrap();
            let opened = keyring.open(mask, sealed.key().id(), sealed.bytes()).unwrap();
            prop_assert_eq!(opened.as_str(), original);
            prop_assert_eq!(opened.kind(), kind);
        }
    }
}
