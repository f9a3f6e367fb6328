//! What becomes of a message in the end: deleted, released, or left.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::backoff::Backoff;
use crate::engine::Engine;
use crate::entries::{MOST_ENTRIES, Verdict};
use crate::error::{Error, ErrorKind};
use crate::observed::Observer;
use crate::receipts::{Receipt, Receipts};
use crate::remote::{Lane, Remote};

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is deleted from the queue.
    Delete,
    /// It becomes visible again at once (best effort).
    Release,
    /// It comes back one more visibility timeout from now, as if it had just been received.
    Leave,
}

impl Fate {
    fn lane(self, remote: &Remote) -> &Lane {
        match self {
            Fate::Delete => &remote.deletes,
            Fate::Release => &remote.releases,
            Fate::Leave => &remote.leaves,
        }
    }

    /// How long it is tried. A message that was not released comes back by itself, so less is spent on it.
    fn patience(self) -> Duration {
        match self {
            Fate::Delete => Duration::from_secs(30),
            Fate::Release | Fate::Leave => Duration::from_secs(10),
        }
    }
}

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Hands `receipts` to their queues. Those that are not held, or were settled before, count as settled.
pub(crate) fn settle(engine: &Rc<Engine>, mut receipts: Vec<Receipt>, fate: Fate) {
    if fate == Fate::Release {
        receipts.sort_unstable();
    }
    let mut touched: Vec<Rc<Remote>> = Vec::new();
    for receipt in receipts {
        let taken_over = engine.receipts.borrow_mut().take_over(receipt);
        if fate == Fate::Leave {
            engine.shared.left.take_over(receipt, taken_over.is_some());
        }
        let Some(remote) = taken_over else {
            engine.settled(1);
            continue;
        };
        let lane = fate.lane(&remote);
        if lane.is_idle() {
            lane.progressed();
        }
        lane.pending.borrow_mut().push_back(receipt);
        if !touched.iter().any(|known| Rc::ptr_eq(known, &remote)) {
            touched.push(remote);
        }
    }
    for remote in touched {
        start_calls_soon(engine, &remote, fate);
    }
}

/// Releases what was held back.
pub(crate) fn release_held_back(engine: &Rc<Engine>, remote: &Rc<Remote>) {
    if !remote.releases.pending.borrow().is_empty() {
        start_calls_soon(engine, remote, Fate::Release);
    }
}

/// Starts calls once everything that was handed over with these messages is here, so that they share requests: a
/// transaction hands over what each of its subtransactions received.
fn start_calls_soon(engine: &Rc<Engine>, remote: &Rc<Remote>, fate: Fate) {
    if fate.lane(remote).is_about_to_call.replace(true) {
        return;
    }
    let (engine, remote) = (engine.clone(), remote.clone());
    engine.clone().spawn(async move {
        fate.lane(&remote).is_about_to_call.set(false);
        start_calls(&engine, &remote, fate);
    });
}

/// Starts as many calls as the window allows and the pending receipts need.
fn start_calls(engine: &Rc<Engine>, remote: &Rc<Remote>, fate: Fate) {
    let lane = fate.lane(remote);
    if fate == Fate::Release && must_wait(engine, remote) {
        return;
    }
    while lane.calls.get() < lane.window.borrow().size() {
        let receipts = next_receipts(engine, lane, fate);
        if receipts.is_empty() {
            return;
        }
        if fate != Fate::Delete {
            let mut held = engine.receipts.borrow_mut();
            receipts
                .iter()
                .for_each(|receipt| held.stop_keeping(*receipt));
        }
        lane.calls.set(lane.calls.get() + 1);
        let request = Request {
            engine: engine.clone(),
            remote: remote.clone(),
            fate,
            remaining: receipts,
        };
        engine.spawn(carry_out(request));
    }
}

/// Whether messages of `remote` are not to be released yet: a poll whose messages nobody wants would take them, and
/// each time that a message is received counts against the queue's `maxReceiveCount`. When they are, calls are started.
fn must_wait(engine: &Rc<Engine>, remote: &Rc<Remote>) -> bool {
    if engine.is_closing() {
        return engine.holds_back_releases();
    }
    let has_timer = remote.makes_releases_wait();
    let Some(until) = remote.releases_wait_until() else {
        return false;
    };
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return false;
    }
    if !has_timer {
        let (engine, remote) = (engine.clone(), remote.clone());
        engine.clone().spawn(async move {
            sleep(left).await;
            release_held_back(&engine, &remote);
        });
    }
    true
}

/// Takes up to ten receipts that share a request.
fn next_receipts(engine: &Engine, lane: &Lane, fate: Fate) -> Vec<Receipt> {
    let mut pending = lane.pending.borrow_mut();
    let mut count = pending.len().min(MOST_ENTRIES);
    if fate == Fate::Leave {
        // They may be of calls that received with different visibility timeouts.
        let held = engine.receipts.borrow();
        let mut timeouts = pending
            .iter()
            .take(count)
            .map(|receipt| held.visibility_timeout(*receipt));
        let first = timeouts.next();
        count = count.min(1 + timeouts.take_while(|other| Some(*other) == first).count());
    }
    pending.drain(..count).collect()
}

async fn carry_out(mut request: Request) {
    let (began, messages) = (Instant::now(), request.remaining.len());
    request.settle().await;
    let (engine, remote, fate) = (request.engine.clone(), request.remote.clone(), request.fate);
    drop(request);
    let lane = fate.lane(&remote);
    lane.calls.set(lane.calls.get() - 1);
    if !lane.pending.borrow().is_empty() {
        let mut window = lane.window.borrow_mut();
        window.answered(messages, true, began, Instant::now());
    }
    start_calls(&engine, &remote, fate);
}

/// Up to ten messages that are settled with one call, and those of them that are still to be settled.
struct Request {
    engine: Rc<Engine>,
    remote: Rc<Remote>,
    fate: Fate,
    remaining: Vec<Receipt>,
}

impl Request {
    /// Tries until all are settled or refused, or patience runs out.
    async fn settle(&mut self) {
        let began = Instant::now();
        let mut backoff = Backoff::up_to(LONGEST_PAUSE);
        loop {
            let time_left = self.fate.patience().saturating_sub(began.elapsed());
            let mut sent = Instant::now();
            let result = self.call(time_left.min(ATTEMPT_TIMEOUT), &mut sent).await;
            self.note_hidden(&result);
            match result {
                Ok(verdicts) => self.sort_out(&verdicts),
                Err(error) if error.kind == ErrorKind::Throttled => {
                    let mut window = self.lane().window.borrow_mut();
                    window.throttled(sent, Instant::now());
                }
                Err(error) if may_pass(&error) => {}
                Err(_) => self.give_up(),
            }
            if self.remaining.is_empty() {
                return;
            }
            let pause = backoff.pause();
            if began.elapsed() + pause >= self.fate.patience() {
                self.give_up();
                if self.lane().is_hopeless(began) {
                    self.give_up_pending();
                }
                return;
            }
            sleep(pause).await;
        }
    }

    /// One call; sets when it was `sent`.
    async fn call(&mut self, limit: Duration, sent: &mut Instant) -> Result<Vec<Verdict>, Error> {
        if self.fate != Fate::Delete {
            self.extensions_to_end().await;
        }
        let permit = self.engine.calls.settle().await;
        *sent = Instant::now();
        let (handles, lost, seconds) = {
            let receipts = self.engine.receipts.borrow();
            let (handles, lost) = receipts.handles(&mut self.remaining);
            (handles, lost, self.visibility_timeout(&receipts))
        };
        self.settled(&lost, |observer, count| observer.delete_failed(count));
        if handles.is_empty() {
            return Ok(Vec::new());
        }
        let Remote { client, url, .. } = &*self.remote;
        let result = match seconds {
            None => client.delete(url, &handles, limit).await,
            Some(seconds) => {
                client
                    .change_visibility(url, &handles, seconds, limit)
                    .await
            }
        };
        if let Err(error) = &result
            && error.lacks_files()
        {
            self.engine.make_do_without(permit);
        }
        result
    }

    /// In seconds. All messages of a request were received alike.
    fn visibility_timeout(&self, receipts: &Receipts) -> Option<u64> {
        match self.fate {
            Fate::Delete => None,
            Fate::Release => Some(0),
            Fate::Leave => self
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
        if self.fate != Fate::Leave {
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
        let (mut done, mut refused, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for (index, receipt) in self.remaining.drain(..).enumerate() {
            match verdicts.get(index) {
                Some(Verdict::Done) => done.push(receipt),
                Some(Verdict::Refused) => refused.push(receipt),
                Some(Verdict::Again) | None => again.push(receipt),
            }
        }
        self.remaining = again;
        if !done.is_empty() {
            self.lane().progressed();
        }
        self.settled(&done, |observer, count| observer.deleted(count));
        self.settled(&refused, |observer, count| observer.delete_failed(count));
    }

    fn give_up(&mut self) {
        let given_up = std::mem::take(&mut self.remaining);
        self.settled(&given_up, |observer, count| observer.delete_failed(count));
    }

    fn give_up_pending(&self) {
        let given_up: Vec<Receipt> = self.lane().pending.borrow_mut().drain(..).collect();
        self.settled(&given_up, |observer, count| observer.delete_failed(count));
    }

    /// Reports what became of messages, and forgets them.
    fn settled(&self, messages: &[Receipt], tell: impl Fn(&dyn Observer, u64)) {
        let mut receipts = self.engine.receipts.borrow_mut();
        if self.fate == Fate::Delete {
            receipts.tell_observers(messages, tell);
        }
        for receipt in messages {
            if self.fate == Fate::Leave
                && let Some(until) = receipts.hidden_until(*receipt)
            {
                self.engine.shared.left.settle(*receipt, until);
            }
            receipts.forget(*receipt);
        }
        self.engine.settled(messages.len());
    }

    fn lane(&self) -> &Lane {
        self.fate.lane(&self.remote)
    }
}

/// The thread ends in the middle of the call: what is left may have been settled, but nobody knows.
impl Drop for Request {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Whether to call again. A stranger's answer is likely a proxy's, and passes. So may missing credentials, and bad
/// ones: there were good ones when the messages were received, and expired ones are replaced a little later.
fn may_pass(error: &Error) -> bool {
    use ErrorKind::*;
    error.is_transient()
        || matches!(
            error.kind,
            NotSqs | NoCredentials | CredentialsFailed | BadCredentials
        )
}
