//! How many polls to have in flight, and how many messages each may ask for.

use std::time::Instant;

use crate::entries::MOST_ENTRIES;
use crate::pipe::End;
use crate::window::Window;

/// Starts with one poll; once there was a full answer, as many as bring more, up to `concurrency`; back to one after an
/// empty answer. Never asks for more than is still wanted: a poll takes its share of what remains when it starts, and
/// what it did not bring is given back.
pub(crate) struct Ramp {
    until_empty: bool,
    /// `None`: without limit.
    remaining: Option<u64>,
    window: Window,
    in_flight: usize,
    empty_seen: bool,
    has_backlog: bool,
}

impl Ramp {
    pub(crate) fn new(limit: Option<u64>, until_empty: bool, concurrency: usize) -> Ramp {
        Ramp {
            until_empty,
            remaining: limit,
            window: Window::new(1, concurrency),
            in_flight: 0,
            empty_seen: false,
            has_backlog: false,
        }
    }

    /// How many messages the next poll may ask for, 1 to 10, if there is to be one now.
    pub(crate) fn start_poll(&mut self) -> Option<u8> {
        if self.in_flight >= self.window.size() || self.is_ending() {
            return None;
        }
        let share = self.remaining.unwrap_or(u64::MAX).min(MOST_ENTRIES as u64);
        if share == 0 {
            return None;
        }
        if let Some(remaining) = &mut self.remaining {
            *remaining -= share;
        }
        self.in_flight += 1;
        Some(share as u8)
    }

    /// Records that a poll sent at `sent`, which could ask for `share` messages, brought `got`, and whether that was
    /// all it asked for.
    pub(crate) fn answered(&mut self, share: u8, got: usize, is_full: bool, sent: Instant) {
        self.give_back(u64::from(share).saturating_sub(got as u64));
        self.has_backlog |= is_full;
        if got == 0 {
            self.empty_seen = true;
            self.has_backlog = false;
            self.window.restart();
        } else if self.has_backlog {
            self.window.answered(got, is_full, sent, Instant::now());
        }
    }

    /// SQS asks to slow down, in answer to a poll sent at `sent`.
    pub(crate) fn throttled(&mut self, sent: Instant) {
        self.window.throttled(sent, Instant::now());
    }

    /// There are more polls than there should be now: one that has failed had better not be tried again.
    pub(crate) fn is_too_large(&self) -> bool {
        self.in_flight > self.window.size()
    }

    /// A poll that might ask for `share` messages brought nothing, not even an answer.
    pub(crate) fn abandoned(&mut self, share: u8) {
        self.give_back(u64::from(share));
    }

    fn give_back(&mut self, messages: u64) {
        self.in_flight -= 1;
        if let Some(remaining) = &mut self.remaining {
            *remaining += messages;
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// There was a full answer, and no empty one since: there is probably more. SQS often answers with fewer than
    /// ten although there is.
    pub(crate) fn has_backlog(&self) -> bool {
        self.has_backlog
    }

    /// No poll will be started any more.
    pub(crate) fn is_ending(&self) -> bool {
        self.until_empty && self.empty_seen
    }

    /// Set once no poll is in flight and none will be.
    pub(crate) fn end(&self) -> Option<End> {
        if self.in_flight > 0 {
            None
        } else if self.remaining == Some(0) {
            Some(End::LimitReached)
        } else {
            self.is_ending().then_some(End::Empty)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn start_all(ramp: &mut Ramp) -> Vec<u8> {
        std::iter::from_fn(|| ramp.start_poll()).collect()
    }

    /// Answers what is in flight, each with ten messages; returns how many polls may be in flight then.
    fn answer_all(ramp: &mut Ramp, sent: Instant) -> usize {
        for _ in 0..ramp.in_flight() {
            ramp.answered(10, 10, true, sent);
        }
        start_all(ramp);
        ramp.in_flight()
    }

    #[test]
    fn polls_double_after_each_round_of_full_answers() {
        let mut ramp = Ramp::new(None, false, 6);
        assert_eq!(start_all(&mut ramp), [10]);
        // Answers that come at once bring more with each round.
        let sizes: Vec<usize> = (0..3)
            .map(|_| answer_all(&mut ramp, Instant::now()))
            .collect();
        assert_eq!(sizes[0], 2);
        assert!(sizes.iter().all(|size| *size <= 6), "{sizes:?}");
        ramp.answered(10, 9, false, Instant::now());
        assert!(ramp.has_backlog());
    }

    #[test]
    fn there_is_one_poll_while_no_answer_is_full() {
        let mut ramp = Ramp::new(None, false, 6);
        for _ in 0..5 {
            assert_eq!(start_all(&mut ramp), [10]);
            ramp.answered(10, 9, false, Instant::now());
        }
        assert!(!ramp.has_backlog());
    }

    #[test]
    fn a_backlog_is_seen_by_a_single_poll_too() {
        let mut ramp = Ramp::new(None, false, 1);
        start_all(&mut ramp);
        ramp.answered(10, 10, true, Instant::now());
        assert!(ramp.has_backlog());
        assert_eq!(start_all(&mut ramp), [10]);
        ramp.answered(10, 0, false, Instant::now());
        assert!(!ramp.has_backlog());
    }

    #[test]
    fn an_answer_is_full_when_it_brings_what_was_asked_for() {
        let mut ramp = Ramp::new(Some(100), false, 8);
        assert_eq!(start_all(&mut ramp), [10]);
        ramp.answered(10, 1, true, Instant::now());
        assert_eq!(start_all(&mut ramp), [10; 2]);
    }

    #[test]
    fn there_is_one_poll_again_after_an_empty_answer() {
        let mut ramp = Ramp::new(None, false, 8);
        start_all(&mut ramp);
        assert_eq!(answer_all(&mut ramp, Instant::now()), 2);
        while ramp.in_flight() > 1 {
            ramp.answered(10, 0, false, Instant::now());
            assert_eq!(start_all(&mut ramp), [0u8; 0]);
        }
        ramp.answered(10, 0, false, Instant::now());
        assert!(!ramp.has_backlog());
        assert_eq!(start_all(&mut ramp), [10]);
        assert_eq!(ramp.end(), None);
    }

    #[test]
    fn a_ramp_ends_at_its_limit_or_with_an_empty_answer() {
        let mut ramp = Ramp::new(Some(12), true, 8);
        assert_eq!(start_all(&mut ramp), [10]);
        ramp.answered(10, 10, true, Instant::now());
        assert_eq!(start_all(&mut ramp), [2]);
        assert_eq!(ramp.end(), None);
        ramp.answered(2, 2, true, Instant::now());
        assert_eq!(ramp.end(), Some(End::LimitReached));

        let mut ramp = Ramp::new(Some(12), true, 8);
        start_all(&mut ramp);
        ramp.answered(10, 0, false, Instant::now());
        assert_eq!(start_all(&mut ramp), [0u8; 0]);
        assert_eq!(ramp.end(), Some(End::Empty));

        assert_eq!(Ramp::new(Some(0), false, 8).end(), Some(End::LimitReached));
    }

    proptest! {
        /// Whatever the answers and their order: what was received and what may still come never exceeds the
        /// limit, polls in flight never exceed the concurrency, and it comes to its end.
        #[test]
        fn no_more_is_asked_for_than_is_wanted(
            limit in 0u64..200,
            concurrency in 1usize..12,
            answers in proptest::collection::vec((0usize..11, any::<prop::sample::Index>(), any::<bool>()), 400),
        ) {
            let mut ramp = Ramp::new(Some(limit), false, concurrency);
            let mut in_flight: Vec<u8> = Vec::new();
            let mut received = 0;
            for (got, which, fails) in answers {
                in_flight.extend(start_all(&mut ramp));
                prop_assert!(in_flight.len() <= concurrency);
                let asked: u64 = in_flight.iter().map(|&ask| u64::from(ask)).sum();
                prop_assert!(received + asked <= limit);
                if in_flight.is_empty() {
                    prop_assert_eq!(received, limit);
                    prop_assert_eq!(ramp.end(), Some(End::LimitReached));
                    return Ok(());
                }
                let ask = in_flight.swap_remove(which.index(in_flight.len()));
                if fails {
                    ramp.abandoned(ask);
                } else {
                    let got = got.min(usize::from(ask));
                    received += got as u64;
                    ramp.answered(ask, got, got == usize::from(ask), Instant::now());
                }
            }
        }
    }
}
