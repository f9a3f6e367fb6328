//! A queue as this process talks to it, and the observer that follows its messages.

use std::env;
use std::fmt;
use std::sync::Arc;

use crate::endpoint::{Endpoint, InvalidEndpoint};
use crate::entries::MOST_ENTRIES;
use crate::url::QueueUrl;

/// Follows the messages of a queue. Called on the I/O thread: keep it to plain atomics.
pub trait Observer: Send + Sync {
    /// SQS confirmed that it deleted this many messages.
    fn deleted(&self, messages: u64);
    /// This many messages could not be deleted; they come back when their visibility timeout ends.
    fn delete_failed(&self, messages: u64);
    /// The most messages that the next ReceiveMessage may ask for; what is outside of 1 to 10 counts as the nearest.
    ///
    /// While a group of a FIFO queue has to wait for a rejected message, one at a time keeps the messages behind it
    /// from being received, and their receive counts from rising, in vain.
    fn most_per_receive(&self) -> usize {
        MOST_ENTRIES
    }
}

/// Ignores all of it.
impl Observer for () {
    fn deleted(&self, _messages: u64) {}
    fn delete_failed(&self, _messages: u64) {}
}

/// A queue as this process talks to it: URL, endpoint, region. Cheap to clone.
#[derive(Clone)]
pub struct Queue(Arc<Parts>);

struct Parts {
    url: QueueUrl,
    endpoint: Endpoint,
    observer: Arc<dyn Observer>,
}

impl Queue {
    /// `endpoint_url` is where requests go instead of to the URL's host; the URL is still what is sent as `QueueUrl`.
    ///
    /// The region that requests are signed for is `region`, else the one in the URL, else the endpoint's,
    /// else `AWS_REGION` or `AWS_DEFAULT_REGION` of the environment, else us-east-1.
    ///
    /// # Errors
    /// An endpoint that is not `http[s]://host[:port]`, or a region that cannot be one.
    pub fn new(
        url: QueueUrl,
        endpoint_url: Option<&str>,
        region: Option<&str>,
        observer: Arc<dyn Observer>,
    ) -> Result<Queue, InvalidEndpoint> {
        let endpoint = Endpoint::of(&url, endpoint_url, region, |name| env::var(name).ok())?;
        Ok(Queue(Arc::new(Parts {
            url,
            endpoint,
            observer,
        })))
    }

    /// The queue's URL.
    pub fn url(&self) -> &QueueUrl {
        &self.0.url
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> &str {
        &self.0.endpoint.region
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Whether it is a clone of `other`: the same queue for the same observer.
    pub(crate) fn is_same(&self, other: &Queue) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn observer(&self) -> &dyn Observer {
        &*self.0.observer
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Queue")
            .field(&self.0.url.as_str())
            .finish()
    }
}
