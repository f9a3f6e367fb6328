//! A subtransaction around a piece of work, as PL/pgSQL puts one around a block with EXCEPTION.

use std::panic::AssertUnwindSafe;

use pgrx::{PgTryBuilder, pg_sys};

use super::error::{Caught, Watch};

/// Runs `work` in a subtransaction of its own. When it raises an error, its effects are rolled back and the error
/// is returned; the surrounding transaction goes on.
///
/// # Errors
/// What `work` raised.
pub fn attempt<R>(work: impl FnOnce() -> R) -> Result<R, Caught> {
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
        Ok(_) => unsafe { pg_sys::ReleaseCurrentSubTransaction() },
        // SAFETY: as above; this is what Postgres offers after an error inside a subtransaction.
        Err(_) => unsafe { pg_sys::RollbackAndReleaseCurrentSubTransaction() },
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
        // SAFETY: reads of two statics of the main thread.
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
