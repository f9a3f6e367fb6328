//! Turns messages into rows inside the current transaction; one bad message costs one message.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use queue::{Fate, Receipt};

use super::groups::BlockedGroups;
use super::message::{Key, Message, Row};
use super::receipts::{self, AtAbort};
use super::rejection::{Rejected, Rejections};
use super::source::Source;
use super::statements::Statements;
use super::target::Target;
use crate::pg::error::Caught;
use crate::pg::subtransaction::attempt;
use crate::pg::transaction::force_synchronous_commit;
use crate::settings::{self, RejectedMessages};
use crate::stat::{QueueStat, Written};

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
    stat: QueueStat,
    queue_url: String,
    rejected_messages: RejectedMessages,
    fate_of_held_back: Fate,
    blocked: BlockedGroups,
    tally: Tally,
    refusals: Refusals,
}

/// Rows that `user_logins` refused since it last took one.
#[derive(Clone, Default)]
pub struct Refusals {
    /// How many.
    pub in_a_row: u64,
    /// Why the last one was.
    pub last: String,
}

impl Writer {
    /// A writer of messages of `source` into `target`. `at_abort` is what happens to them when a transaction that
    /// they were written in is rolled back.
    pub fn new(source: &Source, target: &Target, at_abort: AtAbort) -> Writer {
        Writer {
            statements: Statements::prepared(target),
            at_abort,
            stat: source.stat().clone(),
            queue_url: source.queue().url().as_str().to_owned(),
            rejected_messages: settings::rejected_messages(),
            fate_of_held_back: Fate::Release,
            blocked: BlockedGroups::default(),
            tally: Tally::default(),
            refusals: Refusals::default(),
        }
    }

    /// For one who goes on receiving: what is held back stays hidden as long as the message that it waits for, since
    /// a queue that hands it out before (LocalStack does) would do so again and again.
    pub fn hide_held_back(self) -> Writer {
        Writer {
            fate_of_held_back: Fate::Leave,
            ..self
        }
    }

    /// Goes on where an earlier writer of the same queue ended.
    pub fn resume(self, blocked: BlockedGroups, refusals: Refusals) -> Writer {
        Writer {
            blocked,
            refusals,
            ..self
        }
    }

    /// What a writer of a later transaction needs to [`resume`](Writer::resume).
    pub fn pause(self) -> (BlockedGroups, Refusals) {
        (self.blocked, self.refusals)
    }

    /// Rows that `user_logins` refused since it last took one.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
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
        self.blocked.expire();
        let mut chunk = Chunk::default();
        let candidates = self.sort_out(messages, &mut chunk);
        self.insert(&candidates.iter().collect::<Vec<_>>(), &mut chunk);
        self.statements.record(&self.queue_url, &chunk.rejections);
        self.settle(chunk);
    }

    /// Sets apart what was rejected on the way here and what must wait; returns the rest, each message once.
    fn sort_out<'m>(&mut self, messages: &'m [Message], chunk: &mut Chunk) -> Vec<Candidate<'m>> {
        let mut places: HashMap<Key, usize> = HashMap::with_capacity(messages.len());
        let mut candidates: Vec<Candidate<'m>> = Vec::with_capacity(messages.len());
        for message in messages {
            match &message.content {
                _ if self.is_blocked(message) => chunk.held_back.push(message.receipt),
                Err(rejected) => self.reject(chunk, message, &[], rejected.clone()),
                Ok(row) => match places.entry(row.key) {
                    Entry::Occupied(place) => candidates[*place.get()].again.push(message.receipt),
                    Entry::Vacant(place) => {
                        place.insert(candidates.len());
                        candidates.push(Candidate {
                            message,
                            row,
                            again: Vec::new(),
                        });
                    }
                },
            }
        }
        candidates
    }

    /// Inserts `candidates`. If one of them is refused, the halves are tried on their own, down to the culprit.
    fn insert(&mut self, candidates: &[&Candidate<'_>], chunk: &mut Chunk) {
        let (waiting, candidates): (Vec<&Candidate<'_>>, Vec<&Candidate<'_>>) = candidates
            .iter()
            .partition(|candidate| chunk.refused_before(candidate.message));
        chunk
            .held_back
            .extend(waiting.iter().flat_map(|candidate| candidate.receipts()));
        if candidates.is_empty() {
            return;
        }
        let rows: Vec<&Row> = candidates.iter().map(|candidate| candidate.row).collect();
        match attempt(|| self.statements.insert(&rows)) {
            Ok(sent_at) => {
                self.refusals = Refusals::default();
                let done = candidates.iter().flat_map(|candidate| candidate.receipts());
                let done_before = chunk.done.len();
                chunk.done.extend(done);
                chunk.duplicates += chunk.done.len() - done_before - sent_at.len();
                chunk.inserted.extend(sent_at);
            }
            Err(error) if !error.blames_the_row() => error.rethrow(),
            Err(error) => match *candidates {
                [culprit] => self.refuse(culprit, &error, chunk),
                _ => {
                    let (first, second) = candidates.split_at(candidates.len() / 2);
                    self.insert(first, chunk);
                    self.insert(second, chunk);
                }
            },
        }
    }

    fn refuse(&mut self, culprit: &Candidate<'_>, error: &Caught, chunk: &mut Chunk) {
        let rejected = Rejected::by_table(error, &culprit.row.login);
        self.refusals.in_a_row += 1;
        self.refusals.last.clone_from(&rejected.reason);
        if self.rejected_messages == RejectedMessages::Leave {
            chunk.refused_groups.extend(culprit.message.group.clone());
        }
        self.reject(chunk, culprit.message, &culprit.again, rejected);
    }

    fn is_blocked(&self, message: &Message) -> bool {
        message
            .group
            .as_ref()
            .is_some_and(|group| self.blocked.contains(group))
    }

    /// `again`: receipts of the same message, which came more than once.
    fn reject(
        &mut self,
        chunk: &mut Chunk,
        message: &Message,
        again: &[Receipt],
        rejected: Rejected,
    ) {
        chunk.rejected.push(message.receipt);
        chunk.rejected.extend(again);
        chunk.rejections.note(&message.id, rejected);
        if self.rejected_messages == RejectedMessages::Leave
            && let Some(group) = &message.group
        {
            self.blocked
                .block(group.clone(), settings::visibility_timeout());
        }
    }

    fn settle(&mut self, chunk: Chunk) {
        self.tally.inserted += chunk.inserted.len() as u64;
        self.tally.duplicates += chunk.duplicates as u64;
        self.tally.rejected += chunk.rejected.len() as u64;
        self.tally.held_back += chunk.held_back.len() as u64;
        self.stat.written(Written {
            sent_at: chunk.inserted,
            duplicates: chunk.duplicates as u64,
            rejected: chunk.rejected.len() as u64,
        });
        let fate_of_rejected = match self.rejected_messages {
            RejectedMessages::Leave => Fate::Leave,
            RejectedMessages::Delete => Fate::Delete,
        };
        receipts::settle_at_commit(Fate::Delete, self.at_abort, chunk.done);
        receipts::settle_at_commit(fate_of_rejected, self.at_abort, chunk.rejected);
        receipts::settle_at_commit(self.fate_of_held_back, self.at_abort, chunk.held_back);
    }
}

/// A message whose row is about to be tried.
struct Candidate<'m> {
    message: &'m Message,
    row: &'m Row,
    /// Receipts of the same message, which came more than once: they share its fate.
    again: Vec<Receipt>,
}

impl Candidate<'_> {
    fn receipts(&self) -> impl Iterator<Item = Receipt> {
        std::iter::once(self.message.receipt).chain(self.again.iter().copied())
    }
}

/// What became of the messages of one chunk.
#[derive(Default)]
struct Chunk {
    /// When the messages of the new rows were sent.
    inserted: Vec<i64>,
    duplicates: usize,
    rejections: Rejections,
    done: Vec<Receipt>,
    rejected: Vec<Receipt>,
    held_back: Vec<Receipt>,
    /// Groups of which `user_logins` refused a message. What comes behind it has to wait, what came before has not.
    refused_groups: HashSet<Arc<str>>,
}

impl Chunk {
    fn refused_before(&self, message: &Message) -> bool {
        message
            .group
            .as_ref()
            .is_some_and(|group| self.refused_groups.contains(group))
    }
}
