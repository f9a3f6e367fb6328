//! Sealing a value once that comes often.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::recent::Recent;
use crate::{Entry, KeyId, Kind, Mask, Recipients, SealError, Sealer, WrappedKey};

/// Longer originals are sealed each time, so that a few of them cannot fill the memory.
const LONGEST_REMEMBERED: usize = 256;

/// A [`Sealer`] that gives out what it sealed lately once more when the same value comes again.
///
/// So everybody who needs a value's entry gets it, whatever became of those who got it before, and yet a value that
/// comes often costs a look-up. What is remembered is sealed: no original.
pub struct CachingSealer {
    sealer: Sealer,
    /// All sealed for the sealer's recipients.
    sealed: Recent<Entry>,
    /// What its data keys were wrapped to, those before the one in use as well: entries may still be on their way.
    keys: BTreeMap<KeyId, Arc<WrappedKey>>,
}

impl CachingSealer {
    /// A sealer that remembers about `capacity` values, the most recent ones, in about 200 bytes each.
    pub fn new(recipients: Recipients, capacity: usize) -> CachingSealer {
        CachingSealer {
            sealer: Sealer::new(recipients),
            sealed: Recent::new(capacity),
            keys: BTreeMap::new(),
        }
    }

    /// Seals for these recipients from now on. If they are others, what was sealed for those before is forgotten.
    pub fn set_recipients(&mut self, recipients: Recipients) {
        if *self.sealer.recipients() != recipients {
            self.sealed.clear();
            self.sealer.set_recipients(recipients);
        }
    }

    /// Wipes the data key in use. What it sealed is given out as before, and so is what it was wrapped to.
    pub fn wipe(&mut self) {
        self.sealer.wipe();
    }

    /// The same, if it has served its time. Nothing else would while nothing is sealed.
    pub fn wipe_if_spent(&mut self) {
        self.sealer.wipe_if_spent();
    }

    /// The entry of `original`, whose mask is `mask`.
    ///
    /// An `ip` and a `device_id` of the same mask are the same text, and share the entry of the one that came first, as
    /// they do in the vault.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub fn seal(&mut self, kind: Kind, mask: Mask, original: &str) -> Result<Entry, SealError> {
        if let Some(entry) = self.sealed.get(mask) {
            return Ok(entry.clone());
        }
        let sealed = self.sealer.seal(kind, mask, original)?;
        let key = sealed.key();
        self.keys.entry(key.id()).or_insert_with(|| Arc::clone(key));
        let entry = Entry::from(&sealed);
        if original.len() <= LONGEST_REMEMBERED {
            self.sealed.put(mask, entry.clone());
        }
        Ok(entry)
    }

    /// What a data key of this sealer was wrapped to.
    pub fn wrapped_key(&self, id: KeyId) -> Option<Arc<WrappedKey>> {
        self.keys.get(&id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use age::x25519;

    use super::*;

    fn mask(number: usize) -> Mask {
        format!("{number:064x}").parse().unwrap()
    }

    fn recipients() -> Recipients {
        let identity = x25519::Identity::generate();
        Recipients::parse(identity.to_public().to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_value_that_comes_again_is_not_sealed_again() {
        let mut sealer = CachingSealer::new(recipients(), 10);
        let first = sealer.seal(Kind::Ip, mask(1), "10.0.0.1").unwrap();
        let again = sealer.seal(Kind::Ip, mask(1), "10.0.0.1").unwrap();
        let other = sealer.seal(Kind::Ip, mask(2), "10.0.0.2").unwrap();
        assert_eq!(first.sealed(), again.sealed());
        assert_eq!(other.mask(), mask(2));
    }

    #[test]
    fn nothing_sealed_for_other_recipients_is_given_out() {
        let (some, others) = (recipients(), recipients());
        let mut sealer = CachingSealer::new(some.clone(), 10);
        let before = sealer.seal(Kind::Ip, mask(1), "10.0.0.1").unwrap();
        sealer.set_recipients(some.clone());
        let same = sealer.seal(Kind::Ip, mask(1), "10.0.0.1").unwrap();
        assert_eq!(before.sealed(), same.sealed());

        sealer.set_recipients(others.clone());
        let after = sealer.seal(Kind::Ip, mask(1), "10.0.0.1").unwrap();
        let recipients_of = |entry: &Entry| {
            let key = sealer.wrapped_key(entry.key_id()).unwrap();
            key.recipients().to_vec()
        };
        assert_eq!(recipients_of(&after), others.texts());
        assert_eq!(recipients_of(&before), some.texts(), "it may be on its way");
    }

    #[test]
    fn what_a_wiped_data_key_sealed_is_still_given_out() {
        let mut sealer = CachingSealer::new(recipients(), 10);
        let before = sealer.seal(Kind::Ip, mask(1), "10.0.0.1").unwrap();
        sealer.wipe();
        let again = sealer.seal(Kind::Ip, mask(1), "10.0.0.1").unwrap();
        let other = sealer.seal(Kind::Ip, mask(2), "10.0.0.2").unwrap();
        assert_eq!(before.sealed(), again.sealed());
        assert_ne!(before.key_id(), other.key_id());
        assert!(sealer.wrapped_key(before.key_id()).is_some());
    }

    #[test]
    fn long_values_are_not_remembered() {
        let mut sealer = CachingSealer::new(recipients(), 10);
        for (length, is_remembered) in [(256, true), (257, false)] {
            let text = "x".repeat(length);
            let first = sealer.seal(Kind::DeviceId, mask(length), &text).unwrap();
            let again = sealer.seal(Kind::DeviceId, mask(length), &text).unwrap();
            assert_eq!(first.sealed() == again.sealed(), is_remembered, "{length}");
        }
    }
}
