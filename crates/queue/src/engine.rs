//! What lives on the I/O thread: clients, receipt handles, tasks.
//!
//! There is one thread, so everything in here is shared by `Rc` and cells. No cell is borrowed across an await.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::select;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout, timeout_at};

use crate::calls::{CallPermit, Calls};
use crate::client::Client;
use crate::extend_visibility::extend_visibility;
use crate::handles::Store;
use crate::http::Http;
use crate::observed::Queue;
use crate::panics::{caught_in, last_location};
use crate::receipts::{Receipt, Receipts};
use crate::remote::Remote;
use crate::settle::{Fate, release_held_back, settle};
use crate::shared::Shared;

/// A call that found no file descriptor free is not made up for by another one for this long.
const FEWER_CALLS_FOR: Duration = Duration::from_secs(10);

/// Starts something of a type that only its sender knows.
pub(crate) type Start = Box<dyn FnOnce(&Rc<Engine>) + Send>;

/// What the other side asks of the I/O thread.
pub(crate) enum Command {
    Start(Start),
    Settle(Vec<Receipt>, Fate),
    AllowConnections(usize),
    ShutDown { deadline: Instant },
}

pub(crate) struct Engine {
    pub shared: Arc<Shared>,
    pub receipts: RefCell<Receipts>,
    /// Messages are held that were not before.
    pub held: Notify,
    pub extension_ended: Notify,
    /// Messages are to be extended as soon as possible.
    pub overdue: Notify,
    pub polls: PollsUnderWay,
    pub calls: Calls,
    http: Rc<Http>,
    clients: RefCell<Vec<Rc<Client>>>,
    remotes: RefCell<Vec<Weak<Remote>>>,
    closing: Cell<bool>,
    /// While closing: polls that may be about to bring something have done so.
    may_release: Cell<bool>,
    /// While closing: polls under way are to be dropped.
    pub hang_up: Notify,
    /// Something happened that [`shut_down`](Engine::shut_down) may be waiting for.
    progress: Notify,
    panicked: Notify,
}

impl Engine {
    pub(crate) fn new(shared: Arc<Shared>, handles: Store, connections: usize) -> Rc<Engine> {
        Rc::new(Engine {
            shared,
            receipts: RefCell::new(Receipts::new(handles)),
            held: Notify::new(),
            extension_ended: Notify::new(),
            overdue: Notify::new(),
            polls: PollsUnderWay::default(),
            calls: Calls::at_most(connections),
            http: Rc::default(),
            clients: RefCell::default(),
            remotes: RefCell::default(),
            closing: Cell::new(false),
            may_release: Cell::new(false),
            hang_up: Notify::new(),
            progress: Notify::new(),
            panicked: Notify::new(),
        })
    }

    /// Carries out commands until it is told to shut down, or something panics. Returns whether everything was done.
    pub(crate) async fn run(self: &Rc<Engine>, mut commands: UnboundedReceiver<Command>) -> bool {
        self.http.sockets.allow(self.calls.most());
        self.spawn(extend_visibility(self.clone()));
        loop {
            select! {
                biased;
                () = self.panicked.notified() => return false,
                command = commands.recv() => match command {
                    Some(Command::Start(start)) => start(self),
                    Some(Command::Settle(receipts, fate)) => settle(self, receipts, fate),
                    Some(Command::AllowConnections(most)) => self.allow_connections(most),
                    Some(Command::ShutDown { deadline }) => return self.shut_down(deadline).await,
                    None => return false,
                },
            }
        }
    }

    fn allow_connections(&self, most: usize) {
        self.calls.allow(most);
        self.http.sockets.allow(self.calls.most());
    }

    /// Runs `task` beside everything else. A panic in it ends the thread: half of what it does for messages
    /// would be done, and nobody would know which half.
    pub(crate) fn spawn(self: &Rc<Engine>, task: impl Future<Output = ()> + 'static) {
        let engine = self.clone();
        spawn_local(async move {
            if caught_in(task).await.is_err() {
                engine.shared.set_fault(last_location());
                engine.panicked.notify_one();
            }
        });
    }

    /// The process may open no more files: there is to be a call less for some time.
    pub(crate) fn make_do_without(self: &Rc<Engine>, permit: CallPermit) {
        self.spawn(async move {
            sleep(FEWER_CALLS_FOR).await;
            drop(permit);
        });
    }

    /// A queue as this process calls it.
    pub(crate) fn remote(&self, queue: &Queue) -> Rc<Remote> {
        let mut remotes = self.remotes.borrow_mut();
        let known = remotes
            .iter()
            .filter_map(Weak::upgrade)
            .find(|remote| remote.is(queue));
        if let Some(remote) = known {
            return remote;
        }
        let remote = Rc::new(Remote::new(queue, self.client(queue)));
        remotes.retain(|remote| remote.strong_count() > 0);
        remotes.push(Rc::downgrade(&remote));
        remote
    }

    fn client(&self, queue: &Queue) -> Rc<Client> {
        let mut clients = self.clients.borrow_mut();
        let known = clients
            .iter()
            .find(|client| client.endpoint() == queue.endpoint());
        if let Some(client) = known {
            return client.clone();
        }
        let client = Rc::new(Client::new(queue.endpoint(), self.http.clone()));
        clients.push(client.clone());
        if clients.len() > 1 {
            self.http.sockets.go_to_several_hosts();
        }
        client
    }

    /// The thread ends: what is still waiting to be deleted was not.
    pub(crate) fn give_up(&self) {
        let receipts = self.receipts.borrow();
        for remote in self.remotes.borrow().iter().filter_map(Weak::upgrade) {
            let undone: Vec<Receipt> = remote.deletes.pending.borrow_mut().drain(..).collect();
            receipts.tell_observers(&undone, |observer, count| observer.delete_failed(count));
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Counts messages that are settled, one way or the other.
    pub(crate) fn settled(&self, messages: usize) {
        if self.shared.settled(messages as u64) {
            self.progress.notify_one();
        }
    }

    /// Whether releases wait until the thread that ends has seen its youngest polls end.
    pub(crate) fn holds_back_releases(&self) -> bool {
        self.is_closing() && !self.may_release.get()
    }

    async fn shut_down(self: &Rc<Engine>, deadline: Instant) -> bool {
        self.closing.set(true);
        self.shared.close();
        select! {
            () = self.panicked.notified() => false,
            finished = timeout_at(deadline.into(), self.finish()) => finished.is_ok(),
        }
    }

    /// Releases everything that is held and finishes what was begun. Polls that may be about to bring messages are
    /// given the time to do so first. A poll that has waited for longer is waiting at an empty queue: nothing is gained
    /// by waiting with it. But it may take what is released; so what it brings then is released again, once, after all
    /// polls were dropped.
    async fn finish(self: &Rc<Engine>) {
        self.young_polls(None).await;
        self.may_release.set(true);
        let has_released = self.release_all();
        self.all_settled().await;
        if has_released {
            self.young_polls(Some(Instant::now())).await;
            self.hang_up.notify_waiters();
            self.release_all();
            self.all_settled().await;
        }
    }

    /// Waits for polls that may well bring messages: the young ones, and, for as long, those that may bring what was
    /// released at `last_release`.
    async fn young_polls(&self, last_release: Option<Instant>) {
        while let Some(until) = self.polls.young_until(last_release) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            // Where a poll ends sooner, it is looked at again.
            let _ = timeout(left, self.polls.ended.notified()).await;
        }
    }

    /// Whether there was anything to release.
    fn release_all(self: &Rc<Engine>) -> bool {
        let mut has_released = false;
        for remote in self.remotes.borrow().iter().filter_map(Weak::upgrade) {
            has_released |= !remote.releases.is_idle();
            release_held_back(self, &remote);
        }
        let nobodys = self.receipts.borrow().owned();
        has_released |= !nobodys.is_empty();
        self.shared.handed_over(nobodys.len() as u64);
        settle(self, nobodys, Fate::Release);
        has_released
    }

    async fn all_settled(&self) {
        while self.shared.unsettled() > 0 {
            self.progress.notified().await;
        }
    }
}

/// ReceiveMessage calls that have been sent and not been answered, or whose answer is not dealt with yet.
#[derive(Default)]
pub(crate) struct PollsUnderWay {
    last: Cell<u64>,
    began: Rc<RefCell<BTreeMap<u64, Instant>>>,
    pub ended: Rc<Notify>,
    /// How long a queue with messages in it takes to answer: a moving average.
    latency: Cell<Duration>,
}

/// A poll under way, until dropped.
pub(crate) struct PollUnderWay {
    number: u64,
    began: Rc<RefCell<BTreeMap<u64, Instant>>>,
    ended: Rc<Notify>,
}

impl PollsUnderWay {
    /// A queue with messages in it answers sooner than this, if nothing better is known.
    const YOUNG: Duration = Duration::from_millis(50);
    const LONGEST_YOUNG: Duration = Duration::from_millis(500);

    pub(crate) fn begin(&self) -> PollUnderWay {
        let number = self.last.get() + 1;
        self.last.set(number);
        self.began.borrow_mut().insert(number, Instant::now());
        PollUnderWay {
            number,
            began: self.began.clone(),
            ended: self.ended.clone(),
        }
    }

    /// Learns how long a queue with messages in it takes to answer.
    pub(crate) fn learn(&self, latency: Duration) {
        self.latency.set((self.latency.get() * 3 + latency) / 4);
    }

    /// Until when the youngest poll may well bring messages. What was just released is as good as just sent: a poll
    /// that has long been waiting may bring that.
    fn young_until(&self, last_release: Option<Instant>) -> Option<Instant> {
        let began = self.began.borrow();
        let youngest = *began.values().next_back()?;
        Some(last_release.map_or(youngest, |release| release.max(youngest)) + self.young())
    }

    /// How old a poll can be and still be likely to bring messages, if there are any.
    pub(crate) fn young(&self) -> Duration {
        (self.latency.get() * 2).clamp(Self::YOUNG, Self::LONGEST_YOUNG)
    }
}

impl Drop for PollUnderWay {
    fn drop(&mut self) {
        self.began.borrow_mut().remove(&self.number);
        self.ended.notify_one();
    }
}
