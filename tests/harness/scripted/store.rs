//! The messages of one standard queue, and what SQS lets a client do with them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::Answer;

/// SQS' answer, or its error code.
pub(super) type Result<T = Value> = std::result::Result<T, &'static str>;

const MOST: usize = 10;
const DEFAULT_VISIBILITY_SECS: u64 = 30;
const LONGEST_VISIBILITY_SECS: u64 = 12 * 60 * 60;

struct Message {
    id: String,
    body: String,
    sent_at: String,
    receives: u32,
    invisible_until: Option<Instant>,
}

/// One queue. Messages are known by the number of their sending, handles by that number and the receive's. Handles are
/// as long as SQS'.
#[derive(Default)]
pub(super) struct Store {
    messages: BTreeMap<u64, Message>,
    visible: BTreeSet<u64>,
    in_flight: BTreeSet<(Instant, u64)>,
    next: u64,
    pub(super) handed_out: u64,
    /// What it says of itself beside its counts.
    pub(super) attributes: BTreeMap<String, String>,
}

impl Store {
    pub(super) fn put(&mut self, body: &str, sent_at_ms: u64) -> String {
        let id = random_uuid();
        self.put_as(&id, body, &sent_at_ms.to_string());
        id
    }

    pub(super) fn put_as(&mut self, id: &str, body: &str, sent_at: &str) {
        let number = self.next;
        self.next += 1;
        let message = Message {
            id: id.to_owned(),
            body: body.to_owned(),
            sent_at: sent_at.to_owned(),
            receives: 0,
            invisible_until: None,
        };
        self.messages.insert(number, message);
        self.visible.insert(number);
    }

    pub(super) fn send_batch(&mut self, request: &Value) -> Result {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            });
        let done: Vec<Value> = entries(request)?
            .iter()
            .map(|entry| {
                let body = entry["MessageBody"].as_str().unwrap_or_default();
                json!({"Id": entry["Id"], "MessageId": self.put(body, now), "MD5OfMessageBody": ""})
            })
            .collect();
        Ok(json!({"Successful": done, "Failed": []}))
    }

    pub(super) fn attributes(&mut self) -> Value {
        self.end_flights();
        let mut attributes = json!({
            "ApproximateNumberOfMessages": self.visible.len().to_string(),
            "ApproximateNumberOfMessagesNotVisible": self.in_flight.len().to_string(),
            "ApproximateNumberOfMessagesDelayed": "0",
        });
        for (name, value) in &self.attributes {
            attributes[name] = json!(value);
        }
        json!({ "Attributes": attributes })
    }

    pub(super) fn receive(&mut self, request: &Value, answer: &Answer) -> Result<Vec<Value>> {
        let most = request["MaxNumberOfMessages"].as_u64().unwrap_or(1);
        let seconds = request["VisibilityTimeout"]
            .as_u64()
            .unwrap_or(DEFAULT_VISIBILITY_SECS);
        let wait = request["WaitTimeSeconds"].as_u64().unwrap_or(0);
        if !(1..=10).contains(&most) || seconds > LONGEST_VISIBILITY_SECS || wait > 20 {
            return Err("com.amazonaws.sqs#InvalidParameterValue");
        }
        self.end_flights();
        let copies = if matches!(answer, Answer::ServeTwice) {
            2
        } else {
            1
        };
        let most = (usize::try_from(most).unwrap_or(MOST) / copies).max(1);
        let numbers: Vec<u64> = if matches!(answer, Answer::ServeNewestAndKeepVisible) {
            self.visible.iter().rev().take(most).copied().collect()
        } else {
            self.visible.iter().take(most).copied().collect()
        };
        let mut given = Vec::new();
        for number in numbers {
            for _ in 0..copies {
                given.push(self.give(number, seconds, request));
            }
            if matches!(
                answer,
                Answer::ServeAndKeepVisible | Answer::ServeNewestAndKeepVisible
            ) {
                self.set_visibility(number, 0);
            }
        }
        self.handed_out += given.len() as u64;
        Ok(given)
    }

    fn give(&mut self, number: u64, seconds: u64, request: &Value) -> Value {
        self.set_visibility(number, seconds);
        let Some(message) = self.messages.get_mut(&number) else {
            return Value::Null;
        };
        message.receives += 1;
        let all = json!({
            "SentTimestamp": message.sent_at,
            "ApproximateReceiveCount": message.receives.to_string(),
            "ApproximateFirstReceiveTimestamp": message.sent_at,
        });
        json!({
            "MessageId": message.id,
            "ReceiptHandle": format!("{number}/{}/{:A>300}", message.receives, ""),
            "Body": message.body,
            "Attributes": asked_attributes(&all, request),
        })
    }

    pub(super) fn delete(&mut self, request: &Value) -> Result {
        self.delete_by_handle(request)?;
        Ok(json!({}))
    }

    pub(super) fn delete_batch(
        &mut self,
        request: &Value,
        failing: Option<(&[usize], &str)>,
    ) -> Result {
        self.batch(request, failing, Store::delete_by_handle)
    }

    pub(super) fn change_visibility(&mut self, request: &Value) -> Result {
        self.change_by_handle(request)?;
        Ok(json!({}))
    }

    pub(super) fn change_visibility_batch(
        &mut self,
        request: &Value,
        failing: Option<(&[usize], &str)>,
    ) -> Result {
        self.batch(request, failing, Store::change_by_handle)
    }

    fn batch(
        &mut self,
        request: &Value,
        failing: Option<(&[usize], &str)>,
        act: impl Fn(&mut Store, &Value) -> Result<()>,
    ) -> Result {
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (at, entry) in entries(request)?.iter().enumerate() {
            let id = &entry["Id"];
            let result = match failing {
                Some((places, code)) if places.contains(&at) => Err(code),
                _ => act(self, entry).map_err(|code| code.rsplit('#').next().unwrap_or(code)),
            };
            match result {
                Ok(()) => done.push(json!({ "Id": id })),
                Err(code) => failed.push(json!({
                    "Id": id, "Code": code, "SenderFault": code != "InternalError",
                    "Message": format!("scripted {code}"),
                })),
            }
        }
        Ok(json!({"Successful": done, "Failed": failed}))
    }

    /// An old handle deletes nothing and is told that it did, as SQS may do.
    fn delete_by_handle(&mut self, entry: &Value) -> Result<()> {
        let (number, receive) = parse_handle(entry)?;
        if self
            .messages
            .get(&number)
            .is_some_and(|message| message.receives == receive)
        {
            self.leave_flight(number);
            self.visible.remove(&number);
            self.messages.remove(&number);
        }
        Ok(())
    }

    fn change_by_handle(&mut self, entry: &Value) -> Result<()> {
        let (number, receive) = parse_handle(entry)?;
        let seconds = entry["VisibilityTimeout"]
            .as_u64()
            .ok_or("com.amazonaws.sqs#InvalidParameterValue")?;
        let message = self
            .messages
            .get(&number)
            .ok_or("com.amazonaws.sqs#ReceiptHandleIsInvalid")?;
        if message.receives != receive || message.invisible_until.is_none() {
            return Err("com.amazonaws.sqs#MessageNotInflight");
        }
        self.set_visibility(number, seconds);
        Ok(())
    }

    fn set_visibility(&mut self, number: u64, seconds: u64) {
        self.leave_flight(number);
        let Some(message) = self.messages.get_mut(&number) else {
            return;
        };
        if seconds == 0 {
            self.visible.insert(number);
        } else {
            let until = Instant::now() + Duration::from_secs(seconds);
            message.invisible_until = Some(until);
            self.visible.remove(&number);
            self.in_flight.insert((until, number));
        }
    }

    fn leave_flight(&mut self, number: u64) {
        let until = self
            .messages
            .get_mut(&number)
            .and_then(|message| message.invisible_until.take());
        if let Some(until) = until {
            self.in_flight.remove(&(until, number));
        }
    }

    /// Makes visible what is in flight, as if every visibility timeout had ended.
    pub(super) fn end_all_flights(&mut self) {
        while let Some((_, number)) = self.in_flight.first().copied() {
            self.set_visibility(number, 0);
        }
    }

    /// Makes visible what nobody deleted in time.
    fn end_flights(&mut self) {
        let now = Instant::now();
        while let Some((until, number)) = self.in_flight.first().copied()
            && until <= now
        {
            self.set_visibility(number, 0);
        }
    }
}

fn entries(request: &Value) -> Result<&Vec<Value>> {
    let entries = request["Entries"]
        .as_array()
        .ok_or("com.amazonaws.sqs#MissingParameter")?;
    let ids: BTreeSet<&str> = entries
        .iter()
        .filter_map(|entry| entry["Id"].as_str())
        .collect();
    match entries.len() {
        0 => Err("com.amazonaws.sqs#EmptyBatchRequest"),
        count if count > MOST => Err("com.amazonaws.sqs#TooManyEntriesInBatchRequest"),
        count if count > ids.len() => Err("com.amazonaws.sqs#BatchEntryIdsNotDistinct"),
        _ => Ok(entries),
    }
}

fn asked_attributes(all: &Value, request: &Value) -> Value {
    let asked = |name: &str| {
        ["MessageSystemAttributeNames", "AttributeNames"]
            .iter()
            .filter_map(|key| request[*key].as_array())
            .flatten()
            .any(|entry| entry == name || entry == "All")
    };
    let all = all.as_object().into_iter().flatten();
    all.filter(|(name, _)| asked(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn parse_handle(entry: &Value) -> Result<(u64, u32)> {
    let parsed = entry["ReceiptHandle"].as_str().and_then(|handle| {
        let mut parts = handle.split('/');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    });
    parsed.ok_or("com.amazonaws.sqs#ReceiptHandleIsInvalid")
}

fn random_uuid() -> String {
    let bits = || RandomState::new().hash_one(0_u8);
    let (high, low) = (bits(), bits());
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    )
}
