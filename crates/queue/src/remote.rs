//! A queue as the I/O thread calls it: through which client, and what is waiting to be settled there.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use crate::client::Client;
use crate::observed::Queue;
use crate::receipts::Receipt;
use crate::window::Window;

/// The most calls of a kind in flight. How many there really are depends on whether more calls bring more, and on
/// [`Calls`](crate::calls::Calls).
const MOST_CALLS: usize = 512;
/// A FIFO queue takes 300 calls a second (SQS developer guide, "Quotas").
const MOST_CALLS_FIFO: usize = 16;
/// The number of calls to begin with: enough for one transaction of a usual size.
const FIRST_CALLS: usize = 16;

/// Most messages that a queue lets be in flight (SQS developer guide, "Quotas").
pub const MOST_IN_FLIGHT: usize = 120_000;

/// There is one for each queue, however many receive from it, so that what they settle shares calls.
pub(crate) struct Remote {
    pub url: String,
    pub is_fifo: bool,
    pub client: Rc<Client>,
    pub deletes: Lane,
    pub releases: Lane,
    pub leaves: Lane,
    held: Cell<usize>,
}

/// Messages waiting for the same fate.
pub(crate) struct Lane {
    pub pending: RefCell<VecDeque<Receipt>>,
    pub calls: Cell<usize>,
    pub window: RefCell<Window>,
    pub is_about_to_call: Cell<bool>,
    /// When SQS last confirmed something, or when there was last nothing to confirm.
    pub last_progress: Cell<Instant>,
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
        }
    }

    /// Whether it is `queue`.
    pub(crate) fn is(&self, queue: &Queue) -> bool {
        self.url == queue.url().as_str() && self.client.endpoint() == queue.endpoint()
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
        }
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
