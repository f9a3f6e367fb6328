//! What background processes tell the server's log.

use pgrx::PgLogLevel;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;

use crate::pg::error::Caught;

/// A WARNING about an error that was caught: what it means here, then what it said.
pub fn warn(what: &str, error: &Caught) {
    let mut warning = warning(format!("{what}: {}", error.message()));
    if let Some(detail) = error.detail() {
        warning = warning.set_detail(detail);
    }
    if let Some(hint) = error.hint() {
        warning = warning.set_hint(hint);
    }
    warning.report(PgLogLevel::WARNING);
}

/// A WARNING with a hint.
pub fn hint(what: &str, hint: &str) {
    warning(what.to_owned())
        .set_hint(hint)
        .report(PgLogLevel::WARNING);
}

/// A line for the log.
pub fn log(what: String) {
    warning(what).report(PgLogLevel::LOG);
}

fn warning(message: String) -> ErrorReport {
    ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "user_logins_sqs")
}
