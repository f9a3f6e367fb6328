//! The wish: which queues to ingest from by themselves, as which role, with how many workers.

use std::cell::Cell;

use pgrx::{Spi, pg_sys};

use super::board;
use crate::own_tables::EXTENSION;
use crate::pg::relation;
use crate::pg::transaction::{self, INDIFFERENT, Listener};

/// A row of `sqs_subscription` that is enabled.
pub struct Subscription {
    /// The queue.
    pub queue_url: String,
    /// The role that subscribed.
    pub role: pg_sys::Oid,
    /// How many workers it asks for.
    pub workers: usize,
}

/// The enabled subscriptions of this database; none where the extension is not installed.
pub fn enabled() -> Vec<Subscription> {
    let Some(table) = table() else {
        return Vec::new();
    };
    let query = format!(
        "SELECT queue_url, role::pg_catalog.oid, workers FROM {table} WHERE enabled ORDER BY queue_url"
    );
    Spi::connect(|client| {
        let rows = client
            .select(query.as_str(), None, &[])
            .unwrap_or_else(|error| pgrx::error!("{error}"));
        rows.filter_map(|row| {
            Some(Subscription {
                queue_url: row.get(1).ok()??,
                role: row.get(2).ok()??,
                workers: usize::try_from(row.get::<i32>(3).ok()??).ok()?,
            })
        })
        .collect()
    })
}

/// `sqs_subscription` with its schema, quoted.
pub fn table() -> Option<String> {
    let schema = relation::extension_schema(EXTENSION)?;
    relation::find(schema, c"sqs_subscription")?;
    Some(relation::qualified_name(schema, c"sqs_subscription"))
}

static LISTENER: Listener = Listener {
    committed,
    aborted,
    ..INDIFFERENT
};

thread_local! {
    static CHANGED: Cell<bool> = const { Cell::new(false) };
}

/// The current transaction changes subscriptions: wakes the launcher when it commits.
pub fn changed() {
    transaction::listen(&LISTENER);
    CHANGED.set(true);
}

fn committed() {
    if CHANGED.take() {
        board::wake_launcher();
    }
}

fn aborted() {
    CHANGED.set(false);
}
