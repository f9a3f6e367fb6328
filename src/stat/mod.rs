//! What is going on: counts by queue and running calls, in shared memory, where they outlive the process that counted.
//!
//! [`QueueStat`] counts. What a transaction wrote it counts when that commits: [`pending`]. [`Progress`] shows a
//! call while it runs. The views `sqs_stat` and `sqs_stat_lag` read from [`rows`], `sqs_progress` from [`progress`].
//! Without `shared_preload_libraries` there is no shared memory: then nothing is counted, and only the views mind.

mod counts;
mod lag;
mod pending;
pub mod progress;
pub mod rows;
mod shared;
mod slots;

pub use counts::{QueueStat, State};
pub use pending::Written;
pub use progress::Progress;
pub use rows::forget_reasons;

/// Asks the postmaster for the shared memory. Only while preloaded libraries are loaded.
pub fn init() {
    shared::STATISTICS.request();
}
