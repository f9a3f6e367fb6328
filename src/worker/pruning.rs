//! When the launcher prunes the ledger and the vault: in small steps, each a transaction of its own, between which it
//! looks after subscriptions.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use pgrx::pg_sys::errcodes::PgSqlErrorCode;

use crate::ingest::{Counting, Pruned, prune};
use crate::pg::error::Caught;
use crate::pg::setting::with_lock_timeout;
use crate::pg::transaction;
use crate::report::{self, LastReport};
use crate::settings;
use crate::vault;

/// Entries that one step deletes: a few milliseconds of work.
const STEP: i64 = 1_000;

/// How long a step waits for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// How long the launcher rests between steps, and after one that found nothing more to do.
const BETWEEN_STEPS: Duration = Duration::from_millis(100);
const BETWEEN_ROUNDS: Duration = Duration::from_secs(60);

/// The launcher's rounds of pruning.
#[derive(Default)]
pub struct Pruning {
    not_before: Option<Instant>,
    reported: LastReport,
}

impl Pruning {
    /// Takes a step if one is due; returns when to call again.
    pub fn step(&mut self) -> Duration {
        let now = Instant::now();
        if let Some(not_before) = self.not_before.filter(|not_before| *not_before > now) {
            return not_before - now;
        }
        let pruned = prune_ledger()
            .and_then(|of_ledger| prune_vault().map(|of_vault| of_ledger.max(of_vault)));
        let pause = match pruned {
            Ok(deleted) => {
                self.reported.forget();
                if deleted >= STEP {
                    BETWEEN_STEPS
                } else {
                    BETWEEN_ROUNDS
                }
            }
            // Another session holds a lock, as CREATE INDEX does.
            Err(error) if error.code() == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => {
                BETWEEN_ROUNDS
            }
            Err(error) => {
                if self.reported.is_news(error.message()) {
                    report::warn("could not prune the ledger and the vault", &error);
                }
                BETWEEN_ROUNDS
            }
        };
        self.not_before = Some(now + pause);
        pause
    }
}

fn prune_ledger() -> Result<i64, Caught> {
    in_transaction(|| {
        let Pruned {
            entries,
            rejections,
        } = prune(settings::ledger_retention(), STEP, Counting::No);
        entries.max(rejections)
    })
}

fn prune_vault() -> Result<i64, Caught> {
    in_transaction(|| {
        with_lock_timeout(LOCK_TIMEOUT, || {
            vault::prune(settings::vault_retention(), STEP)
        })
    })
}

fn in_transaction(prune: impl FnOnce() -> i64) -> Result<i64, Caught> {
    transaction::run(|| Ok::<_, Infallible>(prune())).map(|Ok(pruned)| pruned)
}
