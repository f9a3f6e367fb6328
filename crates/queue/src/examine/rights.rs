//! What the credentials may do, found out without doing it: calls about a message that does not exist are refused for
//! the one reason or for the other.

use std::time::Duration;

use super::clock::Clock;
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
