//! The board: shared memory in which the launcher and its workers find each other.
//!
//! A slot is claimed by the launcher, taken by the worker that it starts, and freed by that worker when it ends. All
//! of it is guarded by one lock, held for moments.

use std::cell::Cell;

use pgrx::{PGRXSharedMemory, PgLwLock, pg_guard, pg_shmem_init, pg_sys};

use crate::pg::worker::is_being_preloaded;

/// The most workers that can run at once, of all subscriptions together.
pub const SLOTS: usize = 64;

/// The longest queue URL, in bytes. AWS' are below 200.
pub const LONGEST_URL: usize = 512;

static BOARD: PgLwLock<Board> =
    // SAFETY: no other extension has this name.
    unsafe { PgLwLock::new(c"user_logins_sqs board") };

thread_local! {
    static IS_THERE: Cell<bool> = const { Cell::new(false) };
}

#[derive(Clone, Copy)]
struct Board {
    /// The launcher's latch, which lies in shared memory at the same address in every process; 0 while there is no
    /// launcher.
    launcher_latch: usize,
    /// A launcher is connecting to its database, or has failed to.
    launcher_connects: bool,
    slots: [Slot; SLOTS],
}

#[derive(Clone, Copy)]
struct Slot {
    state: State,
    /// Microseconds since 2000 when it came to this state.
    since: i64,
    pid: i32,
    assignment: Assignment,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Starting,
    Running,
    Ending,
}

// SAFETY: plain data without pointers that are followed from here, guarded by the lock.
unsafe impl PGRXSharedMemory for Board {}

/// What a worker is to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Assignment {
    /// The database of the subscription.
    pub database: pg_sys::Oid,
    /// The role that subscribed.
    pub role: pg_sys::Oid,
    url: Url,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Url {
    length: usize,
    bytes: [u8; LONGEST_URL],
}

impl Assignment {
    /// An assignment to ingest from `queue_url`. `None` if the URL is longer than [`LONGEST_URL`].
    pub fn new(database: pg_sys::Oid, role: pg_sys::Oid, queue_url: &str) -> Option<Assignment> {
        let mut bytes = [0; LONGEST_URL];
        bytes
            .get_mut(..queue_url.len())?
            .copy_from_slice(queue_url.as_bytes());
        Some(Assignment {
            database,
            role,
            url: Url {
                length: queue_url.len(),
                bytes,
            },
        })
    }

    /// The queue to ingest from.
    pub fn queue_url(&self) -> &str {
        std::str::from_utf8(&self.url.bytes[..self.url.length]).unwrap_or_default()
    }

    /// The last part of its URL.
    pub fn queue_name(&self) -> &str {
        self.queue_url().rsplit('/').next().unwrap_or_default()
    }
}

/// A slot that is in use, as the launcher sees it.
pub struct Entry {
    /// What its worker does.
    pub assignment: Assignment,
    /// Its place.
    pub slot: usize,
}

/// How long a worker may take from being asked for to taking its slot, in microseconds. One that could not start
/// (a role without LOGIN fails later, with its slot taken) leaves its slot to be claimed anew.
const LONGEST_START: i64 = 30_000_000;

const FREE: Slot = Slot {
    state: State::Free,
    since: 0,
    pid: 0,
    assignment: Assignment {
        database: pg_sys::InvalidOid,
        role: pg_sys::InvalidOid,
        url: Url {
            length: 0,
            bytes: [0; LONGEST_URL],
        },
    },
};

/// Asks for the shared memory.
pub fn init() {
    pg_shmem_init!(
        BOARD = Board {
            launcher_latch: 0,
            launcher_connects: false,
            slots: [FREE; SLOTS]
        }
    );
    IS_THERE.set(true);
}

/// Whether the library was preloaded, so that there is a board, a launcher, and workers.
pub fn is_there() -> bool {
    IS_THERE.get() && !is_being_preloaded()
}

/// Wakes the launcher, if there is one.
pub fn wake_launcher() {
    if is_there() {
        let latch = BOARD.share().launcher_latch;
        if latch != 0 {
            // SAFETY: the latch of a live process, or of one that ended this instant, whose latch is still a latch.
            unsafe { pg_sys::SetLatch(latch as *mut pg_sys::Latch) };
        }
    }
}

/// Notes that the launcher is about to connect, or has; says whether one was about to and never did.
pub fn set_launcher_connects(connects: bool) -> bool {
    std::mem::replace(&mut BOARD.exclusive().launcher_connects, connects)
}

/// Makes this process the launcher, until it ends.
pub fn become_launcher() {
    // SAFETY: this process' own latch; the callback has the signature that Postgres asks for.
    unsafe {
        BOARD.exclusive().launcher_latch = pg_sys::MyLatch as usize;
        pg_sys::before_shmem_exit(Some(launcher_ends), pg_sys::Datum::from(0usize));
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn launcher_ends(_code: i32, _arg: pg_sys::Datum) {
    BOARD.exclusive().launcher_latch = 0;
}

/// The slots in use by workers that were not told to end.
pub fn entries() -> Vec<Entry> {
    let now = now();
    let mut board = BOARD.exclusive();
    for slot in &mut board.slots {
        if slot.state == State::Starting && now - slot.since > LONGEST_START {
            *slot = FREE;
        }
    }
    let in_use = board.slots.iter().enumerate();
    in_use
        .filter(|(_, slot)| matches!(slot.state, State::Starting | State::Running))
        .map(|(index, slot)| Entry {
            assignment: slot.assignment,
            slot: index,
        })
        .collect()
}

/// What all workers do that are starting, running or ending. Nothing where the library is not preloaded.
pub fn assignments() -> Vec<Assignment> {
    if !is_there() {
        return Vec::new();
    }
    let board = BOARD.share();
    let in_use = board.slots.iter().filter(|slot| slot.state != State::Free);
    in_use.map(|slot| slot.assignment).collect()
}

/// Claims a slot for a worker that is about to be started. `None`: all are in use.
pub fn claim(assignment: Assignment) -> Option<usize> {
    let mut board = BOARD.exclusive();
    let slot = board
        .slots
        .iter()
        .position(|slot| slot.state == State::Free)?;
    board.slots[slot] = Slot {
        state: State::Starting,
        since: now(),
        pid: 0,
        assignment,
    };
    Some(slot)
}

/// Gives a slot back whose worker could not be asked for.
pub fn give_back(slot: usize) {
    BOARD.exclusive().slots[slot] = FREE;
}

/// Tells the worker in `slot` to end, if it still does what `assignment` says.
pub fn end(slot: usize, assignment: &Assignment) {
    let mut board = BOARD.exclusive();
    let slot = &mut board.slots[slot];
    if slot.assignment != *assignment {
        return;
    }
    match slot.state {
        State::Running => {
            slot.state = State::Ending;
            // SAFETY: a worker frees its slot, under this lock, before its process ends: the id is not reused yet.
            unsafe { libc::kill(slot.pid, libc::SIGTERM) };
        }
        // It finds its slot gone and ends by itself.
        State::Starting => *slot = FREE,
        State::Free | State::Ending => {}
    }
}

/// Takes the slot that this worker was started for. `None`: it is not wanted any more.
pub fn take(slot: usize) -> Option<Assignment> {
    let mut board = BOARD.exclusive();
    let entry = board
        .slots
        .get_mut(slot)
        .filter(|entry| entry.state == State::Starting)?;
    // SAFETY: reads this process' id and registers a callback of the signature that Postgres asks for.
    unsafe {
        entry.pid = pg_sys::MyProcPid;
        pg_sys::before_shmem_exit(Some(worker_ends), pg_sys::Datum::from(slot));
    }
    entry.state = State::Running;
    entry.since = now();
    Some(entry.assignment)
}

#[pg_guard]
unsafe extern "C-unwind" fn worker_ends(_code: i32, slot: pg_sys::Datum) {
    BOARD.exclusive().slots[slot.value()] = FREE;
}

/// How many workers ingest from `queue_url` in this database. 0 where the library is not preloaded.
pub fn running(queue_url: &str) -> i32 {
    if !is_there() {
        return 0;
    }
    // SAFETY: reads a static.
    let database = unsafe { pg_sys::MyDatabaseId };
    let board = BOARD.share();
    let ours = board.slots.iter().filter(|slot| {
        slot.state == State::Running
            && slot.assignment.database == database
            && slot.assignment.queue_url() == queue_url
    });
    ours.count() as i32
}

fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}
