//! Raises the errors of our own statements, which their callers cannot handle.

use std::fmt::Display;

/// Turns an error that nothing here can handle into a Postgres error.
pub trait OrRaise<T> {
    /// Returns the value, or raises a Postgres error with the text of the `Err` and the location of the caller.
    fn or_raise(self) -> T;
}

impl<T, E: Display> OrRaise<T> for Result<T, E> {
    #[track_caller]
    fn or_raise(self) -> T {
        match self {
            Ok(value) => value,
            Err(error) => pgrx::error!("{error}"),
        }
    }
}
