//! The statements that write a chunk, prepared once for the life of the backend.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::rc::Rc;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::{self, BuiltinOid, Datum, PgOid};
use pgrx::spi::{OwnedPreparedStatement, SpiResult, SpiTupleTable};
use pgrx::{Spi, Uuid};

use super::message::{Key, Row};
use super::rejection::Rejections;
use super::target::Target;
use crate::pg::array;
use crate::pg::identity::as_role;

thread_local! {
    static PREPARED: RefCell<Option<Rc<Statements>>> = const { RefCell::new(None) };
}

/// Prepared statements for one target.
pub struct Statements {
    target: Target,
    ledger: OwnedPreparedStatement,
    user_logins: OwnedPreparedStatement,
    rejected: OwnedPreparedStatement,
}

impl Statements {
    /// The statements for `target`: those of the last call, if its target was the same.
    pub fn prepared(target: &Target) -> Rc<Statements> {
        let last = PREPARED.with_borrow(|prepared| prepared.clone());
        if let Some(last) = last.filter(|last| last.target == *target) {
            return last;
        }
        let fresh =
            Rc::new(Statements::prepare(target).unwrap_or_else(|error| pgrx::error!("{error}")));
        PREPARED.set(Some(fresh.clone()));
        fresh
    }

    fn prepare(target: &Target) -> SpiResult<Statements> {
        use BuiltinOid::*;
        // Two statements, not one with a CTE, so that user_logins may be a foreign, distributed or partitioned
        // table, or a view.
        let ledger = format!(
            "INSERT INTO {} (sent_at, message_id) \
             SELECT sent_at, message_id FROM {} AS entry (sent_at, message_id) \
             ON CONFLICT DO NOTHING RETURNING message_id",
            target.ledger,
            rows_of(1..=2)
        );
        let user_logins = format!(
            "INSERT INTO {} (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date) \
             SELECT * FROM {}",
            target.user_logins,
            rows_of(1..=7)
        );
        let rejected = format!(
            "INSERT INTO {} AS known (queue_url, message_id, reason, sqlstate, times_seen) \
             SELECT $1, message_id, reason, sqlstate, times_seen \
             FROM {} AS seen (message_id, reason, sqlstate, times_seen) \
             ON CONFLICT (queue_url, message_id) DO UPDATE SET \
             reason = EXCLUDED.reason, sqlstate = EXCLUDED.sqlstate, \
             times_seen = known.times_seen OPERATOR(pg_catalog.+) EXCLUDED.times_seen, \
             last_seen = pg_catalog.clock_timestamp()",
            target.rejected,
            rows_of(2..=5)
        );
        Spi::connect(|client| {
            let prepare = |sql: &str, types: &[BuiltinOid]| {
                let types: Vec<PgOid> = types.iter().map(|oid| PgOid::BuiltIn(*oid)).collect();
                client.prepare_mut(sql, &types).map(|plan| plan.keep())
            };
            let texts = TEXTARRAYOID;
            Ok(Statements {
                target: target.clone(),
                ledger: prepare(&ledger, &[TIMESTAMPTZARRAYOID, UUIDARRAYOID])?,
                user_logins: prepare(
                    &user_logins,
                    &[
                        texts,
                        texts,
                        texts,
                        texts,
                        texts,
                        INT4ARRAYOID,
                        DATEARRAYOID,
                    ],
                )?,
                rejected: prepare(&rejected, &[TEXTOID, texts, texts, texts, INT8ARRAYOID])?,
            })
        })
    }

    /// Inserts `rows`, except those whose messages are in the ledger already, and enters the rest there. No two
    /// rows may share a key. Returns when the messages of those that were new had been sent.
    ///
    /// Ledger entries are made in the order of their keys, so that concurrent sessions wait for each other in one
    /// direction only; rows keep their order of arrival.
    pub fn insert(&self, rows: &[&Row]) -> Vec<i64> {
        let mut keys: Vec<Key> = rows.iter().map(|row| row.key).collect();
        keys.sort_unstable();
        let new = self.enter_in_ledger(&keys);
        match new {
            New::All => self.insert_logins(rows),
            New::Only(new) => {
                let rows: Vec<&Row> = rows
                    .iter()
                    .filter(|row| new.contains(&row.key.message_id))
                    .copied()
                    .collect();
                self.insert_logins(&rows)
            }
        }
    }

    fn enter_in_ledger(&self, keys: &[Key]) -> New {
        Spi::connect_mut(|client| {
            let arguments = [
                argument(
                    array::timestamptz(keys.iter().map(|key| key.sent_at)),
                    pg_sys::TIMESTAMPTZARRAYOID,
                ),
                argument(
                    array::uuid(keys.iter().map(|key| key.message_id)),
                    pg_sys::UUIDARRAYOID,
                ),
            ];
            let entered = as_role(self.target.owner, || {
                client.update(&self.ledger, None, &arguments)
            });
            let entered = entered.unwrap_or_else(|error| pgrx::error!("{error}"));
            if entered.len() == keys.len() {
                New::All
            } else {
                New::Only(message_ids(entered))
            }
        })
    }

    fn insert_logins(&self, rows: &[&Row]) -> Vec<i64> {
        if rows.is_empty() {
            return Vec::new();
        }
        let texts = |of: fn(&Row) -> Option<&str>| {
            argument(
                array::text(rows.iter().map(move |row| of(row))),
                pg_sys::TEXTARRAYOID,
            )
        };
        Spi::connect_mut(|client| {
            let arguments = [
                texts(|row| Some(row.login.user_id())),
                texts(|row| row.login.device_type()),
                texts(|row| row.login.masked_ip()),
                texts(|row| row.login.masked_device_id()),
                texts(|row| row.login.locale()),
                argument(
                    array::int4(rows.iter().map(|row| row.login.app_version())),
                    pg_sys::INT4ARRAYOID,
                ),
                argument(
                    array::date(rows.iter().map(|row| row.key.day())),
                    pg_sys::DATEARRAYOID,
                ),
            ];
            client
                .update(&self.user_logins, None, &arguments)
                .unwrap_or_else(|error| pgrx::error!("{error}"));
        });
        rows.iter().map(|row| row.key.sent_at).collect()
    }

    /// Records rejections, or counts them up where they are known.
    pub fn record(&self, queue_url: &str, rejections: &Rejections) {
        if rejections.is_empty() {
            return;
        }
        let seen = rejections.iter();
        Spi::connect_mut(|client| {
            let arguments = [
                DatumWithOid::from(queue_url),
                argument(
                    array::text(seen.clone().map(|(id, ..)| Some(id))),
                    pg_sys::TEXTARRAYOID,
                ),
                argument(
                    array::text(seen.clone().map(|(_, rejected, _)| Some(&*rejected.reason))),
                    pg_sys::TEXTARRAYOID,
                ),
                argument(
                    array::text(
                        seen.clone()
                            .map(|(_, rejected, _)| Some(&*rejected.sqlstate)),
                    ),
                    pg_sys::TEXTARRAYOID,
                ),
                argument(
                    array::int8(seen.clone().map(|(.., times)| times)),
                    pg_sys::INT8ARRAYOID,
                ),
            ];
            as_role(self.target.owner, || {
                client.update(&self.rejected, None, &arguments)
            })
            .unwrap_or_else(|error| pgrx::error!("{error}"));
        });
    }
}

/// The arrays that are these parameters, side by side as the columns of a table.
///
/// `unnest` of several arrays can only be had by its bare name, which `search_path` would look up.
fn rows_of(parameters: RangeInclusive<usize>) -> String {
    let arrays: Vec<String> = parameters
        .map(|n| format!("pg_catalog.unnest(${n})"))
        .collect();
    format!("ROWS FROM ({})", arrays.join(", "))
}

/// Which messages of a chunk were not in the ledger yet.
enum New {
    All,
    Only(HashSet<[u8; 16]>),
}

fn message_ids(entered: SpiTupleTable<'_>) -> HashSet<[u8; 16]> {
    entered
        .filter_map(|entry| entry.get::<Uuid>(1).ok().flatten())
        .map(|id| *id.as_bytes())
        .collect()
}

/// `datum` must be of type `oid`, as those of [`array`] are when named so.
fn argument<'a>(datum: Datum, oid: pg_sys::Oid) -> DatumWithOid<'a> {
    // SAFETY: each caller in this file makes the datum with the function of that type, in the SPI context of the
    // statement, which outlives it.
    unsafe { DatumWithOid::new(datum, oid) }
}
