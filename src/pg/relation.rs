//! What the catalogs say about a relation, read through Postgres' own caches.

use std::ffi::{CStr, CString, c_void};

use pgrx::spi::SpiResult;
use pgrx::{PgList, PgRelation, pg_sys};

use super::or_raise::OrRaise;
use super::query;

/// A column, as far as an INSERT that names it or leaves it out is concerned.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    number: i16,
    /// The type under any domains.
    pub base_type: pg_sys::Oid,
    /// The most characters that it holds, where its type says so (`varchar(n)`).
    pub length: Option<i32>,
    /// An INSERT may not leave it out: NOT NULL and no default, identity or generation.
    pub required: bool,
    /// An INSERT may not name it.
    pub generated: bool,
}

/// The name of the function, without its schema.
pub fn function_name(function: pg_sys::Oid) -> Option<String> {
    // SAFETY: gives a palloc'd string or null.
    unsafe {
        let name = pg_sys::get_func_name(function);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// Locks the relation for reading until the transaction ends, if that is possible without waiting.
pub fn try_lock_for_reading(relation: pg_sys::Oid) -> bool {
    // SAFETY: takes a lock by an oid, whether or not there still is such a relation.
    unsafe {
        pg_sys::ConditionalLockRelationOid(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE)
    }
}

/// The relation `name` in `schema`.
pub fn find(schema: pg_sys::Oid, name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: a look-up in a cache, inside a transaction, as every caller is; the name is nul-terminated.
    let oid = unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// `schema.name`, quoted where it must be.
pub fn qualified_name(schema: pg_sys::Oid, name: &CStr) -> String {
    // SAFETY: `get_namespace_name` gives a palloc'd string or null; both functions read nul-terminated strings
    // and give one.
    unsafe {
        let schema = pg_sys::get_namespace_name(schema);
        let schema = if schema.is_null() {
            CString::default()
        } else {
            CStr::from_ptr(schema).to_owned()
        };
        let quoted = pg_sys::quote_qualified_identifier(schema.as_ptr(), name.as_ptr());
        CStr::from_ptr(quoted).to_string_lossy().into_owned()
    }
}

/// The same of a relation that is there.
pub fn name_of(relation: pg_sys::Oid) -> String {
    // SAFETY: as in `find`; gives InvalidOid where the relation is gone.
    let schema = unsafe { pg_sys::get_rel_namespace(relation) };
    qualified_name(schema, &bare_name_of(relation))
}

/// The name of a relation that is there, without its schema.
pub fn bare_name_of(relation: pg_sys::Oid) -> CString {
    // SAFETY: gives a palloc'd string or null.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        if name.is_null() {
            CString::default()
        } else {
            CStr::from_ptr(name).to_owned()
        }
    }
}

/// The role that owns the relation.
pub fn owner(relation: pg_sys::Oid) -> pg_sys::Oid {
    let relation = open(relation);
    // SAFETY: an open relation has its pg_class row.
    unsafe { (*relation.rd_rel).relowner }
}

/// The columns that are there, in order.
pub fn columns(relation: pg_sys::Oid) -> Vec<Column> {
    let relation = open(relation);
    relation
        .tuple_desc()
        .iter()
        .filter(|attribute| !attribute.attisdropped)
        .map(column)
        .collect()
}

fn column(attribute: &pg_sys::FormData_pg_attribute) -> Column {
    let mut modifier = attribute.atttypmod;
    // SAFETY: as in `find`: the type of a column is there as long as the column; the pointer is to a live local.
    let base_type = unsafe { pg_sys::getBaseTypeAndTypmod(attribute.atttypid, &mut modifier) };
    let generated = attribute.attgenerated != 0;
    let fills_itself = attribute.atthasdef || attribute.attidentity != 0 || generated;
    Column {
        name: pgrx::name_data_to_str(&attribute.attname).to_owned(),
        number: attribute.attnum,
        base_type,
        // varchar's modifier counts the varlena header too.
        length: (base_type == pg_sys::VARCHAROID && modifier >= 4).then(|| modifier - 4),
        required: attribute.attnotnull && !fills_itself,
        generated,
    }
}

/// Whether the current user may INSERT into all of `columns`.
pub fn may_insert(relation: pg_sys::Oid, columns: &[&Column]) -> bool {
    let insert = pg_sys::AclMode::from(pg_sys::ACL_INSERT);
    // SAFETY: look-ups in caches, inside a transaction, as every caller is; an error is raised where the relation or
    // the column is gone.
    unsafe {
        let role = pg_sys::GetUserId();
        pg_sys::pg_class_aclcheck(relation, role, insert) == pg_sys::AclResult::ACLCHECK_OK
            || columns.iter().all(|column| {
                pg_sys::pg_attribute_aclcheck(relation, column.number, role, insert)
                    == pg_sys::AclResult::ACLCHECK_OK
            })
    }
}

/// A right on a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    Select,
    Insert,
    Update,
}

impl Right {
    /// Its name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Right::Select => "SELECT",
            Right::Insert => "INSERT",
            Right::Update => "UPDATE",
        }
    }

    /// Whether `role` has it on the relation.
    pub fn is_had_by(self, role: pg_sys::Oid, relation: pg_sys::Oid) -> bool {
        let mode = pg_sys::AclMode::from(match self {
            Right::Select => pg_sys::ACL_SELECT,
            Right::Insert => pg_sys::ACL_INSERT,
            Right::Update => pg_sys::ACL_UPDATE,
        });
        // SAFETY: a privilege check on a relation that is there.
        let checked = unsafe { pg_sys::pg_class_aclcheck(relation, role, mode) };
        checked == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// Whether rows can be inserted at all: a table, or a view or foreign table that takes INSERT.
pub fn takes_insert(relation: pg_sys::Oid) -> bool {
    // SAFETY: opens the relation itself, and gives 0 where it is gone; null lists and sets are Postgres' empty ones.
    let events = unsafe {
        pg_sys::relation_is_updatable(relation, std::ptr::null_mut(), true, std::ptr::null_mut())
    };
    events & (1 << pg_sys::CmdType::CMD_INSERT) != 0
}

/// A trigger of a relation.
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// The function that it calls.
    pub function: pg_sys::Oid,
    /// When it fires: `pg_trigger.tgtype`.
    pub kind: u32,
    /// The columns that its UPDATE is of; none: all.
    pub columns: Vec<i16>,
    /// The constraint that it enforces, if any.
    pub constraint: pg_sys::Oid,
    /// It has no condition and no arguments.
    pub is_plain: bool,
    /// Whether it fires.
    pub enabled: Enabled,
}

/// In which sessions a trigger fires.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enabled {
    /// In none.
    Nowhere,
    /// In those that apply replication only.
    InReplicas,
    /// In all but those that apply replication.
    Here,
    /// In all.
    Always,
}

impl Enabled {
    /// Whether it fires in all sessions in which one that is enabled as `other` does.
    pub fn covers(self, other: Enabled) -> bool {
        self == other || self == Enabled::Always || other == Enabled::Nowhere
    }
}

/// All triggers of the relation, those that enforce foreign keys included.
pub fn triggers(relation: pg_sys::Oid) -> Vec<Trigger> {
    let relation = open(relation);
    // SAFETY: the relation is open, so its cache entry stays; `triggers` has `numtriggers` elements, each with a
    // nul-terminated name.
    unsafe {
        let Some(all) = relation.trigdesc.as_ref() else {
            return Vec::new();
        };
        let triggers = std::slice::from_raw_parts(all.triggers, all.numtriggers as usize);
        triggers
            .iter()
            .map(|trigger| Trigger {
                name: CStr::from_ptr(trigger.tgname)
                    .to_string_lossy()
                    .into_owned(),
                function: trigger.tgfoid,
                kind: u32::from(trigger.tgtype.cast_unsigned()),
                columns: columns_of(trigger),
                constraint: trigger.tgconstraint,
                is_plain: trigger.tgqual.is_null() && trigger.tgnargs == 0,
                enabled: match trigger.tgenabled as u8 {
                    pg_sys::TRIGGER_FIRES_ALWAYS => Enabled::Always,
                    pg_sys::TRIGGER_FIRES_ON_ORIGIN => Enabled::Here,
                    pg_sys::TRIGGER_FIRES_ON_REPLICA => Enabled::InReplicas,
                    _ => Enabled::Nowhere,
                },
            })
            .collect()
    }
}

/// The table and the name of the foreign key that `constraint` is, or is a partition's part of, if it is one.
pub fn foreign_key(constraint: pg_sys::Oid) -> Option<(pg_sys::Oid, String)> {
    let found = query::two(
        "WITH RECURSIVE part AS ( \
           SELECT conparentid, conrelid, conname FROM pg_catalog.pg_constraint \
           WHERE oid OPERATOR(pg_catalog.=) $1 AND contype OPERATOR(pg_catalog.=) 'f' \
           UNION ALL \
           SELECT whole.conparentid, whole.conrelid, whole.conname FROM part \
           JOIN pg_catalog.pg_constraint AS whole ON whole.oid OPERATOR(pg_catalog.=) part.conparentid) \
         SELECT conrelid, conname::pg_catalog.text FROM part WHERE conparentid OPERATOR(pg_catalog.=) 0",
        &[constraint.into()],
    );
    let (table, name) = found.or_raise();
    table.zip(name)
}

/// # Safety
///
/// `trigger` is in the cache entry of a relation that is open.
unsafe fn columns_of(trigger: &pg_sys::Trigger) -> Vec<i16> {
    let count = usize::try_from(trigger.tgnattr).unwrap_or(0);
    if count == 0 {
        return Vec::new();
    }
    // SAFETY: `tgattr` has `tgnattr` elements.
    unsafe { std::slice::from_raw_parts(trigger.tgattr, count) }.to_vec()
}

/// Whether the relation is a table with rules.
pub fn has_rules(relation: pg_sys::Oid) -> bool {
    let relation = open(relation);
    // SAFETY: the relation is open, so its cache entry stays.
    unsafe {
        relation
            .rd_rules
            .as_ref()
            .is_some_and(|rules| rules.numLocks > 0)
    }
}

/// Whether row-level security is enabled for the relation.
pub fn has_row_level_security(relation: pg_sys::Oid) -> bool {
    let relation = open(relation);
    // SAFETY: the relation is open, so its cache entry and its row of pg_class stay.
    unsafe { (*relation.rd_rel).relrowsecurity }
}

/// The direct partitions of the relation, in the order of their bounds. Takes no lock on a relation that has none,
/// which another session may be truncating.
pub fn partitions(relation: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    if kind(relation) != pg_sys::RELKIND_PARTITIONED_TABLE {
        return Vec::new();
    }
    let relation = open(relation);
    // SAFETY: the relation is open and partitioned, which is what the function asks for and cannot change; `oids` has
    // `nparts` elements.
    unsafe {
        let partitions = &*pg_sys::RelationGetPartitionDesc(relation.as_ptr(), true);
        if partitions.nparts == 0 {
            return Vec::new();
        }
        std::slice::from_raw_parts(partitions.oids, partitions.nparts as usize).to_vec()
    }
}

/// Whether nothing is attached to the relation that its row in `pg_class` mentions (triggers, rules, constraints),
/// and it is `owner`'s. Takes no lock.
pub fn is_surely_bare(relation: pg_sys::Oid, owner: pg_sys::Oid) -> bool {
    // SAFETY: a look-up by the key that this cache has; the row is looked at before it is released.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let row = pg_sys::SearchSysCache1(cache, relation.into());
        if row.is_null() {
            return false;
        }
        let class = &*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_class>();
        let is_bare = !class.relhastriggers
            && !class.relhasrules
            && class.relchecks == 0
            && class.relowner == owner;
        pg_sys::ReleaseSysCache(row);
        is_bare
    }
}

/// Whether anything attached to the relation may run code: triggers, rules, constraints, defaults, or indexes over
/// expressions, a predicate or operators that are not built in. A column of a type that is not built in counts, too.
pub fn may_run_code(relation: pg_sys::Oid) -> bool {
    let relation = open(relation);
    // SAFETY: the relation is open, so its cache entry and what it points to stay; `rd_att` is never null.
    unsafe {
        let has_constraints = (*relation.rd_att)
            .constr
            .as_ref()
            .is_some_and(|constraints| constraints.num_check > 0 || constraints.num_defval > 0);
        !relation.trigdesc.is_null()
            || !relation.rd_rules.is_null()
            || has_constraints
            || relation
                .tuple_desc()
                .iter()
                .any(|attribute| !is_built_in(attribute.atttypid))
            || indexes(&relation).into_iter().any(index_may_run_code)
    }
}

fn indexes(relation: &PgRelation) -> Vec<pg_sys::Oid> {
    // SAFETY: the relation is open; the list is a copy in the current memory context.
    unsafe {
        let list = pg_sys::RelationGetIndexList(relation.as_ptr());
        PgList::<c_void>::from_pg(list).iter_oid().collect()
    }
}

fn index_may_run_code(index: pg_sys::Oid) -> bool {
    let index = open(index);
    // SAFETY: the index is open: it has its pg_index row, and an operator family for each of its key columns.
    unsafe {
        let is_set = |attribute: u32| {
            !pg_sys::heap_attisnull(index.rd_indextuple, attribute as i32, std::ptr::null_mut())
        };
        let keys = usize::try_from((*index.rd_index).indnkeyatts).unwrap_or(0);
        let families = std::slice::from_raw_parts(index.rd_opfamily, keys);
        is_set(pg_sys::Anum_pg_index_indexprs)
            || is_set(pg_sys::Anum_pg_index_indpred)
            || families.iter().any(|family| !is_built_in(*family))
    }
}

/// Whether initdb made the object.
fn is_built_in(object: pg_sys::Oid) -> bool {
    object.to_u32() < pg_sys::FirstNormalObjectId
}

/// The number of blocks that the table has on disk, without its indexes.
pub fn blocks(relation: pg_sys::Oid) -> u32 {
    let relation = open(relation);
    // SAFETY: the relation is open and has storage: it is a plain table, as its kind says.
    unsafe {
        if (*relation.rd_rel).relkind as u8 != pg_sys::RELKIND_RELATION {
            return 0;
        }
        pg_sys::RelationGetNumberOfBlocksInFork(relation.as_ptr(), pg_sys::ForkNumber::MAIN_FORKNUM)
    }
}

/// How many shards Citus has made of the relation: none of one that is not distributed, or without Citus.
pub fn shards(relation: pg_sys::Oid) -> usize {
    let has_citus = find(
        pg_sys::Oid::from(pg_sys::PG_CATALOG_NAMESPACE),
        c"pg_dist_shard",
    )
    .is_some();
    if !has_citus {
        return 0;
    }
    let counted: SpiResult<Option<i64>> = query::one(
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_dist_shard \
         WHERE logicalrelid::pg_catalog.oid OPERATOR(pg_catalog.=) $1",
        &[relation.into()],
    );
    let counted = counted.or_raise();
    usize::try_from(counted.unwrap_or(0)).unwrap_or(0)
}

/// What the relation is: its `relkind`, 0 where it is gone. Takes no lock.
fn kind(relation: pg_sys::Oid) -> u8 {
    // SAFETY: a catalog lookup.
    unsafe { pg_sys::get_rel_relkind(relation) as u8 }
}

/// The foreign server that the relation is a table of, if it is a foreign table. Takes no lock on other tables.
pub fn foreign_server(relation: pg_sys::Oid) -> Option<pg_sys::Oid> {
    let is_foreign = kind(relation) == pg_sys::RELKIND_FOREIGN_TABLE;
    // SAFETY: the relation is a foreign table, as the function asks for.
    is_foreign.then(|| unsafe { pg_sys::GetForeignServerIdByRelId(relation) })
}

/// The user mapping under which `role` reaches the foreign server. Raises an error where there is none.
pub fn user_mapping(role: pg_sys::Oid, server: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: gives a palloc'd struct, or raises an error.
    unsafe { (*pg_sys::GetUserMapping(role, server)).umid }
}

/// Keeps others from adding triggers and rules to the relation until the transaction ends, as INSERT does.
pub fn lock_for_writing(relation: pg_sys::Oid) {
    // SAFETY: takes a lock that the transaction releases, or raises an error.
    unsafe { pg_sys::LockRelationOid(relation, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE) };
}

fn open(relation: pg_sys::Oid) -> PgRelation {
    // SAFETY: each oid here was just found in the catalogs; Postgres raises an error if it is gone by now.
    unsafe { PgRelation::with_lock(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE) }
}
