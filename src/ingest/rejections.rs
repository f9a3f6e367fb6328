//! The record of rejections, in `sqs_rejected`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgrx::Spi;
use pgrx::spi::SpiResult;

use super::rejection::Rejected;
use crate::own_tables::OwnTable;
use crate::pg::array::{self, rows_of};
use crate::pg::or_raise::OrRaise;

/// The rejections of one chunk, each message once, in the order of their ids, so that concurrent sessions write
/// them in the same order.
#[derive(Default)]
pub struct Rejections {
    by_message: BTreeMap<Box<str>, Entry>,
}

/// A message that was rejected.
struct Entry {
    rejected: Rejected,
    /// How many times it was received.
    times: i64,
    stays: Stays,
}

/// Whether a rejected message stays in its queue.
#[derive(Clone)]
pub enum Stays {
    /// It is deleted.
    No,
    /// It comes back after its visibility timeout.
    For(Duration),
    /// It comes back, and its group waits for it until then.
    AtTheHeadOf(Arc<str>, Duration),
}

impl Stays {
    fn hidden_for(&self) -> Option<Duration> {
        match self {
            Stays::No => None,
            Stays::For(hidden) | Stays::AtTheHeadOf(_, hidden) => Some(*hidden),
        }
    }

    fn group(&self) -> Option<&str> {
        match self {
            Stays::AtTheHeadOf(group, _) => Some(group),
            _ => None,
        }
    }
}

impl Rejections {
    /// Notes that `message_id` was rejected.
    pub fn note(&mut self, message_id: &str, rejected: Rejected, stays: Stays) {
        self.by_message
            .entry(message_id.into())
            .and_modify(|entry| entry.times += 1)
            .or_insert(Entry {
                rejected,
                times: 1,
                stays,
            });
    }

    /// Records them in `table`, or counts them up where they are known.
    pub fn record(&self, table: &OwnTable, queue_url: &str) {
        if self.by_message.is_empty() {
            return;
        }
        let sql = format!(
            "INSERT INTO {} AS known \
               (queue_url, message_id, reason, sqlstate, times_seen, first_seen, last_seen, message_group, visible_at) \
             SELECT $1, message_id, reason, sqlstate, times_seen, \
               pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp(), message_group, \
               pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) \
                 pg_catalog.make_interval(secs => hidden_for::pg_catalog.float8) \
             FROM {} AS seen (message_id, reason, sqlstate, times_seen, message_group, hidden_for) \
             ON CONFLICT (queue_url, message_id) DO UPDATE SET \
             reason = EXCLUDED.reason, sqlstate = EXCLUDED.sqlstate, \
             times_seen = known.times_seen OPERATOR(pg_catalog.+) EXCLUDED.times_seen, \
             message_group = EXCLUDED.message_group, visible_at = EXCLUDED.visible_at, \
             last_seen = pg_catalog.clock_timestamp()",
            table.name(),
            rows_of(2..=7)
        );
        let entries = self.by_message.values();
        let hidden_for: Vec<Option<String>> = entries
            .clone()
            .map(|entry| Some(entry.stays.hidden_for()?.as_secs().to_string()))
            .collect();
        let recorded: SpiResult<()> = Spi::connect_mut(|client| {
            let arguments = [
                queue_url.into(),
                array::text(self.by_message.keys().map(|id| Some(&**id))),
                array::text(entries.clone().map(|entry| Some(&*entry.rejected.reason))),
                array::text(entries.clone().map(|entry| Some(&*entry.rejected.sqlstate))),
                array::int8(entries.clone().map(|entry| entry.times)),
                array::text(entries.clone().map(|entry| entry.stays.group())),
                array::text(hidden_for.iter().map(Option::as_deref)),
            ];
            table.write(|| client.update(sql.as_str(), None, &arguments))?;
            Ok(())
        });
        recorded.or_raise();
    }
}

/// A message of a FIFO queue that was rejected, and that its group may still be waiting for.
pub struct Awaited {
    /// Its group.
    pub group: Arc<str>,
    /// Its id.
    pub message_id: Box<str>,
    /// Until when it is hidden, or was.
    pub hidden_until: Instant,
}

/// The messages of the queue that groups may be waiting for, as recorded by the sessions that rejected them.
pub fn awaited(table: &OwnTable, queue_url: &str) -> Vec<Awaited> {
    let sql = format!(
        "SELECT message_group, message_id, \
           EXTRACT(epoch FROM (visible_at OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp()))::pg_catalog.float8 \
         FROM {} WHERE queue_url OPERATOR(pg_catalog.=) $1 AND message_group IS NOT NULL",
        table.name()
    );
    let found: SpiResult<Vec<Awaited>> = table.read(|| {
        Spi::connect(|client| {
            let rows = client.select(sql.as_str(), None, &[queue_url.into()])?;
            let read = rows.filter_map(|row| {
                let hidden_for: f64 = row.get(3).ok()??;
                Some(Awaited {
                    group: row.get::<String>(1).ok()??.into(),
                    message_id: row.get::<String>(2).ok()??.into(),
                    hidden_until: from_now(hidden_for),
                })
            });
            Ok(read.collect())
        })
    });
    found.or_raise()
}

/// `seconds` from now, or before now if negative: at most as far back as this machine has been running.
fn from_now(seconds: f64) -> Instant {
    let now = Instant::now();
    let distance = Duration::try_from_secs_f64(seconds.abs()).unwrap_or_default();
    let then = if seconds < 0.0 {
        now.checked_sub(distance)
    } else {
        now.checked_add(distance)
    };
    then.unwrap_or(now)
}

/// Records that these groups no longer wait for a message.
pub fn no_longer_awaited(table: &OwnTable, queue_url: &str, groups: &[Arc<str>]) {
    if groups.is_empty() {
        return;
    }
    let sql = format!(
        "UPDATE {} SET message_group = NULL \
         WHERE queue_url OPERATOR(pg_catalog.=) $1 AND message_group OPERATOR(pg_catalog.=) ANY ($2)",
        table.name()
    );
    let groups = array::text(groups.iter().map(|group| Some(&**group)));
    table
        .write(|| Spi::run_with_args(&sql, &[queue_url.into(), groups]))
        .or_raise();
}

/// Deletes the record of at most `most` messages that were last seen longer than `retention` ago; returns of how many.
pub fn prune(table: &OwnTable, retention: Duration, most: i64) -> i64 {
    let name = table.name();
    let sql = format!(
        "DELETE FROM {name} WHERE (queue_url, message_id) OPERATOR(pg_catalog.=) ANY ( \
           SELECT queue_url, message_id FROM {name} \
           WHERE last_seen OPERATOR(pg_catalog.<) \
                 (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(secs => $1)) \
           ORDER BY last_seen LIMIT $2 FOR UPDATE SKIP LOCKED)"
    );
    let arguments = [retention.as_secs_f64().into(), most.into()];
    let deleted: SpiResult<usize> = table.write(|| {
        Spi::connect_mut(|client| Ok(client.update(sql.as_str(), None, &arguments)?.len()))
    });
    i64::try_from(deleted.or_raise()).unwrap_or(i64::MAX)
}
