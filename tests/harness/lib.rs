//! What the black-box tests stand on: a private Postgres, LocalStack, an SQS that misbehaves on demand, bounded waits.
//!
//! Everything that a run starts and writes lives under one directory, and a [`run`] leaves nothing behind, whether it
//! ends normally, with a failed test, or by Ctrl-C or `kill -9`.
//!
//! # Layout
//! - [`run`]: the directory of this run, and the reaper that clears it away
//! - [`cluster`]: a Postgres server; [`database`]: a database with the extension, and sessions in it
//! - [`workers`]: a server on which background workers ingest by themselves
//! - [`queue`]: a queue, by the same calls for every server; [`localstack`] and [`scripted`] serve queues
//! - [`scene`]: a database and a queue, ready to ingest from
//! - [`exporter`]: what Prometheus gets to see of a server
//! - [`vault`]: key pairs, and the program that opens what was sealed
//! - [`gate`]: a way to a server that can be cut; [`tls`]: one that is encrypted
//! - [`logins`]: the messages to send; [`check_report`]: what `sqs_check` says
//! - [`document`]: what a document tells its readers to run
//! - [`wait`]: conditions that must come true, or stay true, within a bound
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness that cannot do its work fails the test"
)]

pub mod check_report;
pub mod cluster;
pub mod database;
pub mod document;
pub mod exporter;
pub mod gate;
pub mod localstack;
pub mod logins;
pub mod queue;
pub mod run;
pub mod scene;
pub mod scripted;
pub mod tls;
pub mod vault;
pub mod wait;
pub mod workers;

mod process;
