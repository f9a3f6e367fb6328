//! The ledger is for redeliveries, and SQS keeps a message for 14 days at most: older entries are pruned, in small
//! steps, each a transaction of its own.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use pgrx::Spi;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;

use crate::ingest::{ledger, rejections};
use crate::own_tables::{LEDGER, OwnTable, REJECTED};
use crate::pg::transaction;
use crate::report;
use crate::settings;
use crate::vault;

/// Entries that one step deletes: a few milliseconds of work.
const STEP: i64 = 1_000;

/// How long the launcher rests between steps, and after one that found nothing more to do.
const BETWEEN_STEPS: Duration = Duration::from_millis(100);
const BETWEEN_ROUNDS: Duration = Duration::from_secs(60);

/// The launcher's rounds of pruning.
#[derive(Default)]
pub struct Pruning {
    not_before: Option<Instant>,
}

impl Pruning {
    /// Does a step if one is due; says when to come again.
    pub fn step(&mut self) -> Duration {
        let now = Instant::now();
        if let Some(not_before) = self.not_before.filter(|not_before| *not_before > now) {
            return not_before - now;
        }
        let rest = match transaction::run(|| Ok::<_, Infallible>(prune_without_waiting())) {
            Ok(Ok(pruned)) if pruned.ledger.max(pruned.vault) >= STEP => BETWEEN_STEPS,
            Ok(_) => BETWEEN_ROUNDS,
            Err(error) if error.code() == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => {
                BETWEEN_ROUNDS
            }
            Err(error) => {
                report::warn("pruning failed", &error);
                BETWEEN_ROUNDS
            }
        };
        self.not_before = Some(now + rest);
        rest
    }
}

/// A step, unless somebody holds a lock that is in its way, as CREATE INDEX does: the launcher has subscriptions to
/// look after.
fn prune_without_waiting() -> Pruned {
    Spi::run("SET LOCAL lock_timeout = '100ms'").unwrap_or_else(|error| pgrx::error!("{error}"));
    prune(STEP)
}

/// How many entries were deleted.
#[derive(Clone, Copy, Default)]
pub struct Pruned {
    /// Of the ledger.
    pub ledger: i64,
    /// Of the vault.
    pub vault: i64,
}

/// Deletes at most `most` entries each of the ledger, the rejections and the vault, that are older than
/// `user_logins_sqs.ledger_retention` and `vault_retention` say. None where the extension is not installed.
pub fn prune(most: i64) -> Pruned {
    let (Ok(ledger), Ok(rejected)) = (OwnTable::find(LEDGER), OwnTable::find(REJECTED)) else {
        return Pruned::default();
    };
    let retention = settings::ledger_retention();
    rejections::prune(&rejected, retention, most);
    Pruned {
        ledger: ledger::prune(&ledger, retention, most),
        vault: vault::prune(settings::vault_retention(), most),
    }
}
