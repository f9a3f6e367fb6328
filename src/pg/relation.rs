//! What the catalogs say of a relation, read through the caches that Postgres keeps for itself.

use std::ffi::{CStr, CString};

use pgrx::{PgRelation, Spi, pg_sys};

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

/// The name of the database that this process is connected to.
pub fn current_database() -> String {
    // SAFETY: gives a palloc'd string or null.
    unsafe {
        let name = pg_sys::get_database_name(pg_sys::MyDatabaseId);
        if name.is_null() {
            String::new()
        } else {
            CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }
}

/// What Postgres calls the encoding of the current database.
pub fn database_encoding() -> String {
    // SAFETY: the name of a known encoding is a static string.
    unsafe { CStr::from_ptr(pg_sys::GetDatabaseEncodingName()) }
        .to_string_lossy()
        .into_owned()
}

/// The schema that `extension` is installed in.
pub fn extension_schema(extension: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: a catalog lookup by a nul-terminated name.
    let oid = unsafe { pg_sys::get_extension_oid(extension.as_ptr(), true) };
    if oid == pg_sys::InvalidOid {
        return None;
    }
    Spi::get_one_with_args(
        "SELECT extnamespace FROM pg_catalog.pg_extension WHERE oid OPERATOR(pg_catalog.=) $1",
        &[oid.into()],
    )
    .ok()
    .flatten()
}

/// The relation `name` in `schema`.
pub fn find(schema: pg_sys::Oid, name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: a catalog lookup by a nul-terminated name.
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
    // SAFETY: a catalog lookup; the pointer is to a live local.
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
    // SAFETY: privilege checks on a relation that is there, for the current role.
    unsafe {
        let role = pg_sys::GetUserId();
        pg_sys::pg_class_aclcheck(relation, role, insert) == pg_sys::AclResult::ACLCHECK_OK
            || columns.iter().all(|column| {
                pg_sys::pg_attribute_aclcheck(relation, column.number, role, insert)
                    == pg_sys::AclResult::ACLCHECK_OK
            })
    }
}

/// Whether rows can be inserted at all: a table, or a view or foreign table that takes INSERT.
pub fn takes_insert(relation: pg_sys::Oid) -> bool {
    // SAFETY: reads catalogs; null lists and sets are Postgres' empty ones.
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
            })
            .collect()
    }
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

/// The direct partitions of the relation.
pub fn partitions(relation: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let relation = open(relation);
    // SAFETY: the relation is open and partitioned, which is what the function asks for; `oids` has `nparts` elements.
    unsafe {
        if (*relation.rd_rel).relkind as u8 != pg_sys::RELKIND_PARTITIONED_TABLE {
            return Vec::new();
        }
        let partitions = &*pg_sys::RelationGetPartitionDesc(relation.as_ptr(), true);
        if partitions.nparts == 0 {
            return Vec::new();
        }
        std::slice::from_raw_parts(partitions.oids, partitions.nparts as usize).to_vec()
    }
}

/// Keeps others from adding triggers and rules to the relation until the transaction ends, as INSERT does.
pub fn lock_for_writing(relation: pg_sys::Oid) {
    // SAFETY: takes a lock that the transaction releases, or raises an error.
    unsafe { pg_sys::LockRelationOid(relation, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE) };
}

/// Whether the function is a member of `extension`.
pub fn is_function_of(function: pg_sys::Oid, extension: &CStr) -> bool {
    // SAFETY: catalog lookups by a nul-terminated name and by oid.
    unsafe {
        let extension = pg_sys::get_extension_oid(extension.as_ptr(), true);
        extension != pg_sys::InvalidOid
            && pg_sys::getExtensionOfObject(pg_sys::ProcedureRelationId, function) == extension
    }
}

fn open(relation: pg_sys::Oid) -> PgRelation {
    // SAFETY: each oid here was just found in the catalogs; Postgres raises an error if it is gone by now.
    unsafe { PgRelation::with_lock(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE) }
}
