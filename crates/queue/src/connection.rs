//! Connections to one server: name, TCP, TLS, HTTP/1.1, and those that wait to be used again.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::spawn_local;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::error::{Error, ErrorKind, with_causes};
use crate::url::Origin;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection that was idle for longer is not used again: the server may be about to close it.
const LONGEST_IDLE: Duration = Duration::from_secs(30);

/// An open connection that takes one request at a time.
pub(crate) type Connection = SendRequest<Full<Bytes>>;

/// Connections to one server. The most recently used one is used first, so the rest can age and go.
pub(crate) struct Connections {
    origin: Origin,
    tls: Rc<Tls>,
    idle: RefCell<Vec<(Connection, Instant)>>,
}

impl Connections {
    pub(crate) fn to(origin: Origin, tls: Rc<Tls>) -> Connections {
        Connections {
            origin,
            tls,
            idle: RefCell::new(Vec::new()),
        }
    }

    /// One that was used before, if there is one.
    pub(crate) fn idle(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some((connection, since)) = idle.pop() {
            if since.elapsed() >= LONGEST_IDLE {
                idle.clear();
            } else if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    /// Puts back a connection whose answer was read to its end.
    pub(crate) fn put_back(&self, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        if idle
            .first()
            .is_some_and(|(_, since)| since.elapsed() >= LONGEST_IDLE)
        {
            idle.remove(0);
        }
        idle.push((connection, Instant::now()));
    }

    /// A new one, within three seconds.
    ///
    /// # Errors
    /// `Unreachable`, `TimedOut` or `Tls`.
    pub(crate) async fn open(&self) -> Result<Connection, Error> {
        match timeout(CONNECT_TIMEOUT, self.try_to_open()).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(
                ErrorKind::TimedOut,
                format!(
                    "no connection to {} within {} s",
                    self.origin.as_str(),
                    CONNECT_TIMEOUT.as_secs()
                ),
            )),
        }
    }

    async fn try_to_open(&self) -> Result<Connection, Error> {
        let addresses = self.addresses().await.map_err(|e| self.unreachable(&e))?;
        let stream = connect_to_any(&addresses)
            .await
            .map_err(|error| self.unreachable(&error))?;
        // Requests are written whole; waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        if !self.origin.is_encrypted() {
            return self.speak_http(stream).await;
        }
        let name = ServerName::try_from(self.origin.host().to_owned())
            .map_err(|error| self.no_tls(&error))?;
        let stream =
            self.tls
                .connector()?
                .connect(name, stream)
                .await
                .map_err(|error| match error.get_ref() {
                    Some(cause) if cause.is::<tokio_rustls::rustls::Error>() => self.no_tls(cause),
                    _ => self.unreachable(&error),
                })?;
        self.speak_http(stream).await
    }

    async fn speak_http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    ) -> Result<Connection, Error> {
        let (connection, exchange) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(&error))?;
        spawn_local(async move {
            // How it ended is told to whoever waits for an answer on it.
            let _ = exchange.await;
        });
        Ok(connection)
    }

    async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = (self.origin.host(), self.origin.port());
        let with_port = |address: IpAddr| SocketAddr::new(address, port);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![with_port(address)]);
        }
        if is_this_machine(host) {
            return Ok(vec![
                with_port(Ipv4Addr::LOCALHOST.into()),
                with_port(Ipv6Addr::LOCALHOST.into()),
            ]);
        }
        Ok(lookup_host((host, port)).await?.collect())
    }

    fn unreachable(&self, cause: &dyn std::error::Error) -> Error {
        Error::new(
            ErrorKind::Unreachable,
            format!(
                "cannot connect to {}: {}",
                self.origin.as_str(),
                with_causes(cause)
            ),
        )
    }

    fn no_tls(&self, cause: &dyn std::error::Error) -> Error {
        Error::new(
            ErrorKind::Tls,
            format!(
                "no trusted connection to {}: {}",
                self.origin.as_str(),
                with_causes(cause)
            ),
        )
    }
}

/// Names that mean this machine without asking a name server (RFC 6761, 6.3, and LocalStack's domain,
/// which its name servers resolve to 127.0.0.1).
fn is_this_machine(host: &str) -> bool {
    host == "localhost"
        || host == "localhost.localstack.cloud"
        || host.ends_with(".localhost")
        || host.ends_with(".localhost.localstack.cloud")
}

/// Tries one address after the other; each may take its share of the time, so that one that swallows packets
/// does not keep the next from being tried.
async fn connect_to_any(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let share = CONNECT_TIMEOUT / (addresses.len().max(1) as u32);
    let start = tokio::time::Instant::now();
    let mut last_error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (tried, address) in addresses.iter().enumerate() {
        let until = start + share * (tried as u32 + 1);
        match timeout_at(until, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last_error = error,
            Err(_) => last_error = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last_error)
}

/// TLS with the machine's own roots of trust, read when first needed: it takes tens of milliseconds.
#[derive(Default)]
pub(crate) struct Tls(OnceCell<TlsConnector>);

impl Tls {
    fn connector(&self) -> Result<&TlsConnector, Error> {
        if let Some(connector) = self.0.get() {
            return Ok(connector);
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(Error::new(
                ErrorKind::Tls,
                "this machine has no root certificates (on Debian: install ca-certificates)",
            ));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(ErrorKind::Internal, with_causes(&error)))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(self.0.get_or_init(|| TlsConnector::from(Arc::new(config))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_names_are_this_machine() {
        for host in [
            "localhost",
            "sqs.localhost",
            "localhost.localstack.cloud",
            "sqs.eu-west-1.localhost.localstack.cloud",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "localstack",
            "localhost.example.org",
            "notlocalhost",
            "localstack.cloud",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
