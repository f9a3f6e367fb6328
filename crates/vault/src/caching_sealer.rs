//! Sealing a value once that comes often.

use std::sync::Arc;

use crate::recent::Recent;
use crate::{Kind, Mask, Recipients, SealError, Sealed, Sealer};

/// Longer originals are sealed each time, so that a few of them cannot fill the memory.
const LONGEST_REMEMBERED: usize = 256;

/// A [`Sealer`] that gives out what it sealed lately once more when the same value comes again.
///
/// So everybody who needs a value's entry gets it, whatever became of those who got it before, and yet a value that
/// comes often costs a look-up. What is remembered is sealed: no original.
pub struct CachingSealer {
    sealer: Sealer,
    /// All sealed for the sealer's recipients.
    sealed: Recent<Arc<Sealed>>,
}

impl CachingSealer {
    /// One that remembers about as many values as `capacity`, of those that came last, in about 250 bytes each.
    pub fn new(recipients: Recipients, capacity: usize) -> CachingSealer {
        CachingSealer {
            sealer: Sealer::new(recipients),
            sealed: Recent::new(capacity),
        }
    }

    /// Seals for these recipients from now on. If they are others, what was sealed for those before is forgotten.
    pub fn set_recipients(&mut self, recipients: Recipients) {
        if *self.sealer.recipients() != recipients {
            self.sealed.clear();
            self.sealer.set_recipients(recipients);
        }
    }

    /// The sealed `original`, whose mask is `mask`.
    ///
    /// An `ip` and a `device_id` of the same mask are the same text, and share the entry of the one that came first, as
    /// they do in the vault.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub fn seal(
        &mut self,
        kind: Kind,
        mask: Mask,
        original: &str,
    ) -> Result<Arc<Sealed>, SealError> {
        if let Some(sealed) = self.sealed.get(mask) {
            return Ok(Arc::clone(sealed));
        }
        let sealed = Arc::new(self.sealer.seal(kind, mask, original)?);
        if original.len() <= LONGEST_REMEMBERED {
            self.sealed.put(mask, Arc::clone(&sealed));
        }
        Ok(sealed)
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
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(other.mask(), mask(2));
    }

    #[test]
    fn nothing_sealed_for_other_recipients_is_given_out() {
        let (some, others) = (recipients(), recipients());
        let mut sealer = CachingSealer::new(some.clone(), 10);
        let before = sealer.seal(Kind::Ip, mask(1), "10.0.0.1").unwrap();
        sealer.set_recipients(some);
        let same = sealer.seal(Kind::Ip, mask(1), "10.0.0.1").unwrap();
        assert!(Arc::ptr_eq(&before, &same));

        sealer.set_recipients(others.clone());
        let after = sealer.seal(Kind::Ip, mask(1), "10.0.0.1").unwrap();
        assert_eq!(after.key().recipients(), others.texts());
    }

    #[test]
    fn long_values_are_not_remembered() {
        let mut sealer = CachingSealer::new(recipients(), 10);
        for (length, is_remembered) in [(256, true), (257, false)] {
            let text = "x".repeat(length);
            let first = sealer.seal(Kind::DeviceId, mask(length), &text).unwrap();
            let again = sealer.seal(Kind::DeviceId, mask(length), &text).unwrap();
            assert_eq!(Arc::ptr_eq(&first, &again), is_remembered, "{length}");
        }
    }
}
