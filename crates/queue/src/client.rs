//! Calls, made by the SDK: each within its time, with the credentials that are there, and with its errors
//! in our own words.
//!
//! Nothing of the SDK's is formatted with `{:?}`: outputs, messages and errors hold bodies.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use aws_sdk_sqs::Client as Sdk;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::config::{
    BehaviorVersion, Builder as SdkBuilder, IdentityCache, Region, StalledStreamProtectionConfig,
};
use aws_sdk_sqs::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::operation::receive_message::ReceiveMessageOutput;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry,
    DeleteMessageBatchRequestEntry, Message as SqsMessage, MessageSystemAttributeName,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use tokio::select;
use tokio::sync::OnceCell;
use tokio::time::sleep;

use crate::answer::Exchange;
use crate::credentials::CredentialSource;
use crate::endpoint::{Endpoint, at};
use crate::entries::{ENTRY_IDS, Failed, Verdict, verdicts};
use crate::error::{Error, ErrorKind};
use crate::examine::FoundCredentials;
use crate::handles::{Handles, HandlesBuilder};
use crate::headers::FewerHeaders;
use crate::http::{Http, watched};
use crate::panics::caught;
use crate::profile::standard_config;
use crate::url::Origin;

pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// One ReceiveMessage call.
#[derive(Clone, Debug)]
pub(crate) struct ReceiveRequest {
    pub queue_url: String,
    pub is_fifo: bool,
    /// 1 to 10.
    pub most: usize,
    pub wait: Duration,
    pub visibility: Duration,
    pub attempt_id: Option<String>,
}

/// What ReceiveMessage brought: the receipt handles in one buffer, and the messages.
pub(crate) struct Response<T> {
    /// When its head arrived: the messages have been hidden since then, or for longer.
    pub began: Instant,
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

/// Calls one endpoint.
pub(crate) struct Client {
    endpoint: Endpoint,
    http: Rc<Http>,
    /// Made with the first call: the configuration is read from files.
    sdk: OnceCell<Connected>,
}

/// The SDK's client, and where it gets its credentials from.
struct Connected {
    sdk: Sdk,
    /// Where it sends its requests, the server's AWS configuration heeded.
    origin: Origin,
    credentials: CredentialSource,
}

impl Client {
    pub(crate) fn new(endpoint: &Endpoint, http: Rc<Http>) -> Client {
        Client {
            endpoint: endpoint.clone(),
            http,
            sdk: OnceCell::new(),
        }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether AWS answers, as far as is known before the first call.
    pub(crate) fn is_at_aws(&self) -> bool {
        let connected = self.sdk.get().map(|connected| &connected.origin);
        connected.unwrap_or(&self.endpoint.origin).is_aws()
    }

    /// Receives. The answer has to begin within `limit`; after that it may take as long as it needs, if it does not
    /// stall. Each body goes to `decode` and nowhere else.
    pub(crate) async fn receive<T>(
        &self,
        request: &ReceiveRequest,
        limit: Duration,
        decode: impl FnMut(&str) -> T,
    ) -> Result<Response<T>, Error> {
        let (output, exchange) = self
            .call(limit, |sdk| {
                let call = sdk
                    .receive_message()
                    .queue_url(&request.queue_url)
                    .max_number_of_messages(request.most as i32)
                    .wait_time_seconds(request.wait.as_secs() as i32)
                    .visibility_timeout(request.visibility.as_secs() as i32)
                    .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
                    .message_system_attribute_names(
                        MessageSystemAttributeName::ApproximateReceiveCount,
                    )
                    .set_receive_request_attempt_id(request.attempt_id.clone());
                if request.is_fifo {
                    call.message_system_attribute_names(MessageSystemAttributeName::MessageGroupId)
                        .send()
                } else {
                    call.send()
                }
            })
            .await?;
        let began = exchange.began().unwrap_or_else(Instant::now);
        decoded(output, began, decode)
    }

    /// Deletes up to ten messages: a verdict on each, in order.
    pub(crate) async fn delete(
        &self,
        queue_url: &str,
        handles: &[String],
        limit: Duration,
    ) -> Result<Vec<Verdict>, Error> {
        let entry = |id: &str, handle: &String| {
            DeleteMessageBatchRequestEntry::builder()
                .id(id)
                .receipt_handle(handle)
                .build()
        };
        let (output, _exchange) = self
            .call(limit, |sdk| {
                sdk.delete_message_batch()
                    .queue_url(queue_url)
                    .set_entries(Some(entries(handles, entry)))
                    .send()
            })
            .await?;
        let successful = output.successful.iter().map(|entry| entry.id.as_str());
        Ok(verdicts(
            handles.len(),
            successful,
            output.failed.iter().map(failed),
        ))
    }

    /// Hides up to ten messages for `seconds` from now; returns a verdict on each, in order.
    pub(crate) async fn change_visibility(
        &self,
        queue_url: &str,
        handles: &[String],
        seconds: u64,
        limit: Duration,
    ) -> Result<Vec<Verdict>, Error> {
        let entry = |id: &str, handle: &String| {
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(id)
                .receipt_handle(handle)
                .visibility_timeout(seconds as i32)
                .build()
        };
        let (output, _exchange) = self
            .call(limit, |sdk| {
                sdk.change_message_visibility_batch()
                    .queue_url(queue_url)
                    .set_entries(Some(entries(handles, entry)))
                    .send()
            })
            .await?;
        let successful = output.successful.iter().map(|entry| entry.id.as_str());
        Ok(verdicts(
            handles.len(),
            successful,
            output.failed.iter().map(failed),
        ))
    }

    /// Where calls go.
    pub(crate) async fn destination(&self) -> Result<Origin, Error> {
        Ok(self.connected().await?.origin.clone())
    }

    /// What calls are signed with, as far as it may be told.
    pub(crate) async fn credentials(&self) -> Result<FoundCredentials, Error> {
        let credentials = &self.connected().await?.credentials;
        credentials.ready().await?;
        credentials.found()
    }

    async fn connected(&self) -> Result<&Connected, Error> {
        self.sdk.get_or_try_init(|| Box::pin(self.connect())).await
    }

    /// Makes a call, and makes it again once where the first answer has cured what was wrong with it. While the
    /// exchange lives, the answer counts as being read.
    pub(crate) async fn call<O, E, F>(
        &self,
        limit: Duration,
        send: impl Fn(&Sdk) -> F,
    ) -> Result<(O, Arc<Exchange>), Error>
    where
        E: ProvideErrorMetadata,
        F: Future<Output = Result<O, SdkError<E, HttpResponse>>>,
    {
        let connected = self.connected().await?;
        let mut is_first = true;
        loop {
            let generation = connected.credentials.ready().await?;
            let _under_way = self.http.sockets.begin_call();
            let exchange = Exchange::new(self.http.budget.clone());
            // The SDK's futures are large, and dozens of them wait for answers. It is made where it stays.
            let answer = Box::pin(watched(exchange.clone(), async {
                send(&connected.sdk).await
            }));
            let host = connected.origin.as_str();
            let error = match within(limit, host, &exchange, answer).await {
                Ok(output) => return Ok((output, exchange)),
                Err(error) => error,
            };
            if error.kind == ErrorKind::BadCredentials {
                connected.credentials.reject(generation);
            }
            if !(is_first && error.is_cured()) {
                return Err(error);
            }
            is_first = false;
        }
    }

    /// Makes the SDK's client.
    async fn connect(&self) -> Result<Connected, Error> {
        let region = &self.endpoint.region;
        let (builder, origin) = if self.endpoint.is_explicit || !self.endpoint.origin.is_aws() {
            at(SdkBuilder::new(), &self.endpoint.origin)
        } else {
            let config = standard_config(self.http.aws()?, region).await;
            self.endpoint.configured(&config)?
        };
        let http = self.http.client_for(&origin)?;
        let credentials = if origin.is_aws() {
            CredentialSource::standard(http.clone(), region)
        } else {
            CredentialSource::written_down()
        };
        let config = builder
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.clone()))
            .http_client(http)
            .credentials_provider(credentials.clone())
            // The source keeps them.
            .identity_cache(IdentityCache::no_cache())
            // Callers know for how long to try, and which attempts belong together.
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .build(),
            )
            // Answers are watched here.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .interceptor(FewerHeaders)
            .build();
        Ok(Connected {
            sdk: Sdk::from_conf(config),
            origin,
            credentials,
        })
    }
}

/// Waits for an answer: for its head until `limit`, then for as long as it does not stall.
async fn within<O, E, F>(
    limit: Duration,
    host: &str,
    exchange: &Exchange,
    mut answer: Pin<Box<F>>,
) -> Result<O, Error>
where
    E: ProvideErrorMetadata,
    F: Future<Output = Result<O, SdkError<E, HttpResponse>>>,
{
    let mut time_is_up = pin!(sleep(limit));
    let mut has_begun = false;
    loop {
        select! {
            biased;
            result = &mut answer => return result.map_err(|error| Error::of_sdk(&error, exchange, host)),
            // The head arrives in this task, in the branch above.
            stalls_at = poll_fn(|_| exchange.stalls_at().map_or(Poll::Pending, Poll::Ready)), if !has_begun => {
                has_begun = true;
                time_is_up.as_mut().reset(stalls_at.into());
            }
            () = &mut time_is_up => match exchange.stalls_at() {
                Some(stalls_at) if stalls_at > Instant::now() => time_is_up.as_mut().reset(stalls_at.into()),
                Some(_) => return Err(Error::new(ErrorKind::TimedOut, format!("the answer from {host} stalled"))),
                None => {
                    let detail = format!("no answer from {host} within {:.1} s", limit.as_secs_f64());
                    return Err(Error::new(ErrorKind::TimedOut, detail));
                }
            },
        }
    }
}

/// The entries of a batch. The SDK asks for an id and a handle, which are there, so none is left out.
fn entries<T>(
    handles: &[String],
    entry: impl Fn(&str, &String) -> Result<T, BuildError>,
) -> Vec<T> {
    let entries = ENTRY_IDS.iter().zip(handles);
    entries
        .filter_map(|(id, handle)| entry(id, handle).ok())
        .collect()
}

fn failed(entry: &BatchResultErrorEntry) -> Failed<'_> {
    Failed {
        id: &entry.id,
        code: &entry.code,
        is_senders_fault: entry.sender_fault,
    }
}

/// Hands each body to `decode`. An answer that lacks what every message has is reported without quoting it.
fn decoded<T>(
    output: ReceiveMessageOutput,
    began: Instant,
    mut decode: impl FnMut(&str) -> T,
) -> Result<Response<T>, Error> {
    let received = output.messages.unwrap_or_default();
    let mut handles = HandlesBuilder::default();
    let mut messages = Vec::with_capacity(received.len());
    for message in received {
        let handle = message
            .receipt_handle
            .as_deref()
            .ok_or_else(|| Error::not_sqs("a message without a receipt handle"))?;
        handles
            .push(handle)
            .ok_or_else(|| Error::not_sqs("too many or too long receipt handles"))?;
        messages.push(decoded_message(message, &mut decode)?);
    }
    Ok(Response {
        began,
        handles: handles.build(),
        messages,
    })
}

/// A message without a body is one that says nothing.
fn decoded_message<T>(
    message: SqsMessage,
    decode: &mut impl FnMut(&str) -> T,
) -> Result<Message<T>, Error> {
    let attributes = message.attributes.unwrap_or_default();
    let attribute = |name| attributes.get(&name).map(String::as_str);
    let body = message.body.unwrap_or_default();
    Ok(Message {
        message_id: message
            .message_id
            .ok_or_else(|| Error::not_sqs("a message without an id"))?
            .into(),
        sent_at: attribute(MessageSystemAttributeName::SentTimestamp)
            .and_then(|text| text.parse().ok()),
        receive_count: attribute(MessageSystemAttributeName::ApproximateReceiveCount)
            .and_then(|text| text.parse().ok())
            .unwrap_or(1),
        group: attribute(MessageSystemAttributeName::MessageGroupId).map(Arc::from),
        content: caught(|| decode(&body)).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: usize) -> SqsMessage {
        SqsMessage::builder()
            .message_id(number.to_string())
            .receipt_handle(format!("handle {number}"))
            .body(format!("body {number}"))
            .build()
    }

    fn output(messages: Vec<SqsMessage>) -> ReceiveMessageOutput {
        ReceiveMessageOutput::builder()
            .set_messages(Some(messages))
            .build()
    }

    #[test]
    fn a_message_is_what_its_attributes_and_decode_say() {
        let with_attributes = SqsMessage::builder()
            .message_id("a")
            .receipt_handle("h/1")
            .body("é")
            .attributes(MessageSystemAttributeName::SentTimestamp, "1700000000123")
            .attributes(MessageSystemAttributeName::ApproximateReceiveCount, "3")
            .attributes(MessageSystemAttributeName::MessageGroupId, "g")
            .build();
        let response = decoded(
            output(vec![with_attributes, message(2)]),
            Instant::now(),
            str::to_owned,
        )
        .unwrap();
        assert_eq!(response.handles.get(0), Some("h/1"));
        assert_eq!(response.handles.get(1), Some("handle 2"));
        let [first, second] = &response.messages[..] else {
            panic!()
        };
        assert_eq!(&*first.message_id, "a");
        assert_eq!(
            (first.sent_at, first.receive_count),
            (Some(1_700_000_000_123), 3)
        );
        assert_eq!(first.group.as_deref(), Some("g"));
        assert_eq!(first.content.as_deref(), Some("é"));
        assert_eq!((second.sent_at, second.receive_count), (None, 1));
        assert_eq!(second.group, None);
    }

    #[test]
    fn an_empty_answer_has_no_messages() {
        for output in [ReceiveMessageOutput::builder().build(), output(Vec::new())] {
            assert!(
                decoded(output, Instant::now(), |_| ())
                    .unwrap()
                    .messages
                    .is_empty()
            );
        }
    }

    #[test]
    fn a_message_without_a_body_is_one_message() {
        let bodiless = SqsMessage::builder()
            .message_id("a")
            .receipt_handle("h")
            .build();
        let response = decoded(
            output(vec![bodiless, message(2)]),
            Instant::now(),
            str::to_owned,
        )
        .unwrap();
        let contents: Vec<_> = response
            .messages
            .into_iter()
            .map(|message| message.content)
            .collect();
        assert_eq!(contents, [Some(String::new()), Some("body 2".to_owned())]);
    }

    #[test]
    fn what_cannot_be_settled_is_not_an_answer_of_sqs() {
        let eleven = (0..11).map(message).collect();
        let no_handle = SqsMessage::builder().message_id("a").body("secret").build();
        let no_id = SqsMessage::builder()
            .receipt_handle("h")
            .body("secret")
            .build();
        for messages in [eleven, vec![no_handle], vec![no_id]] {
            let error = decoded(output(messages), Instant::now(), |_| ())
                .err()
                .unwrap();
            assert_eq!(error.kind, ErrorKind::NotSqs);
            assert!(!error.detail.contains("secret"), "{}", error.detail);
        }
    }

    #[test]
    fn a_panic_in_decode_costs_one_content() {
        let mut calls = 0;
        let decode = |_: &str| {
            calls += 1;
            assert!(calls > 1);
        };
        let response =
            decoded(output(vec![message(1), message(2)]), Instant::now(), decode).unwrap();
        assert_eq!(response.messages[0].content, None);
        assert_eq!(response.messages[1].content, Some(()));
    }
}
