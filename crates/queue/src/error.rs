//! What can go wrong with SQS, and what kind of trouble each answer stands for.

use std::error::Error as _;
use std::io;
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::error::{ErrorMetadata, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

use crate::answer::{Exchange, Fault};
use crate::client::CONNECT_TIMEOUT;

/// Longest `detail`, in characters.
const DETAIL_LIMIT: usize = 300;

/// As the SDK has it. A signature is good for five minutes (IAM user guide, "Signature Version 4").
const LARGEST_SKEW: Duration = Duration::from_secs(4 * 60);

/// What went wrong with SQS. Never holds anything of a body.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub struct Error {
    /// What kind of trouble it is.
    pub kind: ErrorKind,
    /// The code and message of the answer, or what failed at which host.
    /// At most 300 characters, none of them a control character.
    pub detail: String,
    /// The same call may succeed at once.
    is_cured: bool,
    /// No connection could be opened, since the process or the machine has as many open files as it may have.
    lacks_files: bool,
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
    /// The queue does not exist.
    NoSuchQueue,
    /// These credentials may not do that.
    AccessDenied,
    /// No credentials anywhere in the standard chain.
    NoCredentials,
    /// A source of credentials is configured, and failed or did not answer.
    CredentialsFailed,
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
            is_cured: false,
            lacks_files: false,
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

    /// What the SDK's error means. Of an answer, only the code and message of an SQS error are reported.
    pub(crate) fn of_sdk<E: ProvideErrorMetadata>(
        error: &SdkError<E, HttpResponse>,
        exchange: &Exchange,
        host: &str,
    ) -> Error {
        match exchange.fault() {
            Some(Fault::Broken) => {
                return Error::new(ErrorKind::Broken, format!("connection to {host} broke"));
            }
            Some(Fault::TooLong) => return Error::not_sqs("an answer longer than SQS can give"),
            None => {}
        }
        match error {
            SdkError::ServiceError(error) => Error::of_answer(error.err().meta(), error.raw()),
            SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
                Some(error) => Error::of_connection(error, host),
                None => Error::new(ErrorKind::Broken, format!("connection to {host} broke")),
            },
            SdkError::ResponseError(error) => Error::of_stranger(error.raw()),
            SdkError::TimeoutError(_) => {
                Error::new(ErrorKind::TimedOut, format!("no answer from {host}"))
            }
            SdkError::ConstructionFailure(_) => {
                Error::new(ErrorKind::Internal, "the request could not be made")
            }
            _ => Error::new(ErrorKind::Internal, "an unknown kind of error of the SDK"),
        }
    }

    /// What an answer with a code, or without one, means.
    fn of_answer(answer: &ErrorMetadata, response: &HttpResponse) -> Error {
        let Some(code) = answer.code().filter(|code| !code.is_empty()) else {
            return Error::of_stranger(response);
        };
        let status = response.status();
        let kind = kind_of_code(code)
            .or_else(|| kind_of_status(status))
            .unwrap_or(ErrorKind::Refused);
        let detail = match answer.message() {
            None | Some("") => format!("{code} (HTTP {})", status.as_u16()),
            Some(message) => format!("{code}: {message}"),
        };
        Error {
            is_cured: is_cured_by(code, response),
            ..Error::new(kind, detail)
        }
    }

    /// An answer without a code of AWS': a proxy's, a load balancer's, another program's.
    fn of_stranger(response: &HttpResponse) -> Error {
        let status = response.status();
        let kind = kind_of_status(status).unwrap_or(ErrorKind::NotSqs);
        let media_type = response
            .headers()
            .get("content-type")
            .unwrap_or("of no stated type");
        let length = response.body().bytes().map_or(0, <[u8]>::len);
        Error::new(
            kind,
            format!(
                "HTTP {} with {length} bytes {media_type}, which is not an answer of SQS",
                status.as_u16()
            ),
        )
    }

    /// Why there was no answer.
    fn of_connection(error: &ConnectorError, host: &str) -> Error {
        let why = with_causes(error.source().unwrap_or(error));
        if error.connection_metadata().is_some() {
            if error.is_other() && error.as_other().is_none() {
                return Error::not_sqs(&format!("{host} does not speak HTTP/1.1"));
            }
            return Error::new(
                ErrorKind::Broken,
                format!("connection to {host} broke: {why}"),
            );
        }
        if error.is_timeout() {
            return Error::new(
                ErrorKind::TimedOut,
                format!(
                    "no connection to {host} within {} s",
                    CONNECT_TIMEOUT.as_secs()
                ),
            );
        }
        if is_of_tls(error) {
            return Error::new(
                ErrorKind::Tls,
                format!("no trusted connection to {host}: {why}"),
            );
        }
        Error {
            lacks_files: has_io_cause(error, |io| {
                matches!(io.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
            }),
            ..Error::new(
                ErrorKind::Unreachable,
                format!("cannot connect to {host}: {why}"),
            )
        }
    }

    pub(crate) fn of_credentials(error: &CredentialsError) -> Error {
        let kind = match error {
            CredentialsError::CredentialsNotLoaded(_) => ErrorKind::NoCredentials,
            _ => ErrorKind::CredentialsFailed,
        };
        Error::new(kind, with_causes(error))
    }

    /// An answer with status 200 that is not what was asked for. `detail` must not quote it.
    pub(crate) fn not_sqs(detail: &str) -> Error {
        Error::new(ErrorKind::NotSqs, detail)
    }

    /// Whether the same call may succeed at once: the SDK has learned from the answer how wrong this machine's clock
    /// is, or there may be fresher credentials.
    pub(crate) fn is_cured(&self) -> bool {
        self.is_cured
    }

    /// Whether fewer calls at once would have succeeded.
    pub(crate) fn lacks_files(&self) -> bool {
        self.lacks_files
    }
}

/// Whether an answer with this code says that the credentials were good once, or that this machine's clock is wrong.
fn is_cured_by(code: &str, response: &HttpResponse) -> bool {
    let may_be_the_clock = [
        "AccessDenied",
        "InvalidSignature",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    ];
    code.starts_with("ExpiredToken")
        || may_be_the_clock.iter().any(|start| code.starts_with(start)) && is_clock_wrong(response)
}

/// Whether the server's clock is further off than a signature may be, less a minute.
fn is_clock_wrong(response: &HttpResponse) -> bool {
    let date = response.headers().get("date");
    let date = date.and_then(|date| DateTime::from_str(date, Format::HttpDate).ok());
    let Some(theirs) = date.and_then(|date| SystemTime::try_from(date).ok()) else {
        return false;
    };
    let ours = SystemTime::now();
    let apart = ours
        .duration_since(theirs)
        .or_else(|_| theirs.duration_since(ours));
    apart.is_ok_and(|apart| apart > LARGEST_SKEW)
}

/// Whether the failure to connect is one of TLS: rustls' errors are wrapped as invalid data, which nothing else about
/// a new connection is.
fn is_of_tls(error: &ConnectorError) -> bool {
    has_io_cause(error, |io| io.kind() == io::ErrorKind::InvalidData)
}

/// Whether among the causes of a failure to connect is such an error of the operating system, or one wrapped as such.
fn has_io_cause(error: &ConnectorError, is_so: impl Fn(&io::Error) -> bool) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(&is_so) {
            return true;
        }
        next = match io.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
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

fn kind_of_code(code: &str) -> Option<ErrorKind> {
    use ErrorKind::*;
    let kind = match code.strip_prefix("KMS.").unwrap_or(code) {
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
        | "RequestTimeTooSkewed"
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
        _ if code.contains("AccessDenied") => AccessDenied,
        _ if code.contains("Throttl") => Throttled,
        _ => return None,
    };
    Some(kind)
}

fn kind_of_status(status: StatusCode) -> Option<ErrorKind> {
    if status.as_u16() == 429 {
        Some(ErrorKind::Throttled)
    } else if status.is_server_error() {
        Some(ErrorKind::Unavailable)
    } else {
        None
    }
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
    use aws_smithy_types::body::SdkBody;

    fn answer(status: u16, code: Option<&str>, body: &str) -> Error {
        let mut builder = ErrorMetadata::builder();
        if let Some(code) = code {
            builder = builder.code(code).message("why");
        }
        let response =
            HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::from(body));
        Error::of_answer(&builder.build(), &response)
    }

    #[test]
    fn codes_and_statuses_are_kinds() {
        use ErrorKind::*;
        let cases = [
            (400, Some("QueueDoesNotExist"), NoSuchQueue),
            (
                400,
                Some("AWS.SimpleQueueService.NonExistentQueue"),
                NoSuchQueue,
            ),
            (400, Some("AccessDeniedException"), AccessDenied),
            (403, Some("AccessDenied"), AccessDenied),
            (400, Some("KMS.AccessDeniedException"), AccessDenied),
            (403, Some("InvalidClientTokenId"), BadCredentials),
            (403, Some("SignatureDoesNotMatch"), BadCredentials),
            (403, Some("ExpiredTokenException"), BadCredentials),
            (403, Some("MissingAuthenticationToken"), BadCredentials),
            (400, Some("RequestThrottled"), Throttled),
            (400, Some("ThrottlingException"), Throttled),
            (400, Some("KMS.ThrottlingException"), Throttled),
            (429, None, Throttled),
            (403, Some("OverLimit"), OverLimit),
            (500, Some("InternalFailure"), Unavailable),
            (500, Some("SomethingNew"), Unavailable),
            (503, None, Unavailable),
            (400, Some("InvalidParameterValue"), Refused),
            (404, None, NotSqs),
            (302, None, NotSqs),
            (400, Some(""), NotSqs),
        ];
        for (status, code, kind) in cases {
            assert_eq!(
                answer(status, code, "<html>").kind,
                kind,
                "{status} {code:?}"
            );
        }
    }

    #[test]
    fn details_are_short_and_printable_and_quote_no_stranger() {
        let error = Error::new(
            ErrorKind::Refused,
            format!("Code: one\ntwo{}", "x".repeat(1000)),
        );
        assert!(error.detail.starts_with("Code: one two"));
        assert_eq!(error.detail.chars().count(), DETAIL_LIMIT);

        let secret = answer(400, None, r#"{"Messages":[{"Body":"199.172.111.135"}]}"#);
        assert!(!secret.detail.contains("199.172"), "{}", secret.detail);
    }
}
