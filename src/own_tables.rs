//! The extension's own tables, and the one way to write them.
//!
//! A caller needs no right on them: they are written with the rights of their owner. `GRANT ALL` includes TRIGGER,
//! so a role that was granted it could have a function of its own run with those rights. Therefore nothing is
//! written to a table of ours while anything is attached to it that would run code of others, and writing is a
//! security-restricted operation.

mod expressions;
mod schema;
mod triggers;

use std::ffi::{CStr, CString};

use pgrx::PgLogLevel;
use pgrx::pg_sys::Oid;
use pgrx::pg_sys::panic::ErrorReport;

use expressions::{Used, foreign_expression};
use schema::Name;

pub use triggers::IdleTrigger;

use crate::errors::Failure;
use crate::pg::identity::{as_role, may_act_for, role_name};
use crate::pg::or_raise::OrRaise;
use crate::pg::relation::Right;
use crate::pg::{self, database, extension, quote, relation};

/// The name of the extension.
pub const EXTENSION: &CStr = c"user_logins_sqs";

/// The messages that have become rows.
pub const LEDGER: &CStr = c"sqs_ledger";
/// The messages that cannot become rows.
pub const REJECTED: &CStr = c"sqs_rejected";
/// The queues that feed the ledger.
pub const QUEUE: &CStr = c"sqs_queue";
/// The queues that background workers ingest from.
pub const SUBSCRIPTION: &CStr = c"sqs_subscription";
/// Sealed originals, by mask.
pub const VAULT: &CStr = c"sqs_vault";
/// The data keys that they are sealed with, wrapped.
pub const VAULT_KEY: &CStr = c"sqs_vault_key";

/// A table of the extension.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnTable {
    oid: Oid,
    schema: Oid,
    bare_name: CString,
    /// With its schema, quoted.
    name: String,
}

impl OwnTable {
    /// Finds the table `name` beside the extension.
    ///
    /// # Errors
    /// [`Failure::NotInstalled`].
    pub fn find(name: &CStr) -> Result<OwnTable, Failure> {
        let schema = extension::schema(EXTENSION).ok_or(Failure::NotInstalled)?;
        OwnTable::find_in(schema, name)
    }

    /// The same, in the schema that the extension is known to be in.
    ///
    /// # Errors
    /// [`Failure::NotInstalled`].
    pub fn find_in(schema: Oid, name: &CStr) -> Result<OwnTable, Failure> {
        let oid = relation::find(schema, name).ok_or(Failure::NotInstalled)?;
        Ok(OwnTable {
            oid,
            schema,
            bare_name: name.to_owned(),
            name: relation::qualified_name(schema, name),
        })
    }

    /// The partition `oid` of this table, which may have another owner.
    pub fn partition(&self, oid: Oid) -> OwnTable {
        OwnTable {
            oid,
            schema: self.schema,
            bare_name: relation::bare_name_of(oid),
            name: relation::name_of(oid),
        }
    }

    /// Its name with its schema, quoted.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its oid.
    pub fn oid(&self) -> Oid {
        self.oid
    }

    /// The schema that it is in.
    pub fn schema(&self) -> Oid {
        self.schema
    }

    /// Whether it, or a partition of it, is on another server.
    pub fn is_elsewhere(&self) -> bool {
        self.with_partitions()
            .into_iter()
            .any(|relation| relation::foreign_server(relation).is_some())
    }

    /// The role that owns it.
    pub fn owner(&self) -> Oid {
        relation::owner(self.oid)
    }

    /// Checks that nothing attached to the table, or to a partition of it, runs code of others: triggers, rules, and
    /// functions in constraints, defaults and indexes. Takes no lock on partitions whose row in `pg_class` says that
    /// nothing is attached to them: another session may be truncating one.
    ///
    /// Also checks that its owner, whose rights it is used with, may use it.
    ///
    /// # Errors
    /// [`Failure::ForeignCode`], [`Failure::OwnerLacksRight`].
    pub fn check(&self) -> Result<(), Failure> {
        self.check_rights_of_owner()?;
        let mut suspects = self.with_partitions();
        let owner = self.owner();
        suspects
            .retain(|&relation| relation == self.oid || !relation::is_surely_bare(relation, owner));
        self.check_relations(&suspects)
    }

    /// An owner can lack rights that others have: on the schema, or once they were revoked.
    fn check_rights_of_owner(&self) -> Result<(), Failure> {
        let owner = self.owner();
        let lacks = |right: &str, object: String| {
            Err(Failure::OwnerLacksRight {
                owner: quote::identifier(&role_name(owner)),
                table: self.name.clone(),
                right: right.to_owned(),
                object,
            })
        };
        if !pg::schema::may_use(owner, self.schema) {
            let schema = pg::schema::name(self.schema).unwrap_or_default();
            let schema = quote::identifier(&schema.to_string_lossy());
            return lacks("USAGE", format!("schema {schema}"));
        }
        let needed: &[Right] = match self.bare_name.as_c_str() {
            name if name == SUBSCRIPTION => &[Right::Select],
            name if name == LEDGER || name == QUEUE => &[Right::Select, Right::Insert],
            _ => &[Right::Select, Right::Insert, Right::Update],
        };
        match needed
            .iter()
            .find(|right| !right.is_had_by(owner, self.oid))
        {
            None => Ok(()),
            Some(right) => lacks(right.name(), format!("table {}", self.name)),
        }
    }

    /// Locks the table for reading until the transaction ends, if that is possible without waiting.
    pub fn try_lock_for_reading(&self) -> bool {
        relation::try_lock_for_reading(self.oid)
    }

    /// A trigger that CREATE EXTENSION made and that does not fire everywhere it was made to, if there is one.
    pub fn idle_trigger(&self) -> Option<IdleTrigger> {
        triggers::idle(self.oid, &self.bare_name, &self.name)
    }

    /// Runs `work`, statements that write this table, as its owner. An error is raised instead where code of others
    /// would run: triggers can be added by roles that own nothing, at any time until the lock taken here.
    pub fn write<R>(&self, work: impl FnOnce() -> R) -> R {
        self.write_relations(&self.with_partitions(), work)
    }

    /// The same for statements that write no other partitions of it than these.
    pub fn write_partitions<R>(&self, partitions: &[Oid], work: impl FnOnce() -> R) -> R {
        self.write_relations(&self.and(partitions), work)
    }

    /// Takes the locks that [`write_partitions`](OwnTable::write_partitions) takes, ahead of it: waiting for them is
    /// not waiting for other writers.
    pub fn lock_partitions(&self, partitions: &[Oid]) {
        for relation in self.and(partitions) {
            relation::lock_for_writing(relation);
        }
        schema::keep_name(self.schema, self.owner());
    }

    /// The same for the table with all its partitions.
    pub fn lock(&self) {
        self.lock_partitions(&self.with_partitions());
    }

    fn and(&self, partitions: &[Oid]) -> Vec<Oid> {
        let mut relations = vec![self.oid];
        relations.extend(partitions);
        relations
    }

    fn write_relations<R>(&self, relations: &[Oid], work: impl FnOnce() -> R) -> R {
        for relation in relations {
            relation::lock_for_writing(*relation);
        }
        if let Err(failure) = self
            .check_name()
            .and_then(|()| self.check_relations(relations))
        {
            ErrorReport::from(failure).report(PgLogLevel::ERROR);
        }
        as_role(self.owner(), work)
    }

    /// Runs `work`, statements that read this table, as its owner. On a standby, where nobody can be kept from renaming
    /// the schema, as the caller if that could give others the rights of the owner.
    pub fn read<R>(&self, work: impl FnOnce() -> R) -> R {
        if database::is_in_recovery()
            && schema::keep_name(self.schema, self.owner()) == Name::Unreliable
        {
            return work();
        }
        if let Err(failure) = self.check_name() {
            ErrorReport::from(failure).report(PgLogLevel::ERROR);
        }
        as_role(self.owner(), work)
    }

    /// Checks that its name, which statements use, means this table, and goes on to do so: another one may have taken
    /// its place since it was found. Only the owner of the table can rename the table itself once this was checked, and
    /// is then the one whose rights the statements have.
    fn check_name(&self) -> Result<(), Failure> {
        let name_of_schema = schema::keep_name(self.schema, self.owner());
        if relation::find(self.schema, &self.bare_name) != Some(self.oid) {
            return Err(Failure::NotInstalled);
        }
        let is_found = pg::schema::name(self.schema)
            .is_some_and(|name| pg::schema::find(&name) == Some(self.schema));
        let is_named = relation::qualified_name(self.schema, &self.bare_name) == self.name;
        if name_of_schema == Name::Reliable && is_found && is_named {
            Ok(())
        } else {
            let table = self.name.clone();
            Err(Failure::Renamed { table })
        }
    }

    fn check_relations(&self, relations: &[Oid]) -> Result<(), Failure> {
        let owner = self.owner();
        let mut suspects = relations.to_vec();
        suspects.retain(|&relation| {
            relation::may_run_code(relation) || relation::owner(relation) != owner
        });
        if suspects.is_empty() {
            return Ok(());
        }
        self.check_owners(&suspects, owner)?;
        self.check_triggers_and_rules(&suspects)?;
        match foreign_expression(&suspects).or_raise() {
            None => Ok(()),
            Some(Used { what, by }) => Err(Failure::ForeignCode {
                what: format!("{what}, used by {by},"),
                remedy: format!("Drop the {by}, or rewrite it to use only built-in functions."),
            }),
        }
    }

    /// A partition is written with the rights of the table's owner. Its own owner can make it run
    /// anything.
    fn check_owners(&self, relations: &[Oid], owner: Oid) -> Result<(), Failure> {
        for &relation in relations {
            let other = relation::owner(relation);
            if other != owner && !may_act_for(other, owner) {
                let name = relation::name_of(relation);
                return Err(Failure::ForeignCode {
                    what: format!(
                        "partition {name} of table {}, which another role owns,",
                        self.name
                    ),
                    remedy: format!(
                        "Use ALTER TABLE {name} OWNER TO the owner of {}.",
                        self.name
                    ),
                });
            }
        }
        Ok(())
    }

    fn check_triggers_and_rules(&self, relations: &[Oid]) -> Result<(), Failure> {
        for &relation in relations {
            let table = relation::name_of(relation);
            let triggers = relation::triggers(relation);
            if let Some(trigger) = triggers
                .iter()
                .find(|trigger| !triggers::is_ours(trigger, &self.bare_name))
            {
                let name = quote::identifier(&trigger.name);
                let remedy = match relation::foreign_key(trigger.constraint) {
                    None => format!("Use DROP TRIGGER {name} ON {table}."),
                    Some((referring, key)) => format!(
                        "Use ALTER TABLE {} DROP CONSTRAINT {}.",
                        relation::name_of(referring),
                        quote::identifier(&key)
                    ),
                };
                return Err(Failure::ForeignCode {
                    what: format!("trigger {name} on table {table}"),
                    remedy,
                });
            }
            if relation::has_rules(relation) {
                return Err(Failure::ForeignCode {
                    what: format!("a rule on table {table}"),
                    remedy: "Use DROP RULE to remove it.".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// The table and all of its partitions.
    pub fn with_partitions(&self) -> Vec<Oid> {
        let mut all = vec![self.oid];
        let mut next = 0;
        while let Some(&relation) = all.get(next) {
            all.extend(relation::partitions(relation));
            next += 1;
        }
        all
    }
}
