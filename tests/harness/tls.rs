//! A way to a server through TLS, with a certificate made for the test.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use time::OffsetDateTime;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener as AsyncListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::queue::Queue;
use crate::run;

/// A port of `localhost` that leads to a server through TLS.
pub struct TlsFront {
    port: u16,
    certificate: PathBuf,
    _stop: oneshot::Sender<()>,
}

impl TlsFront {
    /// A front of the server at `endpoint` (`http://127.0.0.1:4567`), whose certificate expires after this time, or
    /// expired this long ago.
    pub fn of(endpoint: &str, ends_in: Result<Duration, Duration>) -> TlsFront {
        let server: SocketAddr = endpoint.trim_start_matches("http://").parse().unwrap();
        let (config, pem) = certified(ends_in);
        let certificate = run::directory().join(format!("{}.pem", run::unique_name("certificate")));
        fs::write(&certificate, pem).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel();
        thread::spawn(move || serve(listener, server, config, stopped));
        TlsFront {
            port,
            certificate,
            _stop: stop,
        }
    }

    /// The file with its certificate, which trusts itself.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// The queue as it is reached through the front. Sending and counting go past it.
    pub fn queue(&self, queue: &Queue) -> Queue {
        let name = queue.url().rsplit('/').next().unwrap();
        queue.under_url(&format!(
            "https://localhost:{}/000000000000/{name}",
            self.port
        ))
    }
}

fn certified(ends_in: Result<Duration, Duration>) -> (ServerConfig, String) {
    let now = OffsetDateTime::now_utc();
    let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.not_before = now - Duration::from_secs(1_000 * 86_400);
    parameters.not_after = match ends_in {
        Ok(ahead) => now + ahead,
        Err(ago) => now - ago,
    };
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    let private_key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private_key)
        .unwrap();
    (config, certificate.pem())
}

fn serve(
    listener: TcpListener,
    server: SocketAddr,
    config: ServerConfig,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    runtime.block_on(async {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let accept = tokio::spawn(async move {
            let listener = AsyncListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                // A client that does not trust the certificate ends its connection, which is not a failure here.
                tokio::spawn(async move {
                    let mut client = acceptor.accept(client).await?;
                    let mut server = TcpStream::connect(server).await?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        // Dropped, it ends as well.
        let _ = stopped.await;
        accept.abort();
    });
}
