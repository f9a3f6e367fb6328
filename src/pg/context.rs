//! CONTEXT: where something happened, in reports and log lines.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use pgrx::{pg_guard, pg_sys};

unsafe extern "C-unwind" {
    // Not among pgrx' bindings, since it takes any number of arguments.
    fn errcontext_msg(format: *const c_char, ...) -> c_int;
}

/// Adds `line` as CONTEXT to whatever is reported while `work` runs.
pub fn with_context<R>(line: &str, work: impl FnOnce() -> R) -> R {
    let line = CString::new(line).unwrap_or_default();
    // SAFETY: the frame and the line outlive `work`; then, however it ends, the frame is taken off the stack.
    unsafe {
        let mut frame = pg_sys::ErrorContextCallback {
            previous: pg_sys::error_context_stack,
            callback: Some(tell),
            arg: line.as_ptr().cast_mut().cast(),
        };
        let _taken_off = TakenOff(frame.previous);
        pg_sys::error_context_stack = &raw mut frame;
        work()
    }
}

struct TakenOff(*mut pg_sys::ErrorContextCallback);

impl Drop for TakenOff {
    fn drop(&mut self) {
        // SAFETY: what was on the stack before is still there.
        unsafe { pg_sys::error_context_stack = self.0 };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn tell(line: *mut c_void) {
    // SAFETY: `line` is that of `with_context`, which is still running; Postgres copies it.
    unsafe {
        let line = CStr::from_ptr(line.cast());
        pg_sys::set_errcontext_domain(std::ptr::null());
        errcontext_msg(c"%s".as_ptr(), line.as_ptr());
    }
}
