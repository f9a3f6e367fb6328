//! What a call tells beside its result.

use pgrx::PgLogLevel;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;

use crate::errors::Failure;
use crate::ingest::Tally;

/// One NOTICE if there were rejections or duplicates, none otherwise.
pub fn unusual(tally: &Tally) {
    let parts: Vec<String> = [
        (tally.rejected, "rejected"),
        (
            tally.held_back,
            "held back behind a rejected message of their group",
        ),
        (tally.duplicates, "had been ingested before"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    if parts.is_empty() {
        return;
    }
    let message = format!("messages that made no row: {}", parts.join(", "));
    let mut notice = ErrorReport::new(
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        message,
        "user_logins_sqs",
    );
    if tally.rejected > 0 {
        notice = notice.set_hint("sqs_rejected has the reasons.");
    }
    notice.report(PgLogLevel::NOTICE);
}

/// A WARNING that SQS failed, and that the call makes do with what it had received by then.
pub fn stopped_early(failure: Failure) {
    let error = ErrorReport::from(failure);
    let mut warning = ErrorReport::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        format!("stopped receiving early: {}", error.message()),
        "user_logins_sqs",
    );
    if let Some(detail) = error.detail() {
        warning = warning.set_detail(detail);
    }
    warning
        .set_hint("Call again for the rest.")
        .report(PgLogLevel::WARNING);
}
