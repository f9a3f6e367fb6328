//! Safe names for the unsafe calls into Postgres: each is wrapped once, here, in a file that says why it is sound.
//!
//! Everything in this module is for the backend's main thread only, except [`temporary_file`] and
//! [`clock::now_off_main_thread`].

pub mod array;
pub mod background_worker;
pub mod backtrace;
pub mod clock;
pub mod context;
pub mod database;
pub mod datum;
pub mod error;
pub mod exit;
pub mod extension;
pub mod identity;
pub mod invalidation;
pub mod latch;
pub mod open_files;
pub mod or_raise;
pub mod policy;
pub mod procedure;
pub mod query;
pub mod quote;
pub mod random;
pub mod relation;
pub mod replication;
pub mod schema;
pub mod setting;
pub mod shared_memory;
pub mod shared_text;
pub mod sigterm;
pub mod subtransaction;
pub mod temporary_file;
pub mod transaction;
pub mod utility;
