//! The I/O thread and the handle on it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::select;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::sleep;

use crate::engine::{Command, Engine};
use crate::error::{Error, ErrorKind};
use crate::examine::{Description, Examination, describe, examine};
use crate::handles::{OpenFile, Store};
use crate::left::Hidden;
use crate::observed::Queue;
use crate::panics::{caught, last_location, quieten_this_thread};
use crate::pipe::{Next, Pipe};
use crate::receipts::Receipt;
use crate::receive::{Receive, receive};
use crate::settle::Fate;
use crate::shared::Shared;

/// The process' resources that an I/O thread may use.
pub struct Setup {
    /// Most connections that calls take at once: open files. At least 2; see
    /// [`allow_connections`](Io::allow_connections) for more later.
    pub connections: usize,
    /// Opens files for the receipt handles of which there are too many to stay in memory (512 KiB), on the I/O thread.
    /// A file must be empty, readable and writable, known to nobody else, and gone once it is closed. Without this, or
    /// where it fails or the disk is full, all handles stay in memory.
    pub open_file: Option<OpenFile>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            connections: 128,
            open_file: None,
        }
    }
}

/// The I/O thread of this process.
///
/// Dropping it is [`shut_down`](Io::shut_down) with no time to finish.
pub struct Io {
    shared: Arc<Shared>,
    commands: UnboundedSender<Command>,
    outcome: Receiver<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Io {
    /// Spawns the thread, with every signal blocked in it and in what it may spawn.
    ///
    /// # Errors
    /// The system cannot create the descriptor, the thread or the runtime.
    pub fn start() -> io::Result<Io> {
        Io::start_with(Setup::default())
    }

    /// The same, with a [`Setup`].
    ///
    /// # Errors
    /// As [`start`](Io::start).
    pub fn start_with(setup: Setup) -> io::Result<Io> {
        let shared = Arc::new(Shared::new()?);
        let (commands, received) = unbounded_channel();
        let (started, has_started) = sync_channel(1);
        let (send_outcome, outcome) = sync_channel(1);
        let thread = {
            let shared = shared.clone();
            let run = move || run_thread(&shared, setup, received, &started, &send_outcome);
            with_all_signals_blocked(|| Builder::new().name("sqs io".to_owned()).spawn(run))??
        };
        has_started
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the I/O thread did not start")))?;
        Ok(Io {
            shared,
            commands,
            outcome,
            thread: Some(thread),
        })
    }

    /// An eventfd, readable when something happened that the other side may want to look at: messages, an end,
    /// a failure or its end, the last settlement done, the I/O thread gone.
    pub fn fd(&self) -> RawFd {
        self.shared.wake.fd()
    }

    /// Makes [`fd`](Io::fd) unreadable again. Call it before looking, so that no wake-up is lost.
    pub fn acknowledge(&self) {
        self.shared.wake.acknowledge();
    }

    /// Raises the number of connections that calls may use at once, if that is more than before.
    pub fn allow_connections(&self, most: usize) {
        // If it cannot be sent, the thread is gone.
        let _ = self.commands.send(Command::AllowConnections(most));
    }

    /// Responses some of whose messages are held: each takes a call to extend. As of a quarter of a second ago.
    pub fn responses_held(&self) -> usize {
        self.shared.responses_held()
    }

    /// Starts receiving. `decode` runs on the I/O thread, on each body, which goes nowhere else. A panic in it
    /// is caught, prints nothing, and leaves the message in the queue until its visibility timeout ends: were it
    /// released at once, it would come back at once, for ever.
    pub fn receive<T: Send + 'static>(
        &self,
        queue: &Queue,
        how: Receive,
        decode: impl FnMut(&str) -> T + Send + 'static,
    ) -> Inlet<T> {
        let pipe = Arc::new(Pipe::new());
        let queue = queue.clone();
        let inner = pipe.clone();
        let start = move |engine: &Rc<Engine>| {
            engine.spawn(receive(engine.clone(), queue, how, decode, inner));
        };
        // If it cannot be sent, the thread is gone, which `next` sees.
        let _ = self.commands.send(Command::Start(Box::new(start)));
        Inlet {
            pipe,
            shared: self.shared.clone(),
            commands: self.commands.clone(),
        }
    }

    /// Examines `queue` in at most `limit`, without receiving from it. [`fd`](Io::fd) becomes readable when it is done.
    pub fn examine(&self, queue: &Queue, limit: Duration) -> PendingAnswer<Examination> {
        self.ask(queue, move |engine, queue| examine(engine, queue, limit))
    }

    /// Asks `queue` what it says of itself, in at most `limit`; otherwise as [`examine`](Io::examine).
    pub fn describe(
        &self,
        queue: &Queue,
        limit: Duration,
    ) -> PendingAnswer<Result<Description, Error>> {
        self.ask(queue, move |engine, queue| describe(engine, queue, limit))
    }

    /// Runs `work` on the thread again and again, with this pause before each time, for as long as the thread lives.
    pub fn repeat(&self, pause: Duration, mut work: impl FnMut() + Send + 'static) {
        let start = move |engine: &Rc<Engine>| {
            engine.spawn(async move {
                loop {
                    sleep(pause).await;
                    work();
                }
            });
        };
        // If it cannot be sent, the thread is gone.
        let _ = self.commands.send(Command::Start(Box::new(start)));
    }

    fn ask<T, F>(
        &self,
        queue: &Queue,
        work: impl FnOnce(Rc<Engine>, Queue) -> F + Send + 'static,
    ) -> PendingAnswer<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (mut answer, pending) = oneshot::channel();
        let queue = queue.clone();
        let start = move |engine: &Rc<Engine>| {
            let work = work(engine.clone(), queue);
            let shared = engine.shared.clone();
            engine.spawn(async move {
                select! {
                    () = answer.closed() => {}
                    outcome = work => {
                        // If it cannot be sent, nobody waits for it any more.
                        let _ = answer.send(outcome);
                        shared.wake.raise();
                    }
                }
            });
        };
        // If it cannot be sent, the thread is gone, which the answer tells.
        let _ = self.commands.send(Command::Start(Box::new(start)));
        PendingAnswer(pending)
    }

    /// Hands receipts over. Never blocks, never panics: safe to call in a commit callback. Receipts that were
    /// settled before are ignored.
    pub fn settle(&self, receipts: Vec<Receipt>, fate: Fate) {
        hand_over(&self.shared, &self.commands, receipts, fate);
    }

    /// How long a message that was settled with [`Fate::Leave`] stays hidden. Never blocks for longer than it takes to
    /// copy a few bytes. Only messages of FIFO queues are remembered.
    pub fn hidden_until(&self, receipt: Receipt) -> Hidden {
        match self.shared.left.hidden_until(receipt) {
            Hidden::Pending if !self.shared.is_open() => Hidden::Unknown,
            hidden => hidden,
        }
    }

    /// Receipts handed over to be deleted or released that are not done yet (done: confirmed, refused, or given
    /// up). Messages released by dropping an [`Inlet`] are counted too. None once the thread is gone.
    pub fn unsettled(&self) -> u64 {
        if self.shared.is_open() {
            self.shared.unsettled()
        } else {
            0
        }
    }

    /// Ends the thread: stops receiving, releases everything that is held and not settled, finishes
    /// settlements, all within `deadline`, then drops connections. True if it all got done.
    ///
    /// Where nothing is held or unsettled it takes a few milliseconds, whatever poll is under way; a poll that
    /// was only just sent and so may be about to bring messages is given until it is 50 ms old (twice the
    /// latency of the queue, where that is more, up to 500 ms). Where something is released, other polls are given
    /// as long to bring it again.
    pub fn shut_down(mut self, deadline: Duration) -> bool {
        self.end(deadline)
    }

    fn end(&mut self, deadline: Duration) -> bool {
        /// For the thread to notice that its time is up; longer only if `decode` takes longer.
        const GRACE: Duration = Duration::from_millis(200);
        let Some(thread) = self.thread.take() else {
            return false;
        };
        let _ = self.commands.send(Command::ShutDown {
            deadline: Instant::now() + deadline,
        });
        match self.outcome.recv_timeout(deadline + GRACE) {
            Ok(all_done) => {
                let _ = thread.join();
                all_done
            }
            Err(_) => false,
        }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// An answer that is still to come. Dropping it ends the work for it.
pub struct PendingAnswer<T>(oneshot::Receiver<T>);

impl<T> PendingAnswer<T> {
    /// The answer, once, if it has come. Never blocks.
    ///
    /// # Errors
    /// The I/O thread has ended: none will come.
    pub fn try_take(&mut self) -> Result<Option<T>, Error> {
        match self.0.try_recv() {
            Ok(answer) => Ok(Some(answer)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Closed) => Err(Error::new(
                ErrorKind::Internal,
                "the I/O thread of this process has ended",
            )),
        }
    }
}

/// Where the messages of one [`receive`](Io::receive) come out.
///
/// Dropping it stops receiving at once. Polls in flight finish in the background, and what they bring,
/// and what was not taken, is released (visibility 0).
pub struct Inlet<T> {
    pipe: Arc<Pipe<T>>,
    shared: Arc<Shared>,
    commands: UnboundedSender<Command>,
}

impl<T> Inlet<T> {
    /// What is next. Never blocks.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: nothing now is not the end"
    )]
    pub fn next(&mut self) -> Next<T> {
        if self.shared.is_open() {
            self.pipe.next()
        } else {
            let detail = match self.shared.fault() {
                None => "the I/O thread of this process has ended".to_owned(),
                Some(location) => format!("the I/O thread of this process panicked at {location}"),
            };
            Next::Failed(Error::new(ErrorKind::Internal, detail))
        }
    }

    /// Starts no new polls. What those under way bring is still delivered, then [`End::Stopped`](crate::End::Stopped).
    pub fn wind_down(&self) {
        self.pipe.wind_down();
    }

    /// Whether a poll under way is likely to bring messages soon if there are any: it was sent less than 50 ms ago, or
    /// less than twice the latency of the queue, where that is more, up to 500 ms. A poll that has waited for longer is
    /// waiting at an empty queue.
    pub fn polls_about_to_answer(&self) -> bool {
        self.shared.is_open() && self.pipe.is_poll_young()
    }

    /// The error that an endless receive is retrying at present; `None` while it works.
    pub fn trouble(&self) -> Option<Error> {
        self.pipe.trouble()
    }
}

impl<T> Drop for Inlet<T> {
    fn drop(&mut self) {
        let untaken = self.pipe.close();
        hand_over(&self.shared, &self.commands, untaken, Fate::Release);
    }
}

fn hand_over(
    shared: &Shared,
    commands: &UnboundedSender<Command>,
    receipts: Vec<Receipt>,
    fate: Fate,
) {
    if receipts.is_empty() || !shared.is_open() {
        return;
    }
    if fate == Fate::Leave {
        shared.left.hand_over(&receipts);
    }
    shared.handed_over(receipts.len() as u64);
    // If it cannot be sent, the thread is gone, and with it the handles.
    let _ = commands.send(Command::Settle(receipts, fate));
}

/// The life of the I/O thread.
fn run_thread(
    shared: &Arc<Shared>,
    setup: Setup,
    commands: UnboundedReceiver<Command>,
    started: &SyncSender<io::Result<()>>,
    send_outcome: &SyncSender<bool>,
) {
    quieten_this_thread();
    let all_done = caught(|| {
        let runtime = runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build_local(runtime::LocalOptions::default());
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = started.send(Err(error));
                return false;
            }
        };
        let _ = started.send(Ok(()));
        let handles = setup
            .open_file
            .map_or_else(Store::default, Store::with_files);
        let engine = Engine::new(shared.clone(), handles, setup.connections);
        let all_done = runtime.block_on(engine.run(commands));
        engine.give_up();
        shared.close();
        // A name look-up that hangs is not waited for.
        runtime.shutdown_background();
        all_done
    });
    if all_done.is_err() {
        shared.set_fault(last_location());
    }
    shared.close();
    let _ = send_outcome.send(all_done.unwrap_or(false));
}

/// Calls `action` with every signal blocked in this thread, so that a thread spawned by it is born so.
fn with_all_signals_blocked<R>(action: impl FnOnce() -> R) -> io::Result<R> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` initialises the set that `pthread_sigmask` then reads; both point to live memory.
    let result = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr())
    };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    let output = action();
    // SAFETY: the call above succeeded, so it has written the mask to `before`.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    Ok(output)
}
