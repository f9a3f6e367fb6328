//! The receipt handles of every message that is held: received, and not yet deleted, released or left.
//!
//! A handle is hundreds of bytes long and of use to the I/O thread only, so it stays there, and the other side holds
//! a [`Receipt`], eight bytes.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::entries::{MOST_ENTRIES, Verdict};
use crate::error::Error;
use crate::handles::{Handles, Kept, Store};
use crate::observed::{Observer, Queue};
use crate::remote::Remote;

/// A message may stay invisible for twelve hours from when it was received (SQS developer guide, "Amazon SQS
/// visibility timeout"); a minute of it is kept as a margin between SQS' clock and ours.
const LONGEST_INVISIBLE: Duration = Duration::from_secs(12 * 60 * 60 - 60);

/// A failed extension is tried again after an eighth of the visibility timeout, but not sooner than this.
const SHORTEST_RETRY: Duration = Duration::from_millis(250);

/// A short timeout: that of polls which are likely to wait.
pub(crate) const SHORT: Duration = Duration::from_secs(3);

/// What was received with a short timeout is extended to the wanted one if it is held for longer than this.
const EXTEND_SHORT_AFTER: Duration = Duration::from_millis(500);

/// Stands for the right to delete one message: the receipt handle itself stays with the I/O thread.
///
/// Receipts are ordered as their messages were received.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Receipt(u64);

impl Receipt {
    const INDEX_BITS: u32 = 4;

    fn new(response: u64, index: usize) -> Receipt {
        Receipt(response << Receipt::INDEX_BITS | index as u64)
    }

    fn response(self) -> u64 {
        self.0 >> Receipt::INDEX_BITS
    }

    /// Whether it is of a FIFO queue.
    pub(crate) fn is_fifo(self) -> bool {
        self.response() & ResponseNumbers::FIFO != 0
    }

    #[cfg(test)]
    pub(crate) fn of_fifo(number: u64) -> Receipt {
        Receipt::new(number << 1 | ResponseNumbers::FIFO, 0)
    }

    fn index(self) -> usize {
        (self.0 & ((1 << Receipt::INDEX_BITS) - 1)) as usize
    }

    fn bit(self) -> u16 {
        1 << self.index()
    }
}

/// Numbers responses in their order. The lowest bit says whether the queue is FIFO.
#[derive(Default)]
struct ResponseNumbers(u64);

impl ResponseNumbers {
    const FIFO: u64 = 1;

    fn next(&mut self, is_fifo: bool) -> u64 {
        self.0 += 1;
        self.0 << 1 | if is_fifo { ResponseNumbers::FIFO } else { 0 }
    }
}

/// The handles of all held messages, by response.
#[derive(Default)]
pub(crate) struct Receipts {
    numbers: ResponseNumbers,
    store: Store,
    held: BTreeMap<u64, HeldResponse>,
}

/// A response some of whose messages are still held. In the masks, bit `i` stands for message `i`.
struct HeldResponse {
    remote: Rc<Remote>,
    /// Who received it.
    queue: Queue,
    handles: Kept,
    /// The handle is still needed.
    held: u16,
    /// The owner has not said yet what is to become of it.
    owned: u16,
    /// To be kept invisible.
    kept: u16,
    being_extended: bool,
    /// In seconds; SQS' maximum, 43,200, fits.
    visibility: u16,
    asked: Instant,
    extend_at: Instant,
    /// When SQS shows again, at the latest, what is not extended any more.
    hidden_until: Instant,
}

/// When and for how long the messages of a response were made invisible.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Invisibility {
    /// When the request was sent.
    pub asked: Instant,
    /// When its answer began.
    pub answered: Instant,
    /// The visibility timeout in the request.
    pub first: Duration,
    /// The visibility timeout at each extension.
    pub then: Duration,
}

impl Invisibility {
    pub(crate) fn is_half_over(&self) -> bool {
        self.answered.elapsed() >= self.first / 2
    }

    /// At half of its time. The clock starts somewhere between request and answer; that a poll which waited
    /// was waiting in vain until shortly before its answer is likely but not sure, so up to a quarter is taken
    /// off for it.
    ///
    /// What was asked for a short time only is extended almost at once, so that it survives a stall of 2 s.
    fn extend_at(&self) -> Instant {
        let waited = self.answered.saturating_duration_since(self.asked);
        let at_half_time = self.answered + self.first / 2 - waited.min(self.first / 4);
        if self.first < self.then && self.first <= SHORT {
            at_half_time.min(self.answered + EXTEND_SHORT_AFTER)
        } else {
            at_half_time
        }
    }
}

/// Messages whose visibility timeout is to be extended with one request, in order.
pub(crate) struct Extension {
    pub remote: Rc<Remote>,
    pub receipts: Vec<Receipt>,
    pub visibility: Duration,
}

impl Receipts {
    pub(crate) fn new(store: Store) -> Receipts {
        Receipts {
            store,
            ..Receipts::default()
        }
    }

    /// Keeps the handles of a response. The receipts are in the order of its messages.
    pub(crate) fn take_in(
        &mut self,
        remote: Rc<Remote>,
        queue: Queue,
        handles: Handles,
        invisibility: Invisibility,
    ) -> Vec<Receipt> {
        let response = self.numbers.next(remote.is_fifo);
        let count = handles.len();
        remote.count_held(count, 0);
        let all = ((1u32 << count) - 1) as u16;
        if all != 0 {
            let handles = self.store.keep(handles);
            self.held.insert(
                response,
                HeldResponse {
                    remote,
                    queue,
                    handles,
                    held: all,
                    owned: all,
                    kept: all,
                    being_extended: false,
                    visibility: invisibility.then.as_secs().min(43_200) as u16,
                    asked: invisibility.asked,
                    extend_at: invisibility.extend_at(),
                    hidden_until: invisibility.answered + invisibility.first,
                },
            );
        }
        (0..count)
            .map(|index| Receipt::new(response, index))
            .collect()
    }

    /// Takes a message over from its owner, once: the queue it is from.
    pub(crate) fn take_over(&mut self, receipt: Receipt) -> Option<Rc<Remote>> {
        let response = self.held.get_mut(&receipt.response())?;
        let was_owned = response.owned & receipt.bit() != 0;
        response.owned &= !receipt.bit();
        was_owned.then(|| response.remote.clone())
    }

    /// The handles of one request, in order. One that is lost, or whose message is not held, is left out, and the
    /// receipt with it: AWS may refuse all of it for one bad entry. Returns these receipts too.
    pub(crate) fn handles(&self, receipts: &mut Vec<Receipt>) -> (Vec<String>, Vec<Receipt>) {
        let mut last_read: Option<(u64, Handles)> = None;
        let mut handles = Vec::with_capacity(receipts.len());
        let mut lost = Vec::new();
        receipts.retain(|receipt| match self.handle(*receipt, &mut last_read) {
            Some(handle) => {
                handles.push(handle);
                true
            }
            None => {
                lost.push(*receipt);
                false
            }
        });
        (handles, lost)
    }

    /// A request is mostly of one response, which is read from its file once.
    fn handle(&self, receipt: Receipt, last_read: &mut Option<(u64, Handles)>) -> Option<String> {
        let number = receipt.response();
        let place = match &self.held.get(&number)?.handles {
            Kept::InMemory(handles) => return handles.get(receipt.index()).map(str::to_owned),
            Kept::InFile(place) => place,
        };
        if last_read.as_ref().is_none_or(|(read, _)| *read != number) {
            *last_read = Some((number, place.read()?));
        }
        let (_, handles) = last_read.as_ref()?;
        Some(handles.get(receipt.index())?.to_owned())
    }

    /// The visibility timeout that a message was received with, in seconds, if it is still held: the one that was
    /// asked for, also where its poll asked for less.
    pub(crate) fn visibility_timeout(&self, receipt: Receipt) -> Option<u64> {
        let response = self.held.get(&receipt.response())?;
        Some(response.visibility.into())
    }

    /// When a message is visible again at the latest, if it is still held.
    pub(crate) fn hidden_until(&self, receipt: Receipt) -> Option<Instant> {
        Some(self.held.get(&receipt.response())?.hidden_until)
    }

    /// A message may be hidden until then.
    pub(crate) fn hide(&mut self, receipt: Receipt, until: Instant) {
        if let Some(response) = self.held.get_mut(&receipt.response()) {
            response.hidden_until = response.hidden_until.max(until);
        }
    }

    /// Forgets a message: its handle is of no more use.
    pub(crate) fn forget(&mut self, receipt: Receipt) {
        if let Some(response) = self.held.get_mut(&receipt.response()) {
            if response.held & receipt.bit() != 0 {
                response.remote.count_held(0, 1);
            }
            response.held &= !receipt.bit();
            response.owned &= response.held;
            response.kept &= response.held;
            if response.held == 0
                && let Some(forgotten) = self.held.remove(&receipt.response())
            {
                self.store.forget(forgotten.handles);
            }
        }
    }

    /// Tells the observer of each message, with how many of its are among `receipts`.
    pub(crate) fn tell_observers(&self, receipts: &[Receipt], tell: impl Fn(&dyn Observer, u64)) {
        let queue_of = |receipt: &Receipt| Some(&self.held.get(&receipt.response())?.queue);
        for of_one in receipts.chunk_by(|one, other| match (queue_of(one), queue_of(other)) {
            (Some(one), Some(other)) => one.is_same(other),
            _ => false,
        }) {
            if let Some(queue) = of_one.first().and_then(queue_of) {
                tell(queue.observer(), of_one.len() as u64);
            }
        }
    }

    /// Extends a message's visibility timeout no more.
    pub(crate) fn stop_keeping(&mut self, receipt: Receipt) {
        if let Some(response) = self.held.get_mut(&receipt.response()) {
            response.kept &= !receipt.bit();
        }
    }

    /// Messages of an extension were left out of it, since their handles are lost.
    pub(crate) fn cannot_extend(&mut self, lost: &[Receipt]) {
        for receipt in lost {
            self.stop_keeping(*receipt);
            if let Some(response) = self.held.get_mut(&receipt.response()) {
                response.being_extended = false;
            }
        }
    }

    pub(crate) fn is_being_extended(&self, receipt: Receipt) -> bool {
        self.held
            .get(&receipt.response())
            .is_some_and(|response| response.being_extended)
    }

    /// Whether a message is visible to others unless it is extended now.
    pub(crate) fn is_overdue(&self, receipt: Receipt) -> bool {
        let response = self.held.get(&receipt.response());
        response.is_some_and(|response| response.being_extended || response.is_due(Instant::now()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(crate) fn responses(&self) -> usize {
        self.held.len()
    }

    /// Every message whose owner has not said yet what is to become of it.
    pub(crate) fn owned(&self) -> Vec<Receipt> {
        self.held
            .iter()
            .flat_map(|(&number, response)| receipts_of(number, response.owned))
            .collect()
    }

    /// The responses that are due for extension, oldest first.
    pub(crate) fn due(&self, now: Instant) -> VecDeque<u64> {
        self.held
            .iter()
            .filter(|(_, response)| response.is_due(now))
            .map(|(&number, _)| number)
            .collect()
    }

    /// Takes from the front of `due` as many responses as fit in one request, and marks them.
    pub(crate) fn next_extension(
        &mut self,
        due: &mut VecDeque<u64>,
        now: Instant,
    ) -> Option<Extension> {
        let mut extension: Option<Extension> = None;
        while let Some(&number) = due.front() {
            if let Some(response) = self.held.get_mut(&number)
                && response.is_due(now)
                && !response.join(number, &mut extension, now)
            {
                break;
            }
            due.pop_front();
        }
        extension
    }

    /// What became of an extension that was sent at `sent`. Messages whose extension is refused are extended
    /// no more; where one failed, its response is tried again soon.
    pub(crate) fn extended(
        &mut self,
        extension: &Extension,
        sent: Instant,
        outcome: &Result<Vec<Verdict>, Error>,
    ) {
        let now = Instant::now();
        let again_at = now + (extension.visibility / 8).max(SHORTEST_RETRY);
        let all_again = [Verdict::Again; MOST_ENTRIES];
        let (verdicts, may_be_done) = match outcome {
            Ok(verdicts) => (&verdicts[..], false),
            Err(error) => (&all_again[..], error.leaves_outcome_open()),
        };
        for receipt in &extension.receipts {
            if let Some(response) = self.held.get_mut(&receipt.response()) {
                response.being_extended = false;
                response.extend_at = sent + extension.visibility / 2;
            }
        }
        for (receipt, verdict) in extension.receipts.iter().zip(verdicts) {
            if may_be_done || *verdict == Verdict::Done {
                self.hide(*receipt, now + extension.visibility);
            }
            match verdict {
                Verdict::Done => {}
                Verdict::Refused => self.stop_keeping(*receipt),
                Verdict::Again => {
                    if let Some(response) = self.held.get_mut(&receipt.response()) {
                        response.extend_at = response.extend_at.min(again_at);
                    }
                }
            }
        }
    }
}

impl HeldResponse {
    fn is_due(&self, now: Instant) -> bool {
        self.kept != 0 && !self.being_extended && self.extend_at <= now
    }

    /// Joins `extension`, or begins it. False if there is no place for this response in it.
    fn join(&mut self, number: u64, extension: &mut Option<Extension>, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.asked);
        let possible = LONGEST_INVISIBLE.saturating_sub(age).as_secs();
        let visibility = Duration::from_secs(possible.min(u64::from(self.visibility)));
        if visibility.is_zero() {
            self.kept = 0;
            return true;
        }
        let receipts = receipts_of(number, self.kept);
        match extension {
            None => {
                *extension = Some(Extension {
                    remote: self.remote.clone(),
                    receipts: receipts.collect(),
                    visibility,
                });
            }
            Some(begun) => {
                let fits = Rc::ptr_eq(&begun.remote, &self.remote)
                    && begun.visibility == visibility
                    && begun.receipts.len() + self.kept.count_ones() as usize <= MOST_ENTRIES;
                if !fits {
                    return false;
                }
                begun.receipts.extend(receipts);
            }
        }
        self.being_extended = true;
        true
    }
}

fn receipts_of(response: u64, mask: u16) -> impl Iterator<Item = Receipt> {
    (0..MOST_ENTRIES)
        .map(move |index| Receipt::new(response, index))
        .filter(move |receipt| mask & receipt.bit() != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use crate::handles::HandlesBuilder;
    use crate::url::QueueUrl;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    const HOUR: Duration = Duration::from_secs(3_600);

    #[derive(Default)]
    struct Count(AtomicU64);

    impl Observer for Count {
        fn deleted(&self, _messages: u64) {}
        fn delete_failed(&self, messages: u64) {
            self.0.fetch_add(messages, Relaxed);
        }
    }

    fn queue(observer: Arc<dyn Observer>) -> Queue {
        let url = QueueUrl::parse("http://localhost/000000000000/q").unwrap();
        Queue::new(url, None, None, observer).unwrap()
    }

    fn remote() -> Rc<Remote> {
        let queue = queue(Arc::new(()));
        let client = Client::new(queue.endpoint(), Rc::default());
        Rc::new(Remote::new(&queue, Rc::new(client)))
    }

    fn handles(count: usize) -> Handles {
        let mut handles = HandlesBuilder::default();
        for _ in 0..count {
            handles.push("h").unwrap();
        }
        handles.build()
    }

    fn take_in(
        receipts: &mut Receipts,
        remote: &Rc<Remote>,
        count: usize,
        invisibility: Invisibility,
    ) -> Vec<Receipt> {
        receipts.take_in(
            remote.clone(),
            queue(Arc::new(())),
            handles(count),
            invisibility,
        )
    }

    fn invisible(asked: Instant, visibility: Duration) -> Invisibility {
        Invisibility {
            asked,
            answered: asked,
            first: visibility,
            then: visibility,
        }
    }

    #[test]
    fn an_extension_is_due_at_half_time_earlier_by_what_was_waited_up_to_a_quarter() {
        let asked = Instant::now();
        let seconds = Duration::from_secs;
        for (waited, due) in [(0, 15.0), (2, 15.0), (20, 27.5)] {
            let invisibility = Invisibility {
                answered: asked + seconds(waited),
                ..invisible(asked, seconds(30))
            };
            assert_eq!((invisibility.extend_at() - asked).as_secs_f64(), due);
        }
    }

    #[test]
    fn no_message_is_hidden_for_more_than_twelve_hours() {
        let mut receipts = Receipts::default();
        let asked = Instant::now();
        take_in(&mut receipts, &remote(), 1, invisible(asked, 8 * HOUR));
        let mut extend = |age: Duration| {
            let now = asked + age;
            let mut due = receipts.due(now);
            let extension = receipts.next_extension(&mut due, now)?;
            receipts.extended(&extension, asked, &Ok(vec![Verdict::Done]));
            Some(extension.visibility)
        };
        assert_eq!(extend(3 * HOUR), None);
        assert_eq!(extend(4 * HOUR), Some(8 * HOUR - Duration::from_secs(60)));
        assert_eq!(extend(11 * HOUR), Some(HOUR - Duration::from_secs(60)));
        assert_eq!(extend(12 * HOUR), None);
    }

    #[test]
    fn an_extension_joins_responses_of_one_queue_up_to_ten_messages() {
        let mut receipts = Receipts::default();
        let (one, other) = (remote(), remote());
        let asked = Instant::now();
        for (remote, count) in [(&one, 4), (&one, 6), (&one, 1), (&other, 10)] {
            take_in(&mut receipts, remote, count, invisible(asked, HOUR));
        }
        let now = asked + HOUR;
        let mut due = receipts.due(now);
        let sizes: Vec<usize> = std::iter::from_fn(|| receipts.next_extension(&mut due, now))
            .map(|extension| extension.receipts.len())
            .collect();
        assert_eq!(sizes, [10, 1, 10]);
        assert!(receipts.due(now).is_empty(), "all are being extended");
    }

    #[test]
    fn nothing_is_kept_of_a_response_whose_messages_are_all_forgotten() {
        let mut receipts = Receipts::default();
        let remote = remote();
        let taken = take_in(&mut receipts, &remote, 10, invisible(Instant::now(), HOUR));
        assert_eq!(taken.len(), 10);
        for receipt in &taken {
            assert_eq!(receipts.handles(&mut vec![*receipt]).0, ["h"]);
            assert!(receipts.take_over(*receipt).is_some());
            assert!(receipts.take_over(*receipt).is_none());
            receipts.forget(*receipt);
        }
        assert!(receipts.is_empty());
    }

    #[test]
    fn what_was_received_for_a_short_time_is_extended_almost_at_once() {
        let answered = Instant::now();
        let short = Invisibility {
            first: Duration::from_secs(3),
            ..invisible(answered, Duration::from_secs(300))
        };
        assert_eq!(short.extend_at() - answered, EXTEND_SHORT_AFTER);
    }

    #[test]
    fn observers_are_told_of_their_own_messages() {
        let mut receipts = Receipts::default();
        let remote = remote();
        let observers = [(); 2].map(|()| Arc::new(Count::default()));
        let mut taken = Vec::new();
        for (observer, count) in [(&observers[0], 3), (&observers[1], 2), (&observers[0], 4)] {
            let queue = queue(observer.clone());
            let invisibility = invisible(Instant::now(), HOUR);
            taken.extend(receipts.take_in(remote.clone(), queue, handles(count), invisibility));
        }
        receipts.forget(taken[0]);
        receipts.tell_observers(&taken, |observer, count| observer.delete_failed(count));
        let told = observers.map(|observer| observer.0.load(Relaxed));
        assert_eq!(
            told,
            [7, 2],
            "a message of a response that is held in part counts"
        );
    }

    /// 100,000 held messages are 10,000 of these: about 2 MB in the map.
    #[test]
    fn a_held_response_is_small() {
        assert!(size_of::<HeldResponse>() <= 104);
    }
}
