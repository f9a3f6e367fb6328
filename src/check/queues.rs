//! Queues: the one that was named, or those of all subscriptions. All are examined at once.

use std::time::Duration;

use queue::{Examination, Queue, QueueUrl};

use super::{Check, Finding, Guard, found_here, remote, text, workers};
use crate::errors::Failure;
use crate::ingest::{allowed_queue, note_retention};
use crate::io_thread;
use crate::own_tables::QUEUE;
use crate::pg::database;
use crate::worker::subscription::Subscription;

/// How long examinations may take. The rest of a check needs two or three seconds at most, so that all of it ends
/// within 15 s.
const LIMIT: Duration = Duration::from_secs(11);

/// How much later than that they are given up.
const GRACE: Duration = Duration::from_millis(500);

/// A queue to look at.
struct Subject {
    /// What distinguishes its checks from those of other queues; empty if there is only one.
    prefix: String,
    url: String,
    /// None: nobody subscribed to it. What keeps it from being found out is a finding.
    subscription: Result<Option<Subscription>, Finding>,
}

/// The checks of the queue `queue_url`, or of those of all subscriptions.
pub fn checks(queue_url: Option<&str>, guard: &Guard) -> Vec<Check> {
    let subscriptions = guard.run(workers::subscriptions).flatten();
    let subjects: Vec<Subject> = match (queue_url, subscriptions) {
        (Some(url), subscriptions) => vec![Subject::named(url, subscriptions)],
        (None, Ok(subscriptions)) => subscriptions.into_iter().map(Subject::subscribed).collect(),
        (None, Err(finding)) => {
            let name = "subscriptions".to_owned();
            return vec![Check { name, finding }];
        }
    };
    let queues: Vec<Result<Queue, Failure>> = subjects.iter().map(Subject::queue).collect();
    let allowed: Vec<&Queue> = queues.iter().flatten().collect();
    let mut examinations = match examine(&allowed) {
        Ok(examinations) => examinations.into_iter(),
        Err(failure) => {
            let name = "I/O thread".to_owned();
            let finding = failure.into();
            return vec![Check { name, finding }];
        }
    };
    let mut checks = Vec::new();
    for (subject, queue) in subjects.iter().zip(queues) {
        checks.push(subject.subscription(guard));
        match queue {
            Ok(queue) => {
                checks.push(subject.check("queue URL", of_url(&queue)));
                checks.extend(subject.remote_checks(&queue, examinations.next().flatten(), guard));
            }
            Err(failure) => checks.push(subject.check("queue URL", failure.into())),
        }
    }
    checks
}

/// Examines all of `queues` at once. `None` stands for an examination that did not finish.
fn examine(queues: &[&Queue]) -> Result<Vec<Option<Examination>>, Failure> {
    if queues.is_empty() {
        return Ok(Vec::new());
    }
    let asked = io_thread::with(|io| {
        let examinations = queues.iter().map(|queue| io.examine(queue, LIMIT));
        examinations.collect()
    })?;
    Ok(io_thread::answers(asked, LIMIT + GRACE))
}

impl Subject {
    fn named(url: &str, subscriptions: Result<Vec<Subscription>, Finding>) -> Subject {
        let url =
            QueueUrl::parse(url).map_or_else(|_| url.to_owned(), |url| url.as_str().to_owned());
        Subject {
            subscription: subscriptions.map(|all| all.into_iter().find(|s| s.queue_url == url)),
            prefix: String::new(),
            url,
        }
    }

    fn subscribed(subscription: Subscription) -> Subject {
        Subject {
            prefix: format!("{}: ", subscription.queue_url),
            url: subscription.queue_url.clone(),
            subscription: Ok(Some(subscription)),
        }
    }

    fn queue(&self) -> Result<Queue, Failure> {
        let (queue, _) = allowed_queue(&self.url)?;
        Ok(queue)
    }

    fn check(&self, name: &str, finding: Finding) -> Check {
        Check {
            name: format!("{}{name}", self.prefix),
            finding,
        }
    }

    fn subscription(&self, guard: &Guard) -> Check {
        let finding = guard.find(|| match &self.subscription {
            Ok(Some(subscription)) => workers::of_subscription(subscription),
            Ok(None) => {
                Finding::ok("none: messages are ingested when sqs_ingest or sqs_drain is called")
            }
            Err(finding) => finding.clone(),
        });
        self.check("subscription", finding)
    }

    /// What the examination found.
    fn remote_checks(
        &self,
        queue: &Queue,
        found: Option<Examination>,
        guard: &Guard,
    ) -> Vec<Check> {
        let Some(found) = found else {
            let finding = Finding::unknown(
                format!(
                    "the examination did not end within {}",
                    text::duration(LIMIT)
                ),
                "Try again.",
            );
            return vec![self.check("answer", finding)];
        };
        if let Some(retention) = found.longest_retention() {
            remember(&self.url, retention, guard);
        }
        let findings = remote::findings(queue, &found);
        findings
            .into_iter()
            .map(|(name, finding)| self.check(name, finding))
            .collect()
    }
}

/// Lets the ledger's expiry follow the queue. It is the only thing that is written here, and not worth an error.
fn remember(queue_url: &str, retention: Duration, guard: &Guard) {
    if !database::is_in_recovery() && !database::is_read_only() {
        guard.find(|| {
            found_here(QUEUE, |table| {
                note_retention(table, queue_url, retention);
                Ok(Finding::ok(""))
            })
        });
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
