//! The triggers that CREATE EXTENSION makes on tables of ours: which they are, and whether they do their work.

use std::ffi::CStr;

use pgrx::pg_sys::Oid;

use super::{EXTENSION, SUBSCRIPTION, VAULT};
use crate::pg::extension;
use crate::pg::relation::{self, Enabled, Trigger};

/// The column `mask` of `sqs_vault`.
const VAULT_MASK: i16 = 1;

/// Whether `trigger`, of the table `table`, is in every respect one that CREATE EXTENSION made: another one with a
/// function of ours may have a condition that calls something else, or be called for the wrong rows.
pub fn is_ours(trigger: &Trigger, table: &CStr) -> bool {
    let made = OWN_TRIGGERS.iter().any(|own| {
        own.table == table
            && own.name == trigger.name
            && own.kind == trigger.kind
            && own.columns == trigger.columns
            && relation::function_name(trigger.function).as_deref() == Some(own.function)
    });
    made && trigger.is_plain && extension::has_function(EXTENSION, trigger.function)
}

/// A trigger that CREATE EXTENSION made on the table `table`, which is `relation`, and that does not fire everywhere it
/// was made to, if there is one.
pub fn idle(relation: Oid, table: &CStr, qualified_name: &str) -> Option<IdleTrigger> {
    let triggers = relation::triggers(relation);
    let enabled = |own: &OwnTrigger| {
        let mut found = triggers.iter();
        found
            .find(|trigger| trigger.name == own.name && is_ours(trigger, table))
            .map(|trigger| trigger.enabled)
    };
    let ours = OWN_TRIGGERS.iter().filter(|own| own.table == table);
    let idle = ours.filter(|own| !enabled(own).is_some_and(|now| now.covers(own.enabled)));
    let own = idle.min_by_key(|own| own.name)?;
    Some(IdleTrigger::new(own, enabled(own), qualified_name))
}

/// A trigger of ours that does not do its work.
#[derive(Debug)]
pub struct IdleTrigger {
    /// Which one, and what is wrong with it, in a clause.
    pub problem: String,
    /// What to do about it, in a sentence.
    pub remedy: String,
}

impl IdleTrigger {
    /// `enabled` is where the trigger fires; none where it is gone.
    fn new(own: &OwnTrigger, enabled: Option<Enabled>, table: &str) -> IdleTrigger {
        let name = own.name;
        let problem = match (enabled, own.enabled) {
            (None, _) => "does not exist",
            (Some(Enabled::Here), Enabled::Always) => {
                "is not enabled ALWAYS, so it does not fire for replicated changes"
            }
            (Some(Enabled::Here), Enabled::InReplicas) => {
                "is not enabled REPLICA, so it does not fire for replicated changes"
            }
            _ => "is not enabled",
        };
        let how = match own.enabled {
            Enabled::Always => "ENABLE ALWAYS",
            Enabled::InReplicas => "ENABLE REPLICA",
            Enabled::Here | Enabled::Nowhere => "ENABLE",
        };
        let remedy = match enabled {
            None => "Create it as the extension's installation script does.".to_owned(),
            Some(_) => format!("Use ALTER TABLE {table} {how} TRIGGER {name}."),
        };
        IdleTrigger {
            problem: format!("trigger {name} on table {table} {problem}"),
            remedy,
        }
    }
}

/// A trigger of ours.
struct OwnTrigger {
    table: &'static CStr,
    name: &'static str,
    function: &'static str,
    /// When it fires, as `pg_trigger.tgtype` has it.
    kind: u32,
    /// The columns that its UPDATE is of; none: all.
    columns: &'static [i16],
    /// Where it fires at least.
    enabled: Enabled,
}

/// All triggers that sql/ makes.
const OWN_TRIGGERS: [OwnTrigger; 5] = {
    use pgrx::pg_sys::{
        TRIGGER_TYPE_BEFORE as BEFORE, TRIGGER_TYPE_DELETE as DELETE,
        TRIGGER_TYPE_INSERT as INSERT, TRIGGER_TYPE_ROW as ROW, TRIGGER_TYPE_TRUNCATE as TRUNCATE,
        TRIGGER_TYPE_UPDATE as UPDATE,
    };
    [
        OwnTrigger {
            table: SUBSCRIPTION,
            name: "stamp_installation",
            function: "sqs_subscription_stamp",
            kind: ROW | BEFORE | INSERT | UPDATE,
            columns: &[],
            // A row that replication brings could otherwise have our number, and run as any role that it names.
            enabled: Enabled::Always,
        },
        OwnTrigger {
            table: SUBSCRIPTION,
            name: "check_role",
            function: "sqs_subscription_check_role",
            kind: ROW | INSERT | UPDATE,
            columns: &[],
            enabled: Enabled::Here,
        },
        OwnTrigger {
            table: SUBSCRIPTION,
            name: "wake_launcher",
            function: "sqs_subscription_changed",
            kind: INSERT | UPDATE | DELETE | TRUNCATE,
            columns: &[],
            enabled: Enabled::Here,
        },
        OwnTrigger {
            table: VAULT,
            name: "deleted",
            function: "sqs_vault_deleted",
            kind: UPDATE | DELETE | TRUNCATE,
            columns: &[VAULT_MASK],
            enabled: Enabled::Always,
        },
        OwnTrigger {
            table: VAULT,
            name: "deleted_by_replication",
            function: "sqs_vault_deleted",
            kind: ROW | UPDATE | DELETE,
            columns: &[VAULT_MASK],
            enabled: Enabled::InReplicas,
        },
    ]
};
