//! What lies between the I/O thread and the owner of an [`Inlet`](crate::Inlet).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::error::Error;
use crate::receipts::Receipt;

/// Responses that may wait to be taken, while the reader commits what it took before.
const CAPACITY: usize = 512;

/// A message as it is handed over.
#[derive(Debug)]
pub struct Received<T> {
    /// The right to delete it.
    pub receipt: Receipt,
    /// The id that SQS gave it.
    pub message_id: Box<str>,
    /// `SentTimestamp`: milliseconds since the Unix epoch.
    pub sent_at: Option<i64>,
    /// `ApproximateReceiveCount`: how often it has been received, this time included.
    pub receive_count: u32,
    /// `MessageGroupId`, in a FIFO queue.
    pub group: Option<Arc<str>>,
    /// What `decode` made of the body.
    pub content: T,
}

/// What an [`Inlet`](crate::Inlet) has next.
#[derive(Debug)]
pub enum Next<T> {
    /// The messages of one response, 1 to 10, in the order received.
    Messages(Vec<Received<T>>),
    /// Nothing now; wait for the descriptor.
    Nothing,
    /// No more will come. Again at every further call.
    End(End),
    /// With `until_empty`, retries are used up, and it comes again at every further call. Without, receiving
    /// goes on by itself: it comes once when things begin to fail, and once more for each other kind of error
    /// until they work again.
    Failed(Error),
}

/// Why no more messages will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As many as wanted were received.
    LimitReached,
    /// A poll came back empty.
    Empty,
    /// Receiving was [wound down](crate::Inlet::wind_down).
    Stopped,
}

/// How receiving came to its end.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    End(End),
    Failed(Error),
}

enum Item<T> {
    Messages(Vec<Received<T>>),
    Failed(Error),
}

pub(crate) struct Pipe<T> {
    state: Mutex<State<T>>,
    reader_moved: Notify,
    /// The reader wants no more polls, or is gone.
    reader_has_enough: Notify,
}

struct State<T> {
    items: VecDeque<Item<T>>,
    outcome: Option<Outcome>,
    /// The error that receiving is retrying at present.
    trouble: Option<Error>,
    reader_is_gone: bool,
    winding_down: bool,
    polls: u64,
    /// Until when the youngest poll is likely to bring something.
    young_until: Option<Instant>,
    /// The writer holds back until there is room.
    writer_waits: bool,
}

impl<T> Pipe<T> {
    pub(crate) fn new() -> Pipe<T> {
        Pipe {
            state: Mutex::new(State {
                items: VecDeque::new(),
                outcome: None,
                trouble: None,
                reader_is_gone: false,
                winding_down: false,
                polls: 0,
                young_until: None,
                writer_waits: false,
            }),
            reader_moved: Notify::new(),
            reader_has_enough: Notify::new(),
        }
    }

    /// Whether another response fits in beside `expected` ones. If not, [`reader_moved`](Pipe::reader_moved)
    /// tells when it is worth asking again.
    pub(crate) fn has_room_beside(&self, expected: usize) -> bool {
        let mut state = self.lock();
        let has_room = state.items.len() + expected < CAPACITY;
        state.writer_waits |= !has_room;
        has_room
    }

    /// Adds a response, or returns it if it will not be taken.
    pub(crate) fn push(&self, messages: Vec<Received<T>>) -> Result<(), Vec<Received<T>>> {
        let mut state = self.lock();
        if state.is_over() {
            return Err(messages);
        }
        state.items.push_back(Item::Messages(messages));
        Ok(())
    }

    /// Reports, after what is already there, that receiving fails but continues.
    pub(crate) fn tell(&self, error: Error) {
        let mut state = self.lock();
        state.trouble = Some(error.clone());
        state.items.push_back(Item::Failed(error));
    }

    /// Receiving works (again). Whether it did not before.
    pub(crate) fn clear_trouble(&self) -> bool {
        self.lock().trouble.take().is_some()
    }

    pub(crate) fn trouble(&self) -> Option<Error> {
        self.lock().trouble.clone()
    }

    /// Nothing more will be added.
    pub(crate) fn finish(&self, outcome: Outcome) {
        self.lock().outcome.get_or_insert(outcome);
        self.reader_has_enough.notify_waiters();
    }

    /// Whether anything put in now would come too late.
    pub(crate) fn is_over(&self) -> bool {
        self.lock().is_over()
    }

    /// No new polls are wanted; what those under way bring still is.
    pub(crate) fn wind_down(&self) {
        self.lock().winding_down = true;
        self.reader_moved.notify_one();
        self.reader_has_enough.notify_waiters();
    }

    /// Whether no new poll is to be started.
    pub(crate) fn has_enough(&self) -> bool {
        let state = self.lock();
        state.winding_down || state.is_over()
    }

    /// Returns when no new poll is to be started any more.
    pub(crate) async fn reader_has_enough(&self) {
        self.until(Pipe::has_enough).await;
    }

    /// Returns when anything put in would come too late.
    pub(crate) async fn over(&self) {
        self.until(Pipe::is_over).await;
    }

    async fn until(&self, is_so: impl Fn(&Pipe<T>) -> bool) {
        loop {
            // It hears of what happens from here on, so nothing is missed between the look and the wait.
            let notified = self.reader_has_enough.notified();
            if is_so(self) {
                return;
            }
            notified.await;
        }
    }

    /// A poll was sent. Until `young_until` it is likely to deliver something, if there is something.
    pub(crate) fn poll_began(&self, young_until: Instant) {
        let mut state = self.lock();
        state.polls += 1;
        state.young_until = state.young_until.max(Some(young_until));
    }

    /// A poll was answered, and what it brought put in.
    pub(crate) fn poll_ended(&self) {
        let mut state = self.lock();
        state.polls = state.polls.saturating_sub(1);
        if state.polls == 0 {
            state.young_until = None;
        }
    }

    /// Whether polls are under way whose messages nobody will take.
    pub(crate) fn has_unwanted_polls(&self) -> bool {
        let state = self.lock();
        state.is_over() && state.polls > 0
    }

    /// Whether a poll is under way that is likely to bring something soon if there is something.
    pub(crate) fn is_poll_young(&self) -> bool {
        self.lock()
            .young_until
            .is_some_and(|until| Instant::now() < until)
    }

    pub(crate) async fn reader_moved(&self) {
        self.reader_moved.notified().await;
    }

    /// What comes next for the reader.
    pub(crate) fn next(&self) -> Next<T> {
        let mut state = self.lock();
        let next = match state.items.pop_front() {
            Some(Item::Messages(messages)) => Next::Messages(messages),
            Some(Item::Failed(error)) => Next::Failed(error),
            None => match &state.outcome {
                None => Next::Nothing,
                Some(Outcome::End(end)) => Next::End(*end),
                Some(Outcome::Failed(error)) => Next::Failed(error.clone()),
            },
        };
        if state.writer_waits && state.items.len() <= CAPACITY / 2 {
            state.writer_waits = false;
            drop(state);
            self.reader_moved.notify_one();
        }
        next
    }

    /// The reader goes: the receipts of what it did not take.
    pub(crate) fn close(&self) -> Vec<Receipt> {
        let items = {
            let mut state = self.lock();
            state.reader_is_gone = true;
            std::mem::take(&mut state.items)
        };
        self.reader_moved.notify_one();
        self.reader_has_enough.notify_waiters();
        items
            .iter()
            .filter_map(|item| match item {
                Item::Messages(messages) => Some(messages),
                Item::Failed(_) => None,
            })
            .flatten()
            .map(|message| message.receipt)
            .collect()
    }

    /// A panic elsewhere while the lock was held leaves nothing half done: each change is one step.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn is_over(&self) -> bool {
        self.reader_is_gone || self.outcome.is_some()
    }
}
