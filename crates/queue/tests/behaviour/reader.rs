//! The other side, as a backend would be it: waits for the descriptor, acknowledges, looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use queue::{
    End, Error, Fate, Inlet, Io, Next, Observer, Queue, QueueUrl, Receipt, Receive, Received,
};

#[derive(Default)]
pub struct Counts {
    pub deleted: AtomicU64,
    pub failed: AtomicU64,
}

impl Observer for Counts {
    fn deleted(&self, messages: u64) {
        self.deleted.fetch_add(messages, Ordering::SeqCst);
    }

    fn delete_failed(&self, messages: u64) {
        self.failed.fetch_add(messages, Ordering::SeqCst);
    }
}

impl Counts {
    pub fn get(&self) -> (u64, u64) {
        (
            self.deleted.load(Ordering::SeqCst),
            self.failed.load(Ordering::SeqCst),
        )
    }
}

pub fn queue_at(url: &str) -> (Queue, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let url = QueueUrl::parse(url).unwrap();
    (Queue::new(url, None, None, counts.clone()).unwrap(), counts)
}

/// Up to `limit` messages until empty, with short waits.
pub fn at_most(limit: u64) -> Receive {
    Receive {
        limit: Some(limit),
        until_empty: true,
        wait: Duration::from_secs(1),
        concurrency: 8,
        visibility: Duration::from_secs(30),
    }
}

/// Receives for ever.
pub fn endless() -> Receive {
    Receive {
        limit: None,
        until_empty: false,
        wait: Duration::from_secs(20),
        concurrency: 8,
        visibility: Duration::from_secs(30),
    }
}

pub fn body(text: &str) -> String {
    text.to_owned()
}

/// What came out at the end.
#[derive(Debug)]
pub enum Outcome {
    End(End),
    Failed(Error),
}

pub fn wait(io: &Io, timeout: Duration) {
    let mut poll = libc::pollfd {
        fd: io.fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd, as said.
    unsafe { libc::poll(&mut poll, 1, timeout.as_millis() as i32) };
}

/// What comes next, waited for.
pub fn next<T>(io: &Io, inlet: &mut Inlet<T>) -> Next<T> {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        io.acknowledge();
        match inlet.next() {
            Next::Nothing => {
                assert!(Instant::now() < patience, "nothing comes");
                wait(io, Duration::from_secs(60));
            }
            other => return other,
        }
    }
}

/// The next response's messages.
pub fn messages<T: std::fmt::Debug>(io: &Io, inlet: &mut Inlet<T>) -> Vec<Received<T>> {
    match next(io, inlet) {
        Next::Messages(messages) => messages,
        other => panic!("not messages: {other:?}"),
    }
}

/// Takes everything.
pub fn drain<T: std::fmt::Debug>(io: &Io, inlet: &mut Inlet<T>) -> (Vec<Received<T>>, Outcome) {
    let mut all = Vec::new();
    loop {
        match next(io, inlet) {
            Next::Messages(messages) => {
                assert!((1..=10).contains(&messages.len()));
                all.extend(messages);
            }
            Next::Nothing => unreachable!(),
            Next::End(end) => return (all, Outcome::End(end)),
            Next::Failed(error) => return (all, Outcome::Failed(error)),
        }
    }
}

pub fn receipts<T>(messages: &[Received<T>]) -> Vec<Receipt> {
    messages.iter().map(|message| message.receipt).collect()
}

/// Settles and waits until it is done.
pub fn settle_all(io: &Io, receipts: Vec<Receipt>, fate: Fate) {
    io.settle(receipts, fate);
    until("settled", || io.unsettled() == 0);
}

/// Waits for something to become true, a minute at most.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < patience, "not {what} within a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}
