//! A subtransaction around a piece of work, as PL/pgSQL puts one around a block with EXCEPTION, and what belongs to
//! one.

use std::panic::AssertUnwindSafe;

use pgrx::{PgTryBuilder, pg_sys};

use super::error::{Caught, Watch};
use super::transaction::nest_level;

/// Runs `work` in a subtransaction of its own. When it raises an error, its effects are rolled back and the error
/// is returned; the surrounding transaction goes on.
///
/// # Errors
/// What `work` raised.
pub fn attempt<R>(work: impl FnOnce() -> R) -> Result<R, Caught> {
    attempt_to_keep(work, |_| true)
}

/// The same, but the effects of `work` are rolled back as well where `is_kept` says no to its result.
///
/// # Errors
/// What `work` raised.
pub fn attempt_to_keep<R>(
    work: impl FnOnce() -> R,
    is_kept: impl FnOnce(&R) -> bool,
) -> Result<R, Caught> {
    let surroundings = Surroundings::now();
    // SAFETY: we are inside a transaction: every caller is reached from SQL or from a worker's transaction.
    unsafe { pg_sys::BeginInternalSubTransaction(std::ptr::null()) };
    surroundings.restore_memory_context();

    let watch = Watch::start();
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| Ok(work())))
        .catch_others(Err)
        .execute();
    let last_state = watch.last();
    drop(watch);

    match &outcome {
        // SAFETY: the subtransaction begun above is the current one, since `work` ended its own.
        Ok(result) if is_kept(result) => unsafe { pg_sys::ReleaseCurrentSubTransaction() },
        // SAFETY: as above; this is what Postgres offers after an error inside a subtransaction, too.
        _ => unsafe { pg_sys::RollbackAndReleaseCurrentSubTransaction() },
    }
    surroundings.restore();
    outcome.map_err(|error| Caught::new(error, last_state))
}

/// What a subtransaction changes behind our back and does not put back.
struct Surroundings {
    memory: pg_sys::MemoryContext,
    owner: pg_sys::ResourceOwner,
}

impl Surroundings {
    fn now() -> Surroundings {
        // SAFETY: only the main thread, which runs this, writes the two; the pointers are kept, not followed.
        unsafe {
            Surroundings {
                memory: pg_sys::CurrentMemoryContext,
                owner: pg_sys::CurrentResourceOwner,
            }
        }
    }

    fn restore_memory_context(&self) {
        // SAFETY: the context is the caller's and outlives this call.
        unsafe { pg_sys::MemoryContextSwitchTo(self.memory) };
    }

    fn restore(&self) {
        self.restore_memory_context();
        // SAFETY: the owner is that of the surrounding (sub)transaction, which is the current one again.
        unsafe { pg_sys::CurrentResourceOwner = self.owner };
    }
}

/// Things that belong to the (sub)transaction in which they were pushed, in the order of pushing: they share what
/// happens to it. Its owner [listens](super::transaction::listen) to the ends of (sub)transactions.
pub struct ByLevel<T>(Vec<(i32, T)>);

impl<T> ByLevel<T> {
    /// Nothing.
    pub const fn new() -> ByLevel<T> {
        ByLevel(Vec::new())
    }

    /// Adds what belongs to the current (sub)transaction.
    pub fn push(&mut self, item: T) {
        self.0.push((nest_level(), item));
    }

    /// The one that was pushed last, if it belongs to the current (sub)transaction.
    pub fn last_of_current_level(&mut self) -> Option<&mut T> {
        let (level, item) = self.0.last_mut()?;
        (*level == nest_level()).then_some(item)
    }

    /// All of it.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, item)| item)
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes all of it, at the end of the transaction.
    pub fn take(self) -> Vec<T> {
        self.0.into_iter().map(|(_, item)| item).collect()
    }

    /// What belongs to the subtransaction at `level` belongs to the one above now.
    pub fn committed(&mut self, level: i32) {
        for (its_level, _) in self
            .0
            .iter_mut()
            .filter(|(its_level, _)| *its_level >= level)
        {
            *its_level = level - 1;
        }
    }

    /// Takes what belongs to the subtransaction at `level`, which was rolled back.
    pub fn aborted(&mut self, level: i32) -> Vec<T> {
        let rolled_back = self.0.extract_if(.., |(its_level, _)| *its_level >= level);
        rolled_back.map(|(_, item)| item).collect()
    }
}

impl<T> Default for ByLevel<T> {
    fn default() -> ByLevel<T> {
        ByLevel::new()
    }
}
