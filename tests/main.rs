//! Tests of the extension from outside: a module for each guarantee.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod any_user_logins;
mod check;
mod check_queue;
mod clear_errors;
mod copies;
mod delete_after_commit;
mod documentation;
mod drain;
mod durability;
mod fifo;
mod foreign_tables;
mod install_and_dump;
mod large_transactions;
mod launcher;
mod ledger_retention;
mod masks;
mod monitoring;
mod never_a_second_row;
mod no_raw_pii;
mod nothing_received_in_vain;
mod one_bad_message;
mod open_files;
mod peek;
mod pg_cron;
mod prompt_cancel;
mod rights;
mod sample_rows;
mod schema_owner;
mod statistics;
mod subscriptions;
mod the_harness;
mod vault;
mod worker;
mod worker_crashes;
