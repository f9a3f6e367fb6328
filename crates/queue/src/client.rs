//! One call of SQS' JSON protocol: signed, sent, answered or failed, within a time.
//!
//! The general SDK spends more on a call than Postgres on ten rows. What is left here is what each call needs:
//! one body, five headers, one signature, one connection that is used again.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::timeout;

use crate::connection::{Connection, Connections, Tls};
use crate::credentials::{CredentialSource, Keys};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, says_expired, with_causes};
use crate::sign::Signer;

const JSON: &str = "application/x-amz-json-1.0";
const X_AMZ_TARGET: HeaderName = HeaderName::from_static("x-amz-target");
const X_AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const X_AMZ_SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const PROGRAM: &str = concat!("user_logins_sqs/", env!("CARGO_PKG_VERSION"));

/// Ten messages of 1 MiB, each byte of them escaped as `\u00xx`, fit in.
const LONGEST_ANSWER: usize = 64 << 20;

/// What SQS is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    ReceiveMessage,
    DeleteMessageBatch,
    ChangeMessageVisibilityBatch,
}

impl Action {
    fn target(self) -> &'static str {
        match self {
            Action::ReceiveMessage => "AmazonSQS.ReceiveMessage",
            Action::DeleteMessageBatch => "AmazonSQS.DeleteMessageBatch",
            Action::ChangeMessageVisibilityBatch => "AmazonSQS.ChangeMessageVisibilityBatch",
        }
    }
}

/// Calls one endpoint.
pub(crate) struct Client {
    endpoint: Endpoint,
    host: HeaderValue,
    connections: Connections,
    credentials: CredentialSource,
    signer: Signer,
}

impl Client {
    pub(crate) fn of(endpoint: &Endpoint, tls: Rc<Tls>) -> Result<Client, Error> {
        let authority = endpoint.origin.authority();
        let host = HeaderValue::from_str(authority)
            .map_err(|error| Error::new(ErrorKind::Internal, with_causes(&error)))?;
        Ok(Client {
            host,
            signer: Signer::new(authority, &endpoint.region),
            connections: Connections::to(endpoint.origin.clone(), tls),
            credentials: CredentialSource::of(endpoint),
            endpoint: endpoint.clone(),
        })
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends `body` and returns the body of the answer, if that has status 200, within `limit`.
    ///
    /// Tried again here are only what no server has seen (a connection that turned out to be closed) and what
    /// was refused because the credentials had expired.
    ///
    /// What is rare is boxed: dozens of calls are in flight, and each would have room for it.
    pub(crate) async fn call(
        &self,
        action: Action,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Bytes, Error> {
        let body = Bytes::from(body);
        match timeout(limit, self.call_with_good_keys(action, body)).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(
                ErrorKind::TimedOut,
                format!(
                    "no answer from {} within {:.1} s",
                    self.endpoint.origin.as_str(),
                    limit.as_secs_f64()
                ),
            )),
        }
    }

    async fn call_with_good_keys(&self, action: Action, body: Bytes) -> Result<Bytes, Error> {
        let keys = self.credentials.keys().await?;
        let result = self.exchange(action, &keys, body.clone()).await;
        match &result {
            Err(error) if error.kind == ErrorKind::BadCredentials => {
                self.credentials.forget(&keys);
                if !says_expired(error) {
                    return result;
                }
                let keys = self.credentials.keys().await?;
                Box::pin(self.exchange(action, &keys, body)).await
            }
            _ => result,
        }
    }

    async fn exchange(&self, action: Action, keys: &Rc<Keys>, body: Bytes) -> Result<Bytes, Error> {
        let mut request = self.request(action, keys, body)?;
        while let Some(mut connection) = self.connections.idle() {
            if connection.ready().await.is_err() {
                continue;
            }
            match connection.try_send_request(request).await {
                Ok(response) => return self.answer(connection, response).await,
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(self.broken(&error.into_error())),
                },
            }
        }
        let mut connection = Box::pin(self.connections.open()).await?;
        match connection.send_request(request).await {
            Ok(response) => self.answer(connection, response).await,
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn request(
        &self,
        action: Action,
        keys: &Rc<Keys>,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let signature = self
            .signer
            .sign(keys, SystemTime::now(), JSON, action.target(), &body);
        let date_time = header(signature.date_time)?;
        let authorization = header(signature.authorization)?;

        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.reserve(8);
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        headers.insert(X_AMZ_TARGET, HeaderValue::from_static(action.target()));
        headers.insert(X_AMZ_DATE, date_time);
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(USER_AGENT, HeaderValue::from_static(PROGRAM));
        if let Some(token) = &keys.session_token {
            headers.insert(X_AMZ_SECURITY_TOKEN, token.clone());
        }
        Ok(request)
    }

    async fn answer(
        &self,
        connection: Connection,
        response: Response<Incoming>,
    ) -> Result<Bytes, Error> {
        let (head, body) = response.into_parts();
        let body = self.read(body).await?;
        if !connection.is_closed() {
            self.connections.put_back(connection);
        }
        if head.status == StatusCode::OK {
            Ok(body)
        } else {
            Err(Error::of_answer(head.status, &head.headers, &body))
        }
    }

    async fn read(&self, mut body: Incoming) -> Result<Bytes, Error> {
        let expected = body.size_hint().lower().min(LONGEST_ANSWER as u64) as usize;
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| self.broken(&error))?.into_data() else {
                continue;
            };
            if whole.is_empty() && data.len() >= expected && body.is_end_stream() {
                return Ok(data);
            }
            if whole.len() + data.len() > LONGEST_ANSWER {
                return Err(Error::not_sqs("an answer longer than SQS can give"));
            }
            if whole.is_empty() {
                whole.reserve(expected.max(data.len()));
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }

    fn broken(&self, cause: &hyper::Error) -> Error {
        let host = self.endpoint.origin.as_str();
        if cause.is_parse() {
            Error::not_sqs(&format!("{host} does not speak HTTP/1.1"))
        } else {
            Error::new(
                ErrorKind::Broken,
                format!("connection to {host} broke: {}", with_causes(cause)),
            )
        }
    }
}

fn header(value: String) -> Result<HeaderValue, Error> {
    HeaderValue::from_maybe_shared(Bytes::from(value)).map_err(|_| {
        Error::new(
            ErrorKind::BadCredentials,
            "the access key holds characters that no header may hold",
        )
    })
}
