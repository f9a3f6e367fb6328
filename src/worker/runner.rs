//! One worker: receives outside of transactions, and writes each batch in one.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, pg_guard, pg_sys};
use queue::{ErrorKind, LONGEST_POLL, Receive};

use super::pace::Pace;
use crate::board::{self, Assignment};
use crate::errors::Failure;
use crate::ingest::{AtAbort, Intake, Source, Taken, Target, Writer, WriterState};
use crate::own_tables::EXTENSION;
use crate::pg::context::with_context;
use crate::pg::error::Caught;
use crate::pg::{background_worker, extension, identity, latch, random, sigterm, transaction};
use crate::report;
use crate::settings;
use crate::stat::{Progress, QueueStat, State};

/// Between tries of a batch that cannot be written.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// While the queue is in trouble, how often to look whether it still is.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(1);

/// In this time, several long polls would have received whatever the queue has to hand out.
const QUIET: Duration = Duration::from_secs(65);

const ACTIVITY: &CStr = c"writing a batch of logins";

/// How long a worker that is told to end has to write what it holds. What is not committed by then is rolled back and
/// given back to the queue, and has been received once in vain.
const GRACE: Duration = Duration::from_millis(100);

/// The part of that time in which it waits for messages that are about to arrive.
const GRACE_OF_POLLS: Duration = Duration::from_millis(50);

/// How often it looks whether there is still anything to wait for.
const GRACE_STEP: Duration = Duration::from_millis(5);

/// Started by the launcher; `slot` is its place on the board.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sqs_worker_main(slot: pg_sys::Datum) {
    background_worker::take_signals();
    background_worker::disable_timeouts();
    let Some(assignment) = board::take(slot.value()) else {
        return;
    };
    background_worker::connect_as(assignment.database, assignment.role);
    background_worker::set_application_name(&format!(
        "user_logins_sqs: {}",
        assignment.queue_name()
    ));
    background_worker::show_activity(None);
    sigterm::defer_sigterm(GRACE);
    let context = format!("ingesting from queue \"{}\"", assignment.queue_url);
    with_context(&context, || Runner::new(assignment).run());
}

struct Runner {
    assignment: Assignment,
    /// Messages taken from the channel whose transaction has not committed. They stay here, and invisible in the
    /// queue, while it fails: given back they would be received again and again, until the queue's redrive policy
    /// took them for poison.
    held: Taken,
    writer_state: WriterState,
    pace: Pace,
    pause: Duration,
    trouble: Option<String>,
    stat: QueueStat,
    /// This process can receive no more: the launcher starts another.
    io_thread_failed: bool,
}

/// What a worker receives from, and how.
struct Session {
    source: Source,
    how: Receive,
    intake: Intake,
    /// Nothing is received, because of settings that cannot be used; when to look at them again.
    look_again: Option<Instant>,
    _progress: Progress,
}

impl Session {
    /// Receives from `source` from now on; receives that were already in flight are still delivered.
    fn follow(&mut self, source: Source, how: Receive) -> Result<(), Failure> {
        let source = source.sharing(&self.source);
        let is_stopped = self.look_again.take().is_some();
        self.intake.read_with(source.reader());
        if is_stopped || how != self.how || !self.source.is_same_queue(&source) {
            self.intake.switch(&source, how.clone())?;
        }
        self.source = source;
        self.how = how;
        Ok(())
    }

    /// Whether it cannot receive now.
    fn is_in_trouble(&self) -> bool {
        self.look_again.is_some() || self.intake.trouble().is_some()
    }

    fn stop_receiving(&mut self, look_again: Instant) {
        self.intake.wind_down();
        self.look_again = Some(look_again);
    }
}

impl Runner {
    fn new(assignment: Assignment) -> Runner {
        let stat = QueueStat::of(&assignment.queue_url);
        stat.begin();
        Runner {
            assignment,
            held: Taken::default(),
            writer_state: WriterState::default(),
            pace: Pace::default(),
            pause: SHORTEST_PAUSE,
            trouble: None,
            stat,
            io_thread_failed: false,
        }
    }

    /// Ingests until it is told to end, or there is nothing to do here any more.
    fn run(mut self) {
        let Some(mut session) = self.begin() else {
            return;
        };
        while !sigterm::is_end_requested() {
            self.follow_settings(&mut session);
            self.gather(&mut session);
            if self.io_thread_failed {
                return;
            }
            if self.held.messages().is_empty() || has_pending_signal() {
                continue;
            }
            match self.write(&session.source) {
                // Writing what was received earlier does not mean that the queue's trouble is over.
                Ok(()) if session.is_in_trouble() => {}
                Ok(()) => self.recovered(),
                Err(WriteError::Orphaned) => return,
                Err(error) => {
                    self.report_write_error(error);
                    self.back_off();
                }
            }
        }
        self.finish(&mut session);
    }

    /// Begins to receive once that is possible; `None`: it is not wanted any more.
    fn begin(&mut self) -> Option<Session> {
        while !sigterm::is_end_requested() {
            background_worker::reload_if_asked();
            match self.try_to_begin() {
                Ok(session) => return Some(session),
                Err(WriteError::Orphaned) => return None,
                Err(error) => {
                    self.report_write_error(error);
                    self.back_off();
                }
            }
        }
        None
    }

    fn try_to_begin(&mut self) -> Result<Session, WriteError> {
        let source = Source::new(&self.assignment.queue_url)?;
        self.writer_state = self.in_transaction(|| {
            let target = Target::check(source.keeps_originals())?;
            Ok::<_, Failure>(WriterState::recall(&source, &target))
        })?;
        let how = how_to_receive();
        let mut intake = Intake::open(&source, how.clone())?;
        intake.heed_signals(true);
        Ok(Session {
            _progress: Progress::begin(source.queue().url().as_str(), None),
            source,
            how,
            intake,
            look_again: None,
        })
    }

    /// Reads the settings again if they may have changed. Where they cannot be used any more, nothing more is received
    /// until they can.
    fn follow_settings(&mut self, session: &mut Session) {
        let is_due = session.look_again.is_some_and(|at| at <= Instant::now());
        if !background_worker::reload_if_asked() && !is_due {
            return;
        }
        let was_stopped = session.look_again.is_some();
        let followed = Source::new(&self.assignment.queue_url)
            .and_then(|source| session.follow(source, how_to_receive()));
        match followed {
            Ok(()) if was_stopped => self.recovered(),
            Ok(()) => {}
            Err(failure) => {
                self.report_failure(failure);
                session.stop_receiving(Instant::now() + self.next_pause());
            }
        }
    }

    /// Writes the messages that are here and those that are about to arrive: what is given back counts as received,
    /// and has come nearer to the dead-letter queue.
    fn finish(&mut self, session: &mut Session) {
        session.intake.wind_down();
        session.intake.heed_signals(false);
        let until = Instant::now() + GRACE_OF_POLLS;
        loop {
            self.take(session, Instant::now());
            if !self.held.messages().is_empty() {
                if self.write(&session.source).is_err() {
                    return;
                }
            } else if session.intake.is_about_to_receive() && Instant::now() < until {
                self.fill(session, 1, Some(until.min(Instant::now() + GRACE_STEP)));
            } else {
                return;
            }
        }
    }

    /// Waits for a first message, then for others until the batch is full or the first has waited long enough.
    fn gather(&mut self, session: &mut Session) {
        if self.held.messages().is_empty() {
            self.fill(session, 1, Some(Instant::now()));
            if session.intake.is_empty() {
                self.await_first(session);
            }
            if session.intake.is_empty() {
                return;
            }
        }
        self.take(session, Instant::now() + settings::linger());
    }

    /// Takes what arrives until then and still fits in the batch.
    fn take(&mut self, session: &mut Session, until: Instant) {
        let batch = self.pace.batch(settings::batch_size());
        let room = batch.saturating_sub(self.held.messages().len());
        self.fill(session, room, Some(until));
        session.intake.take_into(&mut self.held, room.max(1));
        // They may have arrived before there was a vault.
        if session.source.keeps_originals() {
            self.held.release_if_originals_are_missing();
        }
    }

    /// Waits for a message; while there is trouble, for a while only, to see it end.
    fn await_first(&mut self, session: &mut Session) {
        background_worker::report_statistics_now();
        if self.trouble.is_some() && !session.is_in_trouble() {
            self.recovered();
        }
        if let Some(look_again) = session.look_again.filter(|_| session.intake.ended()) {
            latch::wait(look_again.saturating_duration_since(Instant::now()));
        } else if self.trouble.is_some() {
            let until = Instant::now() + RECOVERY_INTERVAL;
            self.fill(session, 1, Some(until));
        } else {
            self.stat.set_state(Some(State::Idle));
            self.await_quietly(session);
        }
    }

    /// Waits for a message, as long as it takes; where groups wait for messages that were rejected, a queue that has
    /// been quiet for long enough shows that those are gone.
    fn await_quietly(&mut self, session: &mut Session) {
        if !self.writer_state.has_blocked_groups() {
            return self.fill(session, 1, None);
        }
        let quiet_until = Instant::now() + QUIET;
        self.fill(session, 1, Some(quiet_until));
        if session.intake.is_empty() && Instant::now() >= quiet_until && !has_pending_signal() {
            let outcome = self.in_transaction(|| {
                let target = Target::check(session.source.keeps_originals())?;
                let mut writer = Writer::new(&session.source, &target, AtAbort::Keep)
                    .resume(self.writer_state.clone());
                writer.queue_is_empty();
                Ok::<_, Failure>(writer.pause())
            });
            match outcome {
                Ok(writer_state) => self.writer_state = writer_state,
                Err(error) => self.report_write_error(error),
            }
        }
    }

    /// Reports the queue's trouble once; receiving retries by itself meanwhile, at growing intervals.
    fn fill(&mut self, session: &mut Session, enough: usize, until: Option<Instant>) {
        if let Err(error) = session.intake.fill(enough, until) {
            self.io_thread_failed = error.kind == ErrorKind::Internal;
            self.report_failure(session.source.failure(error));
        }
    }

    /// Writes what is held in one transaction.
    fn write(&mut self, source: &Source) -> Result<(), WriteError> {
        if self.trouble.is_none() {
            self.stat.set_state(Some(State::Running));
        }
        background_worker::show_activity(Some(ACTIVITY));
        let outcome = self.in_transaction(|| self.write_in_transaction(source));
        background_worker::show_activity(None);
        background_worker::report_statistics();
        let (writer_state, time) = outcome?;
        self.pace.note(self.held.messages().len(), time);
        self.writer_state = writer_state;
        std::mem::take(&mut self.held).decided();
        Ok(())
    }

    /// Also returns how long it took, without the commit.
    fn write_in_transaction(&self, source: &Source) -> Result<(WriterState, Duration), WriteError> {
        let begun = Instant::now();
        let target = Target::check(source.keeps_originals())?;
        transaction::check_constraints_immediately();
        let mut writer =
            Writer::new(source, &target, AtAbort::Keep).resume(self.writer_state.clone());
        for chunk in self.held.messages().chunks(target.chunk) {
            writer.write(chunk)?;
        }
        // Once more, now that the tables that were written to are locked and stay those of their extension until the
        // commit.
        self.check_orphaned()?;
        Ok((writer.pause(), begun.elapsed()))
    }

    fn in_transaction<R, E: Into<WriteError>>(
        &self,
        work: impl FnOnce() -> Result<R, E>,
    ) -> Result<R, WriteError> {
        let outcome = transaction::run(|| {
            self.check_orphaned()?;
            work().map_err(Into::into)
        });
        outcome.unwrap_or_else(|error| Err(WriteError::Postgres(Box::new(report_of(&error)))))
    }

    /// Checks that the extension that this worker works for is there, and its role: another one of the same name is not
    /// the same.
    fn check_orphaned(&self) -> Result<(), WriteError> {
        let is_there = extension::find(EXTENSION) == Some(self.assignment.extension)
            && identity::role_exists(self.assignment.role);
        if is_there {
            Ok(())
        } else {
            Err(WriteError::Orphaned)
        }
    }

    fn report_write_error(&mut self, error: WriteError) {
        match error {
            WriteError::Orphaned => {}
            WriteError::Ours(failure) => self.report_failure(failure),
            WriteError::Postgres(report) => self.report(*report, State::Retrying),
        }
    }

    fn report_failure(&mut self, failure: Failure) {
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
            report = report.set_detail("Received messages are kept until they can be written.");
        }
        self.report(report, state);
    }

    /// Counts every failure, but logs it only when the message changes.
    fn report(&mut self, report: ErrorReport, state: State) {
        self.stat.failed(report.message());
        self.stat.set_state(Some(state));
        let message = report.message().to_owned();
        if self.trouble.as_ref() != Some(&message) {
            self.trouble = Some(message);
            report.report(PgLogLevel::WARNING);
        }
    }

    fn recovered(&mut self) {
        self.pause = SHORTEST_PAUSE;
        self.stat.set_state(Some(State::Running));
        if self.trouble.take().is_some() {
            report::log(format!(
                "ingestion from \"{}\" resumed",
                self.assignment.queue_url
            ));
        }
    }

    /// Sleeps until the next try, unless the configuration is to be read again or the process is to end.
    fn back_off(&mut self) {
        let until = Instant::now() + self.next_pause();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || has_pending_signal() {
                return;
            }
            latch::wait(left);
        }
    }

    /// A pause that doubles from time to time, give or take a quarter, so that workers that failed together do not try
    /// again together.
    fn next_pause(&mut self) -> Duration {
        let jitter = 0.75 + 0.5 * random::fraction();
        let pause = self.pause.mul_f64(jitter);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

/// Whether something is to be done before anything is written.
fn has_pending_signal() -> bool {
    background_worker::is_reload_asked() || sigterm::is_end_requested()
}

/// Why a batch was not written, or nothing can be received.
enum WriteError {
    /// The extension or the role of this worker is gone.
    Orphaned,
    /// A failure of ours: retried.
    Ours(Failure),
    /// An error of Postgres' own: retried.
    Postgres(Box<ErrorReport>),
}

impl From<Failure> for WriteError {
    fn from(failure: Failure) -> WriteError {
        match failure {
            Failure::NotInstalled => WriteError::Orphaned,
            failure => WriteError::Ours(failure),
        }
    }
}

fn report_of(error: &Caught) -> ErrorReport {
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
        // What a quiet queue costs is one of these at a time.
        wait: LONGEST_POLL,
        concurrency: settings::receive_concurrency(),
        visibility: settings::visibility_timeout(),
    }
}
