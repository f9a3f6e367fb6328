//! Which masks are in the vault already.

use crate::Mask;
use crate::recent::Recent;

/// Masks whose originals this process has sealed *and committed* lately, so that they need not be written again.
///
/// It learns of nothing but commits: what a transaction sealed and then rolled back was never in it. A mask that it has
/// forgotten is written once more, which the vault takes for what it is.
///
/// A mask is known *as of a day*, the last one that its entry in the vault says it was seen on. Asked about a later
/// day, it is not known: so the entry is brought up to date once a day, and a value that is seen every day does not
/// grow old.
///
/// A process that deletes entries of the vault must have every process [`clear`](Cache::clear) its
/// cache; else a mask is taken to be there which is not.
pub struct Cache(Recent<Day>);

/// A day, counted from any fixed one.
type Day = i32;

impl Cache {
    /// A cache of about `capacity` masks, those that were learned or asked for last, in 36 bytes
    /// each.
    pub fn new(capacity: usize) -> Cache {
        Cache(Recent::new(capacity))
    }

    /// Whether the vault has this mask, and says that it was seen on `day` or later.
    pub fn contains(&mut self, mask: Mask, day: i32) -> bool {
        self.0.get(mask).is_some_and(|known| *known >= day)
    }

    /// A transaction has committed that brought these masks into the vault, or found them there, each as seen on its
    /// day.
    pub fn committed(&mut self, masks: impl IntoIterator<Item = (Mask, i32)>) {
        for (mask, day) in masks {
            match self.0.get(mask) {
                Some(known) => *known = day.max(*known),
                None => self.0.put(mask, day),
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::Cache;
    use crate::Mask;

    fn mask(number: usize) -> Mask {
        format!("{number:064x}").parse().unwrap()
    }

    #[test]
    fn only_what_was_committed_is_known() {
        let mut cache = Cache::new(10);
        assert!(!cache.contains(mask(1), 0));
        // Asking is not committing.
        assert!(!cache.contains(mask(1), 0));
        cache.committed([(mask(1), 0)]);
        assert!(cache.contains(mask(1), 0));
        assert!(!cache.contains(mask(2), 0));
    }

    #[test]
    fn a_mask_is_known_until_its_day_is_over() {
        let mut cache = Cache::new(10);
        cache.committed([(mask(1), 20)]);
        assert!(cache.contains(mask(1), 19));
        assert!(cache.contains(mask(1), 20));
        assert!(!cache.contains(mask(1), 21));
        cache.committed([(mask(1), 21)]);
        assert!(cache.contains(mask(1), 21));
        // A message of an earlier day, which does not move the entry back.
        cache.committed([(mask(1), 3)]);
        assert!(cache.contains(mask(1), 21));
    }

    #[test]
    fn a_cleared_cache_knows_nothing() {
        let mut cache = Cache::new(4);
        cache.committed((0..4).map(|number| (mask(number), 0)));
        cache.clear();
        assert!((0..4).all(|number| !cache.contains(mask(number), 0)));
    }

    proptest! {
        #[test]
        fn a_cache_knows_what_was_committed_just_now_and_never_what_was_not(
            capacity in 1_usize..20,
            steps in vec((any::<bool>(), 0_usize..40), 0..200),
        ) {
            let mut cache = Cache::new(capacity);
            let mut committed = HashSet::new();
            for (commits, number) in steps {
                if commits {
                    cache.committed([(mask(number), 0)]);
                    committed.insert(number);
                    prop_assert!(cache.contains(mask(number), 0));
                } else {
                    prop_assert!(!cache.contains(mask(number), 0) || committed.contains(&number));
                }
            }
        }
    }
}
