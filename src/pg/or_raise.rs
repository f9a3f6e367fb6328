//! Raises what a statement of ours failed with: the error was none that the caller could act on.

use std::fmt::Display;

/// Turns an error that nothing here can handle into a Postgres error.
pub trait OrRaise<T> {
    /// The value, or a Postgres error that says what the `Err` says and names the place of the call.
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
