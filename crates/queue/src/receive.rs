//! Receives ahead: keeps polls in flight and hands what they bring to the other side.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::select;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::backoff::Backoff;
use crate::calls::CallPermit;
use crate::client::{ReceiveRequest, Response};
use crate::engine::{Engine, PollUnderWay};
use crate::entries::MOST_ENTRIES;
use crate::error::{Error, ErrorKind};
use crate::observed::Queue;
use crate::pipe::{End, Outcome, Pipe, Received};
use crate::ramp::Ramp;
use crate::receipts::{Invisibility, Receipt, SHORT};
use crate::remote::{MOST_CALLS_FIFO, Polling, Remote};
use crate::settle::{Fate, release_held_back, settle};

/// SQS' longest poll.
pub const LONGEST_POLL: Duration = Duration::from_secs(20);

/// How to receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receive {
    /// Receive at most this many messages in all; `None`: no limit.
    pub limit: Option<u64>,
    /// True: a poll that came back empty ends it. False: it goes on for ever.
    pub until_empty: bool,
    /// `WaitTimeSeconds` of each poll: whole seconds, 0 to 20 (more counts as 20), and at least 1 where
    /// `until_empty` is false. It is made of several polls where one of them should not take so long.
    pub wait: Duration,
    /// Most ReceiveMessage calls in flight; 0 counts as 1. A FIFO queue has 16 at most.
    pub concurrency: usize,
    /// `VisibilityTimeout`, set on every receive: whole seconds, 1 to 43,200 (what is outside counts as the
    /// nearest). A poll asks for 30 s at most, and one that is likely to wait for 3 s; what it brings is extended to
    /// this. See the crate's documentation.
    pub visibility: Duration,
}

impl Receive {
    fn within_limits(self) -> Receive {
        let shortest_wait = u64::from(!self.until_empty);
        Receive {
            wait: Duration::from_secs(
                self.wait
                    .as_secs()
                    .clamp(shortest_wait, LONGEST_POLL.as_secs()),
            ),
            visibility: Duration::from_secs(self.visibility.as_secs().clamp(1, 43_200)),
            ..self
        }
    }

    fn longest_wait_fifo(&self) -> Duration {
        let shortest = Duration::from_secs(1);
        let longest = self.visibility.saturating_sub(MARGIN_BEFORE_VISIBLE);
        self.wait.min(longest.max(shortest))
    }
}

/// A server that does not notice that a caller has gone gives the next message to the dead poll, where it stays
/// invisible for its visibility timeout. So a poll that will probably wait asks for a short one, and no poll for more
/// than this: at the end of a backlog, all wait.
const LONGEST_FIRST_VISIBILITY: Duration = Duration::from_secs(30);
/// An answer that takes longer to arrive is a slow one: what it brings may be visible again before it is there.
const SLOW: Duration = Duration::from_secs(1);
/// For the same reason, waits elsewhere than at AWS are cut into short ones: LocalStack never notices.
const LONGEST_WAIT_ELSEWHERE: Duration = Duration::from_secs(1);
/// A poll of a FIFO queue that was sent before a message was left would bring that message, and those behind it, once
/// it is visible again. It ends so long before that, and the next one asks for as few as the observer then says.
const MARGIN_BEFORE_VISIBLE: Duration = Duration::from_secs(5);

/// The head of an answer may come so much later than its wait ends.
const ATTEMPT_GRACE: Duration = Duration::from_secs(5);
/// For how long a poll is tried again once it has failed, where there is an end to it.
const PATIENCE: Duration = Duration::from_secs(15);
/// With less time left, an attempt would only hide the last error behind a time-out.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(500);
/// A server that cannot be reached at all is given up sooner.
const PATIENCE_UNREACHABLE: Duration = Duration::from_secs(3);

/// When nothing was answered for so long, the next answer ends the pauses of all polls.
const OUTAGE: Duration = Duration::from_secs(1);
/// How often to look for what nobody tells of.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE_WITH_AN_END: Duration = Duration::from_secs(2);
/// A failure that may pass is reported once this many attempts have failed.
const REPORT_AFTER: u32 = 3;

/// Receives until the end, a failure, or until no more is wanted. What arrives after that is released.
pub(crate) async fn receive<T: 'static, D: FnMut(&str) -> T + 'static>(
    engine: Rc<Engine>,
    queue: Queue,
    how: Receive,
    decode: D,
    pipe: Arc<Pipe<T>>,
) {
    let how = how.within_limits();
    let most = if queue.url().is_fifo() {
        how.concurrency.min(MOST_CALLS_FIFO)
    } else {
        how.concurrency
    };
    let ramp = Ramp::new(how.limit, how.until_empty, most);
    let receiver = Rc::new(Receiver {
        remote: engine.remote(&queue),
        engine,
        queue,
        how,
        decode: RefCell::new(decode),
        pipe,
        ramp: RefCell::new(ramp),
        health: RefCell::default(),
        unwanted: RefCell::default(),
        is_slow: Cell::default(),
        late: Cell::default(),
        recovered: Notify::new(),
    });
    let polling: Rc<dyn Polling> = receiver.clone();
    receiver.remote.is_polled_by(Rc::downgrade(&polling));
    let mut polls = JoinSet::new();
    loop {
        while let Some(share) = receiver.next_poll() {
            let receiver = receiver.clone();
            polls.spawn_local(async move { (share, receiver.poll(share).await) });
        }
        if polls.is_empty() && receiver.is_finished() {
            return;
        }
        select! {
            Some(poll) = polls.join_next() => match poll {
                Ok((share, result)) => {
                    receiver.take(share, result);
                    receiver.release_unwanted();
                }
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => return,
                },
            },
            () = receiver.pipe.reader_moved() => {}
            () = receiver.late_is_extended(), if receiver.late.get().is_some() => {}
            () = receiver.engine.hang_up.notified() => return,
        }
    }
}

struct Receiver<T, D> {
    engine: Rc<Engine>,
    remote: Rc<Remote>,
    queue: Queue,
    how: Receive,
    decode: RefCell<D>,
    pipe: Arc<Pipe<T>>,
    ramp: RefCell<Ramp>,
    health: RefCell<Health>,
    /// What polls brought that nobody wanted any more.
    unwanted: RefCell<Vec<Receipt>>,
    /// Answers take long to arrive.
    is_slow: Cell<bool>,
    /// A message of an answer that arrived so late that it has to be extended before the next poll, which would bring
    /// it again.
    late: Cell<Option<Receipt>>,
    /// Polls are answered again after an outage: those that pause need not any longer.
    recovered: Notify,
}

impl<T, D> Polling for Receiver<T, D> {
    fn has_unwanted_polls(&self) -> bool {
        self.pipe.has_unwanted_polls()
    }
}

/// What one call brought.
struct Polled<T> {
    response: Response<T>,
    /// For how long it was asked to wait.
    wait: Duration,
    /// It brought all the messages that were asked for.
    is_full: bool,
    invisibility: Invisibility,
    /// Until it is dealt with, the poll counts as under way.
    under_way: Option<UnderWay<T>>,
}

/// A poll that both sides count as under way, until dropped.
struct UnderWay<T> {
    pipe: Arc<Pipe<T>>,
    _poll: PollUnderWay,
}

impl<T> Drop for UnderWay<T> {
    fn drop(&mut self) {
        self.pipe.poll_ended();
    }
}

impl<T: 'static, D: FnMut(&str) -> T + 'static> Receiver<T, D> {
    /// How many messages the next poll may ask for, if there is to be one now.
    fn next_poll(&self) -> Option<u8> {
        let mut ramp = self.ramp.borrow_mut();
        if self.starts_nothing()
            || self.late.get().is_some()
            || !self.pipe.has_room_beside(ramp.in_flight())
        {
            return None;
        }
        ramp.start_poll()
    }

    /// Waits until what came late is extended, settled, or could not be extended.
    async fn late_is_extended(&self) {
        while let Some(receipt) = self.late.get()
            && self.engine.receipts.borrow().is_overdue(receipt)
        {
            // It may be settled meanwhile, of which nobody tells.
            let _ = timeout(LOOK_AGAIN, self.engine.extension_ended.notified()).await;
        }
        self.late.set(None);
    }

    /// With no poll in flight: whether this was it.
    fn is_finished(&self) -> bool {
        let stopped = || self.pipe.has_enough().then_some(End::Stopped);
        if let Some(end) = self.ramp.borrow().end().or_else(stopped) {
            self.pipe.finish(Outcome::End(end));
            self.engine.shared.wake.raise();
        }
        self.engine.is_closing() || self.pipe.is_over()
    }

    /// Nobody wants another poll.
    fn starts_nothing(&self) -> bool {
        self.engine.is_closing() || self.pipe.has_enough()
    }

    fn begin_poll(&self) -> UnderWay<T> {
        self.pipe
            .poll_began(Instant::now() + self.engine.polls.young());
        UnderWay {
            pipe: self.pipe.clone(),
            _poll: self.engine.polls.begin(),
        }
    }

    /// Sleeps, but not for longer than another poll is wanted.
    async fn pause(&self, time: Duration) {
        select! {
            () = sleep(time) => {}
            () = self.pipe.reader_has_enough() => {}
        }
    }

    /// One poll, with its waits and retries: an answer, or `None` if none is wanted any more.
    async fn poll(&self, share: u8) -> Result<Option<Polled<T>>, Error> {
        let longest_wait = self.longest_wait();
        let mut wait_left = self.how.wait;
        loop {
            let Some(mut answer) = self
                .call_with_retries(share, wait_left.min(longest_wait))
                .await?
            else {
                return Ok(None);
            };
            let wait = answer.wait;
            wait_left = wait_left.saturating_sub(wait);
            if !answer.response.messages.is_empty() {
                return Ok(Some(answer));
            }
            if !self.how.until_empty {
                answer.under_way = None;
                self.back_off_if_early(wait, answer.invisibility.asked)
                    .await;
                return Ok(Some(answer));
            }
            if wait_left.is_zero() || self.ramp.borrow().is_ending() || self.starts_nothing() {
                return Ok(Some(answer));
            }
        }
    }

    fn longest_wait(&self) -> Duration {
        if !self.remote.client.is_at_aws() {
            LONGEST_WAIT_ELSEWHERE
        } else if self.remote.is_fifo {
            self.how.longest_wait_fifo()
        } else {
            self.how.wait
        }
    }

    /// One call, retried until it is answered, patience runs out, or it is no longer wanted.
    async fn call_with_retries(
        &self,
        share: u8,
        wait: Duration,
    ) -> Result<Option<Polled<T>>, Error> {
        let has_backlog = self.ramp.borrow().has_backlog();
        let longest_first = if has_backlog || self.is_slow.get() {
            LONGEST_FIRST_VISIBILITY
        } else {
            SHORT
        };
        let first = self.how.visibility.min(longest_first);
        let most = self.queue.observer().most_per_receive();
        let mut request = ReceiveRequest {
            queue_url: self.remote.url.clone(),
            is_fifo: self.remote.is_fifo,
            most: usize::from(share).min(most.clamp(1, MOST_ENTRIES)),
            wait,
            visibility: first,
            attempt_id: self
                .remote
                .is_fifo
                .then(|| format!("{:032x}", fastrand::u128(..))),
        };
        let mut failing_since: Option<Instant> = None;
        let mut backoff = self.backoff();
        while !self.starts_nothing() {
            let mut permit = self.engine.calls.poll().await;
            if self.starts_nothing() {
                break;
            }
            let asked_at = Instant::now();
            let failing_since_with_an_end = failing_since.filter(|_| self.how.until_empty);
            let limit;
            (request.wait, limit) = match failing_since_with_an_end {
                None => (wait, wait + ATTEMPT_GRACE),
                Some(since) => fitting(wait, PATIENCE.saturating_sub(since.elapsed())),
            };
            let under_way = self.begin_poll();
            let result = {
                let mut call = pin!(self.call(&request, limit));
                select! {
                    biased;
                    result = call.as_mut() => result,
                    () = self.give_way(&mut permit) => call.await,
                }
            };
            let answered = Instant::now();
            match &result {
                Err(error) if error.lacks_files() => self.engine.make_do_without(permit),
                _ => drop(permit),
            }
            match result {
                Ok(response) => {
                    self.succeeded();
                    let began = response.began;
                    if answered - began > SLOW {
                        self.is_slow.set(true);
                    }
                    let is_full = response.messages.len() >= request.most;
                    if has_backlog && is_full {
                        self.engine.polls.learn(answered - asked_at);
                    }
                    return Ok(Some(Polled {
                        response,
                        wait: request.wait,
                        is_full,
                        invisibility: Invisibility {
                            asked: asked_at,
                            answered: began,
                            first,
                            then: self.how.visibility,
                        },
                        under_way: Some(under_way),
                    }));
                }
                Err(error) => {
                    drop(under_way);
                    if self.health.borrow().works_again(failing_since) {
                        backoff = self.backoff();
                    }
                    if error.kind == ErrorKind::Throttled {
                        self.ramp.borrow_mut().throttled(asked_at);
                    }
                    let pause = backoff.pause();
                    let since = *failing_since.get_or_insert(answered);
                    if self.how.until_empty {
                        let patience = patience(&error);
                        if since.elapsed() + pause + SHORTEST_ATTEMPT >= patience {
                            return Err(error);
                        }
                    }
                    let is_throttled = error.kind == ErrorKind::Throttled;
                    self.failed(error, asked_at);
                    select! {
                        () = self.pause(pause) => {}
                        () = self.recovered.notified(), if !is_throttled => {}
                    }
                    if self.ramp.borrow().is_too_large() {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Once nobody wants what it brings, a poll takes as little as it can from those of others.
    async fn give_way(&self, permit: &mut CallPermit) {
        self.pipe.over().await;
        self.engine.calls.give_way(permit).await;
    }

    fn backoff(&self) -> Backoff {
        Backoff::up_to(if self.how.until_empty {
            LONGEST_PAUSE_WITH_AN_END
        } else {
            LONGEST_PAUSE
        })
    }

    async fn call(&self, request: &ReceiveRequest, limit: Duration) -> Result<Response<T>, Error> {
        let decode = |body: &str| (*self.decode.borrow_mut())(body);
        let response = self.remote.client.receive(request, limit, decode).await?;
        if response.messages.is_empty() && self.remote.is_at_its_limit() {
            return Err(Error::new(
                ErrorKind::OverLimit,
                "this session holds as many messages of the queue as may be in flight",
            ));
        }
        Ok(response)
    }

    fn succeeded(&self) {
        let mut health = self.health.borrow_mut();
        if health.is_over(Instant::now()) {
            self.recovered.notify_waiters();
        }
        if health.succeeded() && self.pipe.clear_trouble() {
            self.engine.shared.wake.raise();
        }
    }

    fn failed(&self, error: Error, asked_at: Instant) {
        let mut health = self.health.borrow_mut();
        if health.failed(&error, asked_at) && !self.how.until_empty {
            self.pipe.tell(error);
            self.engine.shared.wake.raise();
        }
    }

    /// A server that answers "nothing" at once although it was to wait would be asked again and again without
    /// a pause; one early answer may be chance, so pauses begin with the second.
    async fn back_off_if_early(&self, wait: Duration, asked_at: Instant) {
        let is_early = asked_at.elapsed() < wait / 2;
        let pause = self.health.borrow_mut().back_off(is_early);
        if !pause.is_zero() {
            self.pause(pause).await;
        }
    }

    /// Deals with what a poll came to.
    fn take(&self, share: u8, result: Result<Option<Polled<T>>, Error>) {
        match result {
            Ok(Some(answer)) => {
                let got = answer.response.messages.len();
                let sent = answer.invisibility.asked;
                let mut ramp = self.ramp.borrow_mut();
                ramp.answered(share, got, answer.is_full, sent);
                drop(ramp);
                if got > 0 {
                    self.hand_over(answer);
                }
            }
            Ok(None) => self.ramp.borrow_mut().abandoned(share),
            Err(error) => {
                self.ramp.borrow_mut().abandoned(share);
                self.pipe.finish(Outcome::Failed(error));
                self.engine.shared.wake.raise();
            }
        }
    }

    fn hand_over(&self, answer: Polled<T>) {
        let receipts = self.engine.receipts.borrow_mut().take_in(
            self.remote.clone(),
            self.queue.clone(),
            answer.response.handles,
            answer.invisibility,
        );
        self.engine.held.notify_one();
        if answer.invisibility.is_half_over()
            && let Some(receipt) = receipts.first()
        {
            self.late.set(Some(*receipt));
            self.engine.overdue.notify_one();
        }
        let mut undecoded = Vec::new();
        let messages: Vec<Received<T>> = answer
            .response
            .messages
            .into_iter()
            .zip(receipts)
            .filter_map(|(message, receipt)| {
                let Some(content) = message.content else {
                    undecoded.push(receipt);
                    return None;
                };
                Some(Received {
                    receipt,
                    message_id: message.message_id,
                    sent_at: message.sent_at,
                    receive_count: message.receive_count,
                    group: message.group,
                    content,
                })
            })
            .collect();
        if !undecoded.is_empty() {
            self.engine.shared.handed_over(undecoded.len() as u64);
            settle(&self.engine, undecoded, Fate::Leave);
        }
        if messages.is_empty() {
            return;
        }
        match self.push(messages) {
            Ok(()) => self.engine.shared.wake.raise(),
            Err(unwanted) => {
                let receipts = unwanted.iter().map(|message| message.receipt);
                self.unwanted.borrow_mut().extend(receipts);
            }
        }
    }

    /// Once no poll is under way that would take them again: releases the messages that nobody wants, and lets others
    /// release theirs. At the end of the thread, the engine does so for all.
    fn release_unwanted(&self) {
        if self.engine.is_closing() || !self.pipe.is_over() || self.pipe.has_unwanted_polls() {
            return;
        }
        let unwanted = self.unwanted.take();
        if !unwanted.is_empty() {
            self.engine.shared.handed_over(unwanted.len() as u64);
            settle(&self.engine, unwanted, Fate::Release);
        }
        release_held_back(&self.engine, &self.remote);
    }

    fn push(&self, messages: Vec<Received<T>>) -> Result<(), Vec<Received<T>>> {
        if self.engine.is_closing() {
            return Err(messages);
        }
        self.pipe.push(messages)
    }
}

/// How long an attempt may wait, and take in all, where that much time is left for it.
fn fitting(wait: Duration, left: Duration) -> (Duration, Duration) {
    let longest = Duration::from_secs(left.saturating_sub(ATTEMPT_GRACE).as_secs());
    let wait = wait.min(longest);
    (wait, left.min(wait + ATTEMPT_GRACE))
}

/// For how long, from its first failure, a poll with an end is tried when it fails like this. What does not pass is not
/// tried again.
fn patience(error: &Error) -> Duration {
    match error.kind {
        _ if !error.is_transient() => Duration::ZERO,
        ErrorKind::Unreachable if !error.lacks_files() => PATIENCE_UNREACHABLE,
        _ => PATIENCE,
    }
}

/// How an endless receive is doing.
#[derive(Default)]
struct Health {
    failures_in_a_row: u32,
    last_success: Option<Instant>,
    last_failure: Option<Instant>,
    told: Vec<ErrorKind>,
    early_empty_answers: u32,
}

impl Health {
    /// Whether that is news: it had been told that things fail.
    fn succeeded(&mut self) -> bool {
        self.failures_in_a_row = 0;
        self.last_success = Some(Instant::now());
        let had_been_told = !self.told.is_empty();
        self.told.clear();
        had_been_told
    }

    /// Whether a success now ends an outage. Where some polls fail and others do not, pauses have their time.
    fn is_over(&self, now: Instant) -> bool {
        let long_ago = now.checked_sub(OUTAGE);
        self.failures_in_a_row > 0 && self.last_success.is_none_or(|at| Some(at) < long_ago)
    }

    /// Whether polls were answered after the first failure of one.
    fn works_again(&self, failing_since: Option<Instant>) -> bool {
        failing_since.is_some() && self.last_success > failing_since
    }

    /// Whether to tell. Polls that were under way together when one failed are one failure.
    fn failed(&mut self, error: &Error, asked_at: Instant) -> bool {
        if self.last_failure.is_none_or(|last| asked_at > last) {
            self.failures_in_a_row += 1;
            self.last_failure = Some(Instant::now());
        }
        let is_serious = !error.is_transient() || self.failures_in_a_row >= REPORT_AFTER;
        if !is_serious || self.told.contains(&error.kind) {
            return false;
        }
        self.told.push(error.kind);
        true
    }

    fn back_off(&mut self, is_early: bool) -> Duration {
        if !is_early {
            self.early_empty_answers = 0;
            return Duration::ZERO;
        }
        let doublings = self.early_empty_answers.min(5);
        self.early_empty_answers += 1;
        match doublings {
            0 => Duration::ZERO,
            _ => Duration::from_millis(25 << doublings).min(Duration::from_secs(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_fits_the_time_that_is_left() {
        let seconds = Duration::from_secs;
        for (wait, left, expected) in [
            (20, 15, (10, 15)),
            (20, 7, (2, 7)),
            (20, 3, (0, 3)),
            (1, 15, (1, 6)),
        ] {
            let (asked, limit) = fitting(seconds(wait), seconds(left));
            assert_eq!(
                (asked, limit),
                (seconds(expected.0), seconds(expected.1)),
                "{wait} {left}"
            );
        }
    }

    #[test]
    fn a_poll_of_a_fifo_queue_ends_before_what_was_left_is_visible() {
        let seconds = Duration::from_secs;
        for (wait, visibility, longest) in [
            (20, 300, 20),
            (20, 12, 7),
            (20, 5, 1),
            (0, 300, 0),
            (3, 1, 1),
        ] {
            let how = Receive {
                limit: None,
                until_empty: true,
                wait: seconds(wait),
                concurrency: 1,
                visibility: seconds(visibility),
            };
            assert_eq!(how.longest_wait_fifo(), seconds(longest), "{how:?}");
        }
    }
}
