//! `user_logins`: its shape, the caller's rights on it, row-level security, partitions.

use pgrx::Spi;
use pgrx::pg_sys::Oid;
use pgrx::spi::SpiResult;

use super::{Finding, text};
use crate::ingest::target::{self, USER_LOGINS};
use crate::own_tables::EXTENSION;
use crate::pg::identity::{current_role, role_name};
use crate::pg::or_raise::OrRaise;
use crate::pg::{extension, policy, query, relation};

/// Messages are as old as this, the longest retention period of SQS, or younger.
const DAYS_BACK: i32 = 14;

const NO_TABLE: &str = "there is no table user_logins";

/// Whether an ingest by the current role would find a table that takes its rows.
pub fn shape_and_rights() -> Finding {
    Finding::of_result(target::check_current(), || {
        format!(
            "the table takes logins, and role \"{}\" may insert them",
            role_name(current_role())
        )
    })
}

/// Whether policies apply to the current role's rows.
pub fn row_level_security() -> Finding {
    let Some(table) = find() else {
        return Finding::ok(NO_TABLE);
    };
    if !policy::applies(table) {
        return Finding::ok("no policy applies to the current role");
    }
    if policy::lets_insert(table) {
        Finding::ok("policies apply; a row that they refuse is rejected")
    } else {
        Finding::error(
            "policies apply, and none allows the current role to insert",
            "The table's owner can use CREATE POLICY ... FOR INSERT.",
        )
    }
}

/// Whether there are partitions for the days that messages may have been sent on.
pub fn partitions() -> Finding {
    let Some(table) = find() else {
        return Finding::ok(NO_TABLE);
    };
    match partitioning(table).or_raise() {
        None => Finding::ok("the table is not partitioned"),
        Some(Partitioning {
            has_default: true, ..
        }) => Finding::ok("there is a default partition"),
        Some(Partitioning {
            by_create_date: false,
            key,
            ..
        }) => Finding::unknown(
            format!("the table is partitioned by {key} and has no default partition"),
            "A row without a partition fails the call that ingests it. Create a partition for every value, or a \
             default one.",
        ),
        Some(_) => {
            let missing = days_without_partition(table).or_raise();
            finding_of_days(&missing)
        }
    }
}

fn find() -> Option<Oid> {
    relation::find(extension::schema(EXTENSION)?, USER_LOGINS)
}

struct Partitioning {
    key: String,
    /// The key is this column and nothing else.
    by_create_date: bool,
    has_default: bool,
}

fn partitioning(table: Oid) -> SpiResult<Option<Partitioning>> {
    let sql = "SELECT pg_catalog.pg_get_partkeydef(partrelid), \
                 partnatts OPERATOR(pg_catalog.=) 1 AND attname OPERATOR(pg_catalog.=) 'create_date', \
                 partdefid OPERATOR(pg_catalog.<>) 0 \
               FROM pg_catalog.pg_partitioned_table \
               LEFT JOIN pg_catalog.pg_attribute ON attrelid OPERATOR(pg_catalog.=) partrelid \
                 AND attnum OPERATOR(pg_catalog.=) partattrs[0] \
               WHERE partrelid OPERATOR(pg_catalog.=) $1";
    Spi::connect(|client| {
        let mut rows = client.select(sql, Some(1), &[table.into()])?;
        let Some(row) = rows.next() else {
            return Ok(None);
        };
        Ok(Some(Partitioning {
            key: row.get(1)?.unwrap_or_default(),
            by_create_date: row.get(2)? == Some(true),
            has_default: row.get(3)? == Some(true),
        }))
    })
}

/// The days, counted from today, whose rows no partition takes.
fn days_without_partition(table: Oid) -> SpiResult<Vec<i32>> {
    let constraints: Vec<String> = relation::partitions(table)
        .into_iter()
        .filter_map(|partition| constraint(partition).transpose())
        .collect::<SpiResult<_>>()?;
    let has_place = match constraints.as_slice() {
        [] => "false".to_owned(),
        constraints => constraints.join(" OR "),
    };
    let sql = format!(
        "SELECT ahead FROM ( \
           SELECT ahead, (pg_catalog.timezone('UTC', pg_catalog.now()))::pg_catalog.date \
             OPERATOR(pg_catalog.+) ahead AS create_date \
           FROM pg_catalog.generate_series(-{DAYS_BACK}, 1) AS ahead \
         ) AS day WHERE ({has_place}) IS NOT TRUE ORDER BY ahead"
    );
    Spi::connect(|client| {
        let rows = client.select(sql.as_str(), None, &[])?;
        rows.filter_map(|row| row.get(1).transpose()).collect()
    })
}

/// What the rows of a partition fulfil, as an expression over the columns of the partition key.
fn constraint(partition: Oid) -> SpiResult<Option<String>> {
    query::one(
        "SELECT pg_catalog.pg_get_partition_constraintdef($1)",
        &[partition.into()],
    )
}

fn finding_of_days(missing: &[i32]) -> Finding {
    const HINT: &str = "Create the partitions, or a default partition: a row without one fails the call that \
                        ingests it.";
    match missing {
        [] => Finding::ok(format!(
            "there are partitions from {DAYS_BACK} days ago to tomorrow, and no default partition"
        )),
        days if days.contains(&0) => {
            Finding::error("no partition takes the rows of today (UTC)", HINT)
        }
        days if days.contains(&1) => {
            Finding::warning("no partition takes the rows of tomorrow (UTC)", HINT)
        }
        days => Finding::warning(
            format!(
                "no partition takes rows of {} of the last {DAYS_BACK}, which a backlog or a redrive may bring",
                text::count(days.len() as u64, "day")
            ),
            HINT,
        ),
    }
}
