//! Which rows of a chunk are still to be tried, and in what parts.

/// The places of rows that are not decided yet, in parts: each is to be tried as a whole. Parts are in the order of
/// arrival.
pub struct Trial {
    /// The next part is the last one.
    parts: Vec<Vec<usize>>,
}

impl Trial {
    /// All of `count` rows, as one part.
    pub fn of(count: usize) -> Trial {
        Trial {
            parts: vec![(0..count).collect()],
        }
    }

    /// The next part to try.
    pub fn next_part(&mut self) -> Option<Vec<usize>> {
        loop {
            match self.parts.pop() {
                Some(part) if part.is_empty() => {}
                next => return next,
            }
        }
    }

    /// Splits a part that was tried and cannot be decided as a whole into halves, to be tried on their own.
    pub fn halve(&mut self, part: &[usize]) {
        let (first, second) = part.split_at(part.len() / 2);
        self.parts.push(second.to_vec());
        self.parts.push(first.to_vec());
    }

    /// Takes out at most `count` rows, spread evenly over all that are left.
    pub fn take_spread(&mut self, count: usize) -> Vec<usize> {
        let left: usize = self.parts.iter().map(Vec::len).sum();
        if left == 0 || count == 0 {
            return Vec::new();
        }
        let step = left.div_ceil(count);
        let mut taken = Vec::new();
        let mut seen = 0;
        for part in self.parts.iter_mut().rev() {
            part.retain(|place| {
                let is_taken = seen % step == 0;
                seen += 1;
                if is_taken {
                    taken.push(*place);
                }
                !is_taken
            });
        }
        taken
    }

    /// Takes out at most `count` rows, the first that `is_wanted` in the order of arrival.
    pub fn take_where(
        &mut self,
        count: usize,
        mut is_wanted: impl FnMut(usize) -> bool,
    ) -> Vec<usize> {
        let mut taken = Vec::new();
        for part in self.parts.iter_mut().rev() {
            part.retain(|&place| {
                let is_taken = taken.len() < count && is_wanted(place);
                if is_taken {
                    taken.push(place);
                }
                !is_taken
            });
        }
        taken
    }

    /// Puts back rows that were taken out, to be tried next.
    pub fn put_back(&mut self, places: &[usize]) {
        self.parts.push(places.to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn halves_are_tried_in_the_order_of_arrival() {
        let mut trial = Trial::of(5);
        let part = trial.next_part().unwrap();
        trial.halve(&part);
        assert_eq!(trial.next_part(), Some(vec![0, 1]));
        assert_eq!(trial.next_part(), Some(vec![2, 3, 4]));
        assert_eq!(trial.next_part(), None);
    }

    #[test]
    fn a_sample_is_spread_over_all_that_is_left() {
        let mut trial = Trial::of(100);
        assert_eq!(trial.take_spread(4), [0, 25, 50, 75]);
        assert_eq!(trial.take_spread(1000).len(), 96);
        assert_eq!(trial.take_spread(4), [0usize; 0]);
    }

    proptest! {
        /// Whatever is refused, and whenever samples are taken: each row is decided once.
        #[test]
        fn each_row_is_decided_once(
            count in 0usize..60,
            refused in proptest::collection::vec(any::<bool>(), 60),
            samples in proptest::collection::vec(0usize..8, 200),
        ) {
            let mut trial = Trial::of(count);
            let mut decided = Vec::new();
            let mut samples = samples.into_iter();
            while let Some(part) = trial.next_part() {
                let has_culprit = part.iter().any(|&place| refused[place]);
                if has_culprit && part.len() > 1 {
                    trial.halve(&part);
                } else {
                    decided.extend(part);
                }
                let mut sample = trial.take_spread(samples.next().unwrap_or(0));
                let rest = sample.split_off(sample.len() / 2);
                decided.extend(sample);
                trial.put_back(&rest);
            }
            decided.sort_unstable();
            prop_assert_eq!(decided, (0..count).collect::<Vec<_>>());
        }
    }
}
