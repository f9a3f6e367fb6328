//! A dry run: what an ingest would make of the next messages, which stay in their queue.

use std::collections::HashSet;
use std::time::Duration;

use pgrx::check_for_interrupts;
use queue::{Description, Inlet, Next, PendingAnswer, Receipt, Receive, Received};

use super::fault::Fault;
use super::ledger::Key;
use super::message::{Message, Row, time_of_sending};
use super::reader::Content;
use super::receipts;
use super::rejection::Rejected;
use super::source::Source;
use super::statements::Statements;
use super::target::Target;
use crate::errors::Failure;
use crate::io_thread;
use crate::pg::error::Caught;
use crate::pg::latch;
use crate::pg::subtransaction::attempt_to_keep;

/// How long a message stays hidden if this server dies. It is extended while the message is being looked at.
const VISIBILITY: Duration = Duration::from_secs(5);

/// SQS' shortest poll that asks all of its servers.
const WAIT: Duration = Duration::from_secs(1);

/// A message, and what an ingest would make of it.
pub struct Peeked {
    /// The message, with its row or why it cannot have one.
    pub message: Message,
    /// When it was sent, in microseconds since 2000-01-01 UTC, if known.
    pub sent_at: Option<i64>,
    /// How often it has been received, this time included.
    pub receive_count: u32,
    /// The length of its body.
    pub bytes: usize,
    /// It is in the ledger: an ingest would delete it.
    pub is_known: bool,
    /// `user_logins` refuses its row.
    pub refused: Option<Rejected>,
}

/// How long the queue may take to return its redrive policy.
const ATTRIBUTES_LIMIT: Duration = Duration::from_secs(10);

/// How long to wait for the redrive policy, once the messages are there.
const ATTRIBUTES_WITHIN: Duration = Duration::from_secs(2);

/// What was found in a queue.
pub struct Peek {
    /// The messages, in the order in which they came.
    pub messages: Vec<Peeked>,
    /// A message that was received this many times goes to the dead-letter queue instead of being received again.
    /// `None`: there is no redrive policy, or the queue may not be asked for it.
    pub max_receive_count: Option<u32>,
}

/// What a body was read to, and its length.
type Measured = (usize, Content);

/// Looks at up to `limit` messages. They are in the queue again when this returns, or fails.
///
/// Whether `user_logins` takes the rows is tried, one after the other, and rolled back: triggers run, deferred
/// constraints are not checked.
///
/// # Errors
/// What the queue said; [`Failure::NoPartition`], as an ingest would.
pub fn peek(source: &Source, target: &Target, limit: u64) -> Result<Peek, Failure> {
    let asked = io_thread::with(|io| io.describe(source.queue(), ATTRIBUTES_LIMIT))?;
    let mut held = Held(Vec::new());
    let mut messages = receive(source, limit, &mut held)?;
    judge_all(&mut messages, target)?;
    drop(held);
    let max_receive_count = if messages.is_empty() {
        None
    } else {
        max_receive_count(asked)
    };
    Ok(Peek {
        messages,
        max_receive_count,
    })
}

fn max_receive_count(asked: PendingAnswer<Result<Description, queue::Error>>) -> Option<u32> {
    let answer = io_thread::answers(vec![asked], ATTRIBUTES_WITHIN).pop()??;
    Some(answer.ok()?.attributes.redrive?.max_receive_count)
}

/// Looks all of them up in the ledger, and tries the rows of the others.
fn judge_all(peeked: &mut [Peeked], target: &Target) -> Result<(), Failure> {
    let statements = Statements::prepared(target);
    let known = statements.known(&keys(peeked));
    let tried = attempt_to_keep(
        || {
            peeked
                .iter_mut()
                .try_for_each(|peeked| judge(peeked, &known, &statements, target))
        },
        |_| false,
    );
    tried.unwrap_or_else(|error| error.rethrow())
}

/// Receipts of messages that are given back as soon as this is dropped.
struct Held(Vec<Receipt>);

impl Drop for Held {
    fn drop(&mut self) {
        receipts::release(std::mem::take(&mut self.0));
    }
}

fn receive(source: &Source, limit: u64, held: &mut Held) -> Result<Vec<Peeked>, Failure> {
    let how = Receive {
        visibility: VISIBILITY,
        ..source.until_empty(Some(limit), WAIT)
    };
    let reader = source.reader_without_originals();
    let measure = move |body: &str| (body.len(), reader.read(body));
    let (mut inlet, fd) =
        io_thread::with(|io| (io.receive(source.queue(), how, measure), io.fd()))?;
    let mut peeked = Vec::new();
    loop {
        check_for_interrupts!();
        io_thread::if_started(|io| io.acknowledge());
        if take_all(&mut inlet, held, &mut peeked).map_err(|error| source.failure(error))? {
            return Ok(peeked);
        }
        latch::wait_readable(fd, None);
    }
}

/// Takes what is there; returns whether that was the last.
fn take_all(
    inlet: &mut Inlet<Measured>,
    held: &mut Held,
    peeked: &mut Vec<Peeked>,
) -> Result<bool, queue::Error> {
    loop {
        match inlet.next() {
            Next::Messages(messages) => {
                held.0
                    .extend(messages.iter().map(|message| message.receipt));
                peeked.extend(messages.into_iter().map(Peeked::from));
            }
            Next::Nothing => return Ok(false),
            Next::End(_) => return Ok(true),
            Next::Failed(error) => return Err(error),
        }
    }
}

impl From<Received<Measured>> for Peeked {
    fn from(received: Received<Measured>) -> Peeked {
        let (bytes, decoded) = received.content;
        Peeked {
            sent_at: received.sent_at.and_then(time_of_sending),
            receive_count: received.receive_count,
            bytes,
            is_known: false,
            refused: None,
            message: Message::from(Received {
                receipt: received.receipt,
                message_id: received.message_id,
                sent_at: received.sent_at,
                receive_count: received.receive_count,
                group: received.group,
                content: decoded,
            }),
        }
    }
}

/// In ascending order, and each once.
fn keys(peeked: &[Peeked]) -> Vec<Key> {
    let rows = peeked
        .iter()
        .filter_map(|peeked| peeked.message.content.as_ref().ok());
    let mut keys: Vec<Key> = rows.map(|row| row.key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Tries the row of a message that is not in the ledger. One that is taken stays for the moment, so that the next one
/// is refused if it cannot be in the table with it.
fn judge(
    peeked: &mut Peeked,
    known: &HashSet<Key>,
    statements: &Statements,
    target: &Target,
) -> Result<(), Failure> {
    let Ok(row) = &peeked.message.content else {
        return Ok(());
    };
    peeked.is_known = known.contains(&row.key);
    if !peeked.is_known
        && let Err(error) = statements.insert_login(row)
    {
        peeked.refused = Some(refusal(error, row, target)?);
    }
    Ok(())
}

fn refusal(error: Caught, row: &Row, target: &Target) -> Result<Rejected, Failure> {
    match Fault::of(&error) {
        Fault::Row => Ok(Rejected::by_table(&error, &row.login)),
        Fault::Table => Err(Failure::NoPartition {
            table: target.user_logins.clone(),
            message: error.message().to_owned(),
        }),
        Fault::Server | Fault::Unclear => error.rethrow(),
    }
}
