//! A bounded map that forgets what was not used for long.

use crate::Mask;

/// Places that a mask may have. The least recently used of them makes room.
const WAYS: usize = 4;

/// What is known of the masks that were put in or asked for last.
///
/// A table of fixed size, as caches of processors are: a few places for each mask, which its own bits name, since those
/// are as good as random. Nothing is hashed, allocated or moved about.
pub(crate) struct Recent<V> {
    /// In sets of [`WAYS`], in each the last used first.
    places: Box<[Option<(Mask, V)>]>,
}

impl<V> Recent<V> {
    /// A map with room for `capacity` masks, or a few more.
    pub(crate) fn new(capacity: usize) -> Recent<V> {
        let sets = capacity.div_ceil(WAYS).next_power_of_two();
        Recent {
            places: (0..sets * WAYS).map(|_| None).collect(),
        }
    }

    /// What is known of `mask`, which counts as used.
    pub(crate) fn get(&mut self, mask: Mask) -> Option<&mut V> {
        let set = self.set(mask);
        let known = |place: &Option<(Mask, V)>| place.as_ref().is_some_and(|(it, _)| *it == mask);
        let place = set.iter().position(known)?;
        set[..=place].rotate_right(1);
        set[0].as_mut().map(|(_, value)| value)
    }

    /// Puts in what is known of `mask`, of which nothing was.
    pub(crate) fn put(&mut self, mask: Mask, value: V) {
        let set = self.set(mask);
        set.rotate_right(1);
        set[0] = Some((mask, value));
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.places.fill_with(|| None);
    }

    fn set(&mut self, mask: Mask) -> &mut [Option<(Mask, V)>] {
        let sets = self.places.len() / WAYS;
        // There is a power of two of them, and a remainder keeps the bits that are needed.
        let set = mask.first_bits() as usize % sets;
        &mut self.places[set * WAYS..][..WAYS]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::{Recent, WAYS};
    use crate::Mask;

    /// Masks that all have their places in one set.
    fn mask(number: usize) -> Mask {
        format!("{:048}{number:016x}", 0).parse().unwrap()
    }

    #[test]
    fn what_was_used_least_lately_makes_room() {
        let mut recent = Recent::new(WAYS);
        for number in 0..WAYS {
            recent.put(mask(number), number);
        }
        assert_eq!(recent.get(mask(0)), Some(&mut 0));
        recent.put(mask(WAYS), WAYS);
        assert_eq!(recent.get(mask(1)), None);
        for kept in [0, 2, 3, 4] {
            assert_eq!(recent.get(mask(kept)), Some(&mut { kept }));
        }
    }

    #[test]
    fn most_of_as_many_masks_as_there_is_room_for_are_known() {
        use sha2::{Digest, Sha256};
        let masks: Vec<Mask> = (0_u32..4_096)
            .map(|number| hex::encode(Sha256::digest(number.to_le_bytes())))
            .map(|digits| digits.parse().unwrap())
            .collect();
        let mut recent = Recent::new(masks.len());
        masks.iter().for_each(|&mask| recent.put(mask, ()));
        let known = masks.iter().filter(|&&mask| recent.get(mask).is_some());
        assert!(known.count() > 4_096 * 3 / 4);
    }

    proptest! {
        #[test]
        fn what_was_put_in_last_is_known_and_nothing_else(
            capacity in 1_usize..40,
            steps in vec((any::<bool>(), 0_usize..20), 0..200),
        ) {
            let mut recent = Recent::new(capacity);
            let mut put = HashMap::new();
            let mut last_used: Vec<usize> = Vec::new();
            for (step, (puts, number)) in steps.into_iter().enumerate() {
                let found = recent.get(mask(number)).copied();
                let is_recent = last_used.iter().rev().take(WAYS).any(|&used| used == number);
                prop_assert_eq!(found.is_some(), is_recent);
                prop_assert!(found.is_none() || found == put.get(&number).copied());
                if puts && found.is_none() {
                    recent.put(mask(number), step);
                    put.insert(number, step);
                }
                if puts || found.is_some() {
                    last_used.retain(|&used| used != number);
                    last_used.push(number);
                }
            }
        }

        #[test]
        fn nothing_is_known_once_it_is_cleared(numbers in vec(0_usize..20, 0..40)) {
            let mut recent = Recent::new(8);
            for &number in &numbers {
                if recent.get(mask(number)).is_none() {
                    recent.put(mask(number), ());
                }
            }
            recent.clear();
            prop_assert!(numbers.iter().all(|&number| recent.get(mask(number)).is_none()));
        }
    }
}
