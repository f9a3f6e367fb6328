//! Counting what becomes of the messages of one queue in the current database.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pgrx::PgTryBuilder;
use pgrx::pg_sys::Oid;
use pgrx::pg_sys::panic::ErrorReport;
use queue::{LONGEST_POLL, Observer};

use super::pending::{self, Written};
use super::progress;
use super::shared::{QueueSlot, STATISTICS, SlotRef, Statistics};
use super::slots::{allocate_free_slot, allocate_slot, find};
use crate::board::LONGEST_URL;
use crate::errors::Failure;
use crate::pg::error::Caught;
use crate::pg::{clock, database};

/// The longest that others receive singly because this process knows of a blocked group: a very long visibility
/// timeout must not slow them down for hours after the group is free.
const LONGEST_KNOWN_BLOCK: Duration = Duration::from_secs(300);

/// Counts what becomes of the messages of one queue, once there is a place for it. Counts nothing where there is no
/// shared memory. Clones count together.
#[derive(Clone)]
pub struct QueueStat(Arc<Counted>);

struct Counted {
    url: String,
    slot_ref: OnceLock<SlotRef>,
    /// This process knows of a blocked group.
    receives_singly: AtomicBool,
}

/// What the worker of a queue is doing, or why there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// It waits for messages.
    Idle = 1,
    /// It ingests.
    Running,
    /// SQS or the database fails; it tries again after a while.
    Retrying,
    /// `user_logins` refuses everything; it waits for that to be fixed.
    Paused,
    /// There is none, because it cannot be started.
    Waiting,
    /// There is none, because the subscription is disabled.
    Disabled,
    /// There is none, because the subscription was made in another installation.
    Resting,
}

impl State {
    const ALL: [State; 7] = [
        State::Idle,
        State::Running,
        State::Retrying,
        State::Paused,
        State::Waiting,
        State::Disabled,
        State::Resting,
    ];

    /// As `sqs_stat` shows it.
    pub fn name(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Running => "running",
            State::Retrying => "retrying",
            State::Paused => "paused",
            State::Waiting => "waiting",
            State::Disabled => "disabled",
            State::Resting => "resting",
        }
    }

    /// Whether it is one of a subscription without a worker, which the launcher sets.
    pub fn is_without_worker(self) -> bool {
        matches!(self, State::Waiting | State::Disabled | State::Resting)
    }

    /// As it is stored; none for 0.
    pub(super) fn stored(state: u8) -> Option<State> {
        State::ALL.into_iter().find(|known| *known as u8 == state)
    }
}

impl QueueStat {
    /// The statistics of the queue `url`, normalised, in the current database. Where there are none yet, nothing is
    /// counted before they are [begun](QueueStat::begin).
    pub fn of(url: &str) -> QueueStat {
        let stat = QueueStat(Arc::new(Counted {
            url: url.to_owned(),
            slot_ref: OnceLock::new(),
            receives_singly: AtomicBool::new(false),
        }));
        stat.hold(find);
        stat
    }

    /// Makes room for the queue, if there is none yet: not for callers who may not ingest from it.
    pub fn begin(&self) {
        self.hold(|all, database, url| {
            find(all, database, url).or_else(|| allocate_slot(database, url))
        });
    }

    /// Makes room for the queue, if there is none yet and no other queue has to make way.
    pub fn begin_if_there_is_room(&self) {
        self.hold(|_, database, url| allocate_free_slot(database, url));
    }

    fn hold(&self, find: impl FnOnce(&'static Statistics, Oid, &str) -> Option<SlotRef>) {
        // A longer URL would be cut, to that of another queue.
        if self.slot().is_some() || self.0.url.len() > LONGEST_URL {
            return;
        }
        if let (Some(all), Some(database)) = (STATISTICS.get(), database::current())
            && let Some(slot_ref) = find(all, database, &self.0.url)
        {
            // A process that has a slot already keeps it.
            let _ = self.0.slot_ref.set(slot_ref);
        }
    }

    fn slot(&self) -> Option<&'static QueueSlot> {
        self.0.slot_ref.get()?.slot()
    }

    /// The slot, used now.
    fn used(&self) -> Option<&'static QueueSlot> {
        let slot = self.slot()?;
        slot.last_used.fetch_max(clock::now(), Relaxed);
        Some(slot)
    }

    /// Counts messages taken from the channel.
    pub fn received(&self, messages: u64) {
        add(self.used().map(|slot| &slot.received), messages);
        progress::received(messages);
    }

    /// Counts messages written in the current (sub)transaction, once it commits.
    pub fn written(&self, written: Written) {
        progress::inserted(written.sent_at.len() as u64);
        if let Some(slot_ref) = self.0.slot_ref.get() {
            pending::count_at_commit(*slot_ref, written);
        }
    }

    /// A call, or a worker's batch, failed with this error.
    pub fn failed(&self, error: &str) {
        let now = clock::now();
        STATISTICS.locked(|_| {
            if let Some(slot) = self.used() {
                slot.errors.fetch_add(1, Relaxed);
                slot.last_error.set(error);
                slot.last_error_at.store(now, Relaxed);
            }
        });
    }

    /// Runs `work` and counts the error with which it fails, ours or Postgres' own.
    pub fn watch<R>(&self, work: impl FnOnce() -> Result<R, Failure>) -> Result<R, ErrorReport> {
        let outcome = PgTryBuilder::new(AssertUnwindSafe(work))
            .catch_others(|error| {
                let error = Caught::new(error, None);
                self.failed(error.message());
                error.rethrow()
            })
            .execute();
        outcome.map_err(|failure| {
            let report = ErrorReport::from(failure);
            match report.detail() {
                Some(detail) => self.failed(&format!("{}: {detail}", report.message())),
                None => self.failed(report.message()),
            }
            report
        })
    }

    /// From now on, and until `singly` is false again, this process receives one message at a time. Others that receive
    /// from the queue do so too, as long as the message is hidden that was rejected for its group, and until what they
    /// have asked for when it comes back is answered.
    pub fn receive_singly(&self, singly: bool, hidden: Duration) {
        self.0.receives_singly.store(singly, Relaxed);
        if singly && let Some(slot) = self.slot() {
            let hidden = hidden.min(LONGEST_KNOWN_BLOCK);
            let until = clock::now() + (hidden + LONGEST_POLL).as_micros() as i64;
            slot.singly_until.fetch_max(until, Relaxed);
        }
    }

    /// What the queue's worker is doing now, or why there is none.
    pub fn set_state(&self, state: Option<State>) {
        if let Some(slot) = self.slot() {
            slot.state
                .store(state.map_or(0, |state| state as u8), Relaxed);
        }
    }

    /// Records how many messages wait in the queue, as it says; `None`: it does not say.
    pub fn set_backlog(&self, messages: Option<u64>) {
        if let Some(slot) = self.slot() {
            slot.backlog.store(messages.unwrap_or(0), Relaxed);
            let at = messages.map_or(0, |_| clock::now());
            slot.backlog_at.store(at, Relaxed);
        }
    }

    /// Records why fewer workers ingest from the queue than its subscription asks for; empty: no reason.
    pub fn set_reason(&self, reason: &str) {
        if let Some(slot) = self.slot()
            && !slot.reason.is(reason)
        {
            STATISTICS.locked(|_| slot.reason.set(reason));
        }
    }
}

/// Called on the I/O thread, as long as the process lives: shared memory stays mapped even while it ends.
impl Observer for QueueStat {
    fn deleted(&self, messages: u64) {
        add(self.slot().map(|slot| &slot.deleted), messages);
    }

    fn delete_failed(&self, messages: u64) {
        add(self.slot().map(|slot| &slot.delete_failures), messages);
    }

    fn most_per_receive(&self) -> usize {
        let others_know = self
            .slot()
            .is_some_and(|slot| slot.singly_until.load(Relaxed) > clock::now_off_main_thread());
        if others_know || self.0.receives_singly.load(Relaxed) {
            1
        } else {
            usize::MAX
        }
    }
}

fn add(counter: Option<&AtomicU64>, count: u64) {
    if let Some(counter) = counter {
        counter.fetch_add(count, Relaxed);
    }
}
