//! `CALL sqs_drain(queue_url, batch_size, max_messages)`: a backlog of any size, a transaction a batch.

use std::time::{Duration, Instant};

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::argument::positive;
use crate::errors::Failure;
use crate::ingest::{AtAbort, Intake, Source, Target, Writer, WriterState, prune_daily};
use crate::io_thread;
use crate::notice;
use crate::pg::latch;
use crate::pg::procedure::{NonAtomic, may_commit};
use crate::pg::transaction::check_constraints_immediately;
use crate::settings;
use crate::stat::Progress;

/// A long poll asks all of SQS' servers, a short one only some.
const WAIT: Duration = Duration::from_secs(1);

/// How long a FIFO queue's next batch waits for the deletes of the last one: longer than they are tried.
const DELETES_TAKE_AT_MOST: Duration = Duration::from_secs(35);

/// Ingests until the queue is empty or `max_messages` were received, and commits after every `batch_size` messages.
#[pg_extern(sql = r#"
CREATE PROCEDURE sqs_drain(queue_url text, batch_size integer DEFAULT 10000, max_messages bigint DEFAULT NULL)
LANGUAGE c
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn sqs_drain(
    queue_url: Option<&str>,
    batch_size: Option<i32>,
    max_messages: Option<i64>,
    call: pg_sys::FunctionCallInfo,
) -> Result<(), ErrorReport> {
    if !may_commit(call) {
        return Err(Failure::CannotCommit.into());
    }
    let drain = Drain::new(queue_url, batch_size, max_messages)?;
    let transactions = NonAtomic::connect();
    let stat = drain.source.stat();
    stat.watch(|| drain.run(&transactions))?;
    transactions.finish();
    Ok(())
}

struct Drain {
    source: Source,
    batch_size: usize,
    limit: Option<u64>,
}

impl Drain {
    fn new(
        queue_url: Option<&str>,
        batch_size: Option<i32>,
        max_messages: Option<i64>,
    ) -> Result<Drain, Failure> {
        let queue_url = queue_url.ok_or(Failure::NullArgument("queue_url"))?;
        let batch_size = batch_size.ok_or(Failure::NullArgument("batch_size"))?;
        let batch_size = positive("batch_size", batch_size)?;
        let limit = max_messages
            .map(|most| positive("max_messages", most))
            .transpose()?;
        Ok(Drain {
            source: Source::new(queue_url)?,
            batch_size: usize::try_from(batch_size).unwrap_or(usize::MAX),
            limit: limit.map(i64::unsigned_abs),
        })
    }

    fn run(&self, transactions: &NonAtomic) -> Result<(), Failure> {
        let _progress = Progress::begin(self.source.queue().url().as_str(), self.limit);
        let target = Target::check(self.source.keeps_originals())?;
        self.source.stat().begin();
        let state = WriterState::recall(&self.source, &target);
        let mut writer = Writer::new(&self.source, &target, AtAbort::Release).resume(state);
        if self.source.queue().url().is_fifo() {
            self.run_fifo(&mut writer, transactions)?;
        } else {
            let mut intake = self.open(self.limit)?;
            while !intake.ended() {
                self.write_batch(&mut intake, &mut writer)?;
                transactions.commit();
            }
        }
        prune_daily(settings::ledger_retention());
        notice::skipped(&writer.tally());
        Ok(())
    }

    /// A FIFO queue hands out no more of a group while messages of it are in flight: each batch is received after
    /// the last one was deleted.
    fn run_fifo(&self, writer: &mut Writer, transactions: &NonAtomic) -> Result<(), Failure> {
        let mut left = self.limit;
        loop {
            let batch_size = self.batch_size as u64;
            let mut intake =
                self.open(Some(left.map_or(batch_size, |left| left.min(batch_size))))?;
            let received = self.write_batch(&mut intake, writer)?;
            transactions.commit();
            left = left.map(|left| left.saturating_sub(received));
            if received == 0 || left == Some(0) {
                return Ok(());
            }
            await_deletes()?;
        }
    }

    fn open(&self, limit: Option<u64>) -> Result<Intake, Failure> {
        Intake::open(&self.source, self.source.until_empty(limit, WAIT))
    }

    /// Writes what one transaction is to hold; returns how many messages that were.
    fn write_batch(&self, intake: &mut Intake, writer: &mut Writer) -> Result<u64, Failure> {
        check_constraints_immediately();
        writer.begin_transaction();
        let mut left = self.batch_size;
        while left > 0 && !intake.ended() {
            let chunk = left.min(writer.chunk());
            intake
                .fill(chunk, None)
                .map_err(|error| self.source.failure(error))?;
            let taken = intake.take(chunk);
            left -= taken.messages().len();
            writer.write(taken.messages())?;
            taken.decided();
        }
        if intake.is_queue_empty() {
            writer.queue_is_empty();
        }
        Ok((self.batch_size - left) as u64)
    }
}

fn await_deletes() -> Result<(), Failure> {
    let deadline = Instant::now() + DELETES_TAKE_AT_MOST;
    loop {
        let (fd, unsettled) = io_thread::with(|io| {
            io.acknowledge();
            (io.fd(), io.unsettled())
        })?;
        let left = deadline.saturating_duration_since(Instant::now());
        if unsettled == 0 || left.is_zero() {
            return Ok(());
        }
        latch::wait_readable(fd, Some(left));
    }
}
