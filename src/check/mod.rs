//! What keeps messages from becoming rows, found out without touching any: `sqs_check`.
//!
//! A check looks at one thing and reports a [`Finding`], also where the look itself fails. The files are its subjects:
//! [`database`], [`user_logins`], [`ledger`], [`settings`], [`vault`], [`workers`], and for queues [`queues`] and
//! [`remote`].

mod database;
mod ledger;
mod queues;
mod remote;
mod settings;
mod text;
mod user_logins;
mod vault;
mod workers;

use std::cell::Cell;
use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::spi::SpiResult;

use crate::errors::{Failure, SEE_CHECK};
use crate::own_tables::OwnTable;
use crate::pg::error::Caught;
use crate::pg::or_raise::OrRaise;
use crate::pg::setting::with_lock_timeout;
use crate::pg::subtransaction::attempt;

/// How long a look waits for a lock that another session holds.
const LOCK_TIMEOUT: Duration = Duration::from_millis(200);

/// How long all looks may take before none of them waits for a lock any more: there may be hundreds.
const PATIENCE: Duration = Duration::from_secs(2);

/// A row of `sqs_check`.
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// What was found.
    pub finding: Finding,
}

/// What a check found.
#[derive(Clone)]
pub struct Finding {
    pub status: Status,
    pub detail: String,
    /// What to do about it, where there is something to do.
    pub hint: Option<String>,
}

/// How good or bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Nothing to do.
    Ok,
    /// Ingesting works, but something should be looked at.
    Warning,
    /// Ingesting does not work, or would lose or duplicate something.
    Error,
    /// It could not be found out.
    Unknown,
}

impl Status {
    /// As `sqs_check` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Error => "error",
            Status::Unknown => "unknown",
        }
    }
}

impl Finding {
    fn ok(detail: impl Into<String>) -> Finding {
        Finding::of(Status::Ok, detail, None)
    }

    fn warning(detail: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding::of(Status::Warning, detail, Some(hint.into()))
    }

    fn error(detail: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding::of(Status::Error, detail, Some(hint.into()))
    }

    fn unknown(detail: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding::of(Status::Unknown, detail, Some(hint.into()))
    }

    fn of(status: Status, detail: impl Into<String>, hint: Option<String>) -> Finding {
        Finding {
            status,
            detail: detail.into(),
            hint,
        }
    }

    /// `ok` with this detail, unless it failed.
    fn of_result(result: Result<(), Failure>, detail: impl FnOnce() -> String) -> Finding {
        match result {
            Ok(()) => Finding::ok(detail()),
            Err(failure) => failure.into(),
        }
    }
}

impl From<Failure> for Finding {
    fn from(failure: Failure) -> Finding {
        let report = ErrorReport::from(failure);
        let detail = match report.detail() {
            Some(detail) => format!("{}. {detail}", report.message()),
            None => report.message().to_owned(),
        };
        let hint = report.hint().map(|hint| hint.trim_end_matches(SEE_CHECK));
        Finding::of(Status::Error, detail, hint.map(str::to_owned))
    }
}

/// Looks at one thing.
type Look = fn() -> Finding;

/// What needs no queue.
const HERE: &[(&str, Look)] = &[
    ("extension", database::extension),
    ("encoding", database::encoding),
    ("writable", database::writable),
    ("user_logins", user_logins::shape_and_rights),
    ("row-level security", user_logins::row_level_security),
    ("partitions", user_logins::partitions),
    ("tables of the extension", ledger::own_tables),
    ("ledger", ledger::size),
    ("ledger pruning", ledger::pruning),
    ("autovacuum", ledger::autovacuum),
    ("rejections", ledger::rejections),
    ("mask key", settings::mask_key),
    ("allowed queues", settings::allowed_queues),
    ("vault", vault::recipients),
    ("tables of the vault", vault::tables),
    ("vault entries", vault::size),
    ("shared_preload_libraries", workers::preloaded),
    ("launcher", workers::launcher),
    ("database of subscriptions", workers::database),
    ("worker slots", workers::slots),
    ("other installations", workers::other_installations),
];

/// Looks at everything that needs no queue, and at the queue `queue_url`, or at those of all subscriptions.
pub fn all(queue_url: Option<&str>) -> Vec<Check> {
    let guard = Guard::new();
    let mut checks: Vec<Check> = HERE
        .iter()
        .map(|(name, look)| Check {
            name: (*name).to_owned(),
            finding: guard.find(look),
        })
        .collect();
    checks.extend(queues::checks(queue_url, &guard));
    checks
}

/// What `look` finds about something of the extension's, if that is there.
fn found<T>(there: Result<T, Failure>, look: impl FnOnce(&T) -> SpiResult<Finding>) -> Finding {
    match there {
        Ok(there) => look(&there).or_raise(),
        Err(failure) => failure.into(),
    }
}

/// What `look` finds about a table of the extension's that is on this server. A foreign one is not asked: its host may
/// hang, and Postgres 15 waits for a connection without looking at interrupts.
fn found_here(name: &CStr, look: impl FnOnce(&OwnTable) -> SpiResult<Finding>) -> Finding {
    found(OwnTable::find(name), |table| {
        if table.is_elsewhere() {
            return Ok(Finding::unknown(
                format!(
                    "table {} is on another server, which was not asked",
                    table.name()
                ),
                "Use sqs_check() on that server.",
            ));
        }
        look(table)
    })
}

/// Keeps what a look raises, and the locks that it waits for, from ending a call or holding it up.
struct Guard {
    /// What is left of [`PATIENCE`].
    patience: Cell<Duration>,
}

impl Guard {
    fn new() -> Guard {
        Guard {
            patience: Cell::new(PATIENCE),
        }
    }

    /// What `look` finds.
    fn find(&self, look: impl FnOnce() -> Finding) -> Finding {
        self.run(look).unwrap_or_else(|finding| finding)
    }

    /// Runs `look` in a subtransaction of its own: an error that it raises is a finding. Only what ends the call is
    /// raised: a cancel, a termination.
    fn run<T>(&self, look: impl FnOnce() -> T) -> Result<T, Finding> {
        let begun = Instant::now();
        let left = self.patience.get();
        // Zero would mean to wait without a limit.
        let timeout = left.clamp(Duration::from_millis(1), LOCK_TIMEOUT);
        let outcome = attempt(|| with_lock_timeout(timeout, look));
        self.patience.set(left.saturating_sub(begun.elapsed()));
        outcome.map_err(finding_of_error)
    }
}

fn finding_of_error(error: Caught) -> Finding {
    use PgSqlErrorCode::*;
    match error.code() {
        ERRCODE_QUERY_CANCELED | ERRCODE_ADMIN_SHUTDOWN | ERRCODE_CRASH_SHUTDOWN => error.rethrow(),
        ERRCODE_LOCK_NOT_AVAILABLE => Finding::unknown(
            "another session holds a lock that this check waits for",
            "Try again; pg_locks shows who holds it.",
        ),
        ERRCODE_INSUFFICIENT_PRIVILEGE => Finding::error(
            format!("{}: {}", error.state(), error.message()),
            "GRANT the privilege; on a table of the extension its owner needs it, too.",
        ),
        _ => Finding::of(
            Status::Error,
            format!("{}: {}", error.state(), error.message()),
            error.hint().map(str::to_owned),
        ),
    }
}
