//! Tests that run inside a backend, each in a transaction that is rolled back: for what touches Postgres but no
//! commit. What happens at commit is tested from outside, in `tests/`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod arrays;
mod errors;
mod rows;
mod target;
