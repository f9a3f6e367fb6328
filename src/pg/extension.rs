//! Extensions: whether one is there, and what belongs to it.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::or_raise::OrRaise;
use super::query;

/// The extension of that name, as the catalog has it at this moment, whatever snapshot the transaction has.
pub fn find(name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: reads a catalog, inside a transaction, as every caller is; the name is nul-terminated.
    let oid = unsafe { pg_sys::get_extension_oid(name.as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// The schema that the extension of that name is installed in.
pub fn schema(name: &CStr) -> Option<pg_sys::Oid> {
    query::one(
        "SELECT extnamespace FROM pg_catalog.pg_extension WHERE oid OPERATOR(pg_catalog.=) $1",
        &[find(name)?.into()],
    )
    .or_raise()
}

/// Whether the function is a member of `extension`.
pub fn has_function(extension: &CStr, function: pg_sys::Oid) -> bool {
    // SAFETY: as in `find`; an object that is gone belongs to no extension.
    unsafe {
        let extension = pg_sys::get_extension_oid(extension.as_ptr(), true);
        extension != pg_sys::InvalidOid
            && pg_sys::getExtensionOfObject(pg_sys::ProcedureRelationId, function) == extension
    }
}
