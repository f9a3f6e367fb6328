//! Ingest login messages from Amazon SQS into Postgres.
//!
//! # Vocabulary
//!
//! - *message*: as SQS has it, body and attributes.
//! - *login*: what the body of a message says, decoded. Holds raw `ip` and `device_id` and never leaves the I/O thread.
//! - *masked login*: a row to be. The only thing that the backend thread gets to see.
//! - *rejection*: a message that cannot become a row, and why.
//! - *receipt handle*: the right to delete a message; a *receipt* stands for one that the I/O thread keeps.
//! - *batch*: the messages of one transaction; a *chunk* is the part of it that one pair of statements writes.
//! - *vault*: the originals of masked values, sealed with public keys on the I/O thread; see [`vault`].
//! - *ledger*: the ids of the messages that have become rows, so that none does twice.
//! - *subscription*: the wish that a queue be ingested from by itself; a *worker* is a process that does it, the
//!   *launcher* the one that starts workers.
//! - *visibility timeout*: how long SQS hides a message that somebody received.
//!
//! # The way of a message
//!
//! ```text
//! queue URL ─► receive ─► decode ─► mask ─► insert ─► commit ─► delete
//!              └──── I/O thread: raw PII lives and dies here ──┘ └─ backend thread ─┘  └ I/O thread ┘
//! ```
//!
//! The crate `queue` receives and deletes, the crate `login` decodes and masks; neither knows of Postgres. This
//! crate puts them together and owns the middle: [`ingest`]. Unsafe calls into Postgres have safe names in [`pg`].

mod argument;
mod board;
mod check;
mod errors;
#[cfg(any(test, feature = "pg_test"))]
mod in_database;
mod ingest;
mod installation;
mod io_thread;
mod mask_keys;
mod notice;
mod own_tables;
mod pg;
mod report;
mod settings;
mod sqs_check;
mod sqs_check_user_logins;
mod sqs_create_user_logins;
mod sqs_drain;
mod sqs_forget;
mod sqs_ingest;
mod sqs_masks;
mod sqs_peek;
mod sqs_progress;
mod sqs_prune;
mod sqs_stat;
mod sqs_stat_lag;
mod sqs_stat_reset;
mod sqs_subscribe;
mod sqs_subscription;
mod sqs_vault;
mod stat;
mod vault;
mod worker;

use pgrx::pg_guard;

pgrx::pg_module_magic!(name, version);

pgrx::extension_sql_file!("../sql/tables.sql", name = "tables", bootstrap);
pgrx::extension_sql_file!(
    "../sql/subscription.sql",
    name = "subscription",
    requires = [
        "tables",
        sqs_subscription::sqs_subscription_stamp,
        sqs_subscription::sqs_subscription_check_role,
        sqs_subscription::sqs_subscription_changed
    ]
);
pgrx::extension_sql_file!(
    "../sql/vault.sql",
    name = "vault",
    requires = ["tables", sqs_vault::sqs_vault_deleted]
);
pgrx::extension_sql_file!(
    "../sql/stat.sql",
    name = "stat",
    requires = [
        sqs_stat::sqs_stat_get_queues,
        sqs_stat_lag::sqs_stat_get_lags,
        sqs_progress::sqs_stat_get_calls,
        sqs_stat_reset::sqs_stat_reset,
        sqs_stat_reset::sqs_stat_reset_queue
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

/// What `cargo pgrx test` asks for.
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
