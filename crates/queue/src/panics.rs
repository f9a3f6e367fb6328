//! Panics on the I/O thread print nothing.
//!
//! What a panic says may quote the body that caused it, and in a server stderr is the log. The panic hook is
//! one for the whole program, so ours is put before the one that is there: it swallows what comes from threads
//! that asked for quiet and hands everything else on unchanged.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::pin::pin;
use std::sync::Once;
use std::task::Poll;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static LAST_LOCATION: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics of the calling thread print nothing from now on.
pub(crate) fn quieten_this_thread() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if QUIET.get() {
                let location = panic.location().map(ToString::to_string);
                LAST_LOCATION.set(location.unwrap_or_default());
            } else {
                others(panic);
            }
        }));
    });
    QUIET.set(true);
}

/// Where in the source the last panic of this quiet thread was raised: file, line and column, no message.
pub(crate) fn last_location() -> String {
    LAST_LOCATION.take()
}

/// A panic, caught. Where it was raised is [`last_location`].
#[derive(Debug)]
pub(crate) struct Panicked;

/// Calls `action`, catching a panic. What `action` changed may be half done.
pub(crate) fn caught<R>(action: impl FnOnce() -> R) -> Result<R, Panicked> {
    catch_unwind(AssertUnwindSafe(action)).map_err(|_| Panicked)
}

/// Awaits `future`, catching a panic in any of its polls.
pub(crate) async fn caught_in<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(|context| match caught(|| future.as_mut().poll(context)) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panicked) => Poll::Ready(Err(panicked)),
    })
    .await
}
