//! What becomes of a message in the end: deleted, released, or left.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::backoff::Backoff;
use crate::client::Action;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::receipts::{Receipt, Receipts};
use crate::remote::{Lane, Remote};
use crate::wire::{BATCH, Verdict, batch_answer, batch_request};

/// What is to become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is deleted from the queue.
    Delete,
    /// It becomes visible again at once (best effort).
    Release,
    /// It comes back one more visibility timeout from now, as if it had just been received.
    Leave,
}

/// A fate that takes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Delete,
    Release,
    Leave,
}

impl Work {
    fn lane(self, remote: &Remote) -> &Lane {
        match self {
            Work::Delete => &remote.deletes,
            Work::Release => &remote.releases,
            Work::Leave => &remote.leaves,
        }
    }

    fn action(self) -> Action {
        match self {
            Work::Delete => Action::DeleteMessageBatch,
            Work::Release | Work::Leave => Action::ChangeMessageVisibilityBatch,
        }
    }

    /// How long it is tried. A message that was not released comes back by itself, so less is spent on it.
    fn patience(self) -> Duration {
        match self {
            Work::Delete => Duration::from_secs(30),
            Work::Release | Work::Leave => Duration::from_secs(10),
        }
    }

    fn attempts(self) -> u32 {
        match self {
            Work::Delete => u32::MAX,
            Work::Release | Work::Leave => 3,
        }
    }
}

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Hands `receipts` to their queues. Those that are not held, or were settled before, count as settled.
pub(crate) fn settle(engine: &Rc<Engine>, mut receipts: Vec<Receipt>, fate: Fate) {
    let work = match fate {
        Fate::Delete => Work::Delete,
        Fate::Release => {
            receipts.sort_unstable();
            Work::Release
        }
        Fate::Leave => Work::Leave,
    };
    let mut touched: Vec<Rc<Remote>> = Vec::new();
    for receipt in receipts {
        let claimed = engine.receipts.borrow_mut().claim(receipt);
        if work == Work::Leave {
            engine.shared.left.claim(receipt, claimed.is_some());
        }
        let Some(remote) = claimed else {
            engine.settled(1);
            continue;
        };
        if work != Work::Delete {
            engine.receipts.borrow_mut().stop_keeping(receipt);
        }
        let lane = work.lane(&remote);
        if lane.is_idle() {
            lane.last_progress.set(Instant::now());
        }
        lane.pending.borrow_mut().push_back(receipt);
        if !touched.iter().any(|known| Rc::ptr_eq(known, &remote)) {
            touched.push(remote);
        }
    }
    for remote in touched {
        start_calls(engine, &remote, work);
    }
}

/// Starts as many calls as there may be at once and work for.
fn start_calls(engine: &Rc<Engine>, remote: &Rc<Remote>, work: Work) {
    let lane = work.lane(remote);
    while lane.calls.get() < lane.calls_at_once {
        let receipts: Vec<Receipt> = {
            let mut pending = lane.pending.borrow_mut();
            let count = pending.len().min(BATCH);
            pending.drain(..count).collect()
        };
        if receipts.is_empty() {
            return;
        }
        lane.calls.set(lane.calls.get() + 1);
        let batch = Batch {
            engine: engine.clone(),
            remote: remote.clone(),
            work,
            remaining: receipts,
        };
        engine.spawn(carry_out(batch));
    }
}

async fn carry_out(mut batch: Batch) {
    batch.settle().await;
    let (engine, remote, work) = (batch.engine.clone(), batch.remote.clone(), batch.work);
    drop(batch);
    let lane = work.lane(&remote);
    lane.calls.set(lane.calls.get() - 1);
    start_calls(&engine, &remote, work);
}

/// Up to ten messages that are settled with one call, and those of them that are still to be settled.
struct Batch {
    engine: Rc<Engine>,
    remote: Rc<Remote>,
    work: Work,
    remaining: Vec<Receipt>,
}

impl Batch {
    /// Tries until all are settled, refused, or patience is at its end.
    async fn settle(&mut self) {
        let began = Instant::now();
        let mut backoff = Backoff::up_to(LONGEST_PAUSE);
        for attempt in 1.. {
            let time_left = self.work.patience().saturating_sub(began.elapsed());
            let result = self.call(time_left.min(ATTEMPT_TIMEOUT)).await;
            self.note_hidden(&result);
            match result {
                Ok(verdicts) => self.sort_out(&verdicts),
                Err(error) if may_pass(&error) => {}
                Err(_) => {
                    self.give_up();
                    self.give_up_pending();
                }
            }
            if self.remaining.is_empty() {
                return;
            }
            let pause = backoff.pause();
            if attempt >= self.work.attempts() || began.elapsed() + pause >= self.work.patience() {
                self.give_up();
                let nothing_else_went_through = self.lane().last_progress.get() <= began;
                if nothing_else_went_through {
                    self.give_up_pending();
                }
                return;
            }
            sleep(pause).await;
        }
    }

    async fn call(&self, limit: Duration) -> Result<Vec<Verdict>, Error> {
        if self.work != Work::Delete {
            self.extensions_to_end().await;
        }
        let body = {
            let receipts = self.engine.receipts.borrow();
            batch_request(
                self.remote.queue.url().as_str(),
                &receipts.handles(&self.remaining),
                self.visibility_timeout(&receipts),
            )
        };
        let client = &self.remote.client;
        let answer = client.call(self.work.action(), body, limit).await?;
        batch_answer(&answer, self.remaining.len())
    }

    /// In seconds. All messages of a batch were received alike.
    fn visibility_timeout(&self, receipts: &Receipts) -> Option<u64> {
        match self.work {
            Work::Delete => None,
            Work::Release => Some(0),
            Work::Leave => self
                .remaining
                .first()
                .and_then(|first| receipts.visibility_timeout(*first)),
        }
    }

    /// An extension that is carried out after a release would hide the message again.
    async fn extensions_to_end(&self) {
        let is_running = || {
            let receipts = self.engine.receipts.borrow();
            self.remaining
                .iter()
                .any(|receipt| receipts.is_being_extended(*receipt))
        };
        while is_running() {
            self.engine.extension_ended.notified().await;
        }
    }

    /// What was left, or may have been, is hidden from now on for its visibility timeout.
    fn note_hidden(&self, result: &Result<Vec<Verdict>, Error>) {
        if self.work != Work::Leave {
            return;
        }
        let now = Instant::now();
        let mut receipts = self.engine.receipts.borrow_mut();
        let seconds = self.visibility_timeout(&receipts).unwrap_or(0);
        for (index, receipt) in self.remaining.iter().enumerate() {
            let may_be_hidden = match result {
                Ok(verdicts) => verdicts.get(index) == Some(&Verdict::Done),
                Err(error) => error.leaves_outcome_open(),
            };
            if may_be_hidden {
                receipts.hide(*receipt, now + Duration::from_secs(seconds));
            }
        }
    }

    fn sort_out(&mut self, verdicts: &[Verdict]) {
        let (mut done, mut refused) = (0, 0);
        let mut verdicts = verdicts.iter();
        for receipt in std::mem::take(&mut self.remaining) {
            match verdicts.next() {
                Some(Verdict::Done) => done += 1,
                Some(Verdict::Refused) => refused += 1,
                Some(Verdict::Again) | None => {
                    self.remaining.push(receipt);
                    continue;
                }
            }
            self.forget(receipt);
        }
        if done > 0 {
            self.lane().last_progress.set(Instant::now());
        }
        self.report(done, refused);
    }

    fn give_up(&mut self) {
        let given_up = std::mem::take(&mut self.remaining);
        self.abandon(&given_up);
    }

    fn give_up_pending(&self) {
        let given_up: Vec<Receipt> = self.lane().pending.borrow_mut().drain(..).collect();
        self.abandon(&given_up);
    }

    fn abandon(&self, receipts: &[Receipt]) {
        for receipt in receipts {
            self.forget(*receipt);
        }
        self.report(0, receipts.len());
    }

    fn forget(&self, receipt: Receipt) {
        let mut receipts = self.engine.receipts.borrow_mut();
        if self.work == Work::Leave
            && let Some(until) = receipts.hidden_until(receipt)
        {
            self.engine.shared.left.settle(receipt, until);
        }
        receipts.forget(receipt);
    }

    fn report(&self, done: usize, failed: usize) {
        if self.work == Work::Delete {
            let observer = self.remote.queue.observer();
            if done > 0 {
                observer.deleted(done as u64);
            }
            if failed > 0 {
                observer.delete_failed(failed as u64);
            }
        }
        self.engine.settled(done + failed);
    }

    fn lane(&self) -> &Lane {
        self.work.lane(&self.remote)
    }
}

/// The thread ends in the middle of the call: what is left may have been settled, but nobody knows.
impl Drop for Batch {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Whether to call again. A stranger's answer is likely a proxy's, and passes.
fn may_pass(error: &Error) -> bool {
    error.is_transient() || error.kind == ErrorKind::NotSqs
}
