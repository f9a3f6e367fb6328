//! Turns messages into rows inside the current transaction; one bad message costs one message.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use queue::{Fate, Receipt};

use super::chunk::{Candidate, Chunk};
use super::fault::Fault;
use super::groups::Turn;
use super::ledger::{Key, Patience};
use super::message::{Message, Row};
use super::queue_record;
use super::receipts::{self, AtAbort};
use super::refusals::Refusals;
use super::rejection::Rejected;
use super::rejections::{self, Stays};
use super::source::Source;
use super::statements::Statements;
use super::target::Target;
use super::trial::Trial;
use super::writer_state::WriterState;
use crate::errors::Failure;
use crate::own_tables::OwnTable;
use crate::pg::error::Caught;
use crate::pg::subtransaction::attempt;
use crate::pg::transaction::force_synchronous_commit;
use crate::pg::{clock, replication};
use crate::settings::{self, RejectedMessages};
use crate::stat::{QueueStat, Written};
use crate::vault::{self, Originals};

/// Rows from all over the chunk that are then tried on their own: if the table takes one, it is not at fault.
const PROBES: usize = 20;

/// Messages of a chunk that are left to other sessions one by one; then the rest of what they hold is left at once.
const MOST_LEFT_ONE_BY_ONE: usize = 64;

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
    /// Messages that another session is writing, in a transaction that waits for this one.
    pub left_to_others: u64,
}

/// Writes the messages of one queue.
pub struct Writer {
    statements: Rc<Statements>,
    user_logins: String,
    chunk: usize,
    rejected: OwnTable,
    queues: OwnTable,
    at_abort: AtAbort,
    stat: QueueStat,
    queue_url: String,
    rejected_messages: RejectedMessages,
    visibility: Duration,
    is_fifo: bool,
    state: WriterState,
    /// The table has taken rows in the current transaction.
    has_taken_some: bool,
    tally: Tally,
}

impl Writer {
    /// A writer of messages of `source` into `target`. `at_abort` is what happens to them when a transaction that
    /// they were written in is rolled back.
    pub fn new(source: &Source, target: &Target, at_abort: AtAbort) -> Writer {
        let url = source.queue().url();
        Writer {
            statements: Statements::prepared(target),
            user_logins: target.user_logins.clone(),
            chunk: target.chunk,
            rejected: target.rejected.clone(),
            queues: target.queues.clone(),
            at_abort,
            stat: source.stat().clone(),
            queue_url: url.as_str().to_owned(),
            rejected_messages: settings::rejected_messages(),
            visibility: source.visibility(),
            is_fifo: url.is_fifo(),
            state: WriterState::default(),
            has_taken_some: false,
            tally: Tally::default(),
        }
    }

    /// Continues where an earlier writer of the same queue stopped.
    pub fn resume(self, state: WriterState) -> Writer {
        Writer { state, ..self }
    }

    /// What a writer of a later transaction needs to [`resume`](Writer::resume).
    pub fn pause(self) -> WriterState {
        self.state
    }

    /// How many messages to write at a time.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// Continues in a new transaction.
    pub fn begin_transaction(&mut self) {
        self.has_taken_some = false;
    }

    /// What became of all messages written so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Writes one chunk of messages, in their order. Their receipts are settled when the transaction ends.
    ///
    /// # Errors
    /// [`Failure::NoPartition`] and [`Failure::AllRefused`]: `user_logins` is at fault, not the messages, and
    /// [`Failure::CannotSeal`]: the server is. Any other error that is not a message's fault leaves as a Postgres
    /// error. In either case the transaction must be rolled back.
    pub fn write(&mut self, messages: &[Message]) -> Result<(), Failure> {
        if messages.is_empty() {
            return Ok(());
        }
        check_sealed(messages)?;
        force_synchronous_commit();
        let mut chunk = Chunk::default();
        let candidates = self.sort_out(messages, &mut chunk);
        if !candidates.is_empty() {
            self.record_queue();
        }
        self.insert(&candidates, &mut chunk)?;
        self.record(&mut chunk);
        if chunk.duplicates > 0 && chunk.inserted.is_empty() && replication::is_synchronous() {
            replication::emit_wal_record();
        }
        self.settle(chunk);
        self.state.blocked.handed_over();
        self.receive_singly_while_blocked();
        Ok(())
    }

    /// Records that the queue feeds the ledger, in the transaction in which it does.
    fn record_queue(&mut self) {
        let today = Some(clock::day_of(clock::now()));
        if self.state.recorded_on != today {
            queue_record::note_ingest(&self.queues, &self.queue_url);
            self.state.recorded_on = today;
        }
    }

    /// The queue has nothing more to hand out, so groups need not wait for what is gone from it.
    pub fn queue_is_empty(&mut self) {
        let free = self.state.blocked.queue_is_empty();
        self.record_no_longer_awaited(&free);
        self.receive_singly_while_blocked();
    }

    /// Gives up if another session is recording it, and waits for this one.
    fn record_no_longer_awaited(&self, groups: &[Arc<str>]) {
        if groups.is_empty() {
            return;
        }
        let (rejected, queue_url) = (&self.rejected, &self.queue_url);
        let recorded = attempt(|| rejections::no_longer_awaited(rejected, queue_url, groups));
        if let Err(error) = recorded
            && !error.is_contention()
        {
            error.rethrow();
        }
    }

    /// Sets apart what was rejected on the way here and what must wait; returns the rest, each message once.
    fn sort_out<'m>(&mut self, messages: &'m [Message], chunk: &mut Chunk) -> Vec<Candidate<'m>> {
        let mut places: HashMap<Key, usize> = HashMap::with_capacity(messages.len());
        let mut candidates: Vec<Candidate<'m>> = Vec::with_capacity(messages.len());
        for message in messages {
            if !self.is_its_turn(message, chunk) {
                chunk.held_back.push(message.receipt);
                continue;
            }
            match &message.content {
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
    fn insert(&mut self, candidates: &[Candidate<'_>], chunk: &mut Chunk) -> Result<(), Failure> {
        let mut trial = Trial::of(candidates.len());
        let mut patience = Patience::UntilItEnds;
        while let Some(part) = trial.next_part() {
            let part = chunk.hold_back(part, candidates);
            match self.try_part(&part, candidates, patience, chunk)? {
                Outcome::Decided { .. } => {}
                Outcome::Contended => {
                    patience = Patience::Hurried;
                    if part.len() == 1 || chunk.left_to_others.len() >= MOST_LEFT_ONE_BY_ONE {
                        self.leave_to_others(&part, candidates, chunk);
                    } else {
                        trial.halve(&part);
                    }
                }
                Outcome::Refused(error) => match *part {
                    [culprit] => {
                        self.refuse(&candidates[culprit], &error, chunk);
                        if self.state.refusals.are_suspicious(self.has_taken_some) {
                            self.probe(&mut trial, candidates, chunk)?;
                        }
                    }
                    _ => trial.halve(&part),
                },
            }
        }
        Ok(())
    }

    /// Whether the table is at fault for the refusals so far: it is, if it takes none of those rows either that are
    /// spread over the rest of the chunk; in a FIFO queue, where no row may overtake another of its group, of those
    /// that are the first of theirs.
    fn probe(
        &mut self,
        trial: &mut Trial,
        candidates: &[Candidate<'_>],
        chunk: &mut Chunk,
    ) -> Result<(), Failure> {
        let probes = if self.is_fifo {
            let mut seen = chunk.refused_groups.clone();
            trial.take_where(PROBES, |place| match &candidates[place].message.group {
                Some(group) => seen.insert(group.clone()),
                None => true,
            })
        } else {
            trial.take_spread(PROBES)
        };
        let last = probes.len();
        for (nth, probe) in probes.iter().enumerate() {
            match self.try_part(&[*probe], candidates, Patience::Hurried, chunk)? {
                Outcome::Decided { inserted: 0 } => {}
                Outcome::Decided { .. } => {
                    trial.put_back(&probes[nth + 1..last]);
                    return Ok(());
                }
                Outcome::Contended => self.leave_to_others(&[*probe], candidates, chunk),
                Outcome::Refused(error) => self.refuse(&candidates[*probe], &error, chunk),
            }
        }
        Err(Failure::AllRefused {
            table: self.user_logins.clone(),
            rows: self.state.refusals.count(),
            last: self.state.refusals.last().to_owned(),
        })
    }

    /// Tries to insert those of `candidates` whose places are in `part`.
    fn try_part(
        &mut self,
        part: &[usize],
        candidates: &[Candidate<'_>],
        patience: Patience,
        chunk: &mut Chunk,
    ) -> Result<Outcome, Failure> {
        if part.is_empty() {
            return Ok(Outcome::Decided { inserted: 0 });
        }
        let rows: Vec<&Row> = part.iter().map(|&place| candidates[place].row).collect();
        match self.statements.insert(&rows, patience) {
            Ok(new) => {
                let inserted = new.len();
                vault::write_at_commit(new.iter().flat_map(|row| {
                    let day = row.key.day();
                    row.originals.entries().map(move |entry| (entry, day))
                }));
                if inserted > 0 {
                    self.state.refusals = Refusals::default();
                    self.has_taken_some = true;
                }
                for &place in part {
                    self.note_done(&candidates[place], chunk);
                }
                let done: usize = part.iter().map(|&place| candidates[place].count()).sum();
                chunk.duplicates += done - inserted;
                chunk.inserted.extend(new.iter().map(|row| row.key.sent_at));
                Ok(Outcome::Decided { inserted })
            }
            Err(not_inserted) if not_inserted.in_ledger => {
                if not_inserted.error.is_contention() {
                    Ok(Outcome::Contended)
                } else {
                    not_inserted.error.rethrow()
                }
            }
            Err(not_inserted) => match Fault::of(&not_inserted.error) {
                Fault::Row => Ok(Outcome::Refused(Box::new(not_inserted.error))),
                // The error may say more if the row is tried on its own.
                Fault::Unclear if part.len() > 1 => {
                    Ok(Outcome::Refused(Box::new(not_inserted.error)))
                }
                Fault::Table => Err(Failure::NoPartition {
                    table: self.user_logins.clone(),
                    message: not_inserted.error.message().to_owned(),
                }),
                Fault::Server | Fault::Unclear => not_inserted.error.rethrow(),
            },
        }
    }

    fn note_done(&mut self, candidate: &Candidate<'_>, chunk: &mut Chunk) {
        chunk.done.extend(candidate.receipts());
        let message = candidate.message;
        if let Some(group) = &message.group {
            // The session that rejected a message of the group knows that it is gone, or was this one.
            chunk.free_groups.insert(group.clone());
            if self.state.blocked.is_blocked_by(group, &message.id) {
                self.state.blocked.unblock(group);
            }
        }
    }

    fn refuse(&mut self, culprit: &Candidate<'_>, error: &Caught, chunk: &mut Chunk) {
        let rejected = Rejected::by_table(error, &culprit.row.login);
        self.state.refusals.add(&culprit.message.id, &rejected);
        chunk.refused_groups.extend(culprit.message.group.clone());
        self.reject(chunk, culprit.message, &culprit.again, rejected);
    }

    /// Leaves messages to other sessions that have them. If those roll back, SQS hands them out again: what is behind
    /// them in their groups has to wait for that.
    fn leave_to_others(&mut self, part: &[usize], candidates: &[Candidate<'_>], chunk: &mut Chunk) {
        for &place in part {
            let Candidate { message, .. } = &candidates[place];
            chunk.left_to_others.extend(candidates[place].receipts());
            if let Some(group) = &message.group
                && chunk.refused_groups.insert(group.clone())
            {
                let blocked = &mut self.state.blocked;
                blocked.block(group.clone(), &message.id, message.receipt);
            }
        }
    }

    /// `again`: receipts of the same message, which came more than once.
    fn reject(
        &mut self,
        chunk: &mut Chunk,
        message: &Message,
        again: &[Receipt],
        rejected: Rejected,
    ) {
        let is_deleted = self.rejected_messages == RejectedMessages::Delete && !rejected.is_login;
        let receipts = [message.receipt].into_iter().chain(again.iter().copied());
        let stays = if is_deleted {
            chunk.rejected_to_delete.extend(receipts);
            Stays::No
        } else {
            chunk.rejected_to_leave.extend(receipts);
            match &message.group {
                None => Stays::For(self.visibility),
                Some(group) => {
                    let blocked = &mut self.state.blocked;
                    blocked.block(group.clone(), &message.id, message.receipt);
                    Stays::AtTheHeadOf(group.clone(), self.visibility)
                }
            }
        };
        chunk.rejections.note(&message.id, rejected, stays);
    }

    fn is_its_turn(&mut self, message: &Message, chunk: &mut Chunk) -> bool {
        let Some(group) = &message.group else {
            return true;
        };
        match self
            .state
            .blocked
            .turn_of(group, &message.id, message.taken_at)
        {
            Turn::Its => true,
            Turn::NotYet => false,
            Turn::ItsSince => {
                self.state.blocked.unblock(group);
                chunk.free_groups.insert(group.clone());
                true
            }
        }
    }

    fn receive_singly_while_blocked(&self) {
        if self.is_fifo {
            self.state
                .receive_singly_while_blocked(&self.stat, self.visibility);
        }
    }

    /// Records what was rejected, unless another session is recording some of it and waits for this one: then it is
    /// left to that.
    fn record(&mut self, chunk: &mut Chunk) {
        // First, since a message further back in such a group may just have been rejected.
        let free: Vec<Arc<str>> = chunk.free_groups.drain().collect();
        self.record_no_longer_awaited(&free);
        let (rejected, queue_url) = (&self.rejected, &self.queue_url);
        let recorded = attempt(|| chunk.rejections.record(rejected, queue_url));
        match recorded {
            Ok(()) => {}
            Err(error) if error.is_contention() => {
                chunk.left_to_others.append(&mut chunk.rejected_to_delete);
                chunk.left_to_others.append(&mut chunk.rejected_to_leave);
            }
            Err(error) => error.rethrow(),
        }
    }

    fn settle(&mut self, chunk: Chunk) {
        let rejected = chunk.rejected_to_delete.len() + chunk.rejected_to_leave.len();
        self.tally.inserted += chunk.inserted.len() as u64;
        self.tally.duplicates += chunk.duplicates as u64;
        self.tally.rejected += rejected as u64;
        self.tally.held_back += chunk.held_back.len() as u64;
        self.tally.left_to_others += chunk.left_to_others.len() as u64;
        self.stat.written(Written {
            sent_at: chunk.inserted,
            duplicates: chunk.duplicates as u64,
            rejected: rejected as u64,
        });
        for (fate, receipts) in [
            (Fate::Delete, chunk.done),
            (Fate::Delete, chunk.rejected_to_delete),
            (Fate::Leave, chunk.rejected_to_leave),
            // Hidden as long as the message that they wait for: a queue that hands them out before, as LocalStack does,
            // would do so again and again.
            (Fate::Leave, chunk.held_back),
            (Fate::Leave, chunk.left_to_others),
        ] {
            receipts::settle_at_commit(fate, self.at_abort, receipts);
        }
    }
}

/// A row is inserted together with its sealed originals, or not at all.
fn check_sealed(messages: &[Message]) -> Result<(), Failure> {
    for message in messages {
        if let Ok(row) = &message.content
            && let Originals::NotSealed(why) = row.originals
        {
            return Err(Failure::CannotSeal(why));
        }
    }
    Ok(())
}

/// The outcome of trying to insert some rows.
enum Outcome {
    /// They are rows now, or already were.
    Decided { inserted: usize },
    /// Another session has entered some of them in the ledger, and waits for this one.
    Contended,
    /// The table refused one of them.
    Refused(Box<Caught>),
}
