//! What the benchmarks are made of: a queue server in memory that is faster than any of its clients, the logins that it
//! hands out, and what the clients without Postgres share. The drivers that measure are in `suite/`, the programs in
//! `src/bin/`.

pub mod client;
pub mod clock;
pub mod logins;
pub mod server;
