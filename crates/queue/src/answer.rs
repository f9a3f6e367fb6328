//! What an answer takes while it is read: memory, of which all answers together have a budget, and time, which is up
//! when nothing arrives any more.
//!
//! The SDK reads an answer to its end before it parses it. So its body is wrapped on its way from the connection to the
//! SDK, and what the wrapper sees is shared with the caller.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use aws_smithy_types::body::{Error as BodyError, SdkBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// All answers of an I/O thread together, and each of them: ten messages of 1 MiB, each byte of them escaped as
/// `\u00xx`, fit in.
const MOST_BYTES: usize = 64 << 20;

/// An answer of which nothing arrives for this long has stalled.
const LONGEST_STALL: Duration = Duration::from_secs(5);

/// Bytes of the answers that are being read and parsed.
#[derive(Default)]
pub(crate) struct Budget(Mutex<Spent>);

#[derive(Default)]
struct Spent {
    bytes: usize,
    /// One answer may exceed the budget: otherwise all could be half read, and none would ever finish.
    has_overdraft: bool,
    waiting: Vec<Waker>,
}

impl Budget {
    /// Takes `bytes`, or wakes `context` when it is worth asking again. An answer that `may_overdraw` always gets them.
    fn take(&self, bytes: usize, may_overdraw: &mut bool, context: &Context<'_>) -> Poll<()> {
        let mut spent = lock(&self.0);
        if spent.bytes + bytes > MOST_BYTES && !*may_overdraw {
            if spent.has_overdraft {
                spent.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
            spent.has_overdraft = true;
            *may_overdraw = true;
        }
        spent.bytes += bytes;
        Poll::Ready(())
    }

    fn give_back(&self, bytes: usize, was_overdrawn: bool) {
        let waiting = {
            let mut spent = lock(&self.0);
            spent.bytes -= bytes;
            if was_overdrawn {
                spent.has_overdraft = false;
            }
            std::mem::take(&mut spent.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
    }
}

/// One call, as its maker and the body of its answer see it. While it lives, so does the share of the budget that the
/// answer took.
pub(crate) struct Exchange {
    budget: Arc<Budget>,
    progress: Mutex<Progress>,
}

struct Progress {
    /// When the head of the answer arrived.
    began: Option<Instant>,
    /// When something last arrived; `None` before the answer began.
    arrived: Option<Instant>,
    /// What has arrived waits for others to be parsed.
    waits_for_budget: bool,
    bytes: usize,
    may_overdraw: bool,
    fault: Option<Fault>,
}

/// Why an answer was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection broke.
    Broken,
    /// It is longer than any answer of SQS.
    TooLong,
}

impl Exchange {
    pub(crate) fn new(budget: Arc<Budget>) -> Arc<Exchange> {
        Arc::new(Exchange {
            budget,
            progress: Mutex::new(Progress {
                began: None,
                arrived: None,
                waits_for_budget: false,
                bytes: 0,
                may_overdraw: false,
                fault: None,
            }),
        })
    }

    /// The head of the answer is there: wraps its body.
    pub(crate) fn watch(self: Arc<Exchange>, body: SdkBody) -> SdkBody {
        let now = Some(Instant::now());
        let mut progress = lock(&self.progress);
        progress.began = now;
        progress.arrived = now;
        drop(progress);
        SdkBody::from_body_1_x(WatchedBody {
            inner: body,
            arrived: None,
            exchange: self,
        })
    }

    /// When the answer began: SQS has carried the call out by then.
    pub(crate) fn began(&self) -> Option<Instant> {
        lock(&self.progress).began
    }

    /// When the answer will have stalled if nothing more arrives. `None` before it began.
    pub(crate) fn stalls_at(&self) -> Option<Instant> {
        let progress = lock(&self.progress);
        let arrived = progress.arrived?;
        Some(if progress.waits_for_budget {
            Instant::now() + LONGEST_STALL
        } else {
            arrived + LONGEST_STALL
        })
    }

    pub(crate) fn fault(&self) -> Option<Fault> {
        lock(&self.progress).fault
    }

    /// Counts `bytes` that have arrived, once they fit into the budget.
    fn take(&self, bytes: usize, context: &Context<'_>) -> Poll<Result<(), Fault>> {
        let mut progress = lock(&self.progress);
        if progress.bytes + bytes > MOST_BYTES {
            progress.fault = Some(Fault::TooLong);
            return Poll::Ready(Err(Fault::TooLong));
        }
        let taken = self.budget.take(bytes, &mut progress.may_overdraw, context);
        progress.waits_for_budget = taken.is_pending();
        if taken.is_ready() {
            progress.bytes += bytes;
            progress.arrived = Some(Instant::now());
        }
        taken.map(Ok)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let progress = lock(&self.progress);
        self.budget.give_back(progress.bytes, progress.may_overdraw);
    }
}

struct WatchedBody {
    inner: SdkBody,
    /// Has arrived and waits for the budget.
    arrived: Option<Bytes>,
    exchange: Arc<Exchange>,
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.arrived.is_none() {
            let frame = match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => {
                    lock(&self.exchange.progress).fault = Some(Fault::Broken);
                    return Poll::Ready(Some(Err(error)));
                }
                other => return other,
            };
            match frame.into_data() {
                Ok(data) => self.arrived = Some(data),
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let length = self.arrived.as_ref().map_or(0, Bytes::len);
        match self.exchange.take(length, context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => {
                Poll::Ready(self.arrived.take().map(|data| Ok(Frame::data(data))))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Some(Err("the answer is too long".into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.arrived.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        let arrived = self.arrived.as_ref().map_or(0, |data| data.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + arrived);
        }
        hint.set_lower(hint.lower() + arrived);
        hint
    }
}

/// A panic elsewhere while the lock was held leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn take(exchange: &Exchange, bytes: usize) -> Poll<Result<(), Fault>> {
        exchange.take(bytes, &Context::from_waker(Waker::noop()))
    }

    #[test]
    fn answers_share_a_budget_and_one_of_them_may_overdraw_it() {
        let budget = Arc::new(Budget::default());
        let [one, two, three] = [(); 3].map(|()| Exchange::new(budget.clone()));
        assert_eq!(take(&one, 30 * MIB), Poll::Ready(Ok(())));
        assert_eq!(take(&two, 30 * MIB), Poll::Ready(Ok(())));
        assert_eq!(
            take(&one, 30 * MIB),
            Poll::Ready(Ok(())),
            "the first to overdraw"
        );
        assert_eq!(take(&two, 30 * MIB), Poll::Pending);
        assert_eq!(take(&three, 1), Poll::Pending);
        drop(one);
        assert_eq!(take(&two, 30 * MIB), Poll::Ready(Ok(())));
        assert_eq!(
            take(&three, 5 * MIB),
            Poll::Ready(Ok(())),
            "the next to overdraw"
        );
        drop((two, three));
        assert_eq!(lock(&budget.0).bytes, 0);
    }

    #[test]
    fn no_answer_may_be_longer_than_the_budget() {
        let exchange = Exchange::new(Arc::default());
        assert_eq!(take(&exchange, MOST_BYTES), Poll::Ready(Ok(())));
        assert_eq!(take(&exchange, 1), Poll::Ready(Err(Fault::TooLong)));
        assert_eq!(exchange.fault(), Some(Fault::TooLong));
    }

    #[test]
    fn an_answer_that_waits_for_the_budget_has_not_stalled() {
        let budget = Arc::new(Budget::default());
        let [one, two, three] = [(); 3].map(|()| Exchange::new(budget.clone()));
        assert!(three.stalls_at().is_none());
        for exchange in [&one, &two] {
            assert!(take(exchange, 60 * MIB).is_ready());
        }
        lock(&three.progress).arrived = Some(Instant::now() - 2 * LONGEST_STALL);
        assert!(take(&three, 1).is_pending());
        assert!(three.stalls_at() > Some(Instant::now()));
        drop(two);
        assert!(take(&three, 1).is_ready());
    }
}
