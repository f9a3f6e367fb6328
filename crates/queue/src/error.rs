//! What can go wrong with SQS, and what kind of trouble each answer stands for.

use std::borrow::Cow;

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;

/// Longest `detail`, in characters.
const DETAIL_LIMIT: usize = 300;

/// What went wrong with SQS. Never holds anything of a body.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub struct Error {
    /// What kind of trouble it is.
    pub kind: ErrorKind,
    /// The code and message of the answer, or what failed at which host.
    /// At most 300 characters, none of them a control character.
    pub detail: String,
}

/// What kind of trouble an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No connection: name not found, refused.
    Unreachable,
    /// The connection broke before the answer was there.
    Broken,
    /// The server's certificate is not trusted, or there is no common TLS.
    Tls,
    /// No answer in time.
    TimedOut,
    /// There is no such queue.
    NoSuchQueue,
    /// These credentials may not do that.
    AccessDenied,
    /// No credentials anywhere in the standard chain.
    NoCredentials,
    /// Credentials that AWS does not take: unknown, expired, wrong signature.
    BadCredentials,
    /// Too many requests.
    Throttled,
    /// Too many messages in flight.
    OverLimit,
    /// An answer of class 5xx.
    Unavailable,
    /// An answer that is not SQS'.
    NotSqs,
    /// Any other answer of class 4xx.
    Refused,
    /// A fault in this crate, or the I/O thread is gone.
    Internal,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, detail: impl AsRef<str>) -> Error {
        Error {
            kind,
            detail: printable(detail.as_ref()),
        }
    }

    /// Whether the same call may succeed a little later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        use ErrorKind::*;
        matches!(
            self.kind,
            Unreachable | Broken | TimedOut | Throttled | OverLimit | Unavailable
        )
    }

    /// Whether the call may have been carried out all the same.
    pub(crate) fn leaves_outcome_open(&self) -> bool {
        matches!(self.kind, ErrorKind::Broken | ErrorKind::TimedOut)
    }

    /// What an answer with a status other than 200 means.
    ///
    /// The code stands in `__type` and, under its older name, in `x-amzn-query-error`
    /// (AWS JSON 1.0 protocol, "Operation error serialization", and the SQS developer guide,
    /// "Making AWS JSON protocol requests").
    pub(crate) fn of_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
        let answer: Option<ErrorAnswer> = serde_json::from_slice(body).ok();
        let Some((code, message)) = answer.as_ref().and_then(ErrorAnswer::code_and_message) else {
            return Error::of_stranger(status, headers, body.len());
        };
        let query_code = headers
            .get("x-amzn-query-error")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .unwrap_or(code);
        let kind = kind_of_code(code)
            .or_else(|| kind_of_code(query_code))
            .or_else(|| kind_of_status(status))
            .unwrap_or(ErrorKind::Refused);
        let detail = match message {
            "" => format!("{code} (HTTP {})", status.as_u16()),
            _ => format!("{code}: {message}"),
        };
        Error::new(kind, detail)
    }

    /// An answer without a code of AWS': a proxy's, a load balancer's, another program's.
    fn of_stranger(status: StatusCode, headers: &HeaderMap, length: usize) -> Error {
        let kind = kind_of_status(status).unwrap_or(ErrorKind::NotSqs);
        let media_type = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("of no stated type");
        Error::new(
            kind,
            format!(
                "HTTP {} with {length} bytes {media_type}, which is no answer of SQS",
                status.as_u16()
            ),
        )
    }

    /// An answer with status 200 that is not what was asked for. `detail` must not quote it.
    pub(crate) fn not_sqs(detail: &str) -> Error {
        Error::new(ErrorKind::NotSqs, detail)
    }
}

/// An error with the errors that caused it, as one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[derive(Deserialize)]
struct ErrorAnswer<'a> {
    #[serde(rename = "__type", borrow)]
    type_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
    #[serde(rename = "Message", borrow)]
    capital_message: Option<Cow<'a, str>>,
}

impl ErrorAnswer<'_> {
    fn code_and_message(&self) -> Option<(&str, &str)> {
        let type_name = self.type_name.as_deref()?;
        let code = type_name.rsplit('#').next().unwrap_or(type_name);
        let message = self.message.as_deref().or(self.capital_message.as_deref());
        Some((code, message.unwrap_or("")))
    }
}

fn kind_of_code(code: &str) -> Option<ErrorKind> {
    use ErrorKind::*;
    let kind = match code {
        "QueueDoesNotExist" | "AWS.SimpleQueueService.NonExistentQueue" | "InvalidAddress" => {
            NoSuchQueue
        }
        "InvalidClientTokenId"
        | "UnrecognizedClient"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "InvalidSignature"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "TokenRefreshRequired"
        | "RequestExpired"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "InvalidAccessKeyId"
        | "NotAuthorized"
        | "InvalidSecurity" => BadCredentials,
        "OptInRequired" => AccessDenied,
        "OverLimit" | "AWS.SimpleQueueService.OverLimit" => OverLimit,
        "RequestThrottled"
        | "RequestThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "KmsThrottled"
        | "SlowDown" => Throttled,
        "InternalFailure"
        | "InternalError"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException" => Unavailable,
        _ if code.starts_with("AccessDenied") || code == "KmsAccessDenied" => AccessDenied,
        _ if code.starts_with("Throttl") => Throttled,
        _ => return None,
    };
    Some(kind)
}

fn kind_of_status(status: StatusCode) -> Option<ErrorKind> {
    if status == StatusCode::TOO_MANY_REQUESTS {
        Some(ErrorKind::Throttled)
    } else if status.is_server_error() {
        Some(ErrorKind::Unavailable)
    } else {
        None
    }
}

/// Whether an answer says that the credentials were good once and are to be fetched anew.
pub(crate) fn says_expired(error: &Error) -> bool {
    error.kind == ErrorKind::BadCredentials && error.detail.starts_with("ExpiredToken")
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .take(DETAIL_LIMIT)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn answer(status: u16, query_error: Option<&'static str>, body: &str) -> Error {
        let mut headers = HeaderMap::new();
        if let Some(value) = query_error {
            headers.insert("x-amzn-query-error", HeaderValue::from_static(value));
        }
        Error::of_answer(
            StatusCode::from_u16(status).unwrap(),
            &headers,
            body.as_bytes(),
        )
    }

    #[test]
    fn kinds() {
        use ErrorKind::*;
        let typed =
            |name: &str| format!(r#"{{"__type":"com.amazonaws.sqs#{name}","message":"why"}}"#);
        let cases = [
            (400, typed("QueueDoesNotExist"), NoSuchQueue),
            (400, typed("AccessDeniedException"), AccessDenied),
            (403, typed("AccessDenied"), AccessDenied),
            (403, typed("InvalidClientTokenId"), BadCredentials),
            (403, typed("SignatureDoesNotMatch"), BadCredentials),
            (403, typed("ExpiredTokenException"), BadCredentials),
            (403, typed("MissingAuthenticationToken"), BadCredentials),
            (400, typed("RequestThrottled"), Throttled),
            (400, typed("ThrottlingException"), Throttled),
            (400, typed("KmsThrottled"), Throttled),
            (429, "slow down".to_owned(), Throttled),
            (403, typed("OverLimit"), OverLimit),
            (500, typed("InternalFailure"), Unavailable),
            (500, typed("SomethingNew"), Unavailable),
            (503, "<html>".to_owned(), Unavailable),
            (400, typed("InvalidParameterValue"), Refused),
            (404, "<html>".to_owned(), NotSqs),
            (302, String::new(), NotSqs),
            (400, "[]".to_owned(), NotSqs),
            (400, "{}".to_owned(), NotSqs),
        ];
        for (status, body, kind) in cases {
            assert_eq!(answer(status, None, &body).kind, kind, "{status} {body}");
        }
        let legacy = answer(
            400,
            Some("AWS.SimpleQueueService.NonExistentQueue;Sender"),
            &typed("SomethingNew"),
        );
        assert_eq!(legacy.kind, NoSuchQueue);
    }

    #[test]
    fn details_are_short_and_printable_and_quote_no_stranger() {
        let long = format!(
            r#"{{"__type":"a#Code","message":"one\ntwo{}"}}"#,
            "x".repeat(1000)
        );
        let error = answer(400, None, &long);
        assert!(error.detail.starts_with("Code: one two"));
        assert_eq!(error.detail.chars().count(), DETAIL_LIMIT);

        let secret = answer(400, None, r#"{"Messages":[{"Body":"199.172.111.135"}]}"#);
        assert!(!secret.detail.contains("199.172"));
    }
}
