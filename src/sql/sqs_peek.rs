//! `sqs_peek(queue_url, n)`: what an ingest would make of the next messages, which stay where they are.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::argument::in_range;
use crate::errors::Failure;
use crate::ingest::{Peeked, Source, Target, peek};
use crate::notice;
use crate::pg::datum::{date, timestamp};

/// The most messages in a call: each is held, and hidden from others, until the last one has been looked at.
const MOST: i64 = 1_000;

/// Receives up to `n` messages, shows what each would become, and gives them back.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns are the type")]
fn sqs_peek(
    queue_url: Option<&str>,
    n: default!(Option<i32>, 10),
) -> Result<
    TableIterator<
        'static,
        (
            name!(message_id, String),
            name!(sent_at, Option<TimestampWithTimeZone>),
            name!(receive_count, i64),
            name!(message_group, Option<String>),
            name!(user_id, Option<String>),
            name!(device_type, Option<String>),
            name!(masked_ip, Option<String>),
            name!(masked_device_id, Option<String>),
            name!(locale, Option<String>),
            name!(app_version, Option<i32>),
            name!(create_date, Option<Date>),
            name!(known, bool),
            name!(reason, Option<String>),
            name!(sqlstate, Option<String>),
            name!(bytes, i64),
        ),
    >,
    ErrorReport,
> {
    let queue_url = queue_url.ok_or(Failure::NullArgument("queue_url"))?;
    let n = n.ok_or(Failure::NullArgument("n"))?;
    let n = in_range("n", n, 1..=MOST, "from 1 to 1000")?;
    let source = Source::new(queue_url)?;
    let target = Target::check_for(c"sqs_peek()")?;
    let peek = peek(&source, &target, n.unsigned_abs().into())?;
    notice::peeked(&peek);
    Ok(TableIterator::new(peek.messages.into_iter().map(
        |peeked| {
            let Peeked {
                message,
                sent_at,
                receive_count,
                bytes,
                is_known,
                refused,
            } = peeked;
            let (row, rejected) = match message.content {
                Ok(row) => (Some(row), refused),
                Err(rejected) => (None, Some(rejected)),
            };
            let login = row.as_ref().map(|row| &row.login);
            let text =
                |of: fn(&login::MaskedLogin) -> Option<&str>| login.and_then(of).map(str::to_owned);
            let (reason, sqlstate) = rejected
                .map(|rejected| (rejected.reason, rejected.sqlstate))
                .unzip();
            (
                message.id.into(),
                sent_at.and_then(timestamp),
                receive_count.into(),
                message.group.map(|group| (*group).to_owned()),
                text(|login| Some(login.user_id())),
                text(|login| login.device_type()),
                text(|login| login.masked_ip()),
                text(|login| login.masked_device_id()),
                text(|login| login.locale()),
                login.map(|login| login.app_version()),
                row.as_ref().map(|row| date(row.key.day())),
                is_known,
                reason,
                sqlstate,
                bytes as i64,
            )
        },
    )))
}
