//! A queue as the I/O thread calls it: through which client, and what is waiting to be settled there.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::observed::Queue;
use crate::receipts::Receipt;
use crate::window::Window;

/// The most calls of a kind in flight. How many there really are depends on whether more calls bring more, and on
/// [`Calls`](crate::calls::Calls).
const MOST_CALLS: usize = 512;
/// A FIFO queue takes 300 calls a second (SQS developer guide, "Quotas").
pub(crate) const MOST_CALLS_FIFO: usize = 16;
/// The number of calls to begin with: enough for one transaction of a usual size.
const FIRST_CALLS: usize = 16;

/// Most messages that a queue lets be in flight (SQS developer guide, "Quotas").
pub const MOST_IN_FLIGHT: usize = 120_000;

/// Longer than a poll of a second, which is the default of `sqs_ingest`, takes.
const LONGEST_WAIT_OF_RELEASES: Duration = Duration::from_millis(1_500);

/// There is one for each queue, however many receive from it, so that what they settle shares calls.
pub(crate) struct Remote {
    pub url: String,
    pub is_fifo: bool,
    pub client: Rc<Client>,
    pub deletes: Lane,
    pub releases: Lane,
    pub leaves: Lane,
    held: Cell<usize>,
    receives: RefCell<Vec<Weak<dyn Polling>>>,
    /// Releases that wait for polls wait no longer than until then.
    releases_wait_until: Cell<Option<Instant>>,
}

/// A receive, as those see it who release messages of its queue.
pub(crate) trait Polling {
    /// Whether polls of it are under way whose messages nobody wants any more.
    fn has_unwanted_polls(&self) -> bool;
}

/// Messages waiting for the same fate.
pub(crate) struct Lane {
    pub pending: RefCell<VecDeque<Receipt>>,
    pub calls: Cell<usize>,
    pub window: RefCell<Window>,
    pub is_about_to_call: Cell<bool>,
    /// When SQS last confirmed something, or when there was last nothing to confirm.
    last_progress: Cell<Instant>,
    /// Requests that ran out of patience since then.
    failures: Cell<u32>,
}

impl Remote {
    pub(crate) fn new(queue: &Queue, client: Rc<Client>) -> Remote {
        let is_fifo = queue.url().is_fifo();
        let most = if is_fifo { MOST_CALLS_FIFO } else { MOST_CALLS };
        // One call at a time releases the messages of a group in their order.
        let most_releases = if is_fifo { 1 } else { MOST_CALLS };
        Remote {
            url: queue.url().as_str().to_owned(),
            is_fifo,
            client,
            deletes: Lane::of(most),
            releases: Lane::of(most_releases),
            leaves: Lane::of(most),
            held: Cell::new(0),
            receives: RefCell::default(),
            releases_wait_until: Cell::default(),
        }
    }

    /// Whether it is `queue`.
    pub(crate) fn is(&self, queue: &Queue) -> bool {
        self.url == queue.url().as_str() && self.client.endpoint() == queue.endpoint()
    }

    /// A receive begins.
    pub(crate) fn is_polled_by(&self, receive: Weak<dyn Polling>) {
        let mut receives = self.receives.borrow_mut();
        receives.retain(|receive| receive.strong_count() > 0);
        receives.push(receive);
        drop(receives);
        if !self.has_unwanted_polls() {
            self.releases_wait_until.set(None);
        }
    }

    /// Until when releases had better wait for polls that would take what is released now, although nobody wants it of
    /// them; none if there is no such poll. Most end soon. Of those that do not, each message is taken once at most,
    /// since what they bring is not released before all of them have ended.
    pub(crate) fn releases_wait_until(&self) -> Option<Instant> {
        if !self.has_unwanted_polls() {
            self.releases_wait_until.set(None);
            return None;
        }
        let until = self.releases_wait_until.get();
        let until = until.unwrap_or_else(|| Instant::now() + LONGEST_WAIT_OF_RELEASES);
        self.releases_wait_until.set(Some(until));
        Some(until)
    }

    /// Whether releases wait for polls, or did so for as long as they may.
    pub(crate) fn makes_releases_wait(&self) -> bool {
        self.releases_wait_until.get().is_some()
    }

    fn has_unwanted_polls(&self) -> bool {
        let receives = self.receives.borrow();
        let mut receives = receives.iter().filter_map(Weak::upgrade);
        receives.any(|receive| receive.has_unwanted_polls())
    }

    /// Counts messages of it that are held, or no longer held.
    pub(crate) fn count_held(&self, more: usize, fewer: usize) {
        self.held
            .set((self.held.get() + more).saturating_sub(fewer));
    }

    /// Whether this process alone holds all the messages that the queue allows in flight. A long poll is then answered
    /// with nothing, as if the queue were empty.
    pub(crate) fn is_at_its_limit(&self) -> bool {
        self.held.get() >= MOST_IN_FLIGHT
    }
}

impl Lane {
    fn of(most_calls: usize) -> Lane {
        Lane {
            pending: RefCell::default(),
            calls: Cell::new(0),
            window: RefCell::new(Window::new(FIRST_CALLS, most_calls)),
            is_about_to_call: Cell::new(false),
            last_progress: Cell::new(Instant::now()),
            failures: Cell::new(0),
        }
    }

    /// SQS confirmed something, or there was nothing to confirm.
    pub(crate) fn progressed(&self) {
        self.last_progress.set(Instant::now());
        self.failures.set(0);
    }

    /// A request that `began` then ran out of patience, and still counts: whether the messages that wait would fare no
    /// better. Where nothing ran beside it, it may be its own fault, so one more is tried.
    pub(crate) fn is_hopeless(&self, began: Instant) -> bool {
        self.failures.set(self.failures.get() + 1);
        let was_alone = self.calls.get() == 1;
        self.last_progress.get() <= began && (!was_alone || self.failures.get() > 1)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.calls.get() == 0 && self.pending.borrow().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::QueueUrl;
    use std::sync::Arc;

    #[test]
    fn a_queue_is_at_its_limit_when_as_many_are_held_as_may_be_in_flight() {
        let url = QueueUrl::parse("http://localhost/000000000000/q").unwrap();
        let queue = Queue::new(url, None, None, Arc::new(())).unwrap();
        let remote = Remote::new(
            &queue,
            Rc::new(Client::new(queue.endpoint(), Rc::default())),
        );
        remote.count_held(MOST_IN_FLIGHT, 0);
        assert!(remote.is_at_its_limit());
        remote.count_held(0, 1);
        assert!(!remote.is_at_its_limit());
    }
}
