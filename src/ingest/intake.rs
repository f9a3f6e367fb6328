//! The backend's end of the channel from the I/O thread. It outlives transactions.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use pgrx::check_for_interrupts;
use queue::{End, ErrorKind, Inlet, Next, Receive};

use super::message::{Message, Taken};
use super::reader::{Content, Reader};
use super::receipts;
use super::source::Source;
use crate::errors::Failure;
use crate::io_thread;
use crate::pg::{background_worker, latch, sigterm};
use crate::stat::QueueStat;

/// Messages on their way to becoming rows.
pub struct Intake {
    /// The last one has the current settings. The others came before it, and deliver what they had begun to receive.
    inlets: Vec<Inlet<Content>>,
    reader: SharedReader,
    waiting: VecDeque<Message>,
    queue_empty: bool,
    stat: QueueStat,
    heeds_signals: bool,
}

impl Intake {
    /// Starts receiving from `source`.
    ///
    /// # Errors
    /// [`Failure::NoIoThread`].
    pub fn open(source: &Source, how: Receive) -> Result<Intake, Failure> {
        let mut intake = Intake {
            inlets: Vec::new(),
            reader: SharedReader::new(source.reader()),
            waiting: VecDeque::new(),
            queue_empty: false,
            stat: source.stat().clone(),
            heeds_signals: false,
        };
        intake.receive(source, how)?;
        Ok(intake)
    }

    /// Receives from `source`, in this way, from now on. Receives already in flight are still delivered.
    ///
    /// # Errors
    /// [`Failure::NoIoThread`].
    pub fn switch(&mut self, source: &Source, how: Receive) -> Result<(), Failure> {
        self.wind_down();
        self.receive(source, how)
    }

    fn receive(&mut self, source: &Source, how: Receive) -> Result<(), Failure> {
        let reader = self.reader.clone();
        let inlet = io_thread::with(|io| {
            io.receive(source.queue(), how, move |body| reader.lock().read(body))
        })?;
        self.inlets.push(inlet);
        Ok(())
    }

    /// Reads with this reader whatever arrives from now on, even if it was requested earlier.
    pub fn read_with(&self, reader: Reader) {
        *self.reader.lock() = reader;
    }

    /// Stops receiving. Receives in flight are still delivered, then [`ended`](Intake::ended) returns true.
    pub fn wind_down(&self) {
        self.inlets.iter().for_each(Inlet::wind_down);
    }

    /// Whether messages are likely to arrive soon, if the queue has any.
    pub fn is_about_to_receive(&self) -> bool {
        self.inlets.iter().any(Inlet::polls_about_to_answer)
    }

    /// Whether from now on [`fill`](Intake::fill) returns when the configuration is to be read again or the process
    /// is to end. Only for a process that does that: in a session both wait for the end of the statement.
    pub fn heed_signals(&mut self, heeds: bool) {
        self.heeds_signals = heeds;
    }

    /// The error that an endless receive is retrying, if any.
    pub fn trouble(&self) -> Option<queue::Error> {
        self.inlets.last()?.trouble()
    }

    /// Waits until `enough` messages are here, `until` is reached, or no more will arrive; interrupts are handled
    /// meanwhile. What is here can then be [taken](Intake::take).
    ///
    /// # Errors
    /// What the queue said, once its retries are used up.
    pub fn fill(&mut self, enough: usize, until: Option<Instant>) -> Result<(), queue::Error> {
        check_for_interrupts!();
        while !self.inlets.is_empty() && self.waiting.len() < enough {
            let fd = match io_thread::with(|io| {
                io.acknowledge();
                io.fd()
            }) {
                Ok(fd) => fd,
                Err(_) => return Ok(()),
            };
            if self.collect(enough)? {
                continue;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) || self.has_pending_signal() {
                break;
            }
            latch::wait_readable(fd, left);
        }
        Ok(())
    }

    /// Takes at most `most` messages, in the order in which they came.
    pub fn take(&mut self, most: usize) -> Taken {
        let mut taken = Taken::default();
        self.take_into(&mut taken, most);
        taken
    }

    /// Takes at most `most` messages to those taken before.
    pub fn take_into(&mut self, taken: &mut Taken, most: usize) {
        let count = most.min(self.waiting.len());
        taken.extend(self.waiting.drain(..count));
    }

    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether no more will arrive: the limit is reached, a poll came back empty, or receiving was stopped.
    pub fn ended(&self) -> bool {
        self.inlets.is_empty() && self.waiting.is_empty()
    }

    fn has_pending_signal(&self) -> bool {
        self.heeds_signals && (background_worker::is_reload_asked() || sigterm::is_end_requested())
    }

    /// Whether the queue had nothing more to hand out.
    pub fn is_queue_empty(&self) -> bool {
        self.queue_empty
    }

    /// Collects what has arrived. Returns false if that was not enough and there is nothing more yet.
    fn collect(&mut self, enough: usize) -> Result<bool, queue::Error> {
        let mut at = 0;
        while self.waiting.len() < enough {
            let is_last = at + 1 == self.inlets.len();
            let Some(inlet) = self.inlets.get_mut(at) else {
                return Ok(self.inlets.is_empty());
            };
            match inlet.next() {
                Next::Messages(messages) => {
                    self.stat.received(messages.len() as u64);
                    self.waiting.extend(messages.into_iter().map(Message::from))
                }
                Next::Nothing => at += 1,
                Next::End(end) => {
                    self.queue_empty = end == End::Empty;
                    self.inlets.remove(at);
                }
                Next::Failed(error) if is_last || error.kind == ErrorKind::Internal => {
                    return Err(error);
                }
                // It has settings that no longer apply.
                Next::Failed(_) => {}
            }
        }
        Ok(true)
    }
}

/// The reader that the I/O thread uses; it can be replaced while messages are received.
#[derive(Clone)]
struct SharedReader(Arc<Mutex<Reader>>);

impl SharedReader {
    fn new(reader: Reader) -> SharedReader {
        SharedReader(Arc::new(Mutex::new(reader)))
    }

    fn lock(&self) -> MutexGuard<'_, Reader> {
        // A panic while reading leaves the reader as it was.
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        receipts::release(
            self.waiting
                .drain(..)
                .map(|message| message.receipt)
                .collect(),
        );
    }
}
