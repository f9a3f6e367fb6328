//! The extension from outside: a file a guarantee.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod any_user_logins;
mod clear_errors;
mod delete_after_commit;
mod drain;
mod durability;
mod fifo;
mod install_and_dump;
mod large_transactions;
mod monitoring;
mod never_a_second_row;
mod no_raw_pii;
mod nothing_received_in_vain;
mod one_bad_message;
mod pg_cron;
mod prompt_cancel;
mod rights;
mod sample_rows;
mod statistics;
mod subscriptions;
mod the_harness;
mod vault;
mod worker;
mod worker_crashes;
