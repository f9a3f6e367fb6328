//! The little that both sides of the I/O thread see: whether it is there, what is unsettled or was left, how to wake.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::left::Left;
use crate::wake::Wake;

pub(crate) struct Shared {
    pub wake: Wake,
    pub left: Left,
    open: AtomicBool,
    unsettled: AtomicU64,
    responses_held: AtomicUsize,
    fault: OnceLock<String>,
}

impl Shared {
    pub(crate) fn new() -> io::Result<Shared> {
        Ok(Shared {
            wake: Wake::new()?,
            left: Left::default(),
            open: AtomicBool::new(true),
            unsettled: AtomicU64::new(0),
            responses_held: AtomicUsize::new(0),
            fault: OnceLock::new(),
        })
    }

    /// Whether the I/O thread is running and accepts commands.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// The I/O thread accepts no more commands.
    pub(crate) fn close(&self) {
        self.open.store(false, Ordering::Release);
        self.wake.raise();
    }

    /// Where in the source the I/O thread panicked.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }

    pub(crate) fn set_fault(&self, location: String) {
        // The first one counts: others follow from it.
        let _ = self.fault.set(location);
    }

    pub(crate) fn responses_held(&self) -> usize {
        self.responses_held.load(Ordering::Relaxed)
    }

    pub(crate) fn set_responses_held(&self, responses: usize) {
        self.responses_held.store(responses, Ordering::Relaxed);
    }

    pub(crate) fn unsettled(&self) -> u64 {
        self.unsettled.load(Ordering::Acquire)
    }

    /// Counts messages that are to be settled.
    pub(crate) fn handed_over(&self, messages: u64) {
        self.unsettled.fetch_add(messages, Ordering::AcqRel);
    }

    /// Counts messages that have been settled. Returns whether none is left.
    pub(crate) fn settled(&self, messages: u64) -> bool {
        let none_left = self.unsettled.fetch_sub(messages, Ordering::AcqRel) == messages;
        if none_left && messages > 0 {
            self.wake.raise();
        }
        none_left
    }
}
