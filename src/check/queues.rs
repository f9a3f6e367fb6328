//! Queues: the one that was named, or those of all subscriptions.

use queue::{Queue, QueueUrl};

use super::{Check, Finding, guarded, workers};
use crate::ingest::allowed_queue;
use crate::worker::subscription::Subscription;

/// A queue to look at.
struct Subject {
    /// What distinguishes its checks from those of others; empty where there are no others.
    prefix: String,
    url: String,
    subscription: Option<Subscription>,
}

/// The checks of the queue `queue_url`, or of those of all subscriptions.
pub fn checks(queue_url: Option<&str>) -> Vec<Check> {
    let subscriptions = workers::subscriptions().unwrap_or_default();
    let subjects = match queue_url {
        Some(url) => vec![Subject::named(url, subscriptions)],
        None => subscriptions.into_iter().map(Subject::subscribed).collect(),
    };
    subjects.iter().flat_map(Subject::checks).collect()
}

impl Subject {
    fn named(url: &str, subscriptions: Vec<Subscription>) -> Subject {
        let url =
            QueueUrl::parse(url).map_or_else(|_| url.to_owned(), |url| url.as_str().to_owned());
        Subject {
            subscription: subscriptions.into_iter().find(|s| s.queue_url == url),
            prefix: String::new(),
            url,
        }
    }

    fn subscribed(subscription: Subscription) -> Subject {
        Subject {
            prefix: format!("{}: ", subscription.queue_url),
            url: subscription.queue_url.clone(),
            subscription: Some(subscription),
        }
    }

    fn check(&self, name: &str, finding: Finding) -> Check {
        Check {
            name: format!("{}{name}", self.prefix),
            finding,
        }
    }

    fn checks(&self) -> Vec<Check> {
        let subscription = guarded(|| match &self.subscription {
            Some(subscription) => workers::of_subscription(subscription),
            None => Finding::ok(
                "none: sqs_ingest and sqs_drain ingest from the queue when they are called",
            ),
        });
        let url = match allowed_queue(&self.url) {
            Ok((queue, _)) => of_url(&queue),
            Err(failure) => failure.into(),
        };
        vec![
            self.check("queue URL", url),
            self.check("subscription", subscription),
        ]
    }
}

fn of_url(queue: &Queue) -> Finding {
    let kind = if queue.url().is_fifo() {
        "FIFO"
    } else {
        "standard"
    };
    Finding::ok(format!(
        "{kind} queue \"{}\", requests are signed for region \"{}\"",
        queue.url().name(),
        queue.region()
    ))
}
