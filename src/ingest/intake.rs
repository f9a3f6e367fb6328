//! The backend's end of the channel from the I/O thread. It outlives transactions.

use std::collections::VecDeque;
use std::time::Instant;

use pgrx::check_for_interrupts;
use queue::{End, Inlet, Next, Receive};

use super::message::{Message, Taken};
use super::reader::Content;
use super::receipts;
use super::source::Source;
use crate::errors::Failure;
use crate::io;
use crate::pg::{latch, worker};
use crate::stat::QueueStat;

/// Messages on their way to become rows.
pub struct Intake {
    inlet: Inlet<Content>,
    waiting: VecDeque<Message>,
    ended: bool,
    queue_empty: bool,
    stat: QueueStat,
    heeds_reload: bool,
}

impl Intake {
    /// Starts receiving from `source`.
    ///
    /// # Errors
    /// [`Failure::NoIoThread`].
    pub fn open(source: &Source, how: Receive) -> Result<Intake, Failure> {
        let reader = source.reader();
        let inlet = io::with(|io| io.receive(source.queue(), how, move |body| reader.read(body)))?;
        Ok(Intake {
            inlet,
            waiting: VecDeque::new(),
            ended: false,
            queue_empty: false,
            stat: source.stat().clone(),
            heeds_reload: false,
        })
    }

    /// From now on [`fill`](Intake::fill) returns when the configuration is to be read again. Only for a process that
    /// does that: in a session it waits for the end of the statement.
    pub fn heed_reload(&mut self) {
        self.heeds_reload = true;
    }

    /// What receiving without an end is struggling with now.
    pub fn trouble(&self) -> Option<queue::Error> {
        self.inlet.trouble()
    }

    /// Waits until `enough` messages are here, `until` has come, or no more will come; interrupts are handled
    /// meanwhile. What is here can then be [taken](Intake::take).
    ///
    /// # Errors
    /// What the queue said, once its retries are used up.
    pub fn fill(&mut self, enough: usize, until: Option<Instant>) -> Result<(), queue::Error> {
        check_for_interrupts!();
        while !self.ended && self.waiting.len() < enough {
            let fd = match io::with(|io| {
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
            if left.is_some_and(|left| left.is_zero())
                || (self.heeds_reload && worker::is_reload_asked())
            {
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

    /// Whether nothing is here to be taken.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether no more will come: the limit is reached, or a poll came back empty.
    pub fn ended(&self) -> bool {
        self.ended && self.waiting.is_empty()
    }

    /// Whether the queue had nothing more to hand out.
    pub fn is_queue_empty(&self) -> bool {
        self.queue_empty
    }

    /// Collects what is there. False: nothing more is there now, and there was not enough.
    fn collect(&mut self, enough: usize) -> Result<bool, queue::Error> {
        while self.waiting.len() < enough {
            match self.inlet.next() {
                Next::Messages(messages) => {
                    self.stat.received(messages.len() as u64);
                    self.waiting.extend(messages.into_iter().map(Message::from))
                }
                Next::Nothing => return Ok(false),
                Next::End(end) => {
                    self.queue_empty = end == End::Empty;
                    self.ended = true;
                    return Ok(true);
                }
                Next::Failed(error) => return Err(error),
            }
        }
        Ok(true)
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
