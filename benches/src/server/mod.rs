//! A queue server in memory that speaks as much of Amazon SQS as a consumer and its tests need.
//!
//! It is there to be faster than what is measured against it: one thread, one copy of each message's JSON made when the
//! message is sent, no work a call but copying it. It keeps SQS's limits (ten messages a call, 120,000 in flight, stale
//! receipt handles that delete nothing) and can wait a given latency in each call, half of it on the way in and half on
//! the way out. It knows standard queues only, does not check signatures, and keeps no message attributes.
//!
//! One port takes HTTP and HTTPS.
//!
//! Layout: [`http`] reads requests and writes responses, [`actions`] is SQS, [`control`] is for the benchmarks (fill,
//! reset, send at a rate, count), [`backlog`] holds the messages of one queue, [`handle`] is the text of a receipt
//! handle, [`pause`] the latency and [`tls`] the server's certificate.

mod actions;
mod backlog;
mod control;
mod handle;
mod http;
mod pause;
mod tls;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use backlog::Backlog;

use crate::clock::{monotonic, unix_millis};

/// The queue that is there from the start.
pub const DEFAULT_QUEUE: &str = "login-queue";

/// How often messages whose visibility timeout has passed are looked for.
const EXPIRY_TICK: Duration = Duration::from_millis(20);

/// A running server: its queues, and the latency of each call.
pub struct Server {
    address: SocketAddr,
    latency: Cell<Duration>,
    queues: RefCell<HashMap<String, Rc<Queue>>>,
    tls: RefCell<Option<TlsAcceptor>>,
}

/// One queue, and the requests that wait for it to change.
struct Queue {
    name: String,
    backlog: RefCell<Backlog>,
    arrived: Notify,
    deleted: Notify,
}

impl Queue {
    fn new(name: &str) -> Queue {
        Queue {
            name: name.to_owned(),
            backlog: RefCell::new(Backlog::default()),
            arrived: Notify::new(),
            deleted: Notify::new(),
        }
    }
}

impl Server {
    /// A server for connections to `address`, with one empty queue, [`DEFAULT_QUEUE`].
    pub fn new(address: SocketAddr, latency: Duration) -> Rc<Server> {
        let server = Rc::new(Server {
            address,
            latency: Cell::new(latency),
            queues: RefCell::default(),
            tls: RefCell::default(),
        });
        server.create_queue(DEFAULT_QUEUE);
        server
    }

    /// Puts `messages` generated logins into [`DEFAULT_QUEUE`].
    pub fn preload(&self, messages: u64) {
        self.create_queue(DEFAULT_QUEUE)
            .backlog
            .borrow_mut()
            .preload(messages, messages, unix_millis());
    }

    /// The URL by which clients name the queue `name`.
    pub fn queue_url(&self, name: &str) -> String {
        format!("http://{}/000000000000/{name}", self.address)
    }

    /// Takes HTTPS as well, with a certificate that is written to `file` for clients to trust.
    ///
    /// # Errors
    /// When `file` cannot be written.
    pub fn secure(&self, file: &Path) -> io::Result<()> {
        *self.tls.borrow_mut() = Some(tls::acceptor(file)?);
        Ok(())
    }

    /// Serves every connection that `listener` accepts; never returns. Must run on a `LocalSet`.
    ///
    /// # Errors
    /// When the listener itself fails. A broken connection ends alone.
    pub async fn run(self: Rc<Server>, listener: TcpListener) -> io::Result<()> {
        tokio::task::spawn_local(Rc::clone(&self).expire_for_ever());
        loop {
            let (stream, _) = listener.accept().await?;
            let server = Rc::clone(&self);
            tokio::task::spawn_local(async move {
                // What a client does to its connection is its own business.
                let _ = server.serve(stream).await;
            });
        }
    }

    async fn serve(self: Rc<Server>, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let acceptor = self.tls.borrow().clone();
        match acceptor {
            Some(acceptor) if tls::begins(&stream).await? => {
                http::serve(acceptor.accept(stream).await?, self).await
            }
            _ => http::serve(stream, self).await,
        }
    }

    async fn expire_for_ever(self: Rc<Server>) {
        let mut tick = tokio::time::interval(EXPIRY_TICK);
        loop {
            tick.tick().await;
            for queue in self.queues.borrow().values() {
                let returned = queue.backlog.borrow_mut().expire(monotonic());
                for _ in 0..returned {
                    queue.arrived.notify_one();
                }
            }
        }
    }

    fn create_queue(&self, name: &str) -> Rc<Queue> {
        let mut queues = self.queues.borrow_mut();
        let queue = queues
            .entry(name.to_owned())
            .or_insert_with(|| Rc::new(Queue::new(name)));
        Rc::clone(queue)
    }

    fn queue(&self, name: &str) -> Option<Rc<Queue>> {
        self.queues.borrow().get(name).cloned()
    }
}
