//! The statistics of one queue in the current database.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use pgrx::pg_sys::Oid;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgTryBuilder};
use queue::Observer;

use super::pending::{self, Written};
use super::progress;
use super::shared::{QUEUES, QueueSlot, STATISTICS, Statistics};
use crate::errors::Failure;
use crate::pg::error::Caught;
use crate::pg::{clock, database};

/// Counts what becomes of the messages of one queue. Counts nothing where there is no shared memory for it.
#[derive(Clone, Copy)]
pub struct QueueStat(Option<&'static QueueSlot>);

/// What the worker of a queue is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// It waits for messages.
    Idle = 1,
    /// It ingests.
    Running,
    /// SQS or the database fails; it tries again after a while.
    Retrying,
    /// `user_logins` refuses everything; it waits for somebody to mend that.
    Paused,
}

impl State {
    const ALL: [State; 4] = [State::Idle, State::Running, State::Retrying, State::Paused];

    /// As `sqs_stat` shows it.
    pub fn name(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Running => "running",
            State::Retrying => "retrying",
            State::Paused => "paused",
        }
    }
}

impl QueueStat {
    /// The statistics of the queue `url`, normalised, in the current database.
    pub fn of(url: &str) -> QueueStat {
        QueueStat(STATISTICS.get().and_then(|all| {
            let database = database::current()?;
            find(all, database, url).or_else(|| claim(all, database, url))
        }))
    }

    /// So many messages were taken from the channel.
    pub fn received(&self, messages: u64) {
        add(self.0.map(|slot| &slot.received), messages);
        progress::received(messages);
    }

    /// So many messages were written in the current (sub)transaction: counted when it commits.
    pub fn written(&self, written: Written) {
        progress::inserted(written.sent_at.len() as u64);
        if let Some(slot) = self.0 {
            pending::count_at_commit(slot, written);
        }
    }

    /// A call, or a worker's batch, failed with this error.
    pub fn failed(&self, error: &str) {
        let Some(slot) = self.0 else { return };
        let now = clock::now();
        slot.errors.fetch_add(1, Relaxed);
        STATISTICS.locked(|_| {
            slot.last_error.set(error);
            slot.last_error_at.store(now, Relaxed);
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

    /// What the queue's worker is doing now; `None`: it has none.
    pub fn set_state(&self, state: Option<State>) {
        if let Some(slot) = self.0 {
            slot.state
                .store(state.map_or(0, |state| state as u8), Relaxed);
        }
    }
}

/// Called on the I/O thread, as long as the process lives: shared memory stays mapped even while it ends.
impl Observer for QueueStat {
    fn deleted(&self, messages: u64) {
        add(self.0.map(|slot| &slot.deleted), messages);
    }

    fn delete_failed(&self, messages: u64) {
        add(self.0.map(|slot| &slot.delete_failures), messages);
    }
}

fn add(counter: Option<&AtomicU64>, count: u64) {
    if let Some(counter) = counter {
        counter.fetch_add(count, Relaxed);
    }
}

fn find(all: &'static Statistics, database: Oid, url: &str) -> Option<&'static QueueSlot> {
    all.queues.iter().find(|slot| slot.is_of(database, url))
}

/// Makes a free slot that of the queue, one of a database that was dropped if there is no other.
fn claim(all: &'static Statistics, database: Oid, url: &str) -> Option<&'static QueueSlot> {
    let claimed = try_claim(database, url).or_else(|| {
        free_those_of_dropped_databases(all);
        try_claim(database, url)
    });
    if claimed.is_none() && !all.said_full.swap(true, Relaxed) {
        say_full(url);
    }
    claimed
}

fn try_claim(database: Oid, url: &str) -> Option<&'static QueueSlot> {
    let now = clock::now();
    STATISTICS.locked(|all| {
        // Another process may have been faster.
        find(all, database, url).or_else(|| {
            let free = all.queues.iter().find(|slot| slot.database().is_none())?;
            free.claim(database, url, now);
            Some(free)
        })
    })?
}

/// Nobody can still count in a database that is gone: it is not dropped before every process has left it.
fn free_those_of_dropped_databases(all: &Statistics) {
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

fn say_full(url: &str) {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        format!("no statistics are kept of queue \"{url}\""),
        "user_logins_sqs",
    )
    .set_detail(format!(
        "There is room for {QUEUES} queues in all databases together. This is logged once."
    ))
    .set_hint("A restart of the server makes room.")
    .report(PgLogLevel::LOG);
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
    pub state: Option<&'static str>,
    pub counted_since: i64,
}

/// The statistics of all queues of the current database.
///
/// # Errors
/// [`Failure::NotPreloaded`].
pub fn rows() -> Result<Vec<QueueRow>, Failure> {
    Ok(slots_here()?.map(row).collect())
}

fn row(slot: &'static QueueSlot) -> QueueRow {
    let error = STATISTICS.locked(|_| {
        let at = ever(slot.last_error_at.load(Relaxed))?;
        Some((slot.last_error.get(), at))
    });
    let (last_error, last_error_at) = error.flatten().unzip();
    let lag = slot.lag.snapshot();
    let state = slot.state.load(Relaxed);
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
        state: State::ALL
            .into_iter()
            .find(|known| *known as u8 == state)
            .map(State::name),
        counted_since: slot.counted_since.load(Relaxed),
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
    Ok(slots_here()?.map(row).collect())
}

fn ever(time: i64) -> Option<i64> {
    (time != 0).then_some(time)
}

/// Counts anew: the queue `url`, or all of the current database.
///
/// # Errors
/// [`Failure::NotPreloaded`].
pub fn reset(url: Option<&str>) -> Result<(), Failure> {
    let now = clock::now();
    let slots = slots_here()?.filter(|slot| url.is_none_or(|url| slot.url.is(url)));
    for slot in slots {
        STATISTICS.locked(|_| slot.clear(now));
    }
    Ok(())
}

fn slots_here() -> Result<impl Iterator<Item = &'static QueueSlot>, Failure> {
    let all = STATISTICS.get().ok_or(Failure::NotPreloaded)?;
    let here = database::current();
    Ok(all
        .queues
        .iter()
        .filter(move |slot| slot.database().is_some() && slot.database() == here))
}
