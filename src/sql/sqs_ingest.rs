//! `sqs_ingest(queue_url, n, wait_seconds)`: up to n messages, inside the caller's transaction.

use std::time::Duration;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use queue::LONGEST_POLL;

use crate::argument::{in_range, positive};
use crate::errors::Failure;
use crate::ingest::{AtAbort, Intake, Source, Tally, Target, Writer, WriterState, prune_daily};
use crate::notice;
use crate::settings;
use crate::stat::Progress;

/// Receives up to `n` messages, inserts them into `user_logins` and returns the number of rows.
#[pg_extern(volatile, parallel_unsafe)]
fn sqs_ingest(
    queue_url: Option<&str>,
    n: Option<i32>,
    wait_seconds: default!(Option<i32>, 1),
) -> Result<i64, ErrorReport> {
    let call = Call::new(queue_url, n, wait_seconds)?;
    call.source.stat().watch(|| call.run())
}

struct Call {
    source: Source,
    limit: u64,
    wait: Duration,
}

impl Call {
    fn new(
        queue_url: Option<&str>,
        n: Option<i32>,
        wait_seconds: Option<i32>,
    ) -> Result<Call, Failure> {
        let queue_url = queue_url.ok_or(Failure::NullArgument("queue_url"))?;
        let n = n.ok_or(Failure::NullArgument("n"))?;
        let wait = wait_seconds.ok_or(Failure::NullArgument("wait_seconds"))?;
        let n = positive("n", n)?;
        let longest = LONGEST_POLL.as_secs().cast_signed();
        let described = "from 0 to 20, the longest poll of SQS";
        let wait = in_range("wait_seconds", wait, 0..=longest, described)?;
        Ok(Call {
            source: Source::new(queue_url)?,
            limit: n.unsigned_abs().into(),
            wait: Duration::from_secs(wait.unsigned_abs().into()),
        })
    }

    fn run(&self) -> Result<i64, Failure> {
        let _progress = Progress::begin(self.source.queue().url().as_str(), Some(self.limit));
        let target = Target::check(self.source.keeps_originals())?;
        self.source.stat().begin();
        let state = WriterState::recall(&self.source, &target);
        let mut writer = Writer::new(&self.source, &target, AtAbort::Release).resume(state);
        let mut intake = Intake::open(
            &self.source,
            self.source.until_empty(Some(self.limit), self.wait),
        )?;
        while !intake.ended() {
            let failed = intake.fill(target.chunk, None).err();
            let has_some = !intake.is_empty() || received(writer.tally()) > 0;
            if let Some(error) = &failed
                && !(error.is_transient() && has_some)
            {
                return Err(self.source.failure(error.clone()));
            }
            while !intake.is_empty() {
                let taken = intake.take(target.chunk);
                writer.write(taken.messages())?;
                taken.decided();
            }
            // What was received is worth more than an error that passes: the rest is there for the next call.
            if let Some(error) = failed {
                notice::stopped_early(self.source.failure(error));
                break;
            }
        }
        if intake.is_queue_empty() {
            writer.queue_is_empty();
        }
        let tally = writer.tally();
        prune_daily(settings::ledger_retention());
        notice::skipped(&tally);
        // At most `n`, an i32.
        Ok(tally.inserted as i64)
    }
}

/// Messages that a call has dealt with.
fn received(tally: Tally) -> u64 {
    tally.inserted + tally.duplicates + tally.rejected + tally.held_back + tally.left_to_others
}
