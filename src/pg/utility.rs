//! Inspects utility statements of this session before they run.

use std::ffi::CStr;
use std::sync::OnceLock;

use pgrx::{pg_guard, pg_sys};

/// What a statement is about to create: a table, foreign table or view.
pub struct Creation {
    /// The schema that it will be in.
    pub schema: pg_sys::Oid,
    /// Its name.
    pub name: String,
}

static BEFORE_CREATION: OnceLock<fn(&Creation)> = OnceLock::new();
static mut NEXT_HOOK: pg_sys::ProcessUtility_hook_type = None;

/// From now on, in this session, calls `before` ahead of each statement that creates a table, foreign table or view
/// under a name that must not be taken. Once in the life of a session: later calls do nothing.
pub fn on_create_relation(before: fn(&Creation)) {
    if BEFORE_CREATION.set(before).is_ok() {
        // SAFETY: the main thread alone reads and writes hooks.
        unsafe {
            NEXT_HOOK = pg_sys::ProcessUtility_hook;
            pg_sys::ProcessUtility_hook = Some(process_utility);
        }
    }
}

#[pg_guard]
#[allow(
    clippy::too_many_arguments,
    reason = "the signature that Postgres asks for"
)]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const std::ffi::c_char,
    is_read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: Postgres passes a statement that is not null, and its node.
    let creation = unsafe { creation((*statement).utilityStmt) };
    if let (Some(creation), Some(before)) = (creation, BEFORE_CREATION.get()) {
        before(&creation);
    }
    // SAFETY: what Postgres passed, to the hook that was there before or to what Postgres calls without one.
    unsafe {
        match NEXT_HOOK {
            Some(next) => pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| {
                next(
                    statement,
                    text,
                    is_read_only_tree,
                    context,
                    parameters,
                    environment,
                    destination,
                    completion,
                )
            }),
            None => pg_sys::standard_ProcessUtility(
                statement,
                text,
                is_read_only_tree,
                context,
                parameters,
                environment,
                destination,
                completion,
            ),
        }
    }
}

/// # Safety
/// `statement` is a node.
unsafe fn creation(statement: *mut pg_sys::Node) -> Option<Creation> {
    // SAFETY: the tag says what a node is; each of these has a range variable with a nul-terminated name, which the
    // look-up of its schema reads.
    unsafe {
        let relation = match (*statement).type_ {
            pg_sys::NodeTag::T_CreateStmt | pg_sys::NodeTag::T_CreateForeignTableStmt => {
                let create = statement.cast::<pg_sys::CreateStmt>();
                (!(*create).if_not_exists).then_some((*create).relation)
            }
            pg_sys::NodeTag::T_ViewStmt => {
                let create = statement.cast::<pg_sys::ViewStmt>();
                (!(*create).replace).then_some((*create).view)
            }
            _ => None,
        }?;
        if (*relation).relpersistence as u8 == pg_sys::RELPERSISTENCE_TEMP {
            return None;
        }
        Some(Creation {
            schema: pg_sys::RangeVarGetCreationNamespace(relation),
            name: CStr::from_ptr((*relation).relname)
                .to_string_lossy()
                .into_owned(),
        })
    }
}
