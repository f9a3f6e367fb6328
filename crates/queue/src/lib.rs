//! What SQS does: queue URL and endpoint, receive ahead, delete, release, keep hidden.
//! Generic over what a body is decoded to; knows nothing of Postgres.
//!
//! # Vocabulary
//! - *message*: as SQS has it. *body*: its text, which may be private; it never leaves the I/O thread.
//! - *receive*, *poll*: one ReceiveMessage call; it *waits* where it is a long poll.
//! - *response*: the up to ten messages that one poll brought.
//! - *receipt handle*: the right to delete one message, as SQS gave it. *receipt*: stands for it on the other side.
//! - *visibility timeout*: for how long a received message is hidden from others.
//! - *held*: received, and not yet settled. *settle*: delete, release (visible again at once) or leave (visible
//!   again when its time is up).
//! - *the other side*: the thread that owns [`Io`], in Postgres the backend's.
//!
//! # The way of a message
//! ```text
//!              I/O thread                                              other side
//!  SQS ─► poll ─► parse, decode ─► pipe ──────── eventfd ───────────► Inlet::next
//!                     └► receipts: handles stay                            │
//!                          │  extend visibility, at half                   │
//!  SQS ◄─ delete, release ◄┴──────────── commands ◄──────────── Io::settle ┘
//! ```
//! One thread with a single-threaded runtime does all of it, born with every signal blocked. It is meant for a
//! process that has a main thread of its own kind, which must not be entered from another: so the two sides
//! share a few atomics, one locked queue an inlet, and an eventfd, and nothing calls back.
//!
//! # The client
//! The calls are made by `aws_sdk_sqs::Client`, through its supported surface: it knows about clock skew, proxies,
//! endpoints and every source of credentials, and its maintainers keep that right. What surrounds a call is ours:
//! receive ahead, retries that know attempt ids and deadlines, settle, keep hidden. A message costs it some
//! microseconds more than it would cost a client of our own (`benches/cpu_per_message.rs`); what can be saved without
//! leaving that surface is saved.
//!
//! Its outputs, messages and errors hold bodies, and print them with `{:?}`. So nothing here formats with that (a lint
//! sees to it), and no event of `tracing` is compiled in.
//!
//! # A poll whose caller dies
//! A server may not notice that the caller of a long poll has gone (LocalStack 4 never does), and then gives the
//! next message to nobody, where it stays hidden for its visibility timeout. It cannot be told not to: SQS has no
//! call that ends a poll. So, to make that rare and short:
//! - a poll sent while no backlog is known (before the first full answer, and after an empty one) asks for a visibility
//!   timeout of 3 s at most; what it brings is extended to the wanted one if it is held for longer than half a second.
//!   Every other one asks for 30 s at most, since at the end of a backlog it may wait all the same;
//! - elsewhere than at AWS a wait is made of polls of 1 s at most;
//! - an [`Inlet`] that is dropped lets its polls finish and then releases what they brought, and a thread that is shut
//!   down does so for those that may be about to bring something;
//! - nothing is released while such polls wait: each would take it, and count against the queue's `maxReceiveCount`.

#![cfg_attr(not(test), warn(clippy::use_debug))]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod answer;
mod backoff;
mod calls;
mod client;
mod cpu;
mod credentials;
mod endpoint;
mod engine;
mod entries;
mod error;
mod examine;
mod extend_visibility;
mod handles;
mod headers;
mod http;
mod left;
mod observed;
mod panics;
mod pipe;
mod profile;
mod ramp;
mod receipts;
mod receive;
mod remote;
mod settle;
mod shared;
mod sockets;
mod thread;
mod url;
mod wake;
mod window;

pub use endpoint::InvalidEndpoint;
pub use error::{Error, ErrorKind};
pub use examine::{
    Attributes, Connection, Description, Encryption, Examination, FoundCredentials, Network,
    Redrive, Right, Tls,
};
pub use handles::OpenFile;
pub use left::Hidden;
pub use observed::{Observer, Queue};
pub use pipe::{End, Next, Received};
pub use receipts::Receipt;
pub use receive::{LONGEST_POLL, Receive};
pub use remote::MOST_IN_FLIGHT;
pub use settle::Fate;
pub use thread::{Inlet, Io, PendingAnswer, Setup};
pub use url::{InvalidQueueUrl, QueueUrl};
