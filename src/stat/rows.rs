//! What the views `sqs_stat` and `sqs_stat_lag` show, and resetting it.

use std::sync::atomic::Ordering::Relaxed;

use super::counts::State;
use super::shared::{QueueSlot, STATISTICS, SlotRef};
use crate::errors::Failure;
use crate::pg::{clock, database};

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
pub fn queues() -> Result<Vec<QueueRow>, Failure> {
    Ok(slots_here()?
        .filter_map(|slot_ref| slot_ref.read(row))
        .collect())
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
    let Ok(slots) = slots_here() else { return };
    for slot in slots.filter_map(|slot_ref| slot_ref.slot()) {
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
    Ok(slots_here()?
        .filter_map(|slot_ref| slot_ref.read(row))
        .collect())
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
    let slots = slots_here()?.filter(|slot_ref| url.is_none_or(|url| slot_ref.is_of(url)));
    // Under the lock no slot changes hands.
    STATISTICS.locked(|_| {
        slots
            .filter_map(|slot_ref| slot_ref.slot())
            .for_each(|slot| slot.clear(now));
    });
    Ok(())
}

fn slots_here() -> Result<impl Iterator<Item = SlotRef>, Failure> {
    let all = STATISTICS.get().ok_or(Failure::NotPreloaded)?;
    let here = database::current();
    let slots = all.queues.iter();
    Ok(slots.filter_map(move |slot| SlotRef::of(slot, here?)))
}
