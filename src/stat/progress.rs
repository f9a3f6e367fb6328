//! The calls that are running: a row of `sqs_progress` each, until they end in whatever way.

use std::cell::RefCell;
use std::sync::atomic::Ordering::Relaxed;

use super::shared::{CallSlot, STATISTICS};
use crate::errors::Failure;
use crate::pg::exit::{self, Finish};
use crate::pg::{clock, database};

thread_local! {
    /// The running calls of this process, the innermost last: a trigger on `user_logins` may ingest too.
    static RUNNING: RefCell<Vec<&'static CallSlot>> = const { RefCell::new(Vec::new()) };
}

/// A running call, for as long as this lives.
pub struct Progress(Option<&'static CallSlot>);

impl Progress {
    /// Shows a call that wants up to `target` messages of the queue `url`, or all there are. Where all places for
    /// calls are taken it is not shown.
    pub fn begin(url: &str, target: Option<u64>) -> Progress {
        let slot = take_slot();
        if let Some((slot, database)) = slot {
            exit::before_shared_memory_is_left(&END_CALLS);
            slot.database.store(database.to_u32(), Relaxed);
            slot.url.set(url);
            slot.target.store(target.unwrap_or(0), Relaxed);
            slot.received.store(0, Relaxed);
            slot.inserted.store(0, Relaxed);
            slot.show(clock::now());
            RUNNING.with_borrow_mut(|running| running.push(slot));
        }
        Progress(slot.map(|(slot, _)| slot))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(slot) = self.0 {
            RUNNING.with_borrow_mut(|running| running.retain(|other| !std::ptr::eq(*other, slot)));
            slot.free();
        }
    }
}

fn take_slot() -> Option<(&'static CallSlot, pgrx::pg_sys::Oid)> {
    let calls = &STATISTICS.get()?.calls;
    let database = database::current()?;
    let pid = std::process::id().cast_signed();
    let slot = calls.iter().find(|slot| slot.try_take(pid))?;
    Some((slot, database))
}

/// A process that is terminated does not unwind its stack.
static END_CALLS: Finish = Finish(|| RUNNING.take().into_iter().for_each(CallSlot::free));

/// Counts messages that the innermost call of this process took from the channel.
pub fn received(messages: u64) {
    if let Some(slot) = innermost() {
        slot.received.fetch_add(messages, Relaxed);
    }
}

/// Counts rows that the innermost call of this process inserted.
pub fn inserted(rows: u64) {
    if let Some(slot) = innermost() {
        slot.inserted.fetch_add(rows, Relaxed);
    }
}

fn innermost() -> Option<&'static CallSlot> {
    RUNNING.with_borrow(|running| running.last().copied())
}

/// One row of `sqs_progress`.
pub struct CallRow {
    pub pid: i32,
    pub queue_url: String,
    /// `None`: no limit.
    pub target: Option<u64>,
    pub received: u64,
    pub inserted: u64,
    /// Microseconds since 2000-01-01 UTC.
    pub started: i64,
}

/// The running calls of the current database.
///
/// # Errors
/// [`Failure::NotPreloaded`].
pub fn rows() -> Result<Vec<CallRow>, Failure> {
    let calls = &STATISTICS.get().ok_or(Failure::NotPreloaded)?.calls;
    let here = database::current().map(|database| database.to_u32());
    Ok(calls
        .iter()
        .filter_map(row)
        .filter(|(_, database)| Some(*database) == here)
        .map(|(row, _)| row)
        .collect())
}

/// The call in a slot and its database, if there was the same one before and after it was read.
fn row(slot: &CallSlot) -> Option<(CallRow, u32)> {
    let started = slot.started()?;
    let database = slot.database.load(Relaxed);
    let row = CallRow {
        pid: slot.pid(),
        queue_url: slot.url.get(),
        target: Some(slot.target.load(Relaxed)).filter(|target| *target > 0),
        received: slot.received.load(Relaxed),
        inserted: slot.inserted.load(Relaxed),
        started,
    };
    (slot.started() == Some(started)).then_some((row, database))
}
