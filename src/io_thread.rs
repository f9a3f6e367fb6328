//! The I/O thread of this backend: started when the first message is wanted, stopped with the process.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use queue::{Hidden, Io, PendingAnswer, Receipt, Setup};

use crate::errors::Failure;
use crate::pg::{exit, latch, open_files, temporary_file};
use crate::settings;

/// How long a process that ends waits for deletes and releases under way.
const EXIT_GRACE: Duration = Duration::from_secs(5);

/// How long it does so once the postmaster has died: while this process lives, no new server can start.
const ORPHAN_EXIT_GRACE: Duration = Duration::from_millis(200);

/// The I/O thread's open files beside connections: its poller, what wakes it and the backend, name look-ups, files of
/// receipt handles.
const OTHER_FILES: usize = 8;

/// With fewer connections nothing could be deleted while polls wait.
const FEWEST_CONNECTIONS: usize = 4;

/// Connections for each poll: another one deletes what it brought.
const CONNECTIONS_A_POLL: usize = 2;

/// Responses of up to ten messages that are held, for each connection: at 80 ms a call their messages are extended
/// within half of half a minute.
const RESPONSES_A_CONNECTION: usize = 100;

/// When Postgres has not as many files to give as are wanted, it is asked again after so long. To be asked is not free:
/// it closes files of its own, which may be in use.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The most connections to ask for. With the default of `max_files_per_process`, Postgres agrees to some 300.
const MOST_CONNECTIONS: usize = 512;

thread_local! {
    static IO: RefCell<Option<Io>> = const { RefCell::new(None) };
    /// Connections that have been reported to Postgres.
    static CONNECTIONS: Cell<usize> = const { Cell::new(0) };
    /// When Postgres last had fewer to give than were wanted.
    static REFUSED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Runs `work` with the I/O thread, starting the thread first if necessary.
///
/// `work` must not check for interrupts: the process may end there, and then takes the thread down itself.
///
/// # Errors
/// [`Failure::NoIoThread`] if the system cannot create the thread.
pub fn with<R>(work: impl FnOnce(&Io) -> R) -> Result<R, Failure> {
    IO.with_borrow_mut(|io| {
        let io = match io {
            Some(io) => io,
            None => {
                exit::at_exit(end);
                io.insert(start().map_err(Failure::NoIoThread)?)
            }
        };
        allow_connections(io);
        Ok(work(io))
    })
}

fn start() -> std::io::Result<Io> {
    let io = Io::start_with(Setup {
        connections: FEWEST_CONNECTIONS,
        open_file: Some(Box::new(temporary_file::open)),
    })?;
    open_files::reserve(OTHER_FILES + FEWEST_CONNECTIONS);
    CONNECTIONS.set(FEWEST_CONNECTIONS);
    Ok(io)
}

/// Allows the I/O thread the connections that it can use, as far as Postgres agrees to them.
fn allow_connections(io: &Io) {
    let to_receive = settings::receive_concurrency() * CONNECTIONS_A_POLL;
    let wanted = to_receive.max(io.responses_held() / RESPONSES_A_CONNECTION);
    let more = wanted
        .min(MOST_CONNECTIONS)
        .saturating_sub(CONNECTIONS.get());
    let was_refused = REFUSED
        .get()
        .is_some_and(|at| at.elapsed() < ASK_AGAIN_AFTER);
    if more == 0 || was_refused {
        return;
    }
    let granted = open_files::acquire(more);
    if granted < more {
        REFUSED.set(Some(Instant::now()));
    }
    if granted > 0 {
        let connections = CONNECTIONS.get() + granted;
        CONNECTIONS.set(connections);
        io.allow_connections(connections);
    }
}

/// Waits for the answers to what was asked, for as long as `limit`; interrupts are handled meanwhile. `None` stands for
/// an answer that did not come, or cannot come any more.
pub fn answers<T>(mut asked: Vec<PendingAnswer<T>>, limit: Duration) -> Vec<Option<T>> {
    let until = Instant::now() + limit;
    let mut answers: Vec<Option<Option<T>>> = asked.iter().map(|_| None).collect();
    loop {
        let mut fd = None;
        if_started(|io| {
            io.acknowledge();
            fd = Some(io.fd());
        });
        for (pending, answer) in asked.iter_mut().zip(&mut answers) {
            if answer.is_none() {
                // The call ended without an answer.
                *answer = pending
                    .try_take()
                    .map_or(Some(None), |answer| answer.map(Some));
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        match fd {
            Some(fd) if !left.is_zero() && answers.iter().any(Option::is_none) => {
                latch::wait_readable(fd, Some(left));
            }
            _ => return answers.into_iter().map(Option::flatten).collect(),
        }
    }
}

/// Runs `work` with the I/O thread if there is one. Never fails, so it is safe in transaction callbacks.
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

/// Releases what was received and not settled, and waits for deletes in flight.
fn end() {
    if let Some(io) = IO.with(|io| io.try_borrow_mut().ok().and_then(|mut io| io.take())) {
        io.shut_down(if exit::is_orphan() {
            ORPHAN_EXIT_GRACE
        } else {
            EXIT_GRACE
        });
    }
}
