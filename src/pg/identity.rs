//! Roles: doing one thing with the rights of another, and what a role may do.

use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::spi::SpiResult;

use super::or_raise::OrRaise;
use super::query;
use super::setting::with_settings_of_its_own;

/// Runs `work` as `role`, as REFRESH MATERIALIZED VIEW and maintenance commands do: nothing that runs meanwhile can
/// change the role back, or leave a setting behind that others would run with. An error that leaves `work` is covered
/// too: the end of its (sub)transaction puts the settings back.
pub fn as_role<R>(role: pg_sys::Oid, work: impl FnOnce() -> R) -> R {
    let _restored_at_end = Switched::to(role);
    with_settings_of_its_own(work)
}

/// `SECURITY_NOFORCE_RLS` is what referential-integrity triggers set: an owner's own policies are not for us.
const RESTRICTIONS: u32 = pg_sys::SECURITY_LOCAL_USERID_CHANGE
    | pg_sys::SECURITY_RESTRICTED_OPERATION
    | pg_sys::SECURITY_NOFORCE_RLS;

struct Switched {
    role: pg_sys::Oid,
    context: i32,
}

impl Switched {
    fn to(new_role: pg_sys::Oid) -> Switched {
        let mut role = pg_sys::InvalidOid;
        let mut context = 0;
        // SAFETY: both pointers are to live locals; setting the user is what Postgres exports this pair for.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut role, &mut context);
            pg_sys::SetUserIdAndSecContext(new_role, context | RESTRICTIONS as i32);
        }
        Switched { role, context }
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        // SAFETY: puts back what `to` read; cannot raise an error.
        unsafe { pg_sys::SetUserIdAndSecContext(self.role, self.context) };
    }
}

/// The role whose rights count now.
pub fn current_role() -> pg_sys::Oid {
    // SAFETY: asks for a user that has been set, as it is once a process has connected: no code of ours asks before.
    unsafe { pg_sys::GetUserId() }
}

/// Whether `member` may act for `role`: it is that role, has its rights, or is a superuser.
pub fn may_act_for(member: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: look-ups in caches, inside a transaction, as every caller is; a role that is not there has no rights.
    unsafe { pg_sys::has_privs_of_role(member, role) }
}

/// Whether the role exists.
pub fn role_exists(role: pg_sys::Oid) -> bool {
    let none = pg_sys::Datum::from(0usize);
    // SAFETY: a look-up by the key that this cache has; callers are inside a transaction.
    unsafe {
        pg_sys::SearchSysCacheExists(
            pg_sys::SysCacheIdentifier::AUTHOID as i32,
            role.into(),
            none,
            none,
            none,
        )
    }
}

/// The name of `role`, for messages.
pub fn role_name(role: pg_sys::Oid) -> String {
    // SAFETY: with `noerr` the function gives a palloc'd string or null.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() {
            role.to_u32().to_string()
        } else {
            CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }
}

/// Whether `role` may open sessions.
pub fn can_login(role: pg_sys::Oid) -> bool {
    let found: SpiResult<Option<bool>> = query::one(
        "SELECT rolcanlogin FROM pg_catalog.pg_roles WHERE oid OPERATOR(pg_catalog.=) $1",
        &[role.into()],
    );
    found.or_raise() == Some(true)
}
