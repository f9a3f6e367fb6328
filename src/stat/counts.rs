//! The statistics of one queue in the current database.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pgrx::PgTryBuilder;
use pgrx::pg_sys::Oid;
use pgrx::pg_sys::panic::ErrorReport;
use queue::Observer;

use super::pending::{self, Written};
use super::progress;
use super::shared::{Claim, LONGEST_URL, QueueSlot, STATISTICS, Statistics};
use crate::board::{self, Assignment};
use crate::errors::Failure;
use crate::pg::error::Caught;
use crate::pg::{clock, database};

/// The longest that others receive singly because this process knows of a blocked group: a very long visibility
/// timeout must not slow them down for hours after the group is free.
const LONGEST_KNOWN_BLOCK: Duration = Duration::from_secs(300);

/// SQS' longest poll.
const LONGEST_POLL: Duration = Duration::from_secs(20);

/// Counts what becomes of the messages of one queue, once there is a place for it. Counts nothing where there is no
/// shared memory. Clones count together.
#[derive(Clone)]
pub struct QueueStat(Arc<Counted>);

struct Counted {
    url: String,
    claim: OnceLock<Claim>,
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

    fn stored(state: u8) -> Option<State> {
        State::ALL.into_iter().find(|known| *known as u8 == state)
    }
}

impl QueueStat {
    /// The statistics of the queue `url`, normalised, in the current database. Where there are none yet, nothing is
    /// counted before they are [begun](QueueStat::begin).
    pub fn of(url: &str) -> QueueStat {
        let stat = QueueStat(Arc::new(Counted {
            url: url.to_owned(),
            claim: OnceLock::new(),
            receives_singly: AtomicBool::new(false),
        }));
        stat.hold(find);
        stat
    }

    /// Makes room for the queue, if there is none yet: not for callers who may not ingest from it.
    pub fn begin(&self) {
        self.hold(|all, database, url| find(all, database, url).or_else(|| claim(database, url)));
    }

    /// Makes room for the queue, if there is none yet and no other queue has to make way.
    pub fn begin_if_there_is_room(&self) {
        self.hold(|_, database, url| claim_free_slot(database, url));
    }

    fn hold(&self, find: impl FnOnce(&'static Statistics, Oid, &str) -> Option<Claim>) {
        // A longer URL would be cut, to that of another queue.
        if self.slot().is_some() || self.0.url.len() > LONGEST_URL {
            return;
        }
        if let (Some(all), Some(database)) = (STATISTICS.get(), database::current())
            && let Some(claim) = find(all, database, &self.0.url)
        {
            // A process that has the claim already keeps it.
            let _ = self.0.claim.set(claim);
        }
    }

    fn slot(&self) -> Option<&'static QueueSlot> {
        self.0.claim.get()?.slot()
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
        if let Some(claim) = self.0.claim.get() {
            pending::count_at_commit(*claim, written);
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

fn find(all: &'static Statistics, database: Oid, url: &str) -> Option<Claim> {
    all.queues
        .iter()
        .filter_map(|slot| Claim::of(slot, database))
        .find(|claim| claim.is_of(url))
}

/// Gives the queue a free slot; if there is none, one of a database that was dropped, else the one that was
/// unused for longest and has no worker.
fn claim(database: Oid, url: &str) -> Option<Claim> {
    claim_free_slot(database, url).or_else(|| {
        let at_work = board::assignments();
        claim_slot(database, url, |all| unused_for_longest(all, &at_work))
    })
}

fn claim_free_slot(database: Oid, url: &str) -> Option<Claim> {
    claim_slot(database, url, free).or_else(|| {
        free_those_of_dropped_databases();
        claim_slot(database, url, free)
    })
}

/// Gives the queue the slot that `choose` finds.
fn claim_slot(
    database: Oid,
    url: &str,
    choose: impl FnOnce(&'static Statistics) -> Option<&'static QueueSlot>,
) -> Option<Claim> {
    let now = clock::now();
    STATISTICS.locked(|all| {
        // Another process may have been faster.
        find(all, database, url).or_else(|| {
            let slot = choose(all)?;
            slot.free();
            slot.give_to(database, url, now);
            Claim::of(slot, database)
        })
    })?
}

fn free(all: &'static Statistics) -> Option<&'static QueueSlot> {
    all.queues.iter().find(|slot| slot.database().is_none())
}

/// There are fewer workers than slots, so there is one.
fn unused_for_longest(
    all: &'static Statistics,
    at_work: &[Assignment],
) -> Option<&'static QueueSlot> {
    let has_worker = |slot: &QueueSlot| {
        at_work
            .iter()
            .any(|assignment| slot.is_of(assignment.database, &assignment.queue_url))
    };
    all.queues
        .iter()
        .filter(|slot| !has_worker(slot))
        .min_by_key(|slot| slot.last_used.load(Relaxed))
}

/// Nobody can still count in a database that is gone: it is not dropped before every process has left it.
fn free_those_of_dropped_databases() {
    let Some(all) = STATISTICS.get() else { return };
    let dropped: HashSet<Oid> = all
        .queues
        .iter()
        .filter_map(QueueSlot::database)
        .filter(|&oid| database::exists(oid) == Some(false))
        .collect();
    STATISTICS.locked(|all| {
        for slot in &all.queues {
            if slot.database().is_some_and(|oid| dropped.contains(&oid)) {
                slot.free();
            }
        }
    });
}

/// One row of `sqs_stat`. Times are in microseconds since 2000-01-01 UTC, lags in milliseconds.
pub struct QueueRow {
    pub queue_url: String,
    pub received: u64,
    pub inserted: u64,
    pub duplicates: u64,
    pub rejected: u64,
    pub deleted: u64,
    pub delete_failures: u64,
    pub errors: u64,
    pub last_error: Option<String>,
    pub last_error_at: Option<i64>,
    pub last_commit: Option<i64>,
    pub lag_p50: Option<u64>,
    pub lag_p99: Option<u64>,
    pub state: Option<State>,
    pub reason: Option<String>,
    pub backlog: Option<u64>,
    pub backlog_at: Option<i64>,
    pub counted_since: i64,
}

/// The statistics of all queues of the current database.
///
/// # Errors
/// [`Failure::NotPreloaded`].
pub fn rows() -> Result<Vec<QueueRow>, Failure> {
    Ok(claims_here()?.filter_map(|claim| claim.read(row)).collect())
}

fn row(slot: &'static QueueSlot) -> QueueRow {
    let texts = STATISTICS.locked(|_| {
        let error = ever(slot.last_error_at.load(Relaxed)).map(|at| (slot.last_error.get(), at));
        (error, slot.reason.get())
    });
    let (error, reason) = texts.unwrap_or_default();
    let (last_error, last_error_at) = error.unzip();
    let lag = slot.lag.snapshot();
    let backlog_at = ever(slot.backlog_at.load(Relaxed));
    QueueRow {
        queue_url: slot.url.get(),
        received: slot.received.load(Relaxed),
        inserted: slot.inserted.load(Relaxed),
        duplicates: slot.duplicates.load(Relaxed),
        rejected: slot.rejected.load(Relaxed),
        deleted: slot.deleted.load(Relaxed),
        delete_failures: slot.delete_failures.load(Relaxed),
        errors: slot.errors.load(Relaxed),
        last_error,
        last_error_at,
        last_commit: ever(slot.last_commit.load(Relaxed)),
        lag_p50: lag.percentile(50),
        lag_p99: lag.percentile(99),
        state: State::stored(slot.state.load(Relaxed)),
        reason: Some(reason).filter(|reason| !reason.is_empty()),
        backlog: backlog_at.map(|_| slot.backlog.load(Relaxed)),
        backlog_at,
        counted_since: slot.counted_since.load(Relaxed),
    }
}

/// Takes back what the launcher said of queues of the current database that `is_subscribed` does not know.
pub fn forget_reasons(is_subscribed: impl Fn(&str) -> bool) {
    let Ok(claims) = claims_here() else { return };
    for slot in claims.filter_map(|claim| claim.slot()) {
        let state = State::stored(slot.state.load(Relaxed));
        let is_told_of = state.is_some_and(State::is_without_worker) || !slot.reason.is("");
        if is_told_of && !is_subscribed(&slot.url.get()) {
            slot.state.store(0, Relaxed);
            STATISTICS.locked(|_| slot.reason.set(""));
        }
    }
}

/// The lags of the messages of one queue. See [`Snapshot`](super::lag::Snapshot).
pub struct LagRow {
    pub queue_url: String,
    pub cumulative: Vec<(Option<u64>, u64)>,
    pub sum: u64,
}

/// The lags of all queues of the current database.
///
/// # Errors
/// [`Failure::NotPreloaded`].
pub fn lags() -> Result<Vec<LagRow>, Failure> {
    let row = |slot: &'static QueueSlot| {
        let lag = slot.lag.snapshot();
        LagRow {
            queue_url: slot.url.get(),
            cumulative: lag.cumulative().collect(),
            sum: lag.sum(),
        }
    };
    Ok(claims_here()?.filter_map(|claim| claim.read(row)).collect())
}

fn ever(time: i64) -> Option<i64> {
    (time != 0).then_some(time)
}

/// Resets the counts of the queue `url`, or of all queues of the current database.
///
/// # Errors
/// [`Failure::NotPreloaded`].
pub fn reset(url: Option<&str>) -> Result<(), Failure> {
    let now = clock::now();
    let claims = claims_here()?.filter(|claim| url.is_none_or(|url| claim.is_of(url)));
    // Under the lock no slot changes hands.
    STATISTICS.locked(|_| {
        claims
            .filter_map(|claim| claim.slot())
            .for_each(|slot| slot.clear(now));
    });
    Ok(())
}

fn claims_here() -> Result<impl Iterator<Item = Claim>, Failure> {
    let all = STATISTICS.get().ok_or(Failure::NotPreloaded)?;
    let here = database::current();
    let slots = all.queues.iter();
    Ok(slots.filter_map(move |slot| Claim::of(slot, here?)))
}
