//! A queue, by SQS' JSON protocol, on any server.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;

use crate::wait::{eventually, throughout};

/// What SQS takes and gives in one request.
const BATCH: usize = 10;
const SENDERS: usize = 4;
const VISIBLE_AGAIN_WITHIN: Duration = Duration::from_secs(3);
const DELETED_WITHIN: Duration = Duration::from_secs(20);

/// One queue.
#[derive(Clone, Debug)]
pub struct Queue {
    url: String,
    endpoint: String,
}

/// What a queue says of itself; SQS calls each of these approximate, the servers used here are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Messages that a receive would get.
    pub visible: u64,
    /// Messages received, and neither deleted nor visible again.
    pub in_flight: u64,
}

/// A message to send to a FIFO queue.
#[derive(Clone, Debug)]
pub struct FifoMessage {
    /// The group whose order it keeps.
    pub group: String,
    /// Its text.
    pub body: String,
}

/// A message as received.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its id, as the ledger knows it.
    pub id: String,
    /// Its text.
    pub body: String,
    /// The right to delete it.
    pub receipt_handle: String,
}

impl Queue {
    /// Creates a queue at an endpoint (`http://127.0.0.1:4567`), with SQS' own names for attributes.
    pub fn create(endpoint: &str, name: &str, attributes: &[(&str, &str)]) -> Queue {
        let attributes: BTreeMap<_, _> = attributes.iter().copied().collect();
        call(
            endpoint,
            "CreateQueue",
            &json!({"QueueName": name, "Attributes": attributes}),
        );
        Queue::existing(endpoint, name)
    }

    /// A queue that may be there or not.
    pub fn existing(endpoint: &str, name: &str) -> Queue {
        Queue {
            url: format!("{endpoint}/000000000000/{name}"),
            endpoint: endpoint.to_owned(),
        }
    }

    /// The same queue under another URL, as `sqs_ingest` is to be told.
    pub fn under_url(&self, url: &str) -> Queue {
        Queue {
            url: url.to_owned(),
            endpoint: self.endpoint.clone(),
        }
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends messages, ten a request, over several connections. The order is not kept.
    pub fn send(&self, bodies: &[String]) {
        let batches: Vec<Vec<Value>> = bodies
            .chunks(BATCH)
            .map(|chunk| {
                chunk
                    .iter()
                    .enumerate()
                    .map(|(at, body)| json!({"Id": at.to_string(), "MessageBody": body}))
                    .collect()
            })
            .collect();
        let share = batches.len().div_ceil(SENDERS).max(1);
        thread::scope(|scope| {
            for batches in batches.chunks(share) {
                scope.spawn(move || batches.iter().for_each(|entries| self.send_batch(entries)));
            }
        });
    }

    /// Sends messages to a FIFO queue in this order.
    pub fn send_in_order(&self, messages: &[FifoMessage]) {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        for chunk in messages.chunks(BATCH) {
            let entries: Vec<Value> = chunk
                .iter()
                .enumerate()
                .map(|(at, message)| {
                    let unique = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    json!({
                        "Id": at.to_string(),
                        "MessageBody": message.body,
                        "MessageGroupId": message.group,
                        "MessageDeduplicationId": unique.to_string(),
                    })
                })
                .collect();
            self.send_batch(&entries);
        }
    }

    fn send_batch(&self, entries: &[Value]) {
        let answer = self.call("SendMessageBatch", json!({"Entries": entries}));
        let sent = answer["Successful"].as_array().map_or(0, Vec::len);
        assert_eq!(sent, entries.len(), "not all sent: {answer}");
    }

    /// What the queue says of itself now.
    pub fn counts(&self) -> Counts {
        let names = [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
        ];
        let answer = self.call("GetQueueAttributes", json!({"AttributeNames": names}));
        let count = |name: &str| {
            answer["Attributes"][name]
                .as_str()
                .unwrap()
                .parse()
                .unwrap()
        };
        Counts {
            visible: count(names[0]),
            in_flight: count(names[1]),
        }
    }

    /// Receives up to ten messages, to be invisible for `visibility` (whole seconds), waiting for none.
    pub fn receive(&self, visibility: Duration) -> Vec<Message> {
        let request =
            json!({"MaxNumberOfMessages": BATCH, "VisibilityTimeout": visibility.as_secs()});
        let answer = self.call("ReceiveMessage", request);
        let messages = answer["Messages"].as_array().cloned().unwrap_or_default();
        messages
            .iter()
            .map(|message| {
                let text = |key: &str| message[key].as_str().unwrap().to_owned();
                Message {
                    id: text("MessageId"),
                    body: text("Body"),
                    receipt_handle: text("ReceiptHandle"),
                }
            })
            .collect()
    }

    /// Waits until the queue holds exactly `visible` messages, none of them in flight: those received were released.
    #[track_caller]
    pub fn expect_released(&self, visible: u64) {
        self.expect_counts_within(
            VISIBLE_AGAIN_WITHIN,
            Counts {
                visible,
                in_flight: 0,
            },
        );
    }

    /// Waits until the queue holds exactly `visible` messages, none of them in flight: those received are deleted.
    #[track_caller]
    pub fn expect_left(&self, visible: u64) {
        self.expect_counts_within(
            DELETED_WITHIN,
            Counts {
                visible,
                in_flight: 0,
            },
        );
    }

    /// Waits until the queue holds nothing: all that was received is deleted.
    #[track_caller]
    pub fn expect_drained(&self) {
        self.expect_left(0);
    }

    /// Waits until the counts of the queue are these.
    #[track_caller]
    pub fn expect_counts_within(&self, within: Duration, expected: Counts) {
        eventually(
            &format!("the queue's counts are {expected:?}"),
            within,
            || self.counts(),
            |seen| *seen == expected,
        );
    }

    /// Watches for a while that the counts of the queue stay these.
    #[track_caller]
    pub fn expect_counts_stay(&self, during: Duration, expected: Counts) {
        throughout(
            &format!("the queue's counts stay {expected:?}"),
            during,
            || self.counts(),
            |seen| *seen == expected,
        );
    }

    fn call(&self, action: &str, mut request: Value) -> Value {
        request["QueueUrl"] = json!(self.url);
        call(&self.endpoint, action, &request)
    }
}

/// Not checked by the servers used here, but LocalStack takes region and account from it.
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=test/20250101/us-east-1/sqs/aws4_request, \
    SignedHeaders=host, Signature=0";

/// One request of AWS' JSON 1.0 protocol.
///
/// # Panics
/// When it fails.
fn call(endpoint: &str, action: &str, request: &Value) -> Value {
    static AGENT: OnceLock<Agent> = OnceLock::new();
    let agent = AGENT.get_or_init(|| {
        let config = Agent::config_builder().http_status_as_error(false);
        config
            .timeout_global(Some(Duration::from_secs(60)))
            .max_idle_connections_per_host(16)
            .build()
            .into()
    });
    let mut answer = agent
        .post(endpoint)
        .header("Content-Type", "application/x-amz-json-1.0")
        .header("X-Amz-Target", format!("AmazonSQS.{action}"))
        .header("Authorization", AUTHORIZATION)
        .send(request.to_string())
        .unwrap_or_else(|error| panic!("{action} at {endpoint}: {error}"));
    let status = answer.status();
    let text = answer.body_mut().read_to_string().unwrap();
    assert!(
        status.is_success(),
        "{action} at {endpoint}: {status} {text}"
    );
    if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap()
    }
}
