//! The I/O thread of this backend: born when the first message is wanted, ended with the process.

use std::cell::RefCell;
use std::time::Duration;

use queue::{Hidden, Io, Receipt};

use crate::errors::Failure;
use crate::pg::{exit, temporary_file};

/// How long a process that ends waits for deletes and releases under way.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long it does so where the postmaster has died: as long as it lives, no new server can be started.
const LAST_WORDS_OF_AN_ORPHAN: Duration = Duration::from_millis(200);

thread_local! {
    static IO: RefCell<Option<Io>> = const { RefCell::new(None) };
}

/// Does `work` with the I/O thread, which is started if it is not there yet.
///
/// `work` must not check for interrupts: the process may end there, and then takes the thread down itself.
///
/// # Errors
/// [`Failure::NoIoThread`] when the system gives no thread.
pub fn with<R>(work: impl FnOnce(&Io) -> R) -> Result<R, Failure> {
    IO.with_borrow_mut(|io| {
        let io = match io {
            Some(io) => io,
            None => {
                exit::at_exit(end);
                io.insert(Io::start_with_files(temporary_file::open).map_err(Failure::NoIoThread)?)
            }
        };
        Ok(work(io))
    })
}

/// Does `work` with the I/O thread if there is one. Never fails, so it is safe in transaction callbacks.
pub fn if_started(work: impl FnOnce(&Io)) {
    IO.with(|io| {
        if let Ok(io) = io.try_borrow()
            && let Some(io) = &*io
        {
            work(io);
        }
    });
}

/// How long a message that was left to its queue stays hidden.
pub fn hidden_until(receipt: Receipt) -> Hidden {
    let mut hidden = Hidden::Unknown;
    if_started(|io| hidden = io.hidden_until(receipt));
    hidden
}

/// Whatever was received and not settled is released, deletes under way are awaited.
fn end() {
    if let Some(io) = IO.with(|io| io.try_borrow_mut().ok().and_then(|mut io| io.take())) {
        io.shut_down(if exit::is_orphan() {
            LAST_WORDS_OF_AN_ORPHAN
        } else {
            LAST_WORDS
        });
    }
}
