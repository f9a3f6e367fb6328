//! Ingest login messages from Amazon SQS into Postgres.
//!
//! # Vocabulary
//!
//! - *message*: as SQS has it, body and attributes.
//! - *login*: the decoded body of a message. Holds raw `ip` and `device_id` and never leaves the I/O thread.
//! - *masked login*: a login ready to insert, and all that the backend thread gets to see of one.
//! - *rejection*: a message that cannot become a row, and why.
//! - *receipt handle*: the right to delete a message; a *receipt* stands for one that the I/O thread keeps.
//! - *batch*: the messages of one transaction; a *chunk* is the part of it that one pair of statements writes.
//! - *vault*: the originals of masked values, sealed with public keys on the I/O thread; see [`vault`].
//! - *ledger*: the ids of the messages that have become rows, so that none becomes a second one.
//! - *subscription*: a row that asks for a queue to be ingested automatically; a *worker* is a process that does so,
//!   the *launcher* the one that starts workers.
//! - *visibility timeout*: how long SQS hides a received message from other consumers.
//!
//! # The way of a message
//!
//! ```text
//! queue URL ─► receive ─► decode ─► mask ─► insert ─► commit ─► delete
//!              └─────── I/O thread ───────┘ └─ backend thread ┘ └ I/O thread
//!               raw ip and device_id live and die here
//! ```
//!
//! The crate `queue` receives and deletes, the crate `login` decodes and masks; neither knows of Postgres. This
//! crate puts them together.
//!
//! # Layout
//!
//! SQL surface:
//! - [`sql`]: the functions that users call, a file each.
//! - [`argument`]: range checks of their arguments.
//! - [`notice`]: what a call reports beside its result.
//! - [`check`]: what `sqs_check` looks at, a file a subject.
//!
//! Pipeline:
//! - [`io_thread`]: starts and ends the thread that talks to SQS.
//! - [`ingest`]: what every way to ingest shares: intake, writer, ledger, rejections, receipts.
//! - [`vault`]: stores sealed originals, by mask.
//! - [`mask_keys`]: the keys that masks are made with.
//!
//! Background:
//! - [`worker`]: the launcher, its workers, and subscriptions.
//! - [`board`]: the shared memory in which launcher and workers find each other.
//! - [`report`]: what background processes write to the server's log.
//! - [`stat`]: counts and running calls, in shared memory.
//!
//! Postgres:
//! - [`pg`]: safe names for the unsafe calls into Postgres.
//! - [`own_tables`]: the extension's own tables, and the one way to write them.
//! - [`installation`]: tells this installation from a copy of its data.
//!
//! Support:
//! - [`errors`]: every failure, with its SQLSTATE, message, DETAIL and HINT.
//! - [`settings`]: every setting, with its text for users.
//! - `in_database`: tests that run inside a backend.

mod argument;
mod check;
mod notice;
mod sql;

mod ingest;
mod io_thread;
mod mask_keys;
mod vault;

mod board;
mod report;
mod stat;
mod worker;

mod installation;
mod own_tables;
mod pg;

mod errors;
#[cfg(any(test, feature = "pg_test"))]
mod in_database;
mod settings;

use pgrx::pg_guard;

pgrx::pg_module_magic!(name, version);

pgrx::extension_sql_file!("../sql/tables.sql", name = "tables", bootstrap);
pgrx::extension_sql_file!(
    "../sql/subscription.sql",
    name = "subscription",
    requires = [
        "tables",
        sql::sqs_subscription::sqs_subscription_stamp,
        sql::sqs_subscription::sqs_subscription_check_role,
        sql::sqs_subscription::sqs_subscription_changed
    ]
);
pgrx::extension_sql_file!(
    "../sql/vault.sql",
    name = "vault",
    requires = ["tables", sql::sqs_vault::sqs_vault_deleted]
);
pgrx::extension_sql_file!(
    "../sql/stat.sql",
    name = "stat",
    requires = [
        sql::sqs_stat::sqs_stat_get_queues,
        sql::sqs_stat_lag::sqs_stat_get_lags,
        sql::sqs_progress::sqs_stat_get_calls,
        sql::sqs_stat_reset::sqs_stat_reset,
        sql::sqs_stat_reset::sqs_stat_reset_queue
    ]
);
pgrx::extension_sql_file!("../sql/grants.sql", name = "grants", finalize);

/// Called by Postgres when the library is loaded, which under `shared_preload_libraries` is in the postmaster:
/// nothing here starts a thread or a runtime.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    pg::backtrace::switch_off();
    settings::init();
    if pg::background_worker::is_being_preloaded() {
        stat::init();
        worker::init();
    }
}

/// The hooks that `cargo pgrx test` requires.
#[cfg(test)]
pub mod pg_test {
    /// Called once before the tests.
    pub fn setup(_options: Vec<&str>) {}

    /// Lines for the test server's configuration.
    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec![]
    }
}
