//! Groups of a FIFO queue in which a message was rejected and stays: what follows it waits for it.
//!
//! While SQS hides the rejected message it hands out nothing of its group; then it hands out that message first. If
//! another one comes first, the rejected message is gone: it was moved to the dead-letter queue, or deleted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use queue::{Hidden, Receipt};

use super::receipts;
use crate::io_thread;

/// An empty answer says nothing about a message that became visible a moment ago: the poll may be older, and the
/// recorded time may be too early by the length of the transaction that recorded it.
const SURELY_HANDED_OUT_AFTER: Duration = Duration::from_secs(60);

/// A message that was rejected and stays in the queue, at the head of its group.
#[derive(Clone)]
struct Head {
    message_id: Box<str>,
    hidden: HiddenUntil,
}

/// Until when SQS does not hand out a message.
#[derive(Clone, Copy)]
enum HiddenUntil {
    /// The end of the transaction will leave it to the queue.
    Held(Receipt),
    /// Until the time that the I/O thread knows, which has left it or will when the transaction commits.
    Left(Receipt),
    /// Until the time that the session that rejected it recorded.
    At(Instant),
}

impl HiddenUntil {
    /// Whether that was over at `time`.
    fn is_over_at(self, time: Instant) -> bool {
        match self {
            HiddenUntil::At(end) => end <= time,
            HiddenUntil::Held(_) => false,
            HiddenUntil::Left(receipt) if receipts::is_undecided(receipt) => false,
            HiddenUntil::Left(receipt) => match io_thread::hidden_until(receipt) {
                Hidden::Pending => false,
                Hidden::Until(end) => end <= time,
                Hidden::Unknown => true,
            },
        }
    }
}

/// How a message relates to the rejected message that its group may be waiting for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// The group waits for nothing, or for this message.
    Its,
    /// The group waits for another one, which is still hidden.
    NotYet,
    /// The group waited for another one, which is gone from the queue.
    ItsSince,
}

/// Blocked groups, by the message that blocks each.
#[derive(Clone, Default)]
pub struct BlockedGroups(HashMap<Arc<str>, Head>);

impl BlockedGroups {
    /// Blocks `group` until SQS hands out the message again whose receipt this is.
    pub fn block(&mut self, group: Arc<str>, message_id: &str, receipt: Receipt) {
        self.insert(group, message_id, HiddenUntil::Held(receipt));
    }

    /// What blocks groups has been handed to the transaction, whose end will leave it to the queue.
    pub fn handed_over(&mut self) {
        for head in self.0.values_mut() {
            if let HiddenUntil::Held(receipt) = head.hidden {
                head.hidden = HiddenUntil::Left(receipt);
            }
        }
    }

    /// Blocks `group` by what is recorded of a message, which is hidden until then, or was.
    pub fn block_until(&mut self, group: Arc<str>, message_id: &str, end: Instant) {
        self.insert(group, message_id, HiddenUntil::At(end));
    }

    fn insert(&mut self, group: Arc<str>, message_id: &str, hidden: HiddenUntil) {
        let message_id = message_id.into();
        self.0.insert(group, Head { message_id, hidden });
    }

    /// Whether it is the turn of a message of `group`, in the order in which SQS hands them out. A message that was
    /// taken from the channel before the rejected message became visible says nothing about that.
    pub fn turn_of(&self, group: &str, message_id: &str, taken_at: Instant) -> Turn {
        match self.0.get(group) {
            None => Turn::Its,
            Some(head) if *head.message_id == *message_id => Turn::Its,
            Some(head) if head.hidden.is_over_at(taken_at) => Turn::ItsSince,
            Some(_) => Turn::NotYet,
        }
    }

    /// Whether `group` waits for this message.
    pub fn is_blocked_by(&self, group: &str, message_id: &str) -> bool {
        self.0
            .get(group)
            .is_some_and(|head| *head.message_id == *message_id)
    }

    /// The group no longer waits.
    pub fn unblock(&mut self, group: &str) {
        self.0.remove(group);
    }

    /// The queue has nothing to hand out: a rejected message that has not been hidden for a while is gone from it.
    /// Returns the groups that waited for it.
    pub fn queue_is_empty(&mut self) -> Vec<Arc<str>> {
        let Some(a_while_ago) = Instant::now().checked_sub(SURELY_HANDED_OUT_AFTER) else {
            return Vec::new();
        };
        let free = self
            .0
            .extract_if(|_, head| head.hidden.is_over_at(a_while_ago));
        free.map(|(group, _)| group).collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn blocked(end: Instant) -> BlockedGroups {
        let mut blocked = BlockedGroups::default();
        blocked.block_until("a".into(), "bad", end);
        blocked
    }

    #[test]
    fn others_wait_until_the_rejected_message_is_hidden_no_more() {
        let now = Instant::now();
        let blocked = blocked(now + MINUTE);
        assert_eq!(blocked.turn_of("a", "bad", now), Turn::Its);
        assert_eq!(blocked.turn_of("a", "next", now), Turn::NotYet);
        assert_eq!(blocked.turn_of("b", "next", now), Turn::Its);
    }

    #[test]
    fn a_message_that_comes_first_tells_that_the_rejected_one_is_gone() {
        let now = Instant::now();
        let blocked = blocked(now);
        assert_eq!(blocked.turn_of("a", "next", now), Turn::ItsSince);
        let before = now - Duration::from_millis(1);
        assert_eq!(blocked.turn_of("a", "held since", before), Turn::NotYet);
    }

    #[test]
    fn an_empty_queue_tells_it_of_what_would_have_been_handed_out() {
        let now = Instant::now();
        let mut blocked = blocked(now);
        blocked.block_until("b".into(), "worse", now - SURELY_HANDED_OUT_AFTER);
        assert_eq!(blocked.queue_is_empty(), ["b".into()]);
        assert_eq!(blocked.turn_of("b", "next", now), Turn::Its);
        assert!(!blocked.is_empty());
        blocked.unblock("a");
        assert!(blocked.is_empty());
    }
}
