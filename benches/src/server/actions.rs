//! The actions of SQS, in its JSON protocol.
//! <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_Operations.html>

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::backlog::{Message, NotChanged};
use super::handle::Handle;
use super::http::{Request, Response};
use super::{Queue, Server};
use crate::clock::unix_millis;
use crate::logins::Dice;

const MOST_ENTRIES: usize = 10;
const DEFAULT_VISIBILITY_SECONDS: u64 = 30;
const LONGEST_VISIBILITY_SECONDS: u64 = 43_200;
const LONGEST_WAIT_SECONDS: u64 = 20;

/// Why an action was not done: the code as clients know it, and a sentence.
struct Refusal {
    code: &'static str,
    message: String,
}

fn refuse<T>(code: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        code,
        message: message.into(),
    })
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Refusal {
        Refusal {
            code: "SerializationException",
            message: error.to_string(),
        }
    }
}

/// Does what the request's `X-Amz-Target` names.
pub async fn answer(server: &Server, request: &Request, response: &mut Response) {
    let action = request
        .target
        .strip_prefix("AmazonSQS.")
        .unwrap_or(&request.target);
    let body = &request.body;
    let out = &mut response.body;
    let done = match action {
        "ReceiveMessage" => receive_message(server, body, out).await,
        "DeleteMessageBatch" => delete_message_batch(server, body, out),
        "DeleteMessage" => delete_message(server, body, out),
        "ChangeMessageVisibilityBatch" => change_message_visibility_batch(server, body, out),
        "ChangeMessageVisibility" => change_message_visibility(server, body, out),
        "SendMessageBatch" => send_message_batch(server, body, out),
        "SendMessage" => send_message(server, body, out),
        "CreateQueue" => create_queue(server, body, out),
        "GetQueueUrl" => get_queue_url(server, body, out),
        "GetQueueAttributes" => get_queue_attributes(server, body, out),
        "PurgeQueue" => purge_queue(server, body, out),
        other => refuse(
            "UnsupportedOperation",
            format!("{other} is not known to this server"),
        ),
    };
    if let Err(refusal) = done {
        response.status = "400 Bad Request";
        response.query_error = Some(format!("{};Sender", refusal.code));
        response.body = json!({
            "__type": format!("com.amazonaws.sqs#{}", refusal.code),
            "message": refusal.message,
        })
        .to_string()
        .into_bytes();
    }
}

fn find_queue(server: &Server, url: &str) -> Result<Rc<Queue>, Refusal> {
    let name = url.rsplit('/').next().unwrap_or_default();
    match server.queue(name) {
        Some(queue) => Ok(queue),
        None => refuse("QueueDoesNotExist", "The specified queue does not exist."),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReceiveMessage<'a> {
    #[serde(borrow)]
    queue_url: Cow<'a, str>,
    max_number_of_messages: Option<usize>,
    wait_time_seconds: Option<u64>,
    visibility_timeout: Option<u64>,
    #[serde(borrow, default)]
    attribute_names: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    message_system_attribute_names: Vec<Cow<'a, str>>,
}

async fn receive_message(server: &Server, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let call: ReceiveMessage = serde_json::from_slice(body)?;
    let queue = find_queue(server, &call.queue_url)?;
    let most = call.max_number_of_messages.unwrap_or(1);
    if !(1..=MOST_ENTRIES).contains(&most) {
        return refuse(
            "InvalidParameterValue",
            "MaxNumberOfMessages must be between 1 and 10.",
        );
    }
    let wait = seconds(
        "WaitTimeSeconds",
        call.wait_time_seconds.unwrap_or(0),
        LONGEST_WAIT_SECONDS,
    )?;
    let visibility = seconds(
        "VisibilityTimeout",
        call.visibility_timeout
            .unwrap_or(DEFAULT_VISIBILITY_SECONDS),
        LONGEST_VISIBILITY_SECONDS,
    )?;
    let attributes = Attributes::asked_for(&call);

    let deadline = Instant::now() + wait;
    loop {
        if take_messages(&queue, most, visibility, &attributes, out) > 0 {
            return Ok(());
        }
        let waited = tokio::time::timeout_at(deadline, queue.arrived.notified()).await;
        if waited.is_err() {
            break;
        }
    }
    if wait.is_zero() && queue.backlog.borrow().over_limit() {
        return refuse("OverLimit", "Too many messages in flight.");
    }
    queue.backlog.borrow_mut().count_empty_receive();
    out.extend_from_slice(b"{}");
    Ok(())
}

/// Appends the whole answer if there are messages, and nothing if there are none.
fn take_messages(
    queue: &Queue,
    most: usize,
    visibility: Duration,
    attributes: &Attributes,
    out: &mut Vec<u8>,
) -> usize {
    let before = out.len();
    out.extend_from_slice(br#"{"Messages":["#);
    let taken =
        queue
            .backlog
            .borrow_mut()
            .receive(most, visibility, unix_millis(), |message, handle| {
                write_message(message, handle, attributes, out);
                out.push(b',');
            });
    if taken == 0 {
        out.truncate(before);
    } else {
        out.pop();
        out.extend_from_slice(b"]}");
    }
    taken
}

fn write_message(message: &Message, handle: Handle, attributes: &Attributes, out: &mut Vec<u8>) {
    out.extend_from_slice(message.json.as_bytes());
    out.extend_from_slice(br#","ReceiptHandle":""#);
    handle.write(out);
    out.push(b'"');
    attributes.write(message, out);
    out.push(b'}');
}

/// Which system attributes a receive asked for.
struct Attributes {
    sent_timestamp: bool,
    receive_count: bool,
    first_receive_timestamp: bool,
}

impl Attributes {
    fn asked_for(call: &ReceiveMessage) -> Attributes {
        let asked = |name: &str| {
            let mut names = call
                .attribute_names
                .iter()
                .chain(&call.message_system_attribute_names);
            names.any(|asked| asked == name || asked == "All")
        };
        Attributes {
            sent_timestamp: asked("SentTimestamp"),
            receive_count: asked("ApproximateReceiveCount"),
            first_receive_timestamp: asked("ApproximateFirstReceiveTimestamp"),
        }
    }

    fn write(&self, message: &Message, out: &mut Vec<u8>) {
        let before = out.len();
        out.extend_from_slice(br#","Attributes":{"#);
        let opened = out.len();
        let mut attribute = |name: &str, value: u64| {
            // Writing to a Vec cannot fail.
            let _ = write!(out, r#""{name}":"{value}","#);
        };
        if self.sent_timestamp {
            attribute("SentTimestamp", message.sent_at);
        }
        if self.receive_count {
            attribute("ApproximateReceiveCount", message.receive_count.into());
        }
        if self.first_receive_timestamp {
            attribute(
                "ApproximateFirstReceiveTimestamp",
                message.first_received_at,
            );
        }
        if out.len() == opened {
            out.truncate(before);
        } else {
            out.pop();
            out.push(b'}');
        }
    }
}

fn seconds(name: &str, value: u64, most: u64) -> Result<Duration, Refusal> {
    if value > most {
        return refuse(
            "InvalidParameterValue",
            format!("{name} must be between 0 and {most}."),
        );
    }
    Ok(Duration::from_secs(value))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Batch<'a, Entry> {
    #[serde(borrow)]
    queue_url: Cow<'a, str>,
    entries: Vec<Entry>,
}

/// What became of the entries of a batch.
#[derive(Default)]
struct Outcome {
    successful: Vec<Value>,
    failed: Vec<Value>,
}

impl Outcome {
    fn fail(&mut self, id: &str, code: &str) {
        self.failed
            .push(json!({"Id": id, "SenderFault": true, "Code": code, "Message": code}));
    }

    fn write(self, out: &mut Vec<u8>) -> Result<(), Refusal> {
        serde_json::to_writer(
            out,
            &json!({"Successful": self.successful, "Failed": self.failed}),
        )?;
        Ok(())
    }
}

fn check_ids<'a>(ids: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    let mut count = 0;
    let mut seen = HashSet::new();
    for id in ids {
        count += 1;
        if !seen.insert(id) {
            return refuse("BatchEntryIdsNotDistinct", format!("Id {id} repeated."));
        }
    }
    match count {
        0 => refuse(
            "EmptyBatchRequest",
            "There should be at least one entry in the request.",
        ),
        1..=MOST_ENTRIES => Ok(()),
        _ => refuse(
            "TooManyEntriesInBatchRequest",
            "Maximum number of entries per request are 10.",
        ),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteEntry<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    receipt_handle: Cow<'a, str>,
}

fn delete_message_batch(server: &Server, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let call: Batch<DeleteEntry> = serde_json::from_slice(body)?;
    let queue = find_queue(server, &call.queue_url)?;
    check_ids(call.entries.iter().map(|entry| &*entry.id))?;

    let mut backlog = queue.backlog.borrow_mut();
    backlog.count_delete_call();
    let mut failed = Outcome::default();
    out.extend_from_slice(br#"{"Successful":["#);
    for entry in &call.entries {
        if backlog.delete(&entry.receipt_handle).is_err() {
            failed.fail(&entry.id, "ReceiptHandleIsInvalid");
            continue;
        }
        out.extend_from_slice(br#"{"Id":"#);
        serde_json::to_writer(&mut *out, &entry.id)?;
        out.extend_from_slice(b"},");
    }
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.extend_from_slice(br#"],"Failed":"#);
    serde_json::to_writer(&mut *out, &failed.failed)?;
    out.push(b'}');
    queue.deleted.notify_waiters();
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteMessage<'a> {
    #[serde(borrow)]
    queue_url: Cow<'a, str>,
    #[serde(borrow)]
    receipt_handle: Cow<'a, str>,
}

fn delete_message(server: &Server, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let call: DeleteMessage = serde_json::from_slice(body)?;
    let queue = find_queue(server, &call.queue_url)?;
    let mut backlog = queue.backlog.borrow_mut();
    backlog.count_delete_call();
    if backlog.delete(&call.receipt_handle).is_err() {
        return refuse(
            "ReceiptHandleIsInvalid",
            "The input receipt handle is invalid.",
        );
    }
    queue.deleted.notify_waiters();
    out.extend_from_slice(b"{}");
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ChangeEntry<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    receipt_handle: Cow<'a, str>,
    visibility_timeout: u64,
}

fn change_message_visibility_batch(
    server: &Server,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let call: Batch<ChangeEntry> = serde_json::from_slice(body)?;
    let queue = find_queue(server, &call.queue_url)?;
    check_ids(call.entries.iter().map(|entry| &*entry.id))?;
    let mut outcome = Outcome::default();
    for entry in &call.entries {
        match change_visibility(&queue, &entry.receipt_handle, entry.visibility_timeout) {
            Ok(()) => outcome.successful.push(json!({"Id": entry.id})),
            Err(refusal) => outcome.fail(&entry.id, refusal.code),
        }
    }
    outcome.write(out)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ChangeMessageVisibility<'a> {
    #[serde(borrow)]
    queue_url: Cow<'a, str>,
    #[serde(borrow)]
    receipt_handle: Cow<'a, str>,
    visibility_timeout: u64,
}

fn change_message_visibility(
    server: &Server,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let call: ChangeMessageVisibility = serde_json::from_slice(body)?;
    let queue = find_queue(server, &call.queue_url)?;
    change_visibility(&queue, &call.receipt_handle, call.visibility_timeout)?;
    out.extend_from_slice(b"{}");
    Ok(())
}

fn change_visibility(queue: &Queue, handle: &str, timeout: u64) -> Result<(), Refusal> {
    let visibility = seconds("VisibilityTimeout", timeout, LONGEST_VISIBILITY_SECONDS)?;
    match queue
        .backlog
        .borrow_mut()
        .change_visibility(handle, visibility)
    {
        Ok(()) => {}
        Err(NotChanged::Invalid) => {
            return refuse(
                "ReceiptHandleIsInvalid",
                "The input receipt handle is invalid.",
            );
        }
        Err(NotChanged::NotInFlight) => {
            return refuse("MessageNotInflight", "The message is not in flight.");
        }
    }
    if visibility.is_zero() {
        queue.arrived.notify_one();
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendEntry<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    message_body: Cow<'a, str>,
}

fn send_message_batch(server: &Server, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let call: Batch<SendEntry> = serde_json::from_slice(body)?;
    let queue = find_queue(server, &call.queue_url)?;
    check_ids(call.entries.iter().map(|entry| &*entry.id))?;
    let mut outcome = Outcome::default();
    for entry in &call.entries {
        let (message_id, md5) = send(&queue, &entry.message_body);
        outcome
            .successful
            .push(json!({"Id": entry.id, "MessageId": message_id, "MD5OfMessageBody": md5}));
    }
    outcome.write(out)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendMessage<'a> {
    #[serde(borrow)]
    queue_url: Cow<'a, str>,
    #[serde(borrow)]
    message_body: Cow<'a, str>,
}

fn send_message(server: &Server, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let call: SendMessage = serde_json::from_slice(body)?;
    let queue = find_queue(server, &call.queue_url)?;
    let (message_id, md5) = send(&queue, &call.message_body);
    serde_json::to_writer(
        out,
        &json!({"MessageId": message_id, "MD5OfMessageBody": md5}),
    )?;
    Ok(())
}

/// Adds a message sent now; returns its id and the MD5 of its body.
pub fn send(queue: &Queue, body: &str) -> (String, String) {
    let mut backlog = queue.backlog.borrow_mut();
    let now = unix_millis();
    let message_id = Dice::new(now.rotate_left(24) ^ backlog.sent()).uuid();
    let md5 = backlog.send(&message_id, body, now);
    queue.arrived.notify_one();
    (message_id, md5)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NamedQueue<'a> {
    #[serde(borrow)]
    queue_name: Cow<'a, str>,
}

fn create_queue(server: &Server, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let call: NamedQueue = serde_json::from_slice(body)?;
    if call.queue_name.ends_with(".fifo") {
        return refuse(
            "UnsupportedOperation",
            "This server has standard queues only.",
        );
    }
    let queue = server.create_queue(&call.queue_name);
    write_url(server, &queue.name, out)
}

fn get_queue_url(server: &Server, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let call: NamedQueue = serde_json::from_slice(body)?;
    let queue = find_queue(server, &call.queue_name)?;
    write_url(server, &queue.name, out)
}

fn write_url(server: &Server, name: &str, out: &mut Vec<u8>) -> Result<(), Refusal> {
    serde_json::to_writer(out, &json!({"QueueUrl": server.queue_url(name)}))?;
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetQueueAttributes<'a> {
    #[serde(borrow)]
    queue_url: Cow<'a, str>,
    #[serde(borrow, default)]
    attribute_names: Vec<Cow<'a, str>>,
}

fn get_queue_attributes(server: &Server, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let call: GetQueueAttributes = serde_json::from_slice(body)?;
    let queue = find_queue(server, &call.queue_url)?;
    let counts = queue.backlog.borrow().counts();
    let mut attributes = json!({
        "QueueArn": format!("arn:aws:sqs:us-east-1:000000000000:{}", queue.name),
        "VisibilityTimeout": DEFAULT_VISIBILITY_SECONDS.to_string(),
        "ReceiveMessageWaitTimeSeconds": "0",
        "ApproximateNumberOfMessages": counts.visible.to_string(),
        "ApproximateNumberOfMessagesNotVisible": counts.in_flight.to_string(),
        "ApproximateNumberOfMessagesDelayed": "0",
    });
    if let Value::Object(attributes) = &mut attributes {
        let asked = |name: &str| {
            call.attribute_names
                .iter()
                .any(|asked| asked == name || asked == "All")
        };
        attributes.retain(|name, _| asked(name));
    }
    serde_json::to_writer(out, &json!({"Attributes": attributes}))?;
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PurgeQueue<'a> {
    #[serde(borrow)]
    queue_url: Cow<'a, str>,
}

fn purge_queue(server: &Server, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let call: PurgeQueue = serde_json::from_slice(body)?;
    find_queue(server, &call.queue_url)?
        .backlog
        .borrow_mut()
        .purge();
    out.extend_from_slice(b"{}");
    Ok(())
}
