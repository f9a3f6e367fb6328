//! What the crate does, seen from outside, against an SQS of the test's own that can be made to fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod abandon;
mod configuration;
mod examine;
mod extend_visibility;
mod faults;
mod reader;
mod receive;
mod server;
mod settle;
mod shut_down;
mod thread;
