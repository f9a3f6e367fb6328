//! What is going on: counts by queue and running calls, in shared memory, where they outlive the process that counted.
//!
//! [`QueueStat`] counts. What a transaction wrote it counts when that commits: [`pending`]. [`Progress`] shows a
//! call while it runs. The views `sqs_stat` and `sqs_stat_lag` read from [`counts`], `sqs_progress` from [`progress`].
//! Without `shared_preload_libraries` there is no shared memory: then nothing is counted, and only the views mind.

pub mod counts;
mod lag;
mod pending;
pub mod progress;
mod shared;

pub use counts::{QueueStat, State, forget_reasons};
pub use pending::Written;
pub use progress::Progress;

/// Asks the postmaster for the shared memory. Only while preloaded libraries are loaded.
pub fn init() {
    shared::STATISTICS.request();
}
