//! Bodies of requests and answers, as SQS' JSON protocol has them.
//!
//! An answer to ReceiveMessage is read in one pass: a message's body goes from the parser's own buffer into
//! `decode` and nowhere else, its receipt handle into one buffer a response. Nothing here quotes an answer in
//! an error, so neither does a parser's error leave this file.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::handles::{Handles, HandlesBuilder};
use crate::panics::caught;

/// Most messages in a response and entries in a batch (SQS developer guide, "Quotas").
pub(crate) const BATCH: usize = 10;

const ENTRY_IDS: [&str; BATCH] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ReceiveRequest<'a> {
    pub queue_url: &'a str,
    pub max_number_of_messages: usize,
    pub wait_time_seconds: u64,
    pub visibility_timeout: u64,
    pub message_system_attribute_names: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive_request_attempt_id: Option<&'a str>,
}

impl ReceiveRequest<'_> {
    pub(crate) const ATTRIBUTES: &'static [&'static str] =
        &["SentTimestamp", "ApproximateReceiveCount"];
    pub(crate) const FIFO_ATTRIBUTES: &'static [&'static str] =
        &["SentTimestamp", "ApproximateReceiveCount", "MessageGroupId"];

    pub(crate) fn to_json(&self) -> Vec<u8> {
        to_json(self, self.queue_url.len() + 320)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct BatchRequest<'a> {
    queue_url: &'a str,
    entries: Vec<BatchEntry<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct BatchEntry<'a> {
    id: &'static str,
    receipt_handle: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    visibility_timeout: Option<u64>,
}

/// The body of DeleteMessageBatch, or with `visibility_timeout` (seconds) of ChangeMessageVisibilityBatch.
/// An entry's id is its place among the first ten of `handles`.
pub(crate) fn batch_request<'a>(
    queue_url: &'a str,
    handles: &'a [Cow<'a, str>],
    visibility_timeout: Option<u64>,
) -> Vec<u8> {
    let entries: Vec<BatchEntry> = ENTRY_IDS
        .into_iter()
        .zip(handles)
        .map(|(id, receipt_handle)| BatchEntry {
            id,
            receipt_handle,
            visibility_timeout,
        })
        .collect();
    let handles: usize = entries.iter().map(|entry| entry.receipt_handle.len()).sum();
    let length = queue_url.len() + handles + 64 * (entries.len() + 1);
    to_json(&BatchRequest { queue_url, entries }, length)
}

/// The JSON of a request that is about `length` bytes long. These types have no map keys and no failing
/// `Serialize`, so it cannot fail.
fn to_json(request: &impl Serialize, length: usize) -> Vec<u8> {
    let mut json = Vec::with_capacity(length);
    match serde_json::to_writer(&mut json, request) {
        Ok(()) => json,
        Err(_) => Vec::new(),
    }
}

/// What an answer says about one entry of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    /// The same entry will never be taken.
    Refused,
    /// Failed for now, or not mentioned at all.
    Again,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchAnswer<'a> {
    #[serde(borrow, default)]
    successful: Option<Vec<Success<'a>>>,
    #[serde(borrow, default)]
    failed: Option<Vec<Failure<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Success<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(default)]
    sender_fault: bool,
    #[serde(borrow, default)]
    code: Option<Cow<'a, str>>,
}

impl Failure<'_> {
    /// SQS says whose fault it was; LocalStack always says its own, so the codes of a handle that is no longer
    /// good count too.
    fn is_final(&self) -> bool {
        let code = self.code.as_deref().unwrap_or("");
        self.sender_fault
            || matches!(
                code,
                "ReceiptHandleIsInvalid"
                    | "MessageNotInflight"
                    | "InvalidIdFormat"
                    | "InvalidParameterValue"
                    | "InvalidParameterValueException"
            )
    }
}

/// Reads the answer to a batch of `entries`: a verdict for each, in order.
pub(crate) fn batch_answer(body: &[u8], entries: usize) -> Result<Vec<Verdict>, Error> {
    let answer: BatchAnswer = serde_json::from_slice(body).map_err(not_json)?;
    let mut verdicts = vec![Verdict::Again; entries];
    let mut set = |id: &str, verdict| {
        let place = ENTRY_IDS.iter().position(|known| *known == id);
        if let Some(slot) = place.and_then(|place| verdicts.get_mut(place)) {
            *slot = verdict;
        }
    };
    for success in answer.successful.iter().flatten() {
        set(&success.id, Verdict::Done);
    }
    for failure in answer.failed.iter().flatten() {
        let verdict = if failure.is_final() {
            Verdict::Refused
        } else {
            Verdict::Again
        };
        set(&failure.id, verdict);
    }
    Ok(verdicts)
}

/// A response to ReceiveMessage: the receipt handles of its messages in one buffer, and the messages.
pub(crate) struct Response<T> {
    pub handles: Handles,
    pub messages: Vec<Message<T>>,
}

/// A message without its receipt handle and body.
pub(crate) struct Message<T> {
    pub message_id: Box<str>,
    pub sent_at: Option<i64>,
    pub receive_count: u32,
    pub group: Option<Arc<str>>,
    /// What `decode` made of the body, unless it panicked.
    pub content: Option<T>,
}

/// Reads the answer to ReceiveMessage, handing each body to `decode`.
pub(crate) fn response<T>(
    body: &[u8],
    mut decode: impl FnMut(&str) -> T,
) -> Result<Response<T>, Error> {
    let mut reading = Reading {
        decode: &mut decode,
        handles: HandlesBuilder::default(),
        messages: Vec::new(),
    };
    let mut parser = serde_json::Deserializer::from_slice(body);
    parser
        .deserialize_map(ResponseVisitor(&mut reading))
        .and_then(|()| parser.end())
        .map_err(not_json)?;
    Ok(Response {
        handles: reading.handles.build(),
        messages: reading.messages,
    })
}

/// A response as far as it has been read.
struct Reading<'d, T, D> {
    decode: &'d mut D,
    handles: HandlesBuilder,
    messages: Vec<Message<T>>,
}

struct ResponseVisitor<'r, 'd, T, D>(&'r mut Reading<'d, T, D>);

impl<'de, T, D: FnMut(&str) -> T> Visitor<'de> for ResponseVisitor<'_, '_, T, D> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an answer to ReceiveMessage")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<str>>()? {
            match &*name {
                "Messages" => map.next_value_seed(MessagesSeed(&mut *self.0))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

struct MessagesSeed<'r, 'd, T, D>(&'r mut Reading<'d, T, D>);

impl<'de, T, D: FnMut(&str) -> T> DeserializeSeed<'de> for MessagesSeed<'_, '_, T, D> {
    type Value = ();

    fn deserialize<P: Deserializer<'de>>(self, parser: P) -> Result<(), P::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de, T, D: FnMut(&str) -> T> Visitor<'de> for MessagesSeed<'_, '_, T, D> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a list of messages or null")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(message) = seq.next_element_seed(MessageSeed(&mut *self.0))? {
            self.0.messages.push(message);
        }
        Ok(())
    }
}

struct MessageSeed<'r, 'd, T, D>(&'r mut Reading<'d, T, D>);

impl<'de, T, D: FnMut(&str) -> T> DeserializeSeed<'de> for MessageSeed<'_, '_, T, D> {
    type Value = Message<T>;

    fn deserialize<P: Deserializer<'de>>(self, parser: P) -> Result<Message<T>, P::Error> {
        parser.deserialize_map(self)
    }
}

impl<'de, T, D: FnMut(&str) -> T> Visitor<'de> for MessageSeed<'_, '_, T, D> {
    type Value = Message<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Message<T>, A::Error> {
        let missing = <A::Error as serde::de::Error>::missing_field;
        let mut message_id = None;
        let mut handle: Option<Cow<str>> = None;
        let mut content = None;
        let mut attributes = Attributes::default();
        while let Some(name) = map.next_key::<Cow<str>>()? {
            match &*name {
                "MessageId" => message_id = Some(map.next_value::<Box<str>>()?),
                "ReceiptHandle" => handle = Some(map.next_value()?),
                "Body" => {
                    content = Some(map.next_value_seed(BodySeed(&mut *self.0.decode, PhantomData))?)
                }
                "Attributes" => attributes = map.next_value::<Option<_>>()?.unwrap_or_default(),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let handle = handle.ok_or_else(|| missing("ReceiptHandle"))?;
        self.0
            .handles
            .push(&handle)
            .ok_or_else(|| serde::de::Error::custom("too many or too long receipt handles"))?;
        Ok(Message {
            message_id: message_id.ok_or_else(|| missing("MessageId"))?,
            sent_at: attributes.sent_timestamp.and_then(|text| text.parse().ok()),
            receive_count: attributes
                .approximate_receive_count
                .and_then(|text| text.parse().ok())
                .unwrap_or(1),
            group: attributes.message_group_id.map(Arc::from),
            content: content.ok_or_else(|| missing("Body"))?,
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attributes<'a> {
    #[serde(borrow)]
    sent_timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    approximate_receive_count: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message_group_id: Option<Cow<'a, str>>,
}

struct BodySeed<'d, T, D>(&'d mut D, PhantomData<T>);

impl<'de, T, D: FnMut(&str) -> T> DeserializeSeed<'de> for BodySeed<'_, T, D> {
    type Value = Option<T>;

    fn deserialize<P: Deserializer<'de>>(self, parser: P) -> Result<Option<T>, P::Error> {
        parser.deserialize_str(self)
    }
}

impl<'de, T, D: FnMut(&str) -> T> Visitor<'de> for BodySeed<'_, T, D> {
    type Value = Option<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a body")
    }

    fn visit_str<E>(self, body: &str) -> Result<Option<T>, E> {
        Ok(caught(|| (self.0)(body)).ok())
    }
}

/// The parser's own words may quote the answer, so only its place is told.
fn not_json(error: serde_json::Error) -> Error {
    Error::not_sqs(&format!(
        "an answer that is not SQS' JSON (line {}, column {})",
        error.line(),
        error.column()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"{"Messages":[
        {"MessageId":"a","ReceiptHandle":"h\/1","MD5OfBody":"x","Body":"{\"ip\":\"\u00e9\"}",
         "Attributes":{"SentTimestamp":"1700000000123","ApproximateReceiveCount":"3","MessageGroupId":"g","SenderId":"s"}},
        {"Body":"plain","Attributes":null,"MessageAttributes":{"k":{"DataType":"String"}},"MessageId":"b","ReceiptHandle":"handle2"}
    ],"ResponseMetadata":{}}"#;

    #[test]
    fn a_response() {
        let response = response(TWO.as_bytes(), str::to_owned).unwrap();
        assert_eq!(response.handles.len(), 2);
        assert_eq!(response.handles.get(0), Some("h/1"));
        assert_eq!(response.handles.get(1), Some("handle2"));
        assert_eq!(response.handles.get(2), None);
        let [first, second] = &response.messages[..] else {
            panic!()
        };
        assert_eq!(&*first.message_id, "a");
        assert_eq!(first.sent_at, Some(1_700_000_000_123));
        assert_eq!(first.receive_count, 3);
        assert_eq!(first.group.as_deref(), Some("g"));
        assert_eq!(first.content.as_deref(), Some("{\"ip\":\"é\"}"));
        assert_eq!(second.content.as_deref(), Some("plain"));
        assert_eq!((second.sent_at, second.receive_count), (None, 1));
        assert_eq!(second.group, None);
    }

    #[test]
    fn empty_responses() {
        for body in ["{}", r#"{"Messages":[]}"#, r#"{"Messages":null}"#] {
            assert!(
                response(body.as_bytes(), |_| ())
                    .unwrap()
                    .messages
                    .is_empty()
            );
        }
    }

    #[test]
    fn what_is_no_response_is_refused_and_not_quoted() {
        let eleven = format!(
            r#"{{"Messages":[{}]}}"#,
            [r#"{"MessageId":"a","ReceiptHandle":"h","Body":"secret"}"#; 11].join(",")
        );
        for body in [
            "",
            "<html>secret</html>",
            "[]",
            r#"{"Messages":"secret"}"#,
            r#"{"Messages":["secret"]}"#,
            r#"{"Messages":[{"MessageId":"secret"}]}"#,
            r#"{"Messages":[{"MessageId":"a","ReceiptHandle":"h"}]}"#,
            r#"{"Messages":[{"MessageId":"a","Body":"secret"}]}"#,
            r#"{"Messages":[{"MessageId":"a","ReceiptHandle":"h","Body":{"secret":1}}]}"#,
            r#"{"Messages":[]} secret"#,
            &eleven,
        ] {
            let error = response(body.as_bytes(), |_| ()).err().unwrap();
            assert_eq!(error.kind, crate::ErrorKind::NotSqs);
            assert!(!error.detail.contains("secret"), "{}", error.detail);
        }
    }

    #[test]
    fn a_panic_in_decode_costs_one_content() {
        let mut calls = 0;
        let response = response(TWO.as_bytes(), |_| {
            calls += 1;
            assert!(calls > 1);
        })
        .unwrap();
        assert_eq!(response.messages[0].content, None);
        assert_eq!(response.messages[1].content, Some(()));
    }

    #[test]
    fn verdicts() {
        use Verdict::*;
        let body = r#"{"Successful":[{"Id":"1"},{"Id":"99"},{"Id":"x"}],"Failed":[
            {"Id":"0","SenderFault":false,"Code":"InternalError"},
            {"Id":"2","SenderFault":true,"Code":"Whatever","Message":"m"},
            {"Id":"3","SenderFault":false,"Code":"ReceiptHandleIsInvalid"}]}"#;
        let verdicts = batch_answer(body.as_bytes(), 5).unwrap();
        assert_eq!(verdicts, [Again, Done, Refused, Refused, Again]);
        assert_eq!(batch_answer(b"{}", 1).unwrap(), [Again]);
        assert_eq!(
            batch_answer(br#"{"Successful":null,"Failed":null}"#, 1).unwrap(),
            [Again]
        );
        assert!(batch_answer(b"<html>", 1).is_err());
    }

    #[test]
    fn requests() {
        let body = batch_request("http://h/000000000000/q", &["a\"".into(), "b".into()], None);
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"QueueUrl":"http://h/000000000000/q","Entries":[{"Id":"0","ReceiptHandle":"a\""},{"Id":"1","ReceiptHandle":"b"}]}"#
        );
        let body = batch_request("u", &["a".into()], Some(0));
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"QueueUrl":"u","Entries":[{"Id":"0","ReceiptHandle":"a","VisibilityTimeout":0}]}"#
        );
        let body = ReceiveRequest {
            queue_url: "u",
            max_number_of_messages: 10,
            wait_time_seconds: 1,
            visibility_timeout: 30,
            message_system_attribute_names: ReceiveRequest::ATTRIBUTES,
            receive_request_attempt_id: None,
        }
        .to_json();
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"QueueUrl":"u","MaxNumberOfMessages":10,"WaitTimeSeconds":1,"VisibilityTimeout":30,"MessageSystemAttributeNames":["SentTimestamp","ApproximateReceiveCount"]}"#
        );
    }
}
