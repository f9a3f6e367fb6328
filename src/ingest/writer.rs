//! Turns messages into rows inside the current transaction; one bad message costs one message.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use queue::{Fate, Receipt};

use super::message::{Key, Message, Row};
use super::receipts::{self, AtAbort};
use super::rejection::{Rejected, Rejections};
use super::source::Source;
use super::statements::Statements;
use super::target::Target;
use crate::pg::subtransaction::attempt;
use crate::pg::transaction::force_synchronous_commit;
use crate::settings::{self, RejectedMessages};

/// What became of the messages so far.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    /// Rows in `user_logins`.
    pub inserted: u64,
    /// Messages that were in the ledger already.
    pub duplicates: u64,
    /// Messages that cannot become rows.
    pub rejected: u64,
    /// Messages of a FIFO group given back to the queue, because one before them was rejected.
    pub held_back: u64,
}

/// Writes the messages of one queue.
pub struct Writer {
    statements: Rc<Statements>,
    at_abort: AtAbort,
    queue_url: String,
    rejected_messages: RejectedMessages,
    /// Groups of a FIFO queue in which a message was rejected and stays: what follows it must wait for it.
    blocked_groups: HashSet<Arc<str>>,
    tally: Tally,
}

impl Writer {
    /// A writer of messages of `source` into `target`. `at_abort` is what happens to them when a transaction that
    /// they were written in is rolled back.
    pub fn new(source: &Source, target: &Target, at_abort: AtAbort) -> Writer {
        Writer {
            statements: Statements::prepared(target),
            at_abort,
            queue_url: source.queue().url().as_str().to_owned(),
            rejected_messages: settings::rejected_messages(),
            blocked_groups: HashSet::new(),
            tally: Tally::default(),
        }
    }

    /// What became of all messages written so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Writes one chunk of messages, in their order. Their receipts are settled when the transaction ends.
    ///
    /// An error that is not a message's fault leaves as a Postgres error.
    pub fn write(&mut self, messages: &[Message]) {
        if messages.is_empty() {
            return;
        }
        force_synchronous_commit();
        let mut chunk = Chunk::default();
        let candidates = self.sort_out(messages, &mut chunk);
        self.insert(&candidates, &mut chunk);
        self.statements.record(&self.queue_url, &chunk.rejections);
        self.settle(chunk);
    }

    /// Sets apart what was rejected on the way here and what comes twice; returns the rest.
    fn sort_out<'m>(&mut self, messages: &'m [Message], chunk: &mut Chunk) -> Vec<Candidate<'m>> {
        let mut keys: HashSet<Key> = HashSet::with_capacity(messages.len());
        let mut candidates = Vec::with_capacity(messages.len());
        for message in messages {
            match &message.content {
                _ if self.is_blocked(message) => chunk.held_back.push(message.receipt),
                Err(rejected) => self.reject(chunk, message, rejected.clone()),
                Ok(row) if !keys.insert(row.key) => {
                    chunk.duplicates += 1;
                    chunk.done.push(message.receipt);
                }
                Ok(row) => candidates.push(Candidate { message, row }),
            }
        }
        candidates
    }

    /// Inserts `candidates`. If one of them is refused, the halves are tried on their own, down to the culprit.
    fn insert(&mut self, candidates: &[Candidate<'_>], chunk: &mut Chunk) {
        let (blocked, candidates): (Vec<Candidate<'_>>, Vec<Candidate<'_>>) = candidates
            .iter()
            .partition(|candidate| self.is_blocked(candidate.message));
        chunk
            .held_back
            .extend(blocked.iter().map(|candidate| candidate.message.receipt));
        if candidates.is_empty() {
            return;
        }
        let rows: Vec<&Row> = candidates.iter().map(|candidate| candidate.row).collect();
        match attempt(|| self.statements.insert(&rows)) {
            Ok(inserted) => {
                chunk.inserted += inserted;
                chunk.duplicates += rows.len() - inserted;
                chunk
                    .done
                    .extend(candidates.iter().map(|candidate| candidate.message.receipt));
            }
            Err(error) if !error.state().blames_the_row() => error.rethrow(),
            Err(error) => match *candidates {
                [Candidate { message, row }] => {
                    self.reject(chunk, message, Rejected::by_table(&error, &row.login));
                }
                _ => {
                    let (first, second) = candidates.split_at(candidates.len() / 2);
                    self.insert(first, chunk);
                    self.insert(second, chunk);
                }
            },
        }
    }

    fn is_blocked(&self, message: &Message) -> bool {
        message
            .group
            .as_ref()
            .is_some_and(|group| self.blocked_groups.contains(group))
    }

    fn reject(&mut self, chunk: &mut Chunk, message: &Message, rejected: Rejected) {
        chunk.rejected.push(message.receipt);
        chunk.rejections.note(&message.id, rejected);
        if self.rejected_messages == RejectedMessages::Leave {
            self.blocked_groups.extend(message.group.clone());
        }
    }

    fn settle(&mut self, chunk: Chunk) {
        self.tally.inserted += chunk.inserted as u64;
        self.tally.duplicates += chunk.duplicates as u64;
        self.tally.rejected += chunk.rejected.len() as u64;
        self.tally.held_back += chunk.held_back.len() as u64;
        let fate_of_rejected = match self.rejected_messages {
            RejectedMessages::Leave => Fate::Leave,
            RejectedMessages::Delete => Fate::Delete,
        };
        receipts::settle_at_commit(Fate::Delete, self.at_abort, chunk.done);
        receipts::settle_at_commit(fate_of_rejected, self.at_abort, chunk.rejected);
        receipts::release(chunk.held_back);
    }
}

/// A message whose row is about to be tried.
#[derive(Clone, Copy)]
struct Candidate<'m> {
    message: &'m Message,
    row: &'m Row,
}

/// What became of the messages of one chunk.
#[derive(Default)]
struct Chunk {
    inserted: usize,
    duplicates: usize,
    rejections: Rejections,
    done: Vec<Receipt>,
    rejected: Vec<Receipt>,
    held_back: Vec<Receipt>,
}
