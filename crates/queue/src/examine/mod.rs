//! Finds out whether messages could be received from a queue, without receiving any.
//!
//! Every step has its own bound and its own outcome: one that fails or hangs leaves the others alone.

mod attributes;
mod certificate;
mod clock;
mod network;
mod rights;

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tokio::join;
use tokio::time::{Instant, timeout_at};

pub use attributes::{Attributes, Encryption, Redrive};
pub use network::{Connection, Network, Tls};
pub use rights::Right;

use self::clock::Clock;
use crate::client::Client;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::observed::Queue;

/// How long one call may take. A connection takes 3 s at most of that.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// What was found out about a queue and the way to it.
#[derive(Clone, Debug)]
pub struct Examination {
    /// The credentials that calls are signed with.
    pub credentials: Result<FoundCredentials, Error>,
    /// The way to the server.
    pub network: Result<Network, Error>,
    /// How far this machine's clock is from the server's: ahead of it if positive, in seconds. `None`: no answer told
    /// the time.
    pub clock_ahead: Option<i64>,
    /// How long the fastest call took.
    pub fastest_call: Option<Duration>,
    /// What the queue says of itself.
    pub attributes: Result<Attributes, Error>,
    /// The same of the queue that its redrive policy names, if it has one.
    pub dead_letters: Option<Result<Attributes, Error>>,
    /// Whether messages may be deleted.
    pub delete: Right,
    /// Whether their visibility timeout may be changed.
    pub change_visibility: Right,
}

/// Credentials, as far as they may be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCredentials {
    /// Where they come from, in words.
    pub source: String,
    /// When they end; `None`: never, as far as is known.
    pub expiry: Option<SystemTime>,
}

/// What the queue, and its dead-letter queue if it has one, say of themselves.
#[derive(Clone, Debug)]
pub struct Description {
    /// The queue.
    pub attributes: Attributes,
    /// The queue that its redrive policy names.
    pub dead_letters: Option<Result<Attributes, Error>>,
}

impl Description {
    /// The longest time for which one of its messages can be handed out: that of the dead-letter queue counts, too.
    /// `None` where it is not known.
    pub fn longest_retention(&self) -> Option<Duration> {
        longest_retention(&self.attributes, self.dead_letters.as_ref())
    }
}

impl Examination {
    /// As [`Description::longest_retention`].
    pub fn longest_retention(&self) -> Option<Duration> {
        let attributes = self.attributes.as_ref().ok()?;
        longest_retention(attributes, self.dead_letters.as_ref())
    }
}

fn longest_retention(
    attributes: &Attributes,
    dead_letters: Option<&Result<Attributes, Error>>,
) -> Option<Duration> {
    let own = attributes.retention?;
    match (&attributes.redrive, dead_letters) {
        (None, _) => Some(own),
        (Some(_), Some(Ok(dead_letters))) => Some(own.max(dead_letters.retention?)),
        (Some(_), _) => None,
    }
}

/// Examines `queue` in at most `limit`.
pub(crate) async fn examine(engine: Rc<Engine>, queue: Queue, limit: Duration) -> Examination {
    let subject = Subject::of(engine, queue, limit);
    let (network, answers) = join!(subject.look_at_network(), CallOutcomes::of(&subject));
    Examination {
        network,
        credentials: answers.credentials,
        clock_ahead: answers.clock_ahead,
        fastest_call: answers.fastest_call,
        attributes: answers.attributes,
        dead_letters: answers.dead_letters,
        delete: answers.delete,
        change_visibility: answers.change_visibility,
    }
}

/// Asks `queue`, and its dead-letter queue, about themselves, in at most `limit`.
pub(crate) async fn describe(
    engine: Rc<Engine>,
    queue: Queue,
    limit: Duration,
) -> Result<Description, Error> {
    let subject = Subject::of(engine, queue, limit);
    let attributes = subject.ask(subject.url()).await?;
    let dead_letters = subject.ask_dead_letters(&attributes).await;
    Ok(Description {
        attributes,
        dead_letters,
    })
}

/// A queue that is asked, and until when.
struct Subject {
    engine: Rc<Engine>,
    client: Rc<Client>,
    queue: Queue,
    until: Instant,
}

impl Subject {
    fn of(engine: Rc<Engine>, queue: Queue, limit: Duration) -> Subject {
        Subject {
            client: engine.remote(&queue).client.clone(),
            engine,
            queue,
            until: Instant::now() + limit,
        }
    }

    fn url(&self) -> &str {
        self.queue.url().as_str()
    }

    /// What `step`, which takes a connection, comes to.
    async fn connected<T>(&self, step: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.bounded(async {
            let _permit = self.engine.calls.settle().await;
            step.await
        })
        .await
    }

    /// What `step` comes to, unless the time for all steps is up before.
    async fn bounded<T>(&self, step: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        timeout_at(self.until, step).await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::TimedOut,
                "it took longer than an examination may take",
            ))
        })
    }

    async fn look_at_network(&self) -> Result<Network, Error> {
        self.connected(async {
            let origin = self.client.destination().await?;
            network::look(&origin).await
        })
        .await
    }

    async fn ask(&self, url: &str) -> Result<Attributes, Error> {
        self.connected(attributes::ask(&self.client, url, CALL_LIMIT))
            .await
    }

    async fn ask_dead_letters(&self, attributes: &Attributes) -> Option<Result<Attributes, Error>> {
        let redrive = attributes.redrive.as_ref()?;
        Some(self.ask(&redrive.url_beside(self.url())).await)
    }
}

/// What the server answers to calls that change nothing.
struct CallOutcomes {
    credentials: Result<FoundCredentials, Error>,
    clock_ahead: Option<i64>,
    fastest_call: Option<Duration>,
    attributes: Result<Attributes, Error>,
    dead_letters: Option<Result<Attributes, Error>>,
    delete: Right,
    change_visibility: Right,
}

impl CallOutcomes {
    async fn of(subject: &Subject) -> CallOutcomes {
        let (client, url) = (&subject.client, subject.url());
        let credentials = subject.bounded(client.credentials()).await;
        if let Err(error) = &credentials {
            return CallOutcomes::none(error);
        }
        let clock = Clock::default();
        let (attributes, delete, change_visibility) = join!(
            subject.ask(url),
            subject.connected(rights::delete(client, url, CALL_LIMIT, &clock)),
            subject.connected(rights::change_visibility(client, url, CALL_LIMIT, &clock)),
        );
        let dead_letters = match &attributes {
            Ok(attributes) => subject.ask_dead_letters(attributes).await,
            Err(_) => None,
        };
        CallOutcomes {
            credentials,
            clock_ahead: clock.ahead(),
            fastest_call: clock.fastest(),
            attributes,
            dead_letters,
            delete: delete.unwrap_or_else(Right::Unknown),
            change_visibility: change_visibility.unwrap_or_else(Right::Unknown),
        }
    }

    fn none(error: &Error) -> CallOutcomes {
        CallOutcomes {
            credentials: Err(error.clone()),
            clock_ahead: None,
            fastest_call: None,
            attributes: Err(error.clone()),
            dead_letters: None,
            delete: Right::Unknown(error.clone()),
            change_visibility: Right::Unknown(error.clone()),
        }
    }
}
