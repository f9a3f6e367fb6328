//! Errors that Postgres raised and we caught: their SQLSTATE, whole.

use std::cell::Cell;
use std::ffi::c_void;
use std::fmt;

use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};
use pgrx::{pg_guard, pg_sys};

/// A SQLSTATE as Postgres packs it: five characters of six bits.
///
/// pgrx has names for the codes in `errcodes.txt` only and makes every other one XX000, but a trigger may raise
/// any code it likes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SqlState(i32);

impl SqlState {
    /// The SQLSTATE `code`, of five characters.
    #[cfg(test)]
    pub fn named(code: &[u8; 5]) -> SqlState {
        let packed = code
            .iter()
            .enumerate()
            .map(|(i, c)| i32::from(c - b'0') << (6 * i))
            .sum();
        SqlState(packed)
    }

    /// Its class: the first two characters.
    pub fn class(self) -> [u8; 2] {
        let [first, second, ..] = self.characters();
        [first, second]
    }

    fn characters(self) -> [u8; 5] {
        // At most 6 bits are left after the mask, so the cast keeps them all.
        std::array::from_fn(|i| ((self.0 >> (6 * i)) & 0x3f) as u8 + b'0')
    }

    /// Whether pgrx has a name for it.
    fn is_named(self) -> bool {
        PgSqlErrorCode::from(self.0) != PgSqlErrorCode::ERRCODE_INTERNAL_ERROR
    }
}

impl From<PgSqlErrorCode> for SqlState {
    fn from(code: PgSqlErrorCode) -> SqlState {
        SqlState(code as i32)
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.characters()
            .iter()
            .try_for_each(|&c| fmt::Write::write_char(f, char::from(c)))
    }
}

/// An error that left a subtransaction.
pub struct Caught {
    error: CaughtError,
    state: SqlState,
}

impl Caught {
    /// `nameless` is what [`Watch`] saw last while the error was on its way: the state of what pgrx calls an internal
    /// error since it has no name for it. Any other state that was seen may be that of something else, which a
    /// trigger caught and handled before it raised the error again.
    pub fn new(error: CaughtError, nameless: Option<SqlState>) -> Caught {
        let state = match (report(&error).sql_error_code(), &error) {
            (PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, CaughtError::PostgresError(_)) => {
                nameless.unwrap_or(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR.into())
            }
            (named, _) => named.into(),
        };
        Caught { error, state }
    }

    /// Whether somebody has cancelled the statement, or ended the session.
    pub fn is_cancel(&self) -> bool {
        self.state.class() == *b"57"
    }

    /// Whether it was raised because of what other sessions hold: a deadlock, or `lock_timeout`.
    pub fn is_contention(&self) -> bool {
        use PgSqlErrorCode::*;
        let contention = [ERRCODE_T_R_DEADLOCK_DETECTED, ERRCODE_LOCK_NOT_AVAILABLE];
        contention.map(SqlState::from).contains(&self.state)
    }

    /// Whether one of these functions of Postgres raised it.
    pub fn comes_from(&self, functions: &[&str]) -> bool {
        report(&self.error)
            .function_name()
            .is_some_and(|name| functions.contains(&name))
    }

    /// The SQLSTATE as it was raised.
    pub fn state(&self) -> SqlState {
        self.state
    }

    /// Whether it was raised because another row has the same key.
    pub fn is_unique_violation(&self) -> bool {
        self.state == PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION.into()
    }

    /// The nearest code that pgrx has a name for.
    pub fn code(&self) -> PgSqlErrorCode {
        report(&self.error).sql_error_code()
    }

    /// The primary message.
    pub fn message(&self) -> &str {
        report(&self.error).message()
    }

    /// What was raised beside the primary message.
    pub fn detail(&self) -> Option<&str> {
        report(&self.error).detail()
    }

    /// The hint, if there was one.
    pub fn hint(&self) -> Option<&str> {
        report(&self.error).hint()
    }

    /// Raises it again.
    pub fn rethrow(self) -> ! {
        self.error.rethrow()
    }
}

fn report(error: &CaughtError) -> &ErrorReportWithLevel {
    match error {
        CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic {
            ereport: report, ..
        } => report,
    }
}

/// Sees the SQLSTATE of every error that is raised while it lives, by standing in Postgres' stack of error
/// context callbacks, and remembers those that pgrx has no name for.
pub struct Watch {
    // Boxed: Postgres holds pointers to both.
    link: Box<pg_sys::ErrorContextCallback>,
    last: Box<Cell<Option<SqlState>>>,
}

impl Watch {
    /// Starts watching.
    pub fn start() -> Watch {
        let last = Box::new(Cell::new(None));
        let argument: *const Cell<Option<SqlState>> = &*last;
        // SAFETY: the stack is the main thread's; `link` and `last` live until `drop` takes the link out again,
        // and watches are dropped in the reverse order of their start.
        unsafe {
            let mut link = Box::new(pg_sys::ErrorContextCallback {
                previous: pg_sys::error_context_stack,
                callback: Some(note_state),
                arg: argument.cast_mut().cast::<c_void>(),
            });
            pg_sys::error_context_stack = &mut *link;
            Watch { link, last }
        }
    }

    /// The one seen last.
    pub fn last(&self) -> Option<SqlState> {
        self.last.get()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: puts back what `start` found.
        unsafe { pg_sys::error_context_stack = self.link.previous };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn note_state(last: *mut c_void) {
    // SAFETY: `last` is the cell of a live `Watch`, and Postgres calls this from errfinish only, where
    // `geterrcode` is allowed.
    unsafe {
        let state = SqlState(pg_sys::geterrcode());
        if !state.is_named() {
            (*last.cast::<Cell<Option<SqlState>>>()).set(Some(state));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlstate_reads_as_its_five_characters() {
        assert_eq!(SqlState::named(b"23514").to_string(), "23514");
        assert_eq!(SqlState::named(b"P0001").to_string(), "P0001");
    }
}
