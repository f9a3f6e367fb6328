//! How many connections are open: calls to one host take them from its pool, and those to another one open more.
//!
//! Calls are bounded, and so are the connections to a single host. But the pool keeps idle ones of every host, and has
//! no bound for all hosts together. It takes a clock and a timer from its user, though: when there are as many
//! connections as there may be, and several hosts, its clock is put ahead, so that all idle ones are over.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_sdk_sqs::config::{AsyncSleep, Sleep};
use aws_smithy_http_client::pool::{ConnectionEvent, ConnectionEventListener};
use aws_types::sdk_config::TimeSource;
use tokio::select;
use tokio::sync::Notify;
use tokio::time::sleep;

/// Servers close connections that are idle for longer than a minute or so; each is an open file meanwhile.
pub(crate) const LONGEST_IDLE: Duration = Duration::from_secs(20);

/// Where calls to several hosts take all connections, a few are idle for a moment. They are not closed more often than
/// this, so there may be a few too many meanwhile.
const CLOSE_FEW_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The open connections of an I/O thread. Cheap to clone; clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sockets(Arc<State>);

#[derive(Debug, Default)]
struct State {
    most: AtomicUsize,
    open: AtomicUsize,
    calls: AtomicUsize,
    has_several_hosts: AtomicBool,
    /// How far the clock of the pools is ahead, in seconds.
    ahead: AtomicU64,
    was_put_ahead: Notify,
    last_closed: Mutex<Option<Instant>>,
}

impl Sockets {
    /// Sets the number of connections that may be open.
    pub(crate) fn allow(&self, most: usize) {
        self.0.most.store(most, Relaxed);
    }

    pub(crate) fn go_to_several_hosts(&self) {
        self.0.has_several_hosts.store(true, Relaxed);
    }

    /// Makes room for a call, which may need another connection. It counts until it is dropped.
    pub(crate) fn begin_call(&self) -> CallUnderWay {
        let state = &*self.0;
        let calls = state.calls.fetch_add(1, Relaxed);
        if state.has_several_hosts.load(Relaxed) {
            let (open, most) = (state.open.load(Relaxed), state.most.load(Relaxed));
            let idle = open.saturating_sub(calls);
            if open >= most && idle > 0 {
                state.close_idle(idle >= most / 4);
            }
        }
        CallUnderWay(self.clone())
    }
}

/// A call, until dropped.
pub(crate) struct CallUnderWay(Sockets);

impl Drop for CallUnderWay {
    fn drop(&mut self) {
        self.0.0.calls.fetch_sub(1, Relaxed);
    }
}

impl State {
    fn close_idle(&self, are_many: bool) {
        let mut last_closed = self
            .last_closed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if are_many || last_closed.is_none_or(|at| at.elapsed() >= CLOSE_FEW_AGAIN_AFTER) {
            *last_closed = Some(Instant::now());
            self.ahead.fetch_add(LONGEST_IDLE.as_secs() + 1, Relaxed);
            self.was_put_ahead.notify_waiters();
        }
    }
}

impl ConnectionEventListener for Sockets {
    fn on_event(&self, event: &ConnectionEvent<'_>) {
        match event {
            ConnectionEvent::Opened(_) => {
                self.0.open.fetch_add(1, Relaxed);
            }
            ConnectionEvent::PhysicalClose(_) => {
                self.0.open.fetch_sub(1, Relaxed);
            }
            _ => {}
        }
    }
}

impl TimeSource for Sockets {
    fn now(&self) -> SystemTime {
        SystemTime::now() + Duration::from_secs(self.0.ahead.load(Relaxed))
    }
}

/// Sleeps until the clock says so, or is put ahead.
impl AsyncSleep for Sockets {
    fn sleep(&self, duration: Duration) -> Sleep {
        let state = self.0.clone();
        Sleep::new(async move {
            select! {
                () = sleep(duration) => {}
                () = state.was_put_ahead.notified() => {}
            }
        })
    }
}
