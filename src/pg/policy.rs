//! Row-level security.

use pgrx::Spi;
use pgrx::pg_sys::{self, Oid};
use pgrx::spi::SpiResult;

/// Whether policies may let the current user insert rows into the relation: none apply to this user, or a permissive
/// one for INSERT does. Raises an error where `row_security` is off and policies apply, as INSERT would.
pub fn lets_insert(relation: Oid) -> bool {
    // SAFETY: reads catalogs, or raises an error.
    let applies = unsafe { pg_sys::check_enable_rls(relation, pg_sys::InvalidOid, false) };
    if applies != pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32 {
        return true;
    }
    let found: SpiResult<Option<bool>> = Spi::get_one_with_args(
        "SELECT EXISTS ( \
           SELECT FROM pg_catalog.pg_policy \
           WHERE polrelid OPERATOR(pg_catalog.=) $1 AND polpermissive \
             AND polcmd OPERATOR(pg_catalog.=) ANY (ARRAY['a', '*']::\"char\"[]) \
             AND EXISTS ( \
               SELECT FROM pg_catalog.unnest(polroles) AS role \
               WHERE role OPERATOR(pg_catalog.=) 0 OR pg_catalog.pg_has_role(role, 'USAGE')))",
        &[relation.into()],
    );
    found
        .unwrap_or_else(|error| pgrx::error!("{error}"))
        .unwrap_or(false)
}
