//! What the credentials may do, found out without doing it: calls about a message that does not exist are refused for
//! the one reason or for the other.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_sdk_sqs::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_sqs::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

use crate::client::Client;
use crate::error::{Error, ErrorKind};

/// No queue has ever handed it out.
const NOBODYS_HANDLE: &str = "user_logins_sqs-checks-whether-it-may";

/// What SQS says about such a handle to a caller that may make the call.
const ABOUT_THE_HANDLE: [&str; 4] = [
    "ReceiptHandleIsInvalid",
    "InvalidParameterValue",
    "InvalidIdFormat",
    "MessageNotInflight",
];

/// Whether a call may be made.
#[derive(Clone, Debug)]
pub enum Right {
    /// It may.
    Allowed,
    /// It may not.
    Denied(Error),
    /// It could not be found out.
    Unknown(Error),
}

impl Right {
    fn of<T>(outcome: Result<T, Error>) -> Right {
        let Err(error) = outcome else {
            return Right::Allowed;
        };
        match error.kind {
            ErrorKind::AccessDenied => Right::Denied(error),
            ErrorKind::Refused if is_about_the_handle(&error) => Right::Allowed,
            _ => Right::Unknown(error),
        }
    }
}

fn is_about_the_handle(error: &Error) -> bool {
    ABOUT_THE_HANDLE
        .iter()
        .any(|code| error.detail.starts_with(code))
}

/// Whether messages of the queue `url` may be deleted.
pub(super) async fn delete(
    client: &Client,
    url: &str,
    limit: Duration,
    clock: &Clock,
) -> Result<Right, Error> {
    let outcome = clock
        .time(client.call(limit, |sdk| {
            sdk.delete_message()
                .queue_url(url)
                .receipt_handle(NOBODYS_HANDLE)
                .customize()
                .interceptor(clock.reader())
                .send()
        }))
        .await;
    Ok(Right::of(outcome))
}

/// Whether the visibility timeout of messages of the queue `url` may be changed.
pub(super) async fn change_visibility(
    client: &Client,
    url: &str,
    limit: Duration,
    clock: &Clock,
) -> Result<Right, Error> {
    let outcome = clock
        .time(client.call(limit, |sdk| {
            sdk.change_message_visibility()
                .queue_url(url)
                .receipt_handle(NOBODYS_HANDLE)
                .visibility_timeout(0)
                .customize()
                .interceptor(clock.reader())
                .send()
        }))
        .await;
    Ok(Right::of(outcome))
}

/// What answers tell of time: how long they took, and what time it is where they come from.
#[derive(Default)]
pub(super) struct Clock {
    fastest: Cell<Option<Duration>>,
    ahead: Arc<Mutex<Option<i64>>>,
}

impl Clock {
    /// How long the fastest call took that was answered.
    pub(super) fn fastest(&self) -> Option<Duration> {
        self.fastest.get()
    }

    /// By how many seconds this machine's clock is ahead of that of the server.
    pub(super) fn ahead(&self) -> Option<i64> {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self) -> DateReader {
        DateReader(self.ahead.clone())
    }

    async fn time<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let begun = Instant::now();
        let outcome = call.await;
        let was_answered = match &outcome {
            Ok(_) => true,
            Err(error) => matches!(error.kind, ErrorKind::AccessDenied | ErrorKind::Refused),
        };
        if was_answered {
            let took = begun.elapsed();
            let fastest = self.fastest.get().map_or(took, |fastest| fastest.min(took));
            self.fastest.set(Some(fastest));
        }
        outcome
    }
}

/// Compares the `Date` of an answer with this machine's clock.
#[derive(Debug)]
struct DateReader(Arc<Mutex<Option<i64>>>);

#[dyn_dispatch_hint]
impl Intercept for DateReader {
    fn name(&self) -> &'static str {
        "DateReader"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        if let Some(date) = date.and_then(|text| DateTime::from_str(text, Format::HttpDate).ok()) {
            let here = DateTime::from(SystemTime::now());
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(here.secs() - date.secs());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_about_the_handle_means_that_the_call_may_be_made() {
        let right = |kind, detail: &str| Right::of::<()>(Err(Error::new(kind, detail)));
        assert!(matches!(
            right(ErrorKind::Refused, "ReceiptHandleIsInvalid: not valid"),
            Right::Allowed
        ));
        assert!(matches!(
            right(ErrorKind::AccessDenied, "AccessDenied: no"),
            Right::Denied(_)
        ));
        assert!(matches!(
            right(ErrorKind::NoSuchQueue, "QueueDoesNotExist: no"),
            Right::Unknown(_)
        ));
        assert!(matches!(Right::of(Ok(())), Right::Allowed));
    }
}
