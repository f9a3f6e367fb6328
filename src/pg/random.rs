//! Random numbers that nothing secret depends on.

use pgrx::pg_sys;

/// A number from 0 to 1.
pub fn fraction() -> f64 {
    // SAFETY: the state is a static of this process, seeded when the process started, and used by its main thread only.
    unsafe { pg_sys::pg_prng_double(&raw mut pg_sys::pg_global_prng_state) }
}
