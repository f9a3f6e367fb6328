//! Keeps held messages hidden from others: extends each visibility timeout when half of it has passed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::select;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::engine::Engine;
use crate::entries::Verdict;
use crate::error::Error;
use crate::receipts::Extension;

/// How often to look for what is due: half of half the shortest visibility timeout.
const ROUND: Duration = Duration::from_millis(250);
/// Calls in flight, beside those that receive and delete: enough for all the messages that SQS lets a queue have in
/// flight, 120,000, within half of the default visibility timeout, at 80 ms a call.
const CALLS_AT_ONCE: usize = 64;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Extends what is due, round after round, while anything is held. No timer runs while nothing is.
pub(crate) async fn extend_visibility(engine: Rc<Engine>) {
    let calls = Arc::new(Semaphore::new(CALLS_AT_ONCE));
    loop {
        while engine.receipts.borrow().is_empty() {
            engine.held.notified().await;
        }
        select! {
            () = sleep(ROUND) => {}
            () = engine.overdue.notified() => {}
        }
        let responses = engine.receipts.borrow().responses();
        engine.shared.set_responses_held(responses);
        let mut due = engine.receipts.borrow().due(Instant::now());
        while !due.is_empty() {
            let Ok(permit) = calls.clone().acquire_owned().await else {
                return;
            };
            let extension = engine
                .receipts
                .borrow_mut()
                .next_extension(&mut due, Instant::now());
            if let Some(extension) = extension {
                engine.spawn(extend(engine.clone(), extension, permit));
            }
        }
    }
}

async fn extend(engine: Rc<Engine>, mut extension: Extension, _permit: OwnedSemaphorePermit) {
    let sent = Instant::now();
    let outcome = call(&engine, &mut extension).await;
    engine
        .receipts
        .borrow_mut()
        .extended(&extension, sent, &outcome);
    engine.extension_ended.notify_waiters();
}

async fn call(engine: &Engine, extension: &mut Extension) -> Result<Vec<Verdict>, Error> {
    let _permit = engine.calls.settle().await;
    let (handles, lost) = engine.receipts.borrow().handles(&mut extension.receipts);
    engine.receipts.borrow_mut().cannot_extend(&lost);
    if handles.is_empty() {
        return Ok(Vec::new());
    }
    let seconds = extension.visibility.as_secs();
    let remote = &extension.remote;
    remote
        .client
        .change_visibility(&remote.url, &handles, seconds, ATTEMPT_TIMEOUT)
        .await
}
