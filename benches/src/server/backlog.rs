//! The messages of one queue: visible, in flight, or deleted.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt::Write;
use std::time::Duration;

use md5::{Digest, Md5};
use serde::Serialize;

use super::handle::Handle;
use crate::clock::monotonic;
use crate::logins::{self, Dice};

/// More messages than this are never in flight at once.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>
pub const MOST_IN_FLIGHT: u64 = 120_000;

/// Preloaded messages were sent at this distance from each other, the last one now.
const PRELOAD_INTERVAL_MS: u64 = 1;

/// The messages of one queue, in the order in which they were sent.
#[derive(Default)]
pub struct Backlog {
    epoch: u32,
    messages: Vec<Message>,
    visible: VecDeque<u32>,
    timeouts: BinaryHeap<Reverse<Timeout>>,
    counts: Counts,
}

/// A message, its JSON made once: everything up to the receipt handle, which is another one at each receive.
pub struct Message {
    /// `{"MessageId":"…","MD5OfBody":"…","Body":"…"`
    pub json: Box<str>,
    /// `SentTimestamp`: milliseconds since the Unix epoch.
    pub sent_at: u64,
    /// `ApproximateFirstReceiveTimestamp`: milliseconds since the Unix epoch.
    pub first_received_at: u64,
    /// `ApproximateReceiveCount`.
    pub receive_count: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Visible,
    InFlight { until: Duration },
    Deleted,
}

/// The end of one visibility timeout. It is void when the message was deleted or its timeout changed since.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Timeout {
    at: Duration,
    index: u32,
}

/// What happened to a queue since it was last reset. Times are seconds on the machine's monotonic clock.
#[derive(Clone, Default, Serialize)]
pub struct Counts {
    /// Messages sent, preloaded ones included.
    pub sent: u64,
    /// Messages handed out, each as often as it was received.
    pub received: u64,
    /// Messages deleted.
    pub deleted: u64,
    /// Messages that a receive would bring now.
    pub visible: u64,
    /// Messages received, neither deleted nor timed out.
    pub in_flight: u64,
    /// Messages made visible again by a change of their visibility timeout to 0.
    pub released: u64,
    /// Messages whose visibility timeout ended.
    pub timed_out: u64,
    /// ReceiveMessage calls that brought something.
    pub full_receives: u64,
    /// ReceiveMessage calls that brought nothing.
    pub empty_receives: u64,
    /// DeleteMessageBatch and DeleteMessage calls.
    pub delete_calls: u64,
    /// When the first message was handed out.
    pub first_received_at: Option<f64>,
    /// When the last message was handed out.
    pub last_received_at: Option<f64>,
    /// When the first message was deleted.
    pub first_deleted_at: Option<f64>,
    /// When the last message was deleted.
    pub last_deleted_at: Option<f64>,
}

/// Why a receipt handle could not be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotChanged {
    /// It was never given out.
    Invalid,
    /// The message is not in flight, or was received again since.
    NotInFlight,
}

impl Backlog {
    /// Adds `messages` generated logins of `people` people, as if they had been sent one a millisecond up to `now`
    /// (Unix milliseconds).
    pub fn preload(&mut self, messages: u64, people: u64, now: u64) {
        let mut ids = Dice::new(now ^ u64::from(self.epoch) << 48);
        for number in 0..messages {
            let sent_at = now - (messages - number) * PRELOAD_INTERVAL_MS;
            self.send(&ids.uuid(), &logins::body(number % people.max(1)), sent_at);
        }
    }

    /// Adds a message and returns the MD5 of its body in hexadecimal.
    pub fn send(&mut self, message_id: &str, body: &str, sent_at: u64) -> String {
        let md5 = format!("{:x}", Md5::digest(body));
        let mut json = String::with_capacity(body.len() + 160);
        let quoted = serde_json::to_string(body).unwrap_or_default();
        let _ = write!(
            json,
            r#"{{"MessageId":"{message_id}","MD5OfBody":"{md5}","Body":{quoted}"#
        );

        self.visible.push_back(self.messages.len() as u32);
        self.messages.push(Message {
            json: json.into(),
            sent_at,
            first_received_at: 0,
            receive_count: 0,
            state: State::Visible,
        });
        self.counts.sent += 1;
        md5
    }

    /// Takes up to `most` visible messages for `visibility`, each given to `take`; returns how many there were.
    pub fn receive(
        &mut self,
        most: usize,
        visibility: Duration,
        unix_millis: u64,
        mut take: impl FnMut(&Message, Handle),
    ) -> usize {
        let now = monotonic();
        let until = now + visibility;
        let allowed = MOST_IN_FLIGHT.saturating_sub(self.counts.in_flight);
        let most = most.min(usize::try_from(allowed).unwrap_or(most));

        let mut taken = 0;
        while taken < most {
            let Some(index) = self.visible.pop_front() else {
                break;
            };
            let message = &mut self.messages[index as usize];
            if message.state != State::Visible {
                continue;
            }
            message.receive_count += 1;
            if message.receive_count == 1 {
                message.first_received_at = unix_millis;
            }
            let receive_count = message.receive_count;
            take(
                message,
                Handle {
                    epoch: self.epoch,
                    index,
                    receive_count,
                },
            );
            taken += 1;

            if visibility.is_zero() {
                self.visible.push_back(index);
            } else {
                message.state = State::InFlight { until };
                self.timeouts.push(Reverse(Timeout { at: until, index }));
                self.counts.in_flight += 1;
            }
        }
        self.count_receive(taken, now);
        taken
    }

    fn count_receive(&mut self, taken: usize, now: Duration) {
        if taken > 0 {
            self.counts.received += taken as u64;
            self.counts.full_receives += 1;
            self.counts.last_received_at = Some(now.as_secs_f64());
            self.counts
                .first_received_at
                .get_or_insert(now.as_secs_f64());
        }
    }

    /// Counts a receive that brought nothing to its end.
    pub fn count_empty_receive(&mut self) {
        self.counts.empty_receives += 1;
    }

    /// Counts a call that deletes.
    pub fn count_delete_call(&mut self) {
        self.counts.delete_calls += 1;
    }

    /// Whether nothing can be received because too much is in flight.
    pub fn over_limit(&self) -> bool {
        self.counts.in_flight >= MOST_IN_FLIGHT
    }

    /// Deletes the message of `handle`. As in SQS, a handle of an earlier receive succeeds and deletes nothing.
    pub fn delete(&mut self, handle: &str) -> Result<(), NotChanged> {
        let handle = Handle::parse(handle).ok_or(NotChanged::Invalid)?;
        let Some(message) = current(&mut self.messages, self.epoch, handle) else {
            return Ok(());
        };
        match message.state {
            State::Deleted => return Ok(()),
            State::InFlight { .. } => self.counts.in_flight -= 1,
            State::Visible => {}
        }
        message.state = State::Deleted;
        message.json = Box::default();
        self.counts.deleted += 1;
        let now = monotonic().as_secs_f64();
        self.counts.first_deleted_at.get_or_insert(now);
        self.counts.last_deleted_at = Some(now);
        Ok(())
    }

    /// Lets the message of `handle` become visible `visibility` from now.
    pub fn change_visibility(
        &mut self,
        handle: &str,
        visibility: Duration,
    ) -> Result<(), NotChanged> {
        let handle = Handle::parse(handle).ok_or(NotChanged::Invalid)?;
        let message =
            current(&mut self.messages, self.epoch, handle).ok_or(NotChanged::NotInFlight)?;
        if !matches!(message.state, State::InFlight { .. }) {
            return Err(NotChanged::NotInFlight);
        }
        if visibility.is_zero() {
            message.state = State::Visible;
            self.visible.push_back(handle.index);
            self.counts.in_flight -= 1;
            self.counts.released += 1;
        } else {
            let until = monotonic() + visibility;
            message.state = State::InFlight { until };
            self.timeouts.push(Reverse(Timeout {
                at: until,
                index: handle.index,
            }));
        }
        Ok(())
    }

    /// Makes the messages visible whose timeout has passed at `now`; returns how many.
    pub fn expire(&mut self, now: Duration) -> u64 {
        let mut returned = 0;
        while let Some(Reverse(timeout)) = self.timeouts.peek() {
            if timeout.at > now {
                break;
            }
            let (at, index) = (timeout.at, timeout.index);
            self.timeouts.pop();
            let message = &mut self.messages[index as usize];
            if message.state == (State::InFlight { until: at }) {
                message.state = State::Visible;
                self.visible.push_back(index);
                returned += 1;
            }
        }
        self.counts.in_flight -= returned;
        self.counts.timed_out += returned;
        returned
    }

    /// Empties the queue; counts go on.
    pub fn purge(&mut self) {
        self.epoch += 1;
        self.messages = Vec::new();
        self.visible = VecDeque::new();
        self.timeouts = BinaryHeap::new();
        self.counts.in_flight = 0;
    }

    /// Empties the queue and counts from zero.
    pub fn reset(&mut self) {
        self.purge();
        self.counts = Counts::default();
    }

    /// The counts as of now.
    pub fn counts(&self) -> Counts {
        let visible = self
            .messages
            .iter()
            .filter(|message| message.state == State::Visible)
            .count();
        Counts {
            visible: visible as u64,
            ..self.counts.clone()
        }
    }

    /// How many messages were sent since the last reset.
    pub fn sent(&self) -> u64 {
        self.counts.sent
    }

    /// How many messages were deleted since the last reset.
    pub fn deleted(&self) -> u64 {
        self.counts.deleted
    }
}

/// The message that `handle` stands for, unless it was received again or the queue emptied since.
fn current(messages: &mut [Message], epoch: u32, handle: Handle) -> Option<&mut Message> {
    let message = messages.get_mut(handle.index as usize)?;
    (handle.epoch == epoch && message.receive_count == handle.receive_count).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn handles(backlog: &mut Backlog, most: usize, visibility: Duration) -> Vec<String> {
        let mut handles = Vec::new();
        backlog.receive(most, visibility, 0, |_, handle| {
            let mut text = Vec::new();
            handle.write(&mut text);
            handles.push(String::from_utf8(text).unwrap());
        });
        handles
    }

    fn filled(messages: u64) -> Backlog {
        let mut backlog = Backlog::default();
        backlog.preload(messages, messages, 1_700_000_000_000);
        backlog
    }

    #[test]
    fn a_received_message_is_in_flight_until_it_is_deleted() {
        let mut backlog = filled(3);
        let taken = handles(&mut backlog, 10, MINUTE);
        assert_eq!(taken.len(), 3);
        assert!(handles(&mut backlog, 10, MINUTE).is_empty());
        backlog.delete(&taken[0]).unwrap();
        backlog.delete(&taken[0]).unwrap();
        let counts = backlog.counts();
        assert_eq!(
            (counts.deleted, counts.in_flight, counts.visible),
            (1, 2, 0)
        );
    }

    #[test]
    fn a_timeout_brings_it_back_and_makes_the_first_handle_stale() {
        let mut backlog = filled(1);
        let first = handles(&mut backlog, 1, MINUTE);
        assert_eq!(backlog.expire(monotonic() + MINUTE), 1);
        let second = handles(&mut backlog, 1, MINUTE);
        backlog.delete(&first[0]).unwrap();
        assert_eq!(backlog.counts().deleted, 0);
        backlog.delete(&second[0]).unwrap();
        assert_eq!(backlog.counts().deleted, 1);
    }

    #[test]
    fn a_released_message_is_visible_at_once_and_only_once() {
        let mut backlog = filled(1);
        let taken = handles(&mut backlog, 1, MINUTE);
        backlog
            .change_visibility(&taken[0], Duration::ZERO)
            .unwrap();
        assert_eq!(
            backlog.change_visibility(&taken[0], Duration::ZERO),
            Err(NotChanged::NotInFlight)
        );
        assert_eq!(handles(&mut backlog, 10, MINUTE).len(), 1);
        assert_eq!(backlog.expire(monotonic()), 0);
    }

    #[test]
    fn a_longer_timeout_replaces_the_shorter_one() {
        let mut backlog = filled(1);
        let taken = handles(&mut backlog, 1, Duration::from_secs(1));
        backlog.change_visibility(&taken[0], 2 * MINUTE).unwrap();
        assert_eq!(backlog.expire(monotonic() + MINUTE), 0);
        assert_eq!(backlog.expire(monotonic() + 3 * MINUTE), 1);
    }

    #[test]
    fn no_more_than_the_limit_is_in_flight() {
        let mut backlog = filled(MOST_IN_FLIGHT + 5);
        while !handles(&mut backlog, 1000, MINUTE).is_empty() {}
        assert_eq!(backlog.counts().in_flight, MOST_IN_FLIGHT);
        assert!(backlog.over_limit());
    }

    #[test]
    fn a_handle_from_before_a_reset_deletes_nothing() {
        let mut backlog = filled(1);
        let old = handles(&mut backlog, 1, MINUTE);
        backlog.reset();
        backlog.preload(1, 1, 1_700_000_000_000);
        handles(&mut backlog, 1, MINUTE);
        backlog.delete(&old[0]).unwrap();
        assert_eq!(backlog.counts().deleted, 0);
        assert_eq!(backlog.delete("made-up"), Err(NotChanged::Invalid));
    }
}
