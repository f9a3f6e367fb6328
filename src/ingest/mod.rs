//! The one loop behind every way to ingest: channel → ledger → `user_logins` → commit → delete.
//!
//! [`Intake`] is the end of the channel that the backend holds; it outlives transactions. [`Writer`] turns messages
//! into rows inside the current transaction. [`receipts`] sees to it that only what commits is deleted.

mod groups;
mod intake;
pub mod ledger;
mod message;
mod reader;
mod receipts;
mod rejection;
pub mod rejections;
pub mod source;
mod statements;
pub mod target;
mod trial;
mod writer;

pub use intake::Intake;
pub use message::Taken;
pub use receipts::AtAbort;
pub use source::Source;
pub use target::Target;
pub use writer::{Memory, Tally, Writer};

/// Messages in a chunk: inserting is fastest around a thousand rows a statement.
pub const CHUNK: usize = 1_000;
