//! What a call tells beside its result.

use pgrx::PgLogLevel;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;

use crate::ingest::Tally;

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
