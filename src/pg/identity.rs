//! Doing one thing with the rights of another role.

use pgrx::pg_sys;

/// Runs `work` as `role`, as referential-integrity triggers do: for our own tables, whose owner the caller need
/// not be. An error that leaves `work` is covered too.
pub fn as_role<R>(role: pg_sys::Oid, work: impl FnOnce() -> R) -> R {
    let _restored_at_end = Switched::to(role);
    work()
}

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
            pg_sys::SetUserIdAndSecContext(
                new_role,
                context
                    | (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_NOFORCE_RLS) as i32,
            );
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
