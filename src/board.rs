//! The board: shared memory in which the launcher and its workers find each other.
//!
//! The launcher reserves a slot for each worker that it starts; the worker takes it, and frees it when it ends. All of
//! it is guarded by one lock, held for moments.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU8, AtomicU32};

use pgrx::pg_sys::Oid;

use crate::pg::exit::{self, Finish};
use crate::pg::latch::SharedLatch;
use crate::pg::shared_memory::{Shareable, SharedMemory};
use crate::pg::shared_text::SharedText;
use crate::pg::{background_worker, clock, database};

/// The most workers that can run at once, of all subscriptions together.
pub const SLOTS: usize = 64;

/// The longest queue URL, in bytes. AWS' are below 200; a normalised one has a host of at most 253 bytes and a path of
/// at most 140.
pub const LONGEST_URL: usize = 512;

/// How long a worker may take from being asked for to taking its slot, in microseconds: one that could not be forked
/// leaves its slot to others.
const LONGEST_START: i64 = 30_000_000;

static BOARD: SharedMemory<Board> = SharedMemory::new(c"user_logins_sqs board");

struct Board {
    launcher: SharedLatch,
    /// A launcher is connecting to its database, or has failed to.
    launcher_connects: AtomicBool,
    slots: [Slot; SLOTS],
}

// SAFETY: atomics, and arrays and structs of them.
unsafe impl Shareable for Board {}

struct Slot {
    state: AtomicU8,
    /// Microseconds since 2000 when it came to this state.
    since: AtomicI64,
    pid: AtomicI32,
    database: AtomicU32,
    role: AtomicU32,
    extension: AtomicU32,
    queue_url: SharedText<LONGEST_URL>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum SlotState {
    Free,
    Starting,
    Running,
    Ending,
}

impl Slot {
    fn is(&self, states: &[SlotState]) -> bool {
        let state = self.state.load(Relaxed);
        states.iter().any(|known| *known as u8 == state)
    }

    fn set(&self, state: SlotState) {
        self.state.store(state as u8, Relaxed);
        self.since.store(clock::now(), Relaxed);
    }

    fn assign(&self, assignment: &Assignment) {
        self.database.store(assignment.database.to_u32(), Relaxed);
        self.role.store(assignment.role.to_u32(), Relaxed);
        self.extension.store(assignment.extension.to_u32(), Relaxed);
        self.queue_url.set(&assignment.queue_url);
    }

    fn assignment(&self) -> Assignment {
        Assignment {
            database: self.database.load(Relaxed).into(),
            role: self.role.load(Relaxed).into(),
            extension: self.extension.load(Relaxed).into(),
            queue_url: self.queue_url.get(),
        }
    }
}

/// The task of a worker.
#[derive(Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The database of the subscription.
    pub database: Oid,
    /// The role that subscribed.
    pub role: Oid,
    /// The extension that it subscribed with: one that was dropped and created again is another.
    pub extension: Oid,
    /// The queue to ingest from, no longer than [`LONGEST_URL`].
    pub queue_url: String,
}

impl Assignment {
    /// The last part of the queue's URL.
    pub fn queue_name(&self) -> &str {
        self.queue_url.rsplit('/').next().unwrap_or_default()
    }
}

/// A worker that is starting or running.
pub struct Entry {
    /// Its task.
    pub assignment: Assignment,
    /// Its slot.
    pub slot: usize,
}

/// Asks for the shared memory.
pub fn init() {
    BOARD.request();
}

/// Whether the library was preloaded, so that there is a board, a launcher, and workers.
pub fn is_there() -> bool {
    BOARD.get().is_some()
}

/// Wakes the launcher, if there is one.
pub fn wake_launcher() {
    if let Some(board) = BOARD.get() {
        board.launcher.set();
    }
}

/// Records that the launcher is about to connect, or has; returns whether one was about to and never did.
pub fn set_launcher_connects(connects: bool) -> bool {
    BOARD
        .get()
        .is_some_and(|board| board.launcher_connects.swap(connects, Relaxed))
}

/// What is known of the launcher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LauncherState {
    /// It looks after subscriptions.
    Running,
    /// It connects to its database, or waits until it can.
    Connecting,
    /// There is none now.
    Absent,
}

/// What is known of the launcher; nothing where the library is not preloaded.
pub fn launcher_state() -> Option<LauncherState> {
    BOARD.get().map(|board| {
        if board.launcher.is_shown() {
            LauncherState::Running
        } else if board.launcher_connects.load(Relaxed) {
            LauncherState::Connecting
        } else {
            LauncherState::Absent
        }
    })
}

/// Makes this process the launcher, until it ends.
pub fn become_launcher() {
    static LAUNCHER_ENDS: Finish = Finish(|| {
        if let Some(board) = BOARD.get() {
            board.launcher.clear();
        }
    });
    exit::before_shared_memory_is_left(&LAUNCHER_ENDS);
    if let Some(board) = BOARD.get() {
        board.launcher.show();
    }
}

/// The workers that have not been told to end.
pub fn entries() -> Vec<Entry> {
    let entries = BOARD.locked(|board| {
        free_what_never_started(board);
        in_states(board, &[SlotState::Starting, SlotState::Running])
            .map(|(slot, place)| Entry {
                assignment: place.assignment(),
                slot,
            })
            .collect()
    });
    entries.unwrap_or_default()
}

fn free_what_never_started(board: &Board) {
    let now = clock::now();
    for slot in &board.slots {
        if slot.is(&[SlotState::Starting]) && now - slot.since.load(Relaxed) > LONGEST_START {
            slot.set(SlotState::Free);
        }
    }
}

fn in_states<'b>(
    board: &'b Board,
    states: &'b [SlotState],
) -> impl Iterator<Item = (usize, &'b Slot)> {
    let slots = board.slots.iter().enumerate();
    slots.filter(|(_, slot)| slot.is(states))
}

/// What all workers do that are starting, running or ending. Nothing where the library is not preloaded.
pub fn assignments() -> Vec<Assignment> {
    const IN_USE: &[SlotState] = &[SlotState::Starting, SlotState::Running, SlotState::Ending];
    let assignments = BOARD.locked(|board| {
        in_states(board, IN_USE)
            .map(|(_, slot)| slot.assignment())
            .collect()
    });
    assignments.unwrap_or_default()
}

/// Whether a worker has been told to end, and has not yet.
pub fn is_any_ending() -> bool {
    BOARD
        .locked(|board| in_states(board, &[SlotState::Ending]).next().is_some())
        .unwrap_or(false)
}

/// Reserves a slot for a worker that is about to be started. `None`: all are in use.
pub fn reserve(assignment: &Assignment) -> Option<usize> {
    BOARD.locked(|board| {
        let (index, slot) = in_states(board, &[SlotState::Free]).next()?;
        slot.assign(assignment);
        slot.set(SlotState::Starting);
        Some(index)
    })?
}

/// Gives a slot back whose worker could not be asked for.
pub fn give_back(slot: usize) {
    BOARD.locked(|board| board.slots[slot].set(SlotState::Free));
}

/// Tells the worker in `slot` to end, if it still does what `assignment` says.
pub fn stop(slot: usize, assignment: &Assignment) {
    BOARD.locked(|board| {
        let slot = &board.slots[slot];
        if slot.assignment() != *assignment {
            return;
        }
        if slot.is(&[SlotState::Running]) {
            slot.set(SlotState::Ending);
            // A worker frees its slot, under this lock, before its process ends: the id is not reused yet.
            background_worker::terminate(slot.pid.load(Relaxed));
        } else if slot.is(&[SlotState::Starting]) {
            // It finds its slot gone and ends by itself.
            slot.set(SlotState::Free);
        }
    });
}

thread_local! {
    static TAKEN: Cell<Option<usize>> = const { Cell::new(None) };
}

static WORKER_ENDS: Finish = Finish(|| {
    if let Some(slot) = TAKEN.take() {
        give_back(slot);
    }
});

/// Takes the slot that this worker was started for, until the process ends. `None`: it is no longer wanted.
pub fn take(slot: usize) -> Option<Assignment> {
    let assignment = BOARD.locked(|board| {
        let place = board.slots.get(slot)?;
        if !place.is(&[SlotState::Starting]) {
            return None;
        }
        place.pid.store(background_worker::process_id(), Relaxed);
        place.set(SlotState::Running);
        Some(place.assignment())
    })??;
    TAKEN.set(Some(slot));
    exit::before_shared_memory_is_left(&WORKER_ENDS);
    Some(assignment)
}

/// How many workers ingest from `queue_url` in this database. 0 where the library is not preloaded.
pub fn running(queue_url: &str) -> i32 {
    let Some(here) = database::current() else {
        return 0;
    };
    let count = BOARD.locked(|board| {
        in_states(board, &[SlotState::Running])
            .filter(|(_, slot)| slot.database.load(Relaxed) == here.to_u32())
            .filter(|(_, slot)| slot.queue_url.is(queue_url))
            .count()
    });
    count.unwrap_or(0) as i32
}
