//! What every way to ingest shares: intake, writer, ledger, receipts: channel → ledger → `user_logins` → commit →
//! delete. The loops around it are `sqs_ingest`'s, `sqs_drain`'s and the worker's.
//!
//! [`Intake`] is the end of the channel that the backend holds; it outlives transactions. [`Writer`] turns messages
//! into rows inside the current transaction. [`receipts`] ensures that only what commits is deleted.
//!
//! What does not become a row:
//! - `user_logins` *refuses* a row when its INSERT fails. [`fault`] decides what that means: the message is rejected,
//!   or the call fails. After [`refusals`] in succession, the table is at fault.
//! - A message is *rejected* if it cannot be decoded, or its row is refused: [`rejection`] says why, [`rejections`]
//!   keeps the record, `sqs_rejected`.

mod chunk;
pub mod fault;
mod groups;
mod intake;
mod ledger;
mod message;
mod peek;
mod pruning;
mod queue_record;
mod reader;
mod receipts;
mod refusals;
mod rejection;
mod rejections;
mod ring;
mod source;
mod statements;
pub mod target;
mod trial;
mod writer;
mod writer_state;

pub use intake::Intake;
pub use ledger::check_key;
pub use message::Taken;
pub use peek::{Peek, Peeked, peek};
pub use pruning::{Pruned, prune, prune_daily, retention};
pub use queue_record::{is_ahead_of_the_clock, note_retention};
pub use receipts::AtAbort;
pub use ring::Counting;
pub use source::{Source, allowed_queue, failure_of};
pub use target::Target;
pub use writer::{Tally, Writer};
pub use writer_state::WriterState;
