//! When messages that were left in the queue are visible to others again.
//!
//! The caller that leaves a message of a FIFO queue has to know this: until then, SQS holds back what follows it in
//! its group.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::receipts::Receipt;

/// A message is forgotten when it has been visible for this long.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Fewer are not worth looking through for those to forget.
const FEW: usize = 64;

/// How long a message that was left stays hidden from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// The call that leaves it has not been carried out yet.
    Pending,
    /// It is visible again at this time at the latest.
    Until(Instant),
    /// It was never left, it has been visible for a minute, its queue is not FIFO, or the I/O thread ended before the
    /// call was made.
    Unknown,
}

/// Messages of FIFO queues that were left. Both sides know it.
#[derive(Default)]
pub(crate) struct Left(Mutex<Messages>);

#[derive(Default)]
struct Messages {
    stages: HashMap<Receipt, Stage>,
    prune_at: usize,
}

#[derive(Clone, Copy)]
enum Stage {
    /// By the other side; the I/O thread has not seen it yet.
    HandedOver,
    /// The I/O thread has it.
    TakenOver,
    /// The call was carried out, or was given up.
    Until(Instant),
}

impl Left {
    /// The other side leaves messages. Those of queues that are not FIFO are not remembered.
    pub(crate) fn hand_over(&self, receipts: &[Receipt]) {
        let mut of_fifo = receipts
            .iter()
            .filter(|receipt| receipt.is_fifo())
            .peekable();
        if of_fifo.peek().is_none() {
            return;
        }
        let mut messages = self.lock();
        for receipt in of_fifo {
            messages.stages.entry(*receipt).or_insert(Stage::HandedOver);
        }
    }

    /// The I/O thread took a message over to leave it, or (`is_held` false) it had been settled before.
    pub(crate) fn take_over(&self, receipt: Receipt, is_held: bool) {
        if !receipt.is_fifo() {
            return;
        }
        let mut messages = self.lock();
        if let Some(stage @ Stage::HandedOver) = messages.stages.get_mut(&receipt) {
            if is_held {
                *stage = Stage::TakenOver;
            } else {
                messages.stages.remove(&receipt);
            }
        }
    }

    /// A message is visible again at `until` at the latest, whether the call that left it succeeded or not.
    pub(crate) fn settle(&self, receipt: Receipt, until: Instant) {
        if !receipt.is_fifo() {
            return;
        }
        let mut messages = self.lock();
        if let Some(stage) = messages.stages.get_mut(&receipt) {
            *stage = Stage::Until(until);
        }
        messages.prune(Instant::now());
    }

    pub(crate) fn hidden_until(&self, receipt: Receipt) -> Hidden {
        match self.lock().stages.get(&receipt) {
            Some(Stage::HandedOver | Stage::TakenOver) => Hidden::Pending,
            Some(Stage::Until(until)) if *until + REMEMBERED > Instant::now() => {
                Hidden::Until(*until)
            }
            _ => Hidden::Unknown,
        }
    }

    /// A panic elsewhere while the lock was held leaves nothing half done: each change is one step.
    fn lock(&self) -> MutexGuard<'_, Messages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Messages {
    /// Forgets what is over, each time that the number of entries has doubled.
    fn prune(&mut self, now: Instant) {
        if self.stages.len() < self.prune_at.max(FEW) {
            return;
        }
        self.stages
            .retain(|_, stage| !matches!(stage, Stage::Until(until) if *until + REMEMBERED <= now));
        self.prune_at = self.stages.len() * 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipts(count: u64) -> Vec<Receipt> {
        (1..=count).map(Receipt::of_fifo).collect()
    }

    #[test]
    fn a_message_is_forgotten_a_minute_after_it_is_visible() {
        let left = Left::default();
        let messages = receipts(2);
        left.hand_over(&messages);
        assert_eq!(left.hidden_until(messages[0]), Hidden::Pending);
        let now = Instant::now();
        left.settle(messages[0], now);
        left.settle(messages[1], now - REMEMBERED);
        assert_eq!(left.hidden_until(messages[0]), Hidden::Until(now));
        assert_eq!(left.hidden_until(messages[1]), Hidden::Unknown);
    }

    #[test]
    fn what_had_been_settled_before_is_unknown_unless_it_was_left() {
        let left = Left::default();
        let messages = receipts(2);
        left.hand_over(&messages);
        left.take_over(messages[0], true);
        left.hand_over(&messages);
        left.take_over(messages[0], false);
        left.take_over(messages[1], false);
        assert_eq!(left.hidden_until(messages[0]), Hidden::Pending);
        assert_eq!(left.hidden_until(messages[1]), Hidden::Unknown);
    }

    #[test]
    fn memory_is_bounded_by_what_is_hidden() {
        let left = Left::default();
        let over = Instant::now() - REMEMBERED;
        for receipt in receipts(10_000) {
            left.hand_over(&[receipt]);
            left.settle(receipt, over);
        }
        assert!(left.lock().stages.len() <= FEW);
    }
}
