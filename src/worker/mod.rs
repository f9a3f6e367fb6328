//! Auto-ingest, after the model of logical replication: a row of `sqs_subscription` states the goal, and the
//! launcher keeps the number of background workers running that the row asks for.
//!
//! - [`subscription`]: the rows, and why one of them can have no workers. A change wakes the launcher at
//!   commit.
//! - [`launcher`]: starts missing workers, stops surplus ones, prunes the ledger, asks queues for their
//!   backlogs.
//! - [`runner`]: one worker: receives outside of transactions, writes a batch in each.
//!
//! Launcher and workers find each other on the [board](crate::board).

mod backlog;
mod launcher;
mod pace;
mod pruning;
mod runner;
mod shares;
pub mod subscription;

use crate::board;
use crate::pg::background_worker::{self, Registration};

/// The launcher's type in `pg_stat_activity`.
const LAUNCHER: &str = "user_logins_sqs launcher";

/// The workers' type in `pg_stat_activity`.
const WORKER: &str = "user_logins_sqs worker";

/// Seconds until a launcher that ended is restarted.
const LAUNCHER_RESTARTS_AFTER: i32 = 1;

/// Asks the postmaster for shared memory and a launcher. Only while libraries are preloaded, and not under
/// pg_upgrade, which expects nothing else to run.
pub fn init() {
    board::init();
    if !background_worker::is_binary_upgrade() {
        Registration {
            name: LAUNCHER,
            kind: LAUNCHER,
            function: c"sqs_launcher_main",
            argument: 0,
            restart_seconds: Some(LAUNCHER_RESTARTS_AFTER),
        }
        .at_server_start();
    }
}
