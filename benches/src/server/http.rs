//! HTTP/1.1 with keep-alive, as much as an SQS client speaks: requests with a length, answered in their order.

use std::io;
use std::io::Write;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::pause::Pause;
use super::{Server, actions, control};

const MOST_HEADERS: usize = 64;
/// Ten messages of 1 MiB, escaped.
const LARGEST_BODY: usize = 24 << 20;
const READ_AT_ONCE: usize = 64 << 10;

/// A request, read to its end.
pub struct Request {
    /// `GET`, `POST`
    pub method: String,
    /// Path and query.
    pub path: String,
    /// `X-Amz-Target`, such as `AmazonSQS.ReceiveMessage`.
    pub target: String,
    /// The body.
    pub body: Vec<u8>,
    close: bool,
}

/// A response to be: status, and a body that the actions append to.
pub struct Response {
    /// The status code and its phrase.
    pub status: &'static str,
    /// JSON.
    pub body: Vec<u8>,
    /// The value of `x-amzn-query-error`, if any.
    pub query_error: Option<String>,
}

/// Answers the requests of one connection until either side closes it.
///
/// # Errors
/// When the connection breaks or what comes in is not HTTP.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    server: Rc<Server>,
) -> io::Result<()> {
    let mut connection = Connection {
        stream,
        input: Vec::with_capacity(READ_AT_ONCE),
    };
    let mut pause = Pause::default();
    let mut output = Vec::new();
    let mut response = Response {
        status: "",
        body: Vec::new(),
        query_error: None,
    };

    while let Some(request) = connection.read_request().await? {
        response.status = "200 OK";
        response.body.clear();
        response.query_error = None;
        tokio::select! {
            biased;
            answered = answer(&server, &request, &mut response, &mut pause) => answered?,
            gone = connection.gone() => return gone,
        }
        output.clear();
        write_response(&response, &mut output)?;
        connection.stream.write_all(&output).await?;
        connection.stream.flush().await?;
        if request.close {
            break;
        }
    }
    Ok(())
}

async fn answer(
    server: &Rc<Server>,
    request: &Request,
    response: &mut Response,
    pause: &mut Pause,
) -> io::Result<()> {
    if request.target.is_empty() {
        control::answer(server, request, response).await;
        return Ok(());
    }
    let one_way = server.latency.get() / 2;
    pause.pause(one_way).await?;
    actions::answer(server, request, response).await;
    pause.pause(one_way).await
}

fn write_response(response: &Response, output: &mut Vec<u8>) -> io::Result<()> {
    write!(
        output,
        "HTTP/1.1 {}\r\nx-amzn-RequestId: 00000000-0000-4000-8000-000000000000\r\n\
         Content-Type: application/x-amz-json-1.0\r\n\
         Content-Length: {}\r\n",
        response.status,
        response.body.len(),
    )?;
    if let Some(code) = &response.query_error {
        write!(output, "x-amzn-query-error: {code}\r\n")?;
    }
    output.extend_from_slice(b"\r\n");
    output.extend_from_slice(&response.body);
    Ok(())
}

struct Connection<S> {
    stream: S,
    /// What was read and not yet answered.
    input: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Connection<S> {
    /// The next request; nothing when the client has closed the connection between two of them.
    async fn read_request(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some((mut request, head, length)) = parse_head(&self.input)? {
                while self.input.len() < head + length {
                    if self.read_more().await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                request
                    .body
                    .extend_from_slice(&self.input[head..head + length]);
                self.input.drain(..head + length);
                return Ok(Some(request));
            }
            if self.read_more().await? == 0 {
                return if self.input.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    async fn read_more(&mut self) -> io::Result<usize> {
        self.input.reserve(READ_AT_ONCE);
        self.stream.read_buf(&mut self.input).await
    }

    /// Ends when the client has gone: a long poll that nobody waits for must not take messages.
    async fn gone(&mut self) -> io::Result<()> {
        while self.read_more().await? > 0 {}
        Ok(())
    }
}

/// The request line and headers at the start of `input`, their length, and the body's; nothing while they are
/// incomplete.
fn parse_head(input: &[u8]) -> io::Result<Option<(Request, usize, usize)>> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(input) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(invalid(&error.to_string())),
    };

    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: parsed.path.unwrap_or_default().to_owned(),
        target: String::new(),
        body: Vec::new(),
        close: parsed.version == Some(0),
    };
    let mut length = 0;
    for header in parsed.headers.iter() {
        let value = str::from_utf8(header.value)
            .map_err(|_| invalid("header"))?
            .trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            length = value.parse().map_err(|_| invalid("content-length"))?;
        } else if header.name.eq_ignore_ascii_case("x-amz-target") {
            value.clone_into(&mut request.target);
        } else if header.name.eq_ignore_ascii_case("connection") {
            request.close |= value.eq_ignore_ascii_case("close");
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(invalid("a body needs a content-length"));
        }
    }
    if length > LARGEST_BODY {
        return Err(invalid("body too large"));
    }
    Ok(Some((request, head, length)))
}
