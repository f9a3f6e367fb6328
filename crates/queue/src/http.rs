//! Connections: which pool a call takes one from, and how its answer is watched.

use std::cell::OnceCell;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use aws_smithy_http_client::pool::{Builder, Client as PooledClient, ConnectionPool};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::{
    RuntimeComponents, RuntimeComponentsBuilder,
};
use aws_smithy_types::config_bag::ConfigBag;
use tokio::net::lookup_host;

use crate::answer::{Budget, Exchange};
use crate::error::{Error, ErrorKind, with_causes};
use crate::sockets::{LONGEST_IDLE, Sockets};
use crate::url::Origin;

tokio::task_local! {
    /// The call that a task is making. The SDK reads the answer in the task that called.
    static EXCHANGE: Arc<Exchange>;
}

/// Makes `call`, whose answer `exchange` watches.
pub(crate) async fn watched<F: Future>(exchange: Arc<Exchange>, call: F) -> F::Output {
    EXCHANGE.scope(exchange, call).await
}

/// The HTTP clients of an I/O thread: each is made when it is first needed, since to read the machine's root
/// certificates takes tens of milliseconds.
#[derive(Default)]
pub(crate) struct Http {
    pub budget: Arc<Budget>,
    pub sockets: Sockets,
    aws: OnceCell<SharedHttpClient>,
    tls: OnceCell<SharedHttpClient>,
    plain: OnceCell<SharedHttpClient>,
}

impl Http {
    /// The client that calls `origin`.
    pub(crate) fn client_for(&self, origin: &Origin) -> Result<SharedHttpClient, Error> {
        if origin.is_aws() {
            self.aws()
        } else if origin.is_encrypted() {
            kept(&self.tls, || self.pool(ProxyConfig::disabled()))
        } else {
            // The builder hides it from its documentation, not from its users: "for explicit cleartext endpoints".
            kept(&self.plain, || {
                let pool = self.builder().build_http();
                pool.map_err(|error| internal(&error))
            })
        }
    }

    /// The client that calls AWS: through the proxy that `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` name.
    pub(crate) fn aws(&self) -> Result<SharedHttpClient, Error> {
        kept(&self.aws, || self.pool(ProxyConfig::from_env()))
    }

    fn pool(&self, proxies: ProxyConfig) -> Result<ConnectionPool, Error> {
        self.builder()
            .proxy_config(proxies)
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https()
            .map_err(|error| internal(&error))
    }

    fn builder(&self) -> Builder {
        ConnectionPool::builder()
            .idle_timeout(LONGEST_IDLE)
            .time_source(self.sockets.clone())
            .sleep_impl(self.sockets.clone())
            .event_listener(self.sockets.clone())
            .dns_resolver(Resolver)
    }
}

fn kept(
    cell: &OnceCell<SharedHttpClient>,
    pool: impl FnOnce() -> Result<ConnectionPool, Error>,
) -> Result<SharedHttpClient, Error> {
    if let Some(client) = cell.get() {
        return Ok(client.clone());
    }
    let client = PooledClient::new(&pool()?).map_err(|error| internal(&error))?;
    Ok(cell
        .get_or_init(|| SharedHttpClient::new(Watching(client)))
        .clone())
}

fn internal(error: &dyn std::error::Error) -> Error {
    Error::new(ErrorKind::Internal, with_causes(error))
}

/// A client whose answers are watched.
#[derive(Debug)]
struct Watching<C>(C);

impl HttpClient for Watching<PooledClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Watching(self.0.http_connector(settings, components)))
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.validate_base_client_config(components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.0.connector_metadata()
    }
}

impl HttpConnector for Watching<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        // Calls for credentials are not watched.
        match EXCHANGE.try_with(Arc::clone) {
            Err(_) => answer,
            Ok(exchange) => HttpConnectorFuture::new(async move {
                let mut response = answer.await?;
                let body = response.take_body();
                *response.body_mut() = exchange.watch(body);
                Ok(response)
            }),
        }
    }
}

/// The operating system's names, and those of this machine, which need no name server.
#[derive(Clone, Copy)]
struct Resolver;

impl fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Resolver")
    }
}

impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move { resolve(name).await.map_err(ResolveDnsError::new) })
    }
}

/// The addresses of a host.
pub(crate) async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    if is_this_machine(host) {
        return Ok(vec![
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ]);
    }
    let addresses = lookup_host((host, 0)).await?;
    Ok(addresses.map(|address| address.ip()).collect())
}

/// Names that mean this machine without asking a name server (RFC 6761, 6.3, and LocalStack's domain,
/// which its name servers resolve to 127.0.0.1).
fn is_this_machine(host: &str) -> bool {
    host == "localhost"
        || host == "localhost.localstack.cloud"
        || host.ends_with(".localhost")
        || host.ends_with(".localhost.localstack.cloud")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_names_are_this_machine() {
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
