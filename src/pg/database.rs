//! The database that this process is connected to, and whether others are still there.

use std::ffi::CString;

use pgrx::pg_sys::{self, Oid};

/// The database of this process; none in a process that is connected to none.
pub fn current() -> Option<Oid> {
    // SAFETY: a read of a static that is set once, before any of our code runs in a backend.
    let database = unsafe { pg_sys::MyDatabaseId };
    (database != pg_sys::InvalidOid).then_some(database)
}

/// Whether there is such a database; `None` outside of a transaction, where that cannot be known.
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

/// Whether there is a database of that name. Inside a transaction.
pub fn is_named(name: &str) -> bool {
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: a nul-terminated string; that there is none is no error.
    unsafe { pg_sys::get_database_oid(name.as_ptr(), true) != pg_sys::InvalidOid }
}

/// Whether text in this database is UTF-8.
pub fn is_utf8() -> bool {
    // SAFETY: reads backend state.
    unsafe { pg_sys::GetDatabaseEncoding() == pg_sys::pg_enc::PG_UTF8 as i32 }
}
