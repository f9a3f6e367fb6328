//! The database that this process is connected to, and whether others are still there.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Oid};

/// The database of this process; none in a process that is connected to none.
pub fn current() -> Option<Oid> {
    // SAFETY: a read of a static that is set once, before any of our code runs in a backend.
    let database = unsafe { pg_sys::MyDatabaseId };
    (database != pg_sys::InvalidOid).then_some(database)
}

/// The name of the database that this process is connected to.
pub fn name() -> String {
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

/// Whether the database exists; `None` outside of a transaction, where that cannot be known.
pub fn exists(database: Oid) -> Option<bool> {
    // SAFETY: a look-up by the key that this cache has, inside a transaction.
    unsafe {
        pg_sys::IsTransactionState().then(|| {
            let none = pg_sys::Datum::from(0usize);
            pg_sys::SearchSysCacheExists(
                pg_sys::SysCacheIdentifier::DATABASEOID as i32,
                database.into(),
                none,
                none,
                none,
            )
        })
    }
}

/// Whether the database of that name accepts connections; `None`: there is none. Inside a transaction, also of a
/// process that is connected to none: the catalog is read without its index, which such a process may not be able to
/// open.
pub fn accepts_connections(name: &str) -> Option<bool> {
    // SAFETY: opened and closed in pairs, and an error in between ends the transaction, which closes them; every tuple
    // of this catalog begins with a `FormData_pg_database`, and is looked at before the scan goes on.
    unsafe {
        let catalog =
            pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::systable_beginscan(
            catalog,
            pg_sys::InvalidOid,
            false,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        let mut found = None;
        while found.is_none() {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let database: *const pg_sys::FormData_pg_database = pg_sys::GETSTRUCT(tuple).cast();
            if CStr::from_ptr((*database).datname.data.as_ptr()).to_bytes() == name.as_bytes() {
                found = Some((*database).datallowconn);
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
        found
    }
}

/// Whether this server is a standby or still recovering from a crash, so that nothing can be written.
pub fn is_in_recovery() -> bool {
    // SAFETY: shared memory is mapped before any of our code runs in a backend, and stays mapped until it ends; the
    // rest that the function reads is the main thread's, which runs this.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Whether the current transaction may not write.
pub fn is_read_only() -> bool {
    // SAFETY: only the main thread, which runs this, writes `XactReadOnly`.
    unsafe { pg_sys::XactReadOnly }
}

/// Whether text in this database is UTF-8.
pub fn is_utf8() -> bool {
    // SAFETY: the function reads a pointer that always is to an entry of Postgres' table of encodings, and that only
    // the main thread, which runs this, changes.
    unsafe { pg_sys::GetDatabaseEncoding() == pg_sys::pg_enc::PG_UTF8 as i32 }
}

/// What Postgres calls the encoding of the current database.
pub fn encoding() -> String {
    // SAFETY: the name of a known encoding is a static string.
    unsafe { CStr::from_ptr(pg_sys::GetDatabaseEncodingName()) }
        .to_string_lossy()
        .into_owned()
}
