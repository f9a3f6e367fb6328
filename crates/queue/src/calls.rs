//! How many calls are under way at once: each takes a connection, which is an open file of the whole process.

use std::cell::Cell;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The share of all calls that polls may take: what they bring has to be deleted meanwhile, which takes as many
/// calls.
const SHARE_OF_POLLS: (usize, usize) = (1, 2);

/// The share that polls whose messages nobody wants any more may take beside others: they cannot be ended, and others
/// need not wait for them.
const SHARE_OF_UNWANTED_POLLS: (usize, usize) = (1, 4);

/// Calls that may be under way at once.
pub(crate) struct Calls {
    most: Cell<usize>,
    all: Arc<Semaphore>,
    polls: Arc<Semaphore>,
    unwanted_polls: Arc<Semaphore>,
}

/// The right to make a call, until dropped.
pub(crate) struct CallPermit {
    _of_all: Option<OwnedSemaphorePermit>,
    of_polls: Option<OwnedSemaphorePermit>,
}

impl Calls {
    pub(crate) fn at_most(most: usize) -> Calls {
        let calls = Calls {
            most: Cell::new(0),
            all: Arc::new(Semaphore::new(0)),
            polls: Arc::new(Semaphore::new(0)),
            unwanted_polls: Arc::new(Semaphore::new(0)),
        };
        calls.allow(most.max(2));
        calls
    }

    /// Raises the number of calls to this, if that is more than before.
    pub(crate) fn allow(&self, most: usize) {
        let before = self.most.get();
        if most > before {
            self.most.set(most);
            self.all.add_permits(most - before);
            let more = |share| part(share, most) - part(share, before);
            self.polls.add_permits(more(SHARE_OF_POLLS));
            self.unwanted_polls
                .add_permits(more(SHARE_OF_UNWANTED_POLLS));
        }
    }

    pub(crate) fn most(&self) -> usize {
        self.most.get()
    }

    /// Waits for its turn to poll.
    pub(crate) async fn poll(&self) -> CallPermit {
        // They are never closed, so there always is a permit.
        let of_polls = self.polls.clone().acquire_owned().await.ok();
        CallPermit {
            _of_all: self.all.clone().acquire_owned().await.ok(),
            of_polls,
        }
    }

    /// A poll that goes on is not wanted any more: lets another one have its turn, as soon as that is possible.
    pub(crate) async fn give_way(&self, poll: &mut CallPermit) {
        poll.of_polls = self.unwanted_polls.clone().acquire_owned().await.ok();
    }

    /// Waits for its turn to settle or to hide messages, or to ask about a queue.
    pub(crate) async fn settle(&self) -> CallPermit {
        CallPermit {
            _of_all: self.all.clone().acquire_owned().await.ok(),
            of_polls: None,
        }
    }
}

fn part((share, of): (usize, usize), calls: usize) -> usize {
    calls * share / of
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many permits of each kind there are.
    fn free(calls: &Calls) -> (usize, usize) {
        (
            calls.all.available_permits(),
            calls.polls.available_permits(),
        )
    }

    #[test]
    fn polls_leave_calls_to_those_that_settle() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let calls = Calls::at_most(8);
            let mut polls = Vec::new();
            while free(&calls).1 > 0 {
                polls.push(calls.poll().await);
            }
            assert_eq!(polls.len(), 4);
            let settling = calls.settle().await;
            assert_eq!(free(&calls), (3, 0));
            calls.allow(12);
            assert_eq!(free(&calls), (7, 2));
            calls.allow(4);
            drop((polls, settling));
            assert_eq!(free(&calls), (12, 6), "never fewer than before");
        });
    }

    #[test]
    fn polls_that_nobody_wants_give_way_to_others_and_never_take_all_calls() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let calls = Calls::at_most(8);
            let mut unwanted = Vec::new();
            for _ in 0..2 {
                let mut poll = calls.poll().await;
                calls.give_way(&mut poll).await;
                unwanted.push(poll);
            }
            assert_eq!(free(&calls), (6, 4));
            let mut third = calls.poll().await;
            tokio::select! {
                biased;
                () = calls.give_way(&mut third) => panic!("a third"),
                () = tokio::task::yield_now() => {}
            }
            assert_eq!(free(&calls), (5, 3), "it still counts as a poll");
            unwanted.pop();
            calls.give_way(&mut third).await;
            assert_eq!(free(&calls), (6, 4));
        });
    }
}
