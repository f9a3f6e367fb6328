//! The extension's own tables: the ledger, the record of rejections, and whether they can be trusted and keep their
//! size.

use std::time::Duration;

use pgrx::Spi;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::Oid;
use pgrx::spi::SpiResult;

use super::{Finding, found, found_here, text};
use crate::ingest;
use crate::own_tables::{LEDGER, OwnTable, QUEUE, REJECTED, SUBSCRIPTION};
use crate::pg::{clock, query, setting};
use crate::settings;

/// The ledger forgets whole days, once the last entry of the day is old enough; the launcher prunes every minute.
const PRUNED_WITHIN: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// Whether nothing runs when the extension's tables are written but what belongs to them.
pub fn own_tables() -> Finding {
    for name in [LEDGER, REJECTED, QUEUE, SUBSCRIPTION] {
        if let Err(failure) = OwnTable::find(name).and_then(|table| table.check()) {
            return failure.into();
        }
    }
    if let Err(failure) = OwnTable::find(LEDGER).and_then(|ledger| ingest::check_key(&ledger)) {
        return failure.into();
    }
    Finding::ok("no trigger, rule or function from outside the extension is attached to them")
}

/// How large the ledger is.
pub fn size() -> Finding {
    found_here(LEDGER, |ledger| {
        let (entries, size) = entries_and_size(ledger)?;
        let oldest = match oldest(ledger)? {
            None => "it is empty".to_owned(),
            Some(age) => format!("the oldest entry was sent {} ago", text::duration(age)),
        };
        Ok(Finding::ok(format!(
            "about {entries} entries, {size}; {oldest}"
        )))
    })
}

/// How many rows a table has by estimate, and its size on disk, indexes included. Reads none of its rows.
pub fn entries_and_size(table: &OwnTable) -> SpiResult<(i64, String)> {
    let sql = "SELECT \
                 pg_catalog.sum(GREATEST(reltuples, pg_catalog.pg_stat_get_live_tuples(oid), 0))::pg_catalog.int8, \
                 pg_catalog.pg_size_pretty(pg_catalog.sum(pg_catalog.pg_total_relation_size(oid))) \
               FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) ANY ($1)";
    let (entries, size): (Option<i64>, Option<String>) =
        query::two(sql, &[table.with_partitions().into()])?;
    Ok((entries.unwrap_or(0), size.unwrap_or_default()))
}

/// Whether what the ledger need not remember is removed.
pub fn pruning() -> Finding {
    found_here(LEDGER, |ledger| {
        let queues = OwnTable::find(QUEUE).ok();
        if let Some(queues) = queues.filter(ingest::is_ahead_of_the_clock) {
            return Ok(Finding::warning(
                "nothing is removed, since a queue was recorded later than the clock says it is now",
                format!(
                    "Correct the clock. If it is right now, use DELETE FROM {} WHERE recorded > pg_catalog.now().",
                    queues.name()
                ),
            ));
        }
        let retention = ingest::retention(settings::ledger_retention());
        let Some(age) = oldest(ledger)? else {
            return Ok(Finding::ok("there is nothing to prune"));
        };
        if age <= retention + PRUNED_WITHIN {
            return Ok(Finding::ok(format!(
                "entries are removed once they are older than {}",
                text::duration(retention)
            )));
        }
        Ok(Finding::warning(
            format!(
                "the oldest entry is {} old, and should have been removed after {}",
                text::duration(age),
                text::duration(retention)
            ),
            "The launcher prunes in the database of subscriptions, and each session that ingests does once a day; \
             elsewhere call sqs_prune().",
        ))
    })
}

/// How long ago the message of the oldest entry was sent.
fn oldest(ledger: &OwnTable) -> SpiResult<Option<Duration>> {
    let sql = format!("SELECT pg_catalog.min(sent_at) FROM {}", ledger.name());
    let oldest: Option<TimestampWithTimeZone> = ledger.read(|| query::one(&sql, &[]))?;
    Ok(oldest.map(|oldest| clock::since(oldest.into())))
}

/// Whether autovacuum looks after the extension's tables: what was rolled back, and counted up, leaves dead rows.
pub fn autovacuum() -> Finding {
    if [c"autovacuum", c"track_counts"]
        .iter()
        .any(|name| setting::value(name) != "on")
    {
        return Finding::warning(
            "autovacuum or track_counts is off",
            "Use ALTER SYSTEM SET autovacuum = on, and track_counts = on.",
        );
    }
    let tables = OwnTable::find(LEDGER).and_then(|ledger| {
        let mut tables = ledger.with_partitions();
        tables.push(OwnTable::find(REJECTED)?.oid());
        Ok(tables)
    });
    found(tables, |tables| {
        let disabled = disabled_autovacuum(tables)?;
        if let Some(table) = disabled {
            return Ok(Finding::warning(
                format!("autovacuum is disabled for table {table}"),
                format!("Use ALTER TABLE {table} RESET (autovacuum_enabled)."),
            ));
        }
        let dead: Option<i64> = query::one(
            "SELECT pg_catalog.sum(pg_catalog.pg_stat_get_dead_tuples(oid))::pg_catalog.int8 \
             FROM pg_catalog.unnest($1) AS oid",
            &[tables.clone().into()],
        )?;
        Ok(Finding::ok(format!(
            "on; about {} dead rows in the ledger and in sqs_rejected",
            dead.unwrap_or(0)
        )))
    })
}

fn disabled_autovacuum(tables: &[Oid]) -> SpiResult<Option<String>> {
    let sql = "SELECT oid::pg_catalog.regclass::pg_catalog.text FROM pg_catalog.pg_class \
               WHERE oid OPERATOR(pg_catalog.=) ANY ($1) \
                 AND reloptions OPERATOR(pg_catalog.&&) ARRAY['autovacuum_enabled=false', 'autovacuum_enabled=off'] \
               ORDER BY 1 LIMIT 1";
    Spi::connect(|client| {
        let mut rows = client.select(sql, Some(1), &[tables.to_vec().into()])?;
        match rows.next() {
            Some(row) => row.get(1),
            None => Ok(None),
        }
    })
}

/// What was rejected in the last day. Of millions, the latest are enough to say why, and soon read.
pub fn rejections() -> Finding {
    const MOST: u64 = 10_000;
    found_here(REJECTED, |rejected| {
        let sql = format!(
            "SELECT pg_catalog.count(*), pg_catalog.mode() WITHIN GROUP (ORDER BY reason) FROM ( \
               SELECT reason FROM {} \
               WHERE last_seen OPERATOR(pg_catalog.>) \
                     (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(days => 1)) \
               ORDER BY last_seen DESC LIMIT {}) AS latest",
            rejected.name(),
            MOST + 1
        );
        let counted: SpiResult<(Option<i64>, Option<String>)> =
            rejected.read(|| query::two(&sql, &[]));
        let (count, reason) = counted?;
        let count = u64::try_from(count.unwrap_or(0)).unwrap_or(0);
        if count == 0 {
            return Ok(Finding::ok("none in the last 24 hours"));
        }
        let count = if count > MOST {
            format!("more than {}", text::count(MOST, "message"))
        } else {
            text::count(count, "message")
        };
        Ok(Finding::warning(
            format!(
                "{count} in the last 24 hours, most often: {}",
                reason.unwrap_or_default()
            ),
            format!("See table {}.", rejected.name()),
        ))
    })
}
