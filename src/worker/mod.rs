//! Auto-ingest, after the model of logical replication: a row of `sqs_subscription` is the wish, the launcher makes
//! it true, one background worker each for as many as it asks for.
//!
//! - [`subscription`]: the wish. Whoever changes one wakes the launcher at commit.
//! - [`board`]: shared memory in which the launcher and its workers find each other.
//! - [`launcher`]: starts what is missing, ends what is no longer wished for, prunes the ledger.
//! - [`runner`]: one worker: receives outside of transactions, writes a batch in each.

pub mod board;
mod launcher;
pub mod prune;
mod runner;
pub mod subscription;

use crate::pg::worker::{self, Registration};

/// The launcher's type in `pg_stat_activity`.
const LAUNCHER: &str = "user_logins_sqs launcher";

/// The workers' type in `pg_stat_activity`.
const WORKER: &str = "user_logins_sqs worker";

/// Seconds until a launcher that died is started anew.
const LAUNCHER_RESTARTS_AFTER: i32 = 1;

/// Asks the postmaster for shared memory and a launcher. Only while libraries are preloaded, and not under
/// pg_upgrade, which wants nothing to happen by itself.
pub fn init() {
    board::init();
    if !worker::is_binary_upgrade() {
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
