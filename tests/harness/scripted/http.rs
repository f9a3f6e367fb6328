//! As much of HTTP/1.1 as an SQS client speaks.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime};

/// A request: which action of SQS, and its JSON.
pub(super) struct Request {
    pub(super) action: String,
    pub(super) authorization: String,
    pub(super) body: Vec<u8>,
}

/// A response; `error` is the code that SQS repeats in a header.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) error: Option<String>,
}

/// The time, `ahead` seconds from now, in the format of HTTP.
fn date(seconds_ahead: i64) -> String {
    let shift = Duration::from_secs(seconds_ahead.unsigned_abs());
    let now = SystemTime::now();
    let shown = if seconds_ahead < 0 {
        now - shift
    } else {
        now + shift
    };
    httpdate::fmt_http_date(shown)
}

/// A connection that is kept alive from request to request.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    /// By how many seconds the `Date` of its responses is wrong.
    pub(super) clock_ahead: i64,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream: BufReader::new(stream),
            clock_ahead: 0,
        })
    }

    /// The next request; `None` when the client is done.
    pub(super) fn next_request(&mut self) -> io::Result<Option<Request>> {
        if self.read_line()?.is_none() {
            return Ok(None);
        }
        let mut action = String::new();
        let mut authorization = String::new();
        let mut length = 0;
        loop {
            let line = self.read_line()?.ok_or(ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or(ErrorKind::InvalidData)?;
            match name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    length = value.trim().parse().map_err(|_| ErrorKind::InvalidData)?
                }
                "x-amz-target" => {
                    action = value
                        .trim()
                        .rsplit('.')
                        .next()
                        .unwrap_or_default()
                        .to_owned()
                }
                "authorization" => value.trim().clone_into(&mut authorization),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Some(Request {
            action,
            authorization,
            body,
        }))
    }

    fn read_line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line)?;
        Ok((read > 0).then(|| line.trim_end().to_owned()))
    }

    pub(super) fn reply(&mut self, reply: &Reply) -> io::Result<()> {
        let error = reply
            .error
            .as_ref()
            .map(|code| format!("x-amzn-ErrorType: {code}\r\n"))
            .unwrap_or_default();
        let text = format!(
            "HTTP/1.1 {} Scripted\r\nDate: {}\r\nContent-Type: application/x-amz-json-1.0\r\n\
             Content-Length: {}\r\n{error}\r\n{}",
            reply.status,
            date(self.clock_ahead),
            reply.body.len(),
            reply.body
        );
        self.stream.get_mut().write_all(text.as_bytes())
    }

    /// Ends the connection with a reset instead of a proper close.
    pub(super) fn reset(self) -> io::Result<()> {
        let stream = self.stream.into_inner();
        let at_once = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        let size = libc::socklen_t::try_from(size_of_val(&at_once))
            .map_err(|_| ErrorKind::InvalidInput)?;
        // SAFETY: the descriptor is open; the option's value is a `linger` of the size given, and outlives the call.
        let done = unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const at_once).cast(),
                size,
            )
        };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Whether the client has closed its end.
    pub(super) fn is_hung_up(&self) -> bool {
        let stream = self.stream.get_ref();
        let mut probe = [0];
        if stream.set_nonblocking(true).is_err() {
            return true;
        }
        let peeked = stream.peek(&mut probe);
        let restored = stream.set_nonblocking(false);
        restored.is_err()
            || match peeked {
                Ok(count) => count == 0,
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            }
    }
}
