//! Schemas: who may rename one, and keeping one from being renamed.

use std::cell::RefCell;
use std::ffi::{CStr, CString};

use pgrx::Spi;
use pgrx::pg_sys::{self, BuiltinOid, Oid, PgOid};
use pgrx::spi::{OwnedPreparedStatement, SpiResult};

use super::identity::{as_role, may_act_for};

/// The schema of that name.
pub fn find(name: &CStr) -> Option<Oid> {
    // SAFETY: a catalog lookup by a nul-terminated name.
    let oid = unsafe { pg_sys::get_namespace_oid(name.as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// The name of the schema, if it is there.
pub fn name(schema: Oid) -> Option<CString> {
    // SAFETY: gives a palloc'd string or null.
    unsafe {
        let name = pg_sys::get_namespace_name(schema);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_owned())
    }
}

/// Whether `role` may use what is in the schema.
pub fn may_use(role: Oid, schema: Oid) -> bool {
    let usage = pg_sys::AclMode::from(pg_sys::ACL_USAGE);
    // SAFETY: a privilege check; raises an error if there is no such schema.
    #[cfg(feature = "pg15")]
    let checked = unsafe { pg_sys::pg_namespace_aclcheck(schema, role, usage) };
    // SAFETY: as above.
    #[cfg(not(feature = "pg15"))]
    let checked =
        unsafe { pg_sys::object_aclcheck(pg_sys::NamespaceRelationId, schema, role, usage) };
    checked == pg_sys::AclResult::ACLCHECK_OK
}

/// Whether everybody who may rename the schema has the rights of `role` anyway.
pub fn is_in_the_hands_of(schema: Oid, role: Oid) -> bool {
    renamer(schema).is_some_and(|renamer| may_act_for(renamer, role))
}

/// The role whose rights include renaming the schema: its owner; where that is `pg_database_owner`, who never has other
/// members, the owner of the database.
fn renamer(schema: Oid) -> Option<Oid> {
    // SAFETY: look-ups by the keys that these caches have; each row is of the struct that its catalog has, and is
    // looked at before it is released.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::NAMESPACEOID as i32;
        let row = pg_sys::SearchSysCache1(cache, schema.into());
        if row.is_null() {
            return None;
        }
        let owner = (*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_namespace>()).nspowner;
        pg_sys::ReleaseSysCache(row);
        if owner != Oid::from(pg_sys::ROLE_PG_DATABASE_OWNER) {
            return Some(owner);
        }
        let cache = pg_sys::SysCacheIdentifier::DATABASEOID as i32;
        let row = pg_sys::SearchSysCache1(cache, pg_sys::MyDatabaseId.into());
        if row.is_null() {
            return None;
        }
        let owner = (*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_database>()).datdba;
        pg_sys::ReleaseSysCache(row);
        Some(owner)
    }
}

/// Keeps the schema from being renamed or dropped until the (sub)transaction ends; returns its name, or none where it
/// is gone. Waits for a transaction that has renamed it. Not on a standby.
///
/// ALTER SCHEMA takes no lock but that of the row that it updates. A key-share lock of that row lets GRANT go on, and
/// any number of sessions share it.
pub fn keep_name(schema: Oid) -> SpiResult<Option<CString>> {
    thread_local! {
        static PREPARED: RefCell<Option<OwnedPreparedStatement>> = const { RefCell::new(None) };
    }
    const LOCK: &str = "SELECT nspname::pg_catalog.text FROM pg_catalog.pg_namespace \
        WHERE oid OPERATOR(pg_catalog.=) $1 FOR KEY SHARE";
    // Locking a row of a catalog takes the right to update it.
    let superuser = Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID);
    let name: SpiResult<Option<String>> = as_role(superuser, || {
        let _restored_at_end = Writable::for_now();
        Spi::connect_mut(|client| {
            PREPARED.with_borrow_mut(|prepared| {
                let statement = match prepared {
                    Some(statement) => statement,
                    None => {
                        let types = [PgOid::BuiltIn(BuiltinOid::OIDOID)];
                        prepared.insert(client.prepare_mut(LOCK, &types)?.keep())
                    }
                };
                let locked = client.update(&*statement, Some(1), &[schema.into()])?;
                locked.into_iter().next().map_or(Ok(None), |row| row.get(1))
            })
        })
    });
    Ok(name?.and_then(|name| CString::new(name).ok()))
}

/// Lets a read-only transaction lock a row, which changes no data.
struct Writable {
    was_read_only: bool,
}

impl Writable {
    fn for_now() -> Writable {
        // SAFETY: a static of the main thread, put back when this is dropped. What runs until then is the one statement
        // above, and an error that leaves it unwinds through here.
        unsafe {
            let was_read_only = pg_sys::XactReadOnly;
            pg_sys::XactReadOnly = false;
            Writable { was_read_only }
        }
    }
}

impl Drop for Writable {
    fn drop(&mut self) {
        // SAFETY: as in `for_now`.
        unsafe { pg_sys::XactReadOnly = self.was_read_only };
    }
}
