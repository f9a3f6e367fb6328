//! The way to the server: its name, a connection, TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ProtocolVersion, RootCertStore};

use super::certificate;
use crate::client::CONNECT_TIMEOUT;
use crate::error::{Error, ErrorKind, with_causes};
use crate::http::resolve;
use crate::url::Origin;

/// How long a name may take to be resolved, and TLS to be agreed upon.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
const TLS_LIMIT: Duration = Duration::from_secs(5);

/// The longest answer of a proxy.
const LONGEST_REPLY: usize = 8 << 10;

/// The way to a server.
#[derive(Clone, Debug)]
pub struct Network {
    /// The host that calls are made to.
    pub host: String,
    /// The proxy that they go through, `host:port`, if there is one.
    pub proxy: Option<String>,
    /// A connection to the host, or to the proxy.
    pub connection: Result<Connection, Error>,
    /// The connection's encryption; `None` for a server that is called in clear.
    pub tls: Option<Result<Tls, Error>>,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// How many addresses the name has.
    pub addresses: usize,
    /// The one that was connected to.
    pub address: SocketAddr,
    /// How long that took: a round trip.
    pub time: Duration,
}

/// What was agreed upon with a server that is trusted.
#[derive(Clone, Debug)]
pub struct Tls {
    /// `TLS 1.3`, `TLS 1.2`.
    pub version: &'static str,
    /// When its certificate ends, where it could be read.
    pub not_after: Option<SystemTime>,
}

/// Where a connection is made to.
struct Place {
    host: String,
    port: u16,
}

impl Place {
    fn of(uri: &Uri) -> Result<Place, Error> {
        let host = uri
            .host()
            .ok_or_else(|| internal("an origin without a host"))?;
        let default_port = if uri.scheme_str() == Some("https") {
            443
        } else {
            80
        };
        Ok(Place {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(default_port),
        })
    }
}

fn internal(what: &str) -> Error {
    Error::new(ErrorKind::Internal, what)
}

/// Looks at the way to `origin`.
pub(super) async fn look(origin: &Origin) -> Result<Network, Error> {
    let uri: Uri = origin
        .as_str()
        .parse()
        .map_err(|_| internal("an origin that is no URI"))?;
    let target = Place::of(&uri)?;
    // As the client does: what is not AWS' is called directly.
    let proxy = if origin.is_aws() {
        Matcher::from_env().intercept(&uri)
    } else {
        None
    };
    let first = match &proxy {
        Some(proxy) => Place::of(proxy.uri())?,
        None => Place::of(&uri)?,
    };
    let (connection, stream) = match connect(&first).await {
        Ok((connection, stream)) => (Ok(connection), Ok(stream)),
        Err(error) => (Err(error.clone()), Err(error)),
    };
    let tls = match stream {
        _ if !origin.is_encrypted() => None,
        Err(error) => Some(Err(error)),
        Ok(stream) => Some(encrypt(stream, &target, proxy.as_ref()).await),
    };
    Ok(Network {
        host: target.host,
        proxy: proxy.map(|_| format!("{}:{}", first.host, first.port)),
        connection,
        tls,
    })
}

async fn connect(place: &Place) -> Result<(Connection, TcpStream), Error> {
    let host = &place.host;
    let addresses = timeout(RESOLVE_LIMIT, resolve(host))
        .await
        .map_err(|_| {
            Error::new(
                ErrorKind::TimedOut,
                format!(
                    "the name {host} was not resolved within {} s",
                    RESOLVE_LIMIT.as_secs()
                ),
            )
        })?
        .map_err(|error| {
            Error::new(
                ErrorKind::Unreachable,
                format!(
                    "the name {host} cannot be resolved: {}",
                    with_causes(&error)
                ),
            )
        })?;
    let mut last = Error::new(
        ErrorKind::Unreachable,
        format!("the name {host} has no address"),
    );
    for address in &addresses {
        let address = SocketAddr::new(*address, place.port);
        let begun = Instant::now();
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let connection = Connection {
                    addresses: addresses.len(),
                    address,
                    time: begun.elapsed(),
                };
                return Ok((connection, stream));
            }
            Ok(Err(error)) => {
                last = Error::new(
                    ErrorKind::Unreachable,
                    format!("cannot connect to {address}: {error}"),
                );
            }
            Err(_) => {
                last = Error::new(
                    ErrorKind::TimedOut,
                    format!(
                        "no connection to {address} within {} s",
                        CONNECT_TIMEOUT.as_secs()
                    ),
                );
            }
        }
    }
    Err(last)
}

async fn encrypt(
    stream: TcpStream,
    target: &Place,
    proxy: Option<&Intercept>,
) -> Result<Tls, Error> {
    let agreed = timeout(TLS_LIMIT, async {
        let stream = match proxy {
            Some(proxy) => tunnel(stream, target, proxy).await?,
            None => stream,
        };
        handshake(stream, &target.host).await
    });
    agreed.await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::TimedOut,
            format!(
                "no TLS with {} within {} s",
                target.host,
                TLS_LIMIT.as_secs()
            ),
        ))
    })
}

/// Asks a proxy for a tunnel (RFC 9110, 9.3.6).
async fn tunnel(
    mut stream: TcpStream,
    target: &Place,
    proxy: &Intercept,
) -> Result<TcpStream, Error> {
    let broken = |error: std::io::Error| {
        Error::new(
            ErrorKind::Broken,
            format!("the connection to the proxy broke: {error}"),
        )
    };
    let Place { host, port } = target;
    let mut request =
        format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
    if let Some(authorization) = proxy.basic_auth() {
        request.extend(b"Proxy-Authorization: ");
        request.extend(authorization.as_bytes());
        request.extend(b"\r\n");
    }
    request.extend(b"\r\n");
    stream.write_all(&request).await.map_err(broken)?;
    let mut reply = Vec::new();
    while !reply.ends_with(b"\r\n\r\n") {
        if reply.len() >= LONGEST_REPLY || stream.read_buf(&mut reply).await.map_err(broken)? == 0 {
            return Err(Error::new(
                ErrorKind::Broken,
                "the proxy did not answer as one",
            ));
        }
    }
    let status = reply
        .get(9..12)
        .and_then(|status| str::from_utf8(status).ok());
    match status {
        Some("200") => Ok(stream),
        status => Err(Error::new(
            ErrorKind::Unreachable,
            format!(
                "the proxy refused to connect to {host}: HTTP {}",
                status.unwrap_or("?")
            ),
        )),
    }
}

async fn handshake(stream: TcpStream, host: &str) -> Result<Tls, Error> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| internal("a host that is no name of a server"))?;
    let config = spawn_blocking(client_config)
        .await
        .map_err(|_| internal("the root certificates could not be read"))??;
    let connected = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await;
    let stream = connected.map_err(|error| {
        Error::new(
            ErrorKind::Tls,
            format!("no trusted connection to {host}: {}", with_causes(&error)),
        )
    })?;
    let (_, session) = stream.get_ref();
    let certificates = session.peer_certificates().unwrap_or_default();
    Ok(Tls {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS",
        },
        not_after: certificates
            .first()
            .and_then(|first| certificate::not_after(first)),
    })
}

/// What the client trusts: the machine's root certificates.
fn client_config() -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| internal(&error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
