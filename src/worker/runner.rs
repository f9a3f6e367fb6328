//! One worker: receives outside of transactions, and writes each batch in one.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, pg_guard, pg_sys};
use queue::{ErrorKind, Receive};

use super::board::{self, Assignment};
use crate::errors::Failure;
use crate::ingest::{AtAbort, CHUNK, Intake, Memory, Source, Taken, Target, Writer};
use crate::pg::context::with_context;
use crate::pg::error::Caught;
use crate::pg::worker;
use crate::pg::{latch, transaction};
use crate::report;
use crate::settings;
use crate::stat::{Progress, QueueStat, State};

/// SQS' longest poll: what a quiet queue costs is one of these at a time.
const WAIT: Duration = Duration::from_secs(20);

/// Between tries of a batch that cannot be written.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// While the queue is in trouble, how often to look whether it still is.
const LOOKS_FOR_RECOVERY_EVERY: Duration = Duration::from_secs(1);

const ACTIVITY: &CStr = c"writing a batch of logins";

/// Started by the launcher; `slot` is its place on the board.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sqs_worker_main(slot: pg_sys::Datum) {
    worker::take_signals();
    let Some(assignment) = board::take(slot.value()) else {
        return;
    };
    worker::connect_as(assignment.database, assignment.role);
    worker::set_application_name(&format!("user_logins_sqs: {}", assignment.queue_name()));
    worker::show_activity(None);
    let context = format!("ingesting from queue \"{}\"", assignment.queue_url());
    with_context(&context, || Runner::new(assignment).run());
}

struct Runner {
    assignment: Assignment,
    /// Messages taken from the channel whose transaction has not committed. They stay here, and invisible in the
    /// queue, while it fails: given back they would be received again and again, until the queue's redrive policy
    /// took them for poison.
    held: Taken,
    memory: Memory,
    pause: Duration,
    trouble: Option<String>,
    stat: QueueStat,
    /// Nothing can come any more, in this process: the launcher starts another.
    io_is_dead: bool,
}

/// Why a worker goes on to its next session with the queue, or ends.
enum Next {
    ReadSettings,
    End,
}

impl Runner {
    fn new(assignment: Assignment) -> Runner {
        let stat = QueueStat::of(assignment.queue_url());
        stat.begin();
        Runner {
            assignment,
            held: Taken::default(),
            memory: Memory::default(),
            pause: SHORTEST_PAUSE,
            trouble: None,
            stat,
            io_is_dead: false,
        }
    }

    fn run(mut self) {
        loop {
            match self.session() {
                Ok(Next::ReadSettings) => {}
                Ok(Next::End) => return,
                Err(failure) => {
                    self.complain(failure);
                    self.rest();
                    worker::reload_if_asked();
                }
            }
        }
    }

    /// Ingests until the settings of the source change or there is nothing to do here any more.
    fn session(&mut self) -> Result<Next, Failure> {
        let source = Source::new(self.assignment.queue_url())?;
        let how = how_to_receive();
        let keeps_originals = source.keeps_originals();
        if keeps_originals {
            self.held.release_if_originals_are_missing();
        }
        match transaction::run(|| Target::check(keeps_originals)) {
            Ok(Ok(_)) => {}
            Ok(Err(Failure::NotInstalled)) => return Ok(Next::End),
            Ok(Err(failure)) => return Err(failure),
            Err(error) => {
                self.report(told(&error), State::Retrying);
                self.rest();
                return Ok(Next::ReadSettings);
            }
        }
        let mut intake = Intake::open(&source, how.clone())?;
        intake.heed_reload();
        let _progress = Progress::begin(source.queue().url().as_str(), None);
        loop {
            if worker::reload_if_asked()
                && !(source.is_as(&Source::new(self.assignment.queue_url())?)
                    && how == how_to_receive())
            {
                return Ok(Next::ReadSettings);
            }
            self.gather(&mut intake, &source);
            if self.io_is_dead {
                return Ok(Next::End);
            }
            if self.held.messages().is_empty() || worker::is_reload_asked() {
                continue;
            }
            match self.write(&source) {
                // Trouble of the queue is not over because what came before it is written.
                Ok(()) if intake.trouble().is_some() => {}
                Ok(()) => self.recovered(),
                Err(Refusal::Gone) => return Ok(Next::End),
                Err(Refusal::Ours(failure)) => {
                    self.complain(failure);
                    self.rest();
                }
                Err(Refusal::Postgres(report)) => {
                    self.report(*report, State::Retrying);
                    self.rest();
                }
            }
        }
    }

    /// Waits for a first message, then for others until the batch is full or the first has waited long enough.
    fn gather(&mut self, intake: &mut Intake, source: &Source) {
        let batch_size = settings::batch_size();
        if self.held.messages().is_empty() {
            self.fill(intake, source, 1, Some(Instant::now()));
            if intake.is_empty() {
                self.await_first(intake, source);
            }
            if intake.is_empty() {
                return;
            }
        }
        let enough = batch_size.saturating_sub(self.held.messages().len());
        self.fill(
            intake,
            source,
            enough,
            Some(Instant::now() + settings::linger()),
        );
        intake.take_into(&mut self.held, enough.max(1));
    }

    /// Waits for a message; while the queue is in trouble, for a while only, to see it recover.
    fn await_first(&mut self, intake: &mut Intake, source: &Source) {
        worker::report_statistics_now();
        if self.trouble.is_some() && intake.trouble().is_none() {
            self.recovered();
        }
        if self.trouble.is_some() {
            self.fill(
                intake,
                source,
                1,
                Some(Instant::now() + LOOKS_FOR_RECOVERY_EVERY),
            );
        } else {
            self.stat.set_state(Some(State::Idle));
            self.fill(intake, source, 1, None);
        }
    }

    /// The queue's trouble is told once; receiving goes on by itself meanwhile, ever more slowly.
    fn fill(
        &mut self,
        intake: &mut Intake,
        source: &Source,
        enough: usize,
        until: Option<Instant>,
    ) {
        if let Err(error) = intake.fill(enough, until) {
            self.io_is_dead = error.kind == ErrorKind::Internal;
            self.complain(source.failure(error));
        }
    }

    /// Writes what is held in one transaction.
    fn write(&mut self, source: &Source) -> Result<(), Refusal> {
        if self.trouble.is_none() {
            self.stat.set_state(Some(State::Running));
        }
        worker::show_activity(Some(ACTIVITY));
        let outcome = transaction::run(|| self.write_in_transaction(source));
        worker::show_activity(None);
        worker::report_statistics();
        match outcome {
            Ok(Ok(memory)) => {
                self.memory = memory;
                std::mem::take(&mut self.held).decided();
                Ok(())
            }
            Ok(Err(Failure::NotInstalled)) => Err(Refusal::Gone),
            Ok(Err(failure)) => Err(Refusal::Ours(failure)),
            Err(error) => Err(Refusal::Postgres(Box::new(told(&error)))),
        }
    }

    fn write_in_transaction(&self, source: &Source) -> Result<Memory, Failure> {
        let target = Target::check(source.keeps_originals())?;
        transaction::defer_nothing();
        let mut writer = Writer::new(source, &target, AtAbort::Keep).resume(self.memory.clone());
        for chunk in self.held.messages().chunks(CHUNK) {
            writer.write(chunk)?;
        }
        Ok(writer.pause())
    }

    fn complain(&mut self, failure: Failure) {
        let state = match failure {
            Failure::AllRefused { .. } | Failure::NoPartition { .. } => State::Paused,
            _ => State::Retrying,
        };
        let nowhere_to_go = matches!(
            failure,
            Failure::NoTable { .. } | Failure::NoInsertRight { .. }
        );
        let mut report = ErrorReport::from(failure);
        if nowhere_to_go && !self.held.messages().is_empty() {
            report = report.set_detail("What was received is kept until it can be written.");
        }
        self.report(report, state);
    }

    /// Counts every failure, but tells the log only when the state changes.
    fn report(&mut self, report: ErrorReport, state: State) {
        self.stat.failed(report.message());
        self.stat.set_state(Some(state));
        let said = report.message().to_owned();
        if self.trouble.as_ref() != Some(&said) {
            self.trouble = Some(said);
            report.report(PgLogLevel::WARNING);
        }
    }

    fn recovered(&mut self) {
        self.pause = SHORTEST_PAUSE;
        self.stat.set_state(Some(State::Running));
        if self.trouble.take().is_some() {
            report::log(format!(
                "ingest from \"{}\" goes on",
                self.assignment.queue_url()
            ));
        }
    }

    /// Sleeps for a while that doubles from time to time, give or take a quarter, so that workers that failed
    /// together do not try again together.
    fn rest(&mut self) {
        let jitter = 0.75 + 0.5 * fraction();
        let until = Instant::now() + self.pause.mul_f64(jitter);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || worker::is_reload_asked() {
                return;
            }
            latch::wait(left);
        }
    }
}

/// Why a batch was not written.
enum Refusal {
    /// The extension is not there any more.
    Gone,
    /// A failure of ours: to be tried again.
    Ours(Failure),
    /// An error of Postgres' own: to be tried again.
    Postgres(Box<ErrorReport>),
}

fn told(error: &Caught) -> ErrorReport {
    let mut report = ErrorReport::new(error.code(), error.message().to_owned(), "user_logins_sqs");
    if let Some(detail) = error.detail() {
        report = report.set_detail(detail);
    }
    if let Some(hint) = error.hint() {
        report = report.set_hint(hint);
    }
    report
}

fn how_to_receive() -> Receive {
    Receive {
        limit: None,
        until_empty: false,
        wait: WAIT,
        concurrency: settings::receive_concurrency(),
        visibility: settings::visibility_timeout(),
    }
}

/// A number from 0 to 1.
fn fraction() -> f64 {
    // SAFETY: Postgres' generator for such purposes; state of this process.
    unsafe { pg_sys::pg_prng_double(&raw mut pg_sys::pg_global_prng_state) }
}
