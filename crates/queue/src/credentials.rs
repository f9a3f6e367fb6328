//! Which keys requests are signed with: found once, kept, fetched anew before they expire.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::credentials::EnvironmentVariableCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_types::region::Region;
use hyper::header::HeaderValue;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, with_causes};

/// Fetched anew when they are this close to their end.
const REFRESH_BEFORE_EXPIRY: Duration = Duration::from_secs(5 * 60);
/// Not fetched anew more often than this, however short they live.
const SHORTEST_USE: Duration = Duration::from_secs(30);
/// Off EC2, the instance metadata service takes seconds to turn out not to be there.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// An access key and what belongs to it.
pub(crate) struct Keys {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<HeaderValue>,
    expires: Option<SystemTime>,
    fetched: Instant,
}

impl Keys {
    fn from(credentials: &Credentials) -> Result<Keys, Error> {
        let session_token = credentials
            .session_token()
            .map(HeaderValue::from_str)
            .transpose()
            .map_err(|_| {
                Error::new(
                    ErrorKind::BadCredentials,
                    "the session token holds characters that no header may hold",
                )
            })?;
        Ok(Keys {
            access_key_id: credentials.access_key_id().to_owned(),
            secret_access_key: credentials.secret_access_key().to_owned(),
            session_token,
            expires: credentials.expiry(),
            fetched: Instant::now(),
        })
    }

    /// What servers take that check no signature.
    fn placeholder() -> Keys {
        Keys::unlimited("test", "test")
    }

    pub(crate) fn unlimited(access_key_id: &str, secret_access_key: &str) -> Keys {
        Keys {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: secret_access_key.to_owned(),
            session_token: None,
            expires: None,
            fetched: Instant::now(),
        }
    }

    fn last_longer_than(&self, margin: Duration) -> bool {
        self.expires
            .is_none_or(|expiry| SystemTime::now() + margin < expiry)
    }

    fn are_fresh(&self) -> bool {
        self.last_longer_than(REFRESH_BEFORE_EXPIRY)
            || (self.last_longer_than(Duration::ZERO) && self.fetched.elapsed() < SHORTEST_USE)
    }
}

/// Where keys come from, and the last ones.
pub(crate) struct CredentialSource {
    place: Place,
    region: String,
    current: RefCell<Option<Rc<Keys>>>,
    fetching: Mutex<()>,
}

enum Place {
    /// The standard chain: environment, profile, web identity, ECS, IMDS.
    Aws,
    /// Environment and profile, else placeholders. Nothing on the network is asked.
    Elsewhere,
}

impl CredentialSource {
    pub(crate) fn of(endpoint: &Endpoint) -> CredentialSource {
        CredentialSource {
            place: if endpoint.origin.is_aws() {
                Place::Aws
            } else {
                Place::Elsewhere
            },
            region: endpoint.region.clone(),
            current: RefCell::new(None),
            fetching: Mutex::new(()),
        }
    }

    /// Keys that are good now.
    ///
    /// # Errors
    /// None were found, and there are no older ones that are still good.
    pub(crate) async fn keys(&self) -> Result<Rc<Keys>, Error> {
        if let Some(keys) = self.fresh() {
            return Ok(keys);
        }
        let _only_one_fetches = self.fetching.lock().await;
        if let Some(keys) = self.fresh() {
            return Ok(keys);
        }
        match Box::pin(self.fetch()).await {
            Ok(keys) => {
                let keys = Rc::new(keys);
                self.current.replace(Some(keys.clone()));
                Ok(keys)
            }
            Err(error) => self
                .current
                .borrow()
                .clone()
                .filter(|keys| keys.last_longer_than(Duration::ZERO))
                .ok_or(error),
        }
    }

    /// Forgets `keys`, which AWS did not take, so that the next request looks for others.
    pub(crate) fn forget(&self, keys: &Rc<Keys>) {
        let mut current = self.current.borrow_mut();
        if current.as_ref().is_some_and(|kept| Rc::ptr_eq(kept, keys)) {
            *current = None;
        }
    }

    fn fresh(&self) -> Option<Rc<Keys>> {
        self.current
            .borrow()
            .clone()
            .filter(|keys| keys.are_fresh())
    }

    async fn fetch(&self) -> Result<Keys, Error> {
        match self.place {
            Place::Aws => self.in_standard_chain().await,
            Place::Elsewhere => Ok(self.in_environment_or_profile().await),
        }
    }

    async fn in_standard_chain(&self) -> Result<Keys, Error> {
        let find = async {
            let chain = DefaultCredentialsChain::builder()
                .configure(self.provider_config())
                .region(Region::new(self.region.clone()))
                .build()
                .await;
            chain.provide_credentials().await
        };
        match timeout(FETCH_TIMEOUT, find).await {
            Ok(Ok(credentials)) => Keys::from(&credentials),
            Ok(Err(error)) => Err(Error::new(ErrorKind::NoCredentials, with_causes(&error))),
            Err(_) => Err(Error::new(
                ErrorKind::NoCredentials,
                format!("none within {} s", FETCH_TIMEOUT.as_secs()),
            )),
        }
    }

    async fn in_environment_or_profile(&self) -> Keys {
        let environment = EnvironmentVariableCredentialsProvider::new();
        if let Ok(credentials) = environment.provide_credentials().await
            && let Ok(keys) = Keys::from(&credentials)
        {
            return keys;
        }
        let profile = ProfileFileCredentialsProvider::builder()
            .configure(&self.provider_config())
            .build();
        match timeout(FETCH_TIMEOUT, profile.provide_credentials()).await {
            Ok(Ok(credentials)) => Keys::from(&credentials).unwrap_or_else(|_| Keys::placeholder()),
            _ => Keys::placeholder(),
        }
    }

    fn provider_config(&self) -> ProviderConfig {
        let http_client = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        ProviderConfig::without_region()
            .with_region(Some(Region::new(self.region.clone())))
            .with_http_client(http_client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(lifetime: Option<Duration>, age: Duration) -> Keys {
        Keys {
            expires: lifetime.map(|lifetime| SystemTime::now() + lifetime),
            fetched: Instant::now() - age,
            ..Keys::placeholder()
        }
    }

    #[test]
    fn fresh_until_close_to_expiry() {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        assert!(keys(None, minutes(600)).are_fresh());
        assert!(keys(Some(minutes(6)), minutes(60)).are_fresh());
        assert!(!keys(Some(minutes(4)), minutes(60)).are_fresh());
        assert!(keys(Some(minutes(4)), Duration::ZERO).are_fresh());
        assert!(!keys(Some(Duration::ZERO), Duration::ZERO).are_fresh());
    }
}
