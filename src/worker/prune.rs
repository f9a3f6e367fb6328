//! The ledger is for redeliveries, and SQS keeps a message for 14 days at most: older entries are pruned.

use crate::ingest::{ledger, rejections};
use crate::own_tables::{LEDGER, OwnTable, REJECTED};
use crate::settings;

/// Deletes at most `most` entries of the ledger, and of the rejections, that are older than
/// `user_logins_sqs.ledger_retention`; returns how many of the ledger. None where the extension is not installed.
pub fn prune(most: i64) -> i64 {
    let (Ok(ledger), Ok(rejected)) = (OwnTable::find(LEDGER), OwnTable::find(REJECTED)) else {
        return 0;
    };
    let retention = settings::ledger_retention();
    rejections::prune(&rejected, retention, most);
    ledger::prune(&ledger, retention, most)
}
