//! Pruning: what the ledger and the record of rejections need not remember any more.

use std::cell::Cell;
use std::time::Duration;

use pgrx::Spi;
use pgrx::spi::SpiResult;

use super::ring::{Counting, Ring};
use super::{queue_record, rejections};
use crate::own_tables::{LEDGER, OwnTable, QUEUE, REJECTED};
use crate::pg::or_raise::OrRaise;
use crate::pg::subtransaction::attempt;
use crate::pg::transaction::{self, Listener, with_snapshot};
use crate::pg::{clock, relation};
use crate::report;
use crate::settings;
use crate::vault;

/// What a session deletes one by one beside its own work.
const FEW: i64 = 1_000;

/// How much was pruned.
#[derive(Clone, Copy, Default, Debug)]
pub struct Pruned {
    /// Entries of the ledger, as far as they were counted.
    pub entries: i64,
    /// Rejections.
    pub rejections: i64,
}

/// Prunes what is older than `bound`, or than what the queues can still hand out: the ledger by its leaves, or at most
/// `most` entries of one that was replaced by another table of this server, and at most `most` rejections.
/// Nothing where the extension is not installed.
pub fn prune(bound: Duration, most: i64, counting: Counting) -> Pruned {
    let (Ok(ledger), Ok(rejected), Ok(queues)) = (
        OwnTable::find(LEDGER),
        OwnTable::find(REJECTED),
        OwnTable::find(QUEUE),
    ) else {
        return Pruned::default();
    };
    let rejections = rejections::prune(&rejected, bound, most);
    queue_record::prune(&queues);
    let entries = match Ring::of(&ledger) {
        _ if ledger.is_elsewhere() => 0,
        Some(_) if queue_record::is_ahead_of_the_clock(&queues) => 0,
        Some(ring) => {
            let retention = || retention_of(&ledger, &queues, bound);
            ring.truncate_expired(&ledger, retention, counting)
        }
        None => delete_entries(&ledger, bound, most),
    };
    Pruned {
        entries,
        rejections,
    }
}

/// How long the ledger remembers a message, `bound` being the longest.
pub fn retention(bound: Duration) -> Duration {
    match (OwnTable::find(LEDGER), OwnTable::find(QUEUE)) {
        (Ok(ledger), Ok(queues)) if Ring::of(&ledger).is_some() => {
            retention_of(&ledger, &queues, bound)
        }
        _ => bound,
    }
}

/// Other servers may feed a ledger that is spread over them, from queues that are not known here.
fn retention_of(ledger: &OwnTable, queues: &OwnTable, bound: Duration) -> Duration {
    if ledger.is_elsewhere() || relation::shards(ledger.oid()) > 0 {
        return bound;
    }
    queue_record::needed_retention(queues, bound)
}

thread_local! {
    /// How long the ledger is to remember a message, where the transaction is to prune before it commits.
    static DUE: Cell<Option<Duration>> = const { Cell::new(None) };
    static LAST_DAY: Cell<Option<i32>> = const { Cell::new(None) };
}

static LISTENER: Listener = Listener {
    committing: prune_before_commit,
    aborted: || DUE.set(None),
    ..Listener::NOOP
};

/// Prunes, once a day in a session that ingests: without a launcher, nothing else may do it. Not in a transaction
/// block, which may stay open while others wait for the truncated leaf; and only when the transaction is about to
/// commit, since the same statement may call again and poll for a long time.
pub fn prune_daily(retention: Duration) {
    if LAST_DAY.get() != today() && !transaction::is_in_block() {
        transaction::listen(&LISTENER);
        DUE.set(Some(retention));
    }
}

fn today() -> Option<i32> {
    Some(clock::day_of(clock::now()))
}

fn prune_before_commit() {
    let Some(retention) = DUE.take() else {
        return;
    };
    let prune = || {
        with_snapshot(|| {
            prune(retention, FEW, Counting::No);
            vault::prune(settings::vault_retention(), FEW);
        });
    };
    match attempt(prune) {
        Ok(()) => LAST_DAY.set(today()),
        Err(error) if error.is_cancel() => error.rethrow(),
        Err(error) => report::warn("could not prune the ledger and the vault", &error),
    }
}

/// By their key: a `ctid` says nothing in a partitioned, distributed or foreign table.
fn delete_entries(ledger: &OwnTable, retention: Duration, most: i64) -> i64 {
    let table = ledger.name();
    let sql = format!(
        "WITH expired AS MATERIALIZED ( \
           SELECT sent_at, message_id FROM {table} \
           WHERE sent_at OPERATOR(pg_catalog.<) \
                 (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(secs => $1)) \
           ORDER BY sent_at LIMIT $2) \
         DELETE FROM {table} AS entry USING expired \
         WHERE entry.sent_at OPERATOR(pg_catalog.=) expired.sent_at \
           AND entry.message_id OPERATOR(pg_catalog.=) expired.message_id"
    );
    let arguments = [retention.as_secs_f64().into(), most.into()];
    let deleted: SpiResult<usize> = ledger.write(|| {
        Spi::connect_mut(|client| Ok(client.update(sql.as_str(), None, &arguments)?.len()))
    });
    let deleted = deleted.or_raise();
    i64::try_from(deleted).unwrap_or(i64::MAX)
}
