//! Row-level security.

use pgrx::pg_sys::{self, Oid};
use pgrx::spi::SpiResult;

use super::or_raise::OrRaise;
use super::query;

/// Whether row-level security applies to what the current user does with the relation. Raises an error where
/// `row_security` is off and it would, as INSERT does.
pub fn applies(relation: Oid) -> bool {
    // SAFETY: look-ups in caches, inside a transaction, as every caller is; a relation that is gone has no policies; an
    // error unwinds.
    let applies = unsafe { pg_sys::check_enable_rls(relation, pg_sys::InvalidOid, false) };
    applies == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
}

/// Whether policies may let the current user insert rows into the relation: none apply to this user, or a permissive
/// one for INSERT does. Raises an error where `row_security` is off and policies apply, as INSERT would.
pub fn lets_insert(relation: Oid) -> bool {
    if !applies(relation) {
        return true;
    }
    let found: SpiResult<Option<bool>> = query::one(
        "SELECT EXISTS ( \
           SELECT FROM pg_catalog.pg_policy \
           WHERE polrelid OPERATOR(pg_catalog.=) $1 AND polpermissive \
             AND polcmd OPERATOR(pg_catalog.=) ANY (ARRAY['a', '*']::pg_catalog.\"char\"[]) \
             AND EXISTS ( \
               SELECT FROM pg_catalog.unnest(polroles) AS role \
               WHERE role OPERATOR(pg_catalog.=) 0 OR pg_catalog.pg_has_role(role, 'USAGE')))",
        &[relation.into()],
    );
    found.or_raise().unwrap_or(false)
}
