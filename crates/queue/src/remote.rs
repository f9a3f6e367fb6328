//! A queue as the I/O thread calls it: through which client, and what is waiting to be settled there.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use crate::client::Client;
use crate::queue::Queue;
use crate::receipts::Receipt;

/// DeleteMessageBatch calls in flight: a hundred thousand messages may wait for them when a transaction ends.
const DELETES_AT_ONCE: usize = 64;
/// A FIFO queue takes 300 calls a second (SQS developer guide, "Quotas").
const DELETES_AT_ONCE_FIFO: usize = 16;
/// ChangeMessageVisibilityBatch calls in flight that release messages, or that leave them.
const RELEASES_AT_ONCE: usize = 32;

pub(crate) struct Remote {
    pub queue: Queue,
    pub client: Rc<Client>,
    pub deletes: Lane,
    pub releases: Lane,
    pub leaves: Lane,
}

/// Messages waiting for the same fate.
pub(crate) struct Lane {
    pub pending: RefCell<VecDeque<Receipt>>,
    pub calls: Cell<usize>,
    pub calls_at_once: usize,
    /// When SQS last confirmed something, or when there was last nothing to confirm.
    pub last_progress: Cell<Instant>,
}

impl Remote {
    pub(crate) fn new(queue: Queue, client: Rc<Client>) -> Remote {
        // One call at a time releases the messages of a group in their order.
        let (deletes_at_once, releases_at_once) = if queue.url().is_fifo() {
            (DELETES_AT_ONCE_FIFO, 1)
        } else {
            (DELETES_AT_ONCE, RELEASES_AT_ONCE)
        };
        Remote {
            queue,
            client,
            deletes: Lane::of(deletes_at_once),
            releases: Lane::of(releases_at_once),
            leaves: Lane::of(RELEASES_AT_ONCE),
        }
    }
}

/// The thread ends in the middle of its work: what is still waiting was not deleted.
impl Drop for Remote {
    fn drop(&mut self) {
        let undone = self.deletes.pending.borrow().len();
        if undone > 0 {
            self.queue.observer().delete_failed(undone as u64);
        }
    }
}

impl Lane {
    fn of(calls_at_once: usize) -> Lane {
        Lane {
            pending: RefCell::default(),
            calls: Cell::new(0),
            calls_at_once,
            last_progress: Cell::new(Instant::now()),
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.calls.get() == 0 && self.pending.borrow().is_empty()
    }
}
