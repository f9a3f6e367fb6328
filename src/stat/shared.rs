//! What lies in shared memory: a slot for each queue and one for each running call. All of it is atomics, so that
//! counting takes no lock; the lock is for giving slots to queues and for whole texts, such as a last error.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU8, AtomicU32, AtomicU64};

use pgrx::pg_sys::Oid;

use super::lag::Histogram;
use crate::board::LONGEST_URL;
use crate::pg::shared_memory::{Shareable, SharedMemory};
use crate::pg::shared_text::SharedText;

/// The most queues that are counted, in all databases of the server together.
pub const QUEUES: usize = 128;

/// The most calls that are shown at once.
const CALLS: usize = 256;

/// The longest text of an error, or of a reason, in bytes.
pub const LONGEST_ERROR: usize = 255;

/// The statistics of this server.
pub static STATISTICS: SharedMemory<Statistics> = SharedMemory::new(c"user_logins_sqs statistics");

/// All slots.
pub struct Statistics {
    pub queues: [QueueSlot; QUEUES],
    pub calls: [CallSlot; CALLS],
}

// SAFETY: atomics and arrays of atomics only.
unsafe impl Shareable for Statistics {}

/// What is counted of one queue in one database. Times are in microseconds since 2000-01-01 UTC; 0 is never.
pub struct QueueSlot {
    /// The OID of the database; 0 where the slot is free. Set last when it is given to a queue.
    database: AtomicU32,
    /// How many queues it was taken from.
    generation: AtomicU32,
    /// When something was counted last; never set back.
    pub last_used: AtomicI64,
    pub url: SharedText<LONGEST_URL>,
    pub received: AtomicU64,
    pub inserted: AtomicU64,
    pub duplicates: AtomicU64,
    pub rejected: AtomicU64,
    pub deleted: AtomicU64,
    pub delete_failures: AtomicU64,
    pub errors: AtomicU64,
    /// To be read and written under the lock.
    pub last_error: SharedText<LONGEST_ERROR>,
    /// To be read and written under the lock.
    pub last_error_at: AtomicI64,
    pub last_commit: AtomicI64,
    pub lag: Histogram,
    pub state: AtomicU8,
    /// To be read and written under the lock.
    pub reason: SharedText<LONGEST_ERROR>,
    /// Until then one message at a time is received: a group of a FIFO queue is blocked.
    pub singly_until: AtomicI64,
    pub counted_since: AtomicI64,
    /// Messages that wait in the queue, as it said at `backlog_at`.
    pub backlog: AtomicU64,
    /// When the queue was asked; 0 where it has not been, or may not be.
    pub backlog_at: AtomicI64,
}

impl QueueSlot {
    /// The database it belongs to, if it is not free.
    pub fn database(&self) -> Option<Oid> {
        match self.database.load(Acquire) {
            0 => None,
            oid => Some(Oid::from(oid)),
        }
    }

    /// Whether it is that of the queue `url` in `database`.
    pub fn is_of(&self, database: Oid, url: &str) -> bool {
        self.database() == Some(database) && self.url.is(url)
    }

    /// Makes a free slot that of a queue. Under the lock.
    pub fn give_to(&self, database: Oid, url: &str, now: i64) {
        self.url.set(url);
        self.state.store(0, Relaxed);
        self.reason.set("");
        self.singly_until.store(0, Relaxed);
        self.backlog_at.store(0, Relaxed);
        self.last_used.store(now, Relaxed);
        self.clear(now);
        self.database.store(database.to_u32(), Release);
    }

    /// Frees it. Under the lock.
    pub fn free(&self) {
        // In this order, so that a process that sees the new generation does not take the slot for the old queue's.
        self.database.store(0, Release);
        self.generation.fetch_add(1, Release);
    }

    /// Resets the counts. Under the lock.
    pub fn clear(&self, now: i64) {
        for count in [
            &self.received,
            &self.inserted,
            &self.duplicates,
            &self.rejected,
            &self.deleted,
            &self.delete_failures,
            &self.errors,
        ] {
            count.store(0, Relaxed);
        }
        self.last_error.set("");
        self.last_error_at.store(0, Relaxed);
        self.last_commit.store(0, Relaxed);
        self.lag.clear();
        self.counted_since.store(now, Relaxed);
    }
}

/// The slot of one queue, for as long as it is that queue's: it is taken from queues that nobody uses, and what is
/// still to be counted of such a queue (a delete on its way, a transaction that has not committed) must not be
/// counted for the next one.
#[derive(Clone, Copy)]
pub struct SlotRef {
    slot: &'static QueueSlot,
    generation: u32,
}

impl SlotRef {
    /// A reference to `slot`, if it is that of a queue of `database`.
    pub fn of(slot: &'static QueueSlot, database: Oid) -> Option<SlotRef> {
        // The generation first: if the slot changes hands meanwhile, the reference has lapsed already.
        let generation = slot.generation.load(Acquire);
        (slot.database() == Some(database)).then_some(SlotRef { slot, generation })
    }

    /// Whether it is that of the queue `url`.
    pub fn is_of(&self, url: &str) -> bool {
        self.slot().is_some_and(|slot| slot.url.is(url))
    }

    /// The slot, unless it was taken from the queue.
    pub fn slot(&self) -> Option<&'static QueueSlot> {
        (self.slot.generation.load(Acquire) == self.generation).then_some(self.slot)
    }

    /// What `read` finds in the slot, unless that was taken from the queue meanwhile.
    pub fn read<R>(&self, read: impl FnOnce(&'static QueueSlot) -> R) -> Option<R> {
        let found = read(self.slot()?);
        self.slot().map(|_| found)
    }
}

/// One running call.
pub struct CallSlot {
    /// The process; 0 where the slot is free.
    pid: AtomicI32,
    /// When it began; 0 while the slot is being filled. Set last.
    started: AtomicI64,
    pub database: AtomicU32,
    pub url: SharedText<LONGEST_URL>,
    /// How many messages it wants; 0 for all there are.
    pub target: AtomicU64,
    pub received: AtomicU64,
    pub inserted: AtomicU64,
}

impl CallSlot {
    /// Takes the slot, if it is free.
    pub fn try_take(&self, pid: i32) -> bool {
        self.pid.compare_exchange(0, pid, Acquire, Relaxed).is_ok()
    }

    /// Shows a slot that was taken and filled.
    pub fn show(&self, now: i64) {
        self.started.store(now, Release);
    }

    /// When its call began, if it is shown.
    pub fn started(&self) -> Option<i64> {
        Some(self.started.load(Acquire)).filter(|started| *started != 0)
    }

    /// The process whose call it is.
    pub fn pid(&self) -> i32 {
        self.pid.load(Relaxed)
    }

    /// Gives the slot back.
    pub fn free(&self) {
        self.started.store(0, Release);
        self.pid.store(0, Release);
    }
}
