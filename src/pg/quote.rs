//! Text as part of a statement.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// `name` as an SQL identifier, quoted where it must be.
pub fn identifier(name: &str) -> String {
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: reads a nul-terminated string and gives it, or another one, palloc'd.
    unsafe { CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr())) }
        .to_string_lossy()
        .into_owned()
}

/// `text` as an SQL literal.
pub fn literal(text: &str) -> String {
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: reads a nul-terminated string and gives one, palloc'd.
    unsafe { CStr::from_ptr(pg_sys::quote_literal_cstr(text.as_ptr())) }
        .to_string_lossy()
        .into_owned()
}
