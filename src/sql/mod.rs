//! The SQL surface: a file for each function, or for the functions of one view or trigger table.
//!
//! An entry point checks its arguments and calls the modules that do the work; `sqs_ingest` and `sqs_drain` have their
//! loops here, since they differ in when they commit. What is written in SQL, such as tables,
//! views, comments and grants, is in the folder `sql` beside `src`.

pub mod sqs_check;
pub mod sqs_check_user_logins;
pub mod sqs_create_user_logins;
pub mod sqs_drain;
pub mod sqs_forget;
pub mod sqs_ingest;
pub mod sqs_masks;
pub mod sqs_peek;
pub mod sqs_progress;
pub mod sqs_prune;
pub mod sqs_stat;
pub mod sqs_stat_lag;
pub mod sqs_stat_reset;
pub mod sqs_subscribe;
pub mod sqs_subscription;
pub mod sqs_vault;
