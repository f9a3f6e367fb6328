//! Backtraces of Rust, which do not help users.

use std::backtrace::Backtrace;
use std::env;

/// The standard library reads this before `RUST_BACKTRACE`.
const VARIABLE: &str = "RUST_LIB_BACKTRACE";

/// Keeps pgrx from adding a backtrace to the DETAIL of errors, whatever the server's environment says.
///
/// pgrx captures one for every error that passes through Rust where `RUST_BACKTRACE` is set, as it is on many a
/// developer's machine. The standard library looks at the environment when the first one is captured, and never again.
pub fn switch_off() {
    let before = env::var_os(VARIABLE);
    // SAFETY: called while the library is loaded, when the process has one thread; the variable is put back below.
    unsafe { env::set_var(VARIABLE, "0") };
    drop(Backtrace::capture());
    // SAFETY: as above.
    unsafe {
        match before {
            Some(value) => env::set_var(VARIABLE, value),
            None => env::remove_var(VARIABLE),
        }
    }
}
