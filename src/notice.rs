//! What a call tells beside its result.

use pgrx::PgLogLevel;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;

use crate::errors::Failure;
use crate::ingest::{Peeked, Tally};

/// One NOTICE if messages made no row, none otherwise.
pub fn skipped(tally: &Tally) {
    let reasons = [
        (tally.rejected, "rejected"),
        (tally.held_back, "held back behind a rejected message"),
        (tally.duplicates, "already ingested"),
        (tally.left_to_others, "left to another session"),
    ];
    let count: u64 = reasons.iter().map(|(count, _)| count).sum();
    if count == 0 {
        return;
    }
    let reasons: Vec<String> = reasons
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, reason)| format!("{count} {reason}"))
        .collect();
    let messages = if count == 1 { "message" } else { "messages" };
    let mut notice = ErrorReport::new(
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        format!("skipped {count} {messages}: {}", reasons.join(", ")),
        "user_logins_sqs",
    );
    if tally.rejected > 0 {
        notice = notice.set_hint("See sqs_rejected.");
    }
    notice.report(PgLogLevel::NOTICE);
}

/// One NOTICE that looking has left its trace on the messages, none where there were none.
pub fn peeked(peeked: &[Peeked]) {
    if peeked.is_empty() {
        return;
    }
    let messages = if peeked.len() == 1 {
        "message"
    } else {
        "messages"
    };
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        format!("received {} {messages} and gave them back", peeked.len()),
        "user_logins_sqs",
    )
    .set_detail("The receive count of each has risen by one, which the redrive policy of the queue goes by.")
    .report(PgLogLevel::NOTICE);
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
