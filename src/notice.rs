//! What a call reports beside its result.

use pgrx::PgLogLevel;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;

use crate::errors::Failure;
use crate::ingest::{Peek, Tally};

/// One NOTICE if messages made no row, none otherwise.
pub fn skipped(tally: &Tally) {
    let reasons = [
        (tally.rejected, "rejected"),
        (tally.held_back, "held back behind a rejected message"),
        (tally.duplicates, "already ingested"),
        (tally.left_to_others, "being ingested by another session"),
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
    let mut notice = ErrorReport::new(
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        format!(
            "skipped {}: {}",
            messages(count as usize),
            reasons.join(", ")
        ),
        "user_logins_sqs",
    );
    if tally.rejected > 0 {
        notice = notice.set_hint("See sqs_rejected.");
    }
    notice.report(PgLogLevel::NOTICE);
}

/// One NOTICE that peeking has raised the messages' receive counts, if there were any; and a WARNING if the redrive
/// policy moves some of them away because of it.
pub fn peeked(peek: &Peek) {
    if peek.messages.is_empty() {
        return;
    }
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        format!("received and released {}", messages(peek.messages.len())),
        "user_logins_sqs",
    )
    .set_detail("Each message's receive count has increased by one. The queue's redrive policy uses that count.")
    .report(PgLogLevel::NOTICE);
    let Some(most) = peek.max_receive_count else {
        return;
    };
    let used_up = peek
        .messages
        .iter()
        .filter(|message| message.receive_count >= most);
    let used_up = used_up.count();
    if used_up > 0 {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("{} cannot be received again", messages(used_up)),
            "user_logins_sqs",
        )
        .set_detail(format!(
            "The queue's redrive policy moves a message to the dead-letter queue once it has been received \
             {most} times."
        ))
        .set_hint("Ingest from the dead-letter queue, or move its messages back.")
        .report(PgLogLevel::WARNING);
    }
}

fn messages(count: usize) -> String {
    format!(
        "{count} {}",
        if count == 1 { "message" } else { "messages" }
    )
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
