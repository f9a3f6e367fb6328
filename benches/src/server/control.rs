//! What the benchmarks, and people with curl, ask of the server beside SQS. Each path takes `queue=` (default: the
//! [`DEFAULT_QUEUE`](super::DEFAULT_QUEUE)) and answers with the queue's counts as JSON.
//!
//! - `GET /control/counts`
//! - `POST /control/reset?preload=N&people=P&latency_ms=L`: empties the queue, counts from zero, fills it with N
//!   generated logins of P people (if not given: each of another one); the latency stays what it was if none is given.
//! - `POST /control/send?messages=N&rate=R`: sends N generated logins, R a second (all at once if no rate is given);
//!   answers before they are sent.
//! - `GET /control/wait?deleted=N&timeout=S`: answers when N messages were deleted since the last reset, at the latest
//!   after S seconds.

use std::collections::HashMap;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

use super::http::{Request, Response};
use super::{DEFAULT_QUEUE, Queue, Server, actions};
use crate::clock::unix_millis;
use crate::logins;

const DEFAULT_TIMEOUT_SECONDS: f64 = 60.0;

/// Answers a request that is not for SQS.
pub async fn answer(server: &Rc<Server>, request: &Request, response: &mut Response) {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let parameters = Parameters::parse(query);
    let queue = server.create_queue(parameters.text("queue").unwrap_or(DEFAULT_QUEUE));
    match (request.method.as_str(), path) {
        ("GET", "/control/counts") => {}
        ("POST", "/control/reset") => reset(server, &queue, &parameters),
        ("POST", "/control/send") => {
            tokio::task::spawn_local(send(
                Rc::clone(&queue),
                parameters.number("messages").unwrap_or(1),
                parameters.number("rate"),
            ));
        }
        ("GET", "/control/wait") => {
            let timeout = parameters
                .number("timeout")
                .unwrap_or(DEFAULT_TIMEOUT_SECONDS);
            wait(&queue, parameters.number("deleted").unwrap_or(0), timeout).await;
        }
        _ => {
            response.status = "404 Not Found";
            response.body.extend_from_slice(b"{}");
            return;
        }
    }
    let counts = queue.backlog.borrow().counts();
    response.body = serde_json::to_vec(&counts).unwrap_or_default();
}

fn reset(server: &Server, queue: &Queue, parameters: &Parameters) {
    if let Some(latency_ms) = parameters.number::<f64>("latency_ms") {
        server
            .latency
            .set(Duration::try_from_secs_f64(latency_ms / 1000.0).unwrap_or_default());
    }
    let mut backlog = queue.backlog.borrow_mut();
    backlog.reset();
    let messages = parameters.number("preload").unwrap_or(0);
    let people = parameters.number("people").unwrap_or(messages);
    backlog.preload(messages, people, unix_millis());
    drop(backlog);
    queue.arrived.notify_waiters();
}

async fn send(queue: Rc<Queue>, messages: u64, rate: Option<f64>) {
    let interval = rate.and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok());
    let mut next = Instant::now();
    for number in 0..messages {
        if let Some(interval) = interval {
            tokio::time::sleep_until(next).await;
            next += interval;
        }
        actions::send(&queue, &logins::body(number));
    }
}

async fn wait(queue: &Queue, deleted: u64, timeout: f64) {
    let timeout = Duration::try_from_secs_f64(timeout).unwrap_or_default();
    // A time-out is not an error here: the counts show it.
    let _ = tokio::time::timeout(timeout, async {
        while queue.backlog.borrow().deleted() < deleted {
            queue.deleted.notified().await;
        }
    })
    .await;
}

/// The parameters of a query, none of which need percent-encoding.
struct Parameters<'a>(HashMap<&'a str, &'a str>);

impl<'a> Parameters<'a> {
    fn parse(query: &'a str) -> Parameters<'a> {
        Parameters(
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .collect(),
        )
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }
}
