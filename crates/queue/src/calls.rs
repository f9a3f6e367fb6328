//! How many calls are under way at once: each takes a connection, which is an open file of the whole process.

use std::cell::Cell;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The share of all calls that polls may take: what they bring has to be deleted meanwhile, which takes as many
/// calls.
const SHARE_OF_POLLS: (usize, usize) = (1, 2);

/// Calls that may be under way at once.
pub(crate) struct Calls {
    most: Cell<usize>,
    all: Arc<Semaphore>,
    polls: Arc<Semaphore>,
}

/// The right to make a call, until dropped.
pub(crate) struct CallPermit {
    _of_all: Option<OwnedSemaphorePermit>,
    _of_polls: Option<OwnedSemaphorePermit>,
}

impl Calls {
    pub(crate) fn at_most(most: usize) -> Calls {
        let calls = Calls {
            most: Cell::new(0),
            all: Arc::new(Semaphore::new(0)),
            polls: Arc::new(Semaphore::new(0)),
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
            self.polls
                .add_permits(share_of_polls(most) - share_of_polls(before));
        }
    }

    /// Waits for its turn to poll.
    pub(crate) async fn poll(&self) -> CallPermit {
        // They are never closed, so there always is a permit.
        let of_polls = self.polls.clone().acquire_owned().await.ok();
        CallPermit {
            _of_all: self.all.clone().acquire_owned().await.ok(),
            _of_polls: of_polls,
        }
    }

    /// Waits for its turn to settle or to hide messages, or to ask about a queue.
    pub(crate) async fn settle(&self) -> CallPermit {
        CallPermit {
            _of_all: self.all.clone().acquire_owned().await.ok(),
            _of_polls: None,
        }
    }
}

fn share_of_polls(calls: usize) -> usize {
    let (share, of) = SHARE_OF_POLLS;
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
}
