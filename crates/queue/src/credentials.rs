//! Which keys requests are signed with: found in the background, before the last ones are over.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_config::environment::credentials::EnvironmentVariableCredentialsProvider;
use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use tokio::sync::Notify;
use tokio::time::{timeout, timeout_at};

use crate::error::{Error, ErrorKind};
use crate::examine::FoundCredentials;
use crate::panics::{Panicked, caught_in};
use crate::profile::{access_key_in_profile, standard_config};

/// Others are looked for when those that are used are this close to their end.
const REFRESH_BEFORE_EXPIRY: Duration = Duration::from_secs(5 * 60);
/// How often to look for others while there are some that can be used.
const REFRESH_PAUSE: Duration = Duration::from_secs(30);
/// How often to look while AWS does not take them: messages wait meanwhile to be deleted, for half a minute.
const REJECTED_PAUSE: Duration = Duration::from_secs(5);
/// How often to look while there are none.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long a call waits for a source. Off EC2, it takes seconds until the instance metadata service turns out not to
/// be there.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long a source may take. It goes on while calls give up, so that a slow one is of use to the next of them.
const LONGEST_LOAD: Duration = Duration::from_secs(60);

/// Looks for credentials.
trait Load: Send + Sync {
    fn load(&self) -> Pin<Box<dyn Future<Output = provider::Result> + Send + '_>>;

    /// Nothing was found, or AWS did not take it.
    fn start_over(&self) {}
}

/// Where keys come from, and the last ones. Cheap to clone; clones are one source.
#[derive(Clone)]
pub(crate) struct CredentialSource(Arc<Source>);

struct Source {
    place: Box<dyn Load>,
    state: Mutex<State>,
    loaded: Notify,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    is_loading: bool,
    last_attempt: Option<Instant>,
    last_error: Option<Error>,
    generation: u64,
}

struct Current {
    credentials: Credentials,
    /// AWS did not take them.
    is_rejected: bool,
}

/// Which credentials a call was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u64);

enum Step {
    Use(Generation),
    Fail(Error),
    Wait,
}

impl CredentialSource {
    /// The standard chain: environment, profile, web identity, ECS, IMDS. `http` calls those that are to be called.
    pub(crate) fn standard(http: SharedHttpClient, region: &str) -> CredentialSource {
        CredentialSource::of(StandardChain {
            http,
            region: region.to_owned(),
            provider: Mutex::default(),
        })
    }

    /// An access key in environment or profile, else a placeholder, which servers take that check no signature.
    pub(crate) fn written_down() -> CredentialSource {
        CredentialSource::of(WrittenDown)
    }

    fn of(place: impl Load + 'static) -> CredentialSource {
        CredentialSource(Arc::new(Source {
            place: Box::new(place),
            state: Mutex::default(),
            loaded: Notify::new(),
        }))
    }

    /// Waits until there are credentials that can be used.
    ///
    /// # Errors
    /// There are none, or their source did not answer in time.
    pub(crate) async fn ready(&self) -> Result<Generation, Error> {
        let until = tokio::time::Instant::now() + LONGEST_WAIT;
        loop {
            let loaded = self.0.loaded.notified();
            match self.step() {
                Step::Use(generation) => return Ok(generation),
                Step::Fail(error) => return Err(error),
                Step::Wait => {}
            }
            if timeout_at(until, loaded).await.is_err() {
                return Err(no_answer(LONGEST_WAIT));
            }
        }
    }

    /// The current credentials, without their secrets.
    pub(crate) fn found(&self) -> Result<FoundCredentials, Error> {
        let state = self.0.lock();
        let current = state
            .current
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::NoCredentials, "none were loaded"))?;
        Ok(FoundCredentials {
            source: source_of(&current.credentials),
            expiry: current.credentials.expiry(),
        })
    }

    /// AWS did not accept them: looks for others, but not over and over.
    pub(crate) fn reject(&self, generation: Generation) {
        let mut state = self.0.lock();
        if state.generation == generation.0
            && let Some(current) = &mut state.current
        {
            current.is_rejected = true;
        }
    }

    /// What to do now. Starts to look for credentials where it is time.
    fn step(&self) -> Step {
        let mut state = self.0.lock();
        let has_rested = |pause| state.last_attempt.is_none_or(|at| at.elapsed() >= pause);
        let (step, is_due) = match &state.current {
            Some(current)
                if current.is_valid() && !(current.is_rejected && has_rested(REJECTED_PAUSE)) =>
            {
                let is_due = !current.lasts(REFRESH_BEFORE_EXPIRY) && has_rested(REFRESH_PAUSE);
                (Step::Use(Generation(state.generation)), is_due)
            }
            _ => match &state.last_error {
                Some(error) if !state.is_loading && !has_rested(RETRY_PAUSE) => {
                    (Step::Fail(error.clone()), false)
                }
                _ => (Step::Wait, true),
            },
        };
        if is_due && !state.is_loading {
            state.is_loading = true;
            if state
                .current
                .as_ref()
                .is_some_and(|current| current.is_rejected)
            {
                self.0.place.start_over();
            }
            tokio::spawn(load(self.0.clone()));
        }
        step
    }
}

/// Looks for credentials, beside the calls that wait for them and can be cancelled.
async fn load(source: Arc<Source>) {
    let loading = caught_in(async { source.place.load().await });
    let outcome = match timeout(LONGEST_LOAD, loading).await {
        Ok(Ok(loaded)) => loaded.map_err(|error| Error::of_credentials(&error)),
        Ok(Err(Panicked)) => Err(Error::new(
            ErrorKind::CredentialsFailed,
            "the source of credentials panicked",
        )),
        Err(_) => Err(no_answer(LONGEST_LOAD)),
    };
    if outcome.is_err() {
        source.place.start_over();
    }
    {
        let mut state = source.lock();
        state.is_loading = false;
        state.last_attempt = Some(Instant::now());
        match outcome {
            Ok(credentials) => {
                state.generation += 1;
                state.current = Some(Current {
                    credentials,
                    is_rejected: false,
                });
                state.last_error = None;
            }
            Err(error) => state.last_error = Some(error),
        }
    }
    source.loaded.notify_waiters();
}

fn no_answer(time: Duration) -> Error {
    Error::new(
        ErrorKind::CredentialsFailed,
        format!(
            "the source of credentials did not answer within {} s",
            time.as_secs()
        ),
    )
}

impl Source {
    /// A panic elsewhere while the lock was held leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    fn lasts(&self, margin: Duration) -> bool {
        self.credentials
            .expiry()
            .is_none_or(|expiry| SystemTime::now() + margin < expiry)
    }

    fn is_valid(&self) -> bool {
        self.lasts(Duration::ZERO)
    }
}

/// Hands the SDK what is there. Calls see to it beforehand that something is.
impl ProvideCredentials for CredentialSource {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let state = self.0.lock();
        future::ProvideCredentials::ready(match &state.current {
            Some(current) => Ok(current.credentials.clone()),
            None => Err(CredentialsError::not_loaded("none were loaded")),
        })
    }
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CredentialSource")
    }
}

struct StandardChain {
    http: SharedHttpClient,
    region: String,
    /// Kept while it works: the instance metadata's goes on with what it has while the service does not answer.
    provider: Mutex<Option<SharedCredentialsProvider>>,
}

impl StandardChain {
    async fn find(&self) -> provider::Result {
        let kept = self.kept().clone();
        let provider = match kept {
            Some(provider) => provider,
            None => {
                let config = standard_config(self.http.clone(), &self.region).await;
                let provider = config
                    .credentials_provider()
                    .ok_or_else(|| CredentialsError::not_loaded("no provider"))?;
                *self.kept() = Some(provider.clone());
                provider
            }
        };
        provider.provide_credentials().await
    }

    fn kept(&self) -> MutexGuard<'_, Option<SharedCredentialsProvider>> {
        self.provider.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load for StandardChain {
    fn load(&self) -> Pin<Box<dyn Future<Output = provider::Result> + Send + '_>> {
        Box::pin(self.find())
    }

    /// It reads profiles once only.
    fn start_over(&self) {
        *self.kept() = None;
    }
}

struct WrittenDown;

/// Marks placeholder credentials.
#[derive(Clone, Debug)]
struct Placeholder;

/// Where credentials come from, in words: the provider in the standard chain, and what it asked in turn.
fn source_of(credentials: &Credentials) -> String {
    use AwsCredentialFeature::*;
    if credentials.get_property::<Placeholder>().is_some() {
        return "placeholder".to_owned();
    }
    let features = credentials.get_property::<Vec<AwsCredentialFeature>>();
    let has = |wanted: &[AwsCredentialFeature]| {
        features.is_some_and(|features| wanted.iter().any(|one| features.contains(one)))
    };
    let place = if has(&[CredentialsEnvVars]) {
        "environment"
    } else if has(&[
        CredentialsEnvVarsStsWebIdToken,
        CredentialsProfileStsWebIdToken,
        CredentialsStsAssumeRoleWebId,
    ]) {
        "web identity"
    } else if has(&[CredentialsHttp]) {
        "container"
    } else if has(&[CredentialsImds]) {
        "instance"
    } else if has(&[CredentialsSso, CredentialsProfileSso]) {
        "profile, SSO"
    } else if has(&[CredentialsProcess, CredentialsProfileProcess]) {
        "profile, process"
    } else {
        "profile"
    };
    if has(&[CredentialsStsAssumeRole]) {
        format!("{place}, which assumed a role")
    } else {
        place.to_owned()
    }
}

impl Load for WrittenDown {
    fn load(&self) -> Pin<Box<dyn Future<Output = provider::Result> + Send + '_>> {
        Box::pin(async {
            let environment = EnvironmentVariableCredentialsProvider::new();
            if let Ok(credentials) = environment.provide_credentials().await {
                return Ok(credentials);
            }
            let placeholder = || {
                let mut placeholder = Credentials::new("test", "test", None, None, "placeholder");
                placeholder.set_property(Placeholder);
                placeholder
            };
            Ok(access_key_in_profile().await.unwrap_or_else(placeholder))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

    /// Answers what the test has put there; hangs where that is nothing.
    #[derive(Clone, Default)]
    struct Scripted(Arc<Script>);

    #[derive(Default)]
    struct Script {
        answer: Mutex<Option<Result<Duration, ()>>>,
        panics: AtomicBool,
        loads: AtomicUsize,
        fresh_starts: AtomicUsize,
    }

    impl Scripted {
        fn answer(&self, lifetime: Result<Duration, ()>) {
            *self.0.answer.lock().unwrap() = Some(lifetime);
        }

        fn hang(&self) {
            *self.0.answer.lock().unwrap() = None;
        }

        fn loads(&self) -> usize {
            self.0.loads.load(SeqCst)
        }
    }

    impl Load for Scripted {
        fn load(&self) -> Pin<Box<dyn Future<Output = provider::Result> + Send + '_>> {
            let number = self.0.loads.fetch_add(1, SeqCst) + 1;
            let answer = *self.0.answer.lock().unwrap();
            let panics = self.0.panics.swap(false, SeqCst);
            Box::pin(async move {
                assert!(!panics, "as scripted");
                match answer {
                    Some(Ok(lifetime)) => {
                        let expiry = Some(SystemTime::now() + lifetime);
                        Ok(Credentials::new(
                            format!("key {number}"),
                            "secret",
                            None,
                            expiry,
                            "test",
                        ))
                    }
                    Some(Err(())) => Err(CredentialsError::not_loaded("as scripted")),
                    None => std::future::pending().await,
                }
            })
        }

        fn start_over(&self) {
            self.0.fresh_starts.fetch_add(1, SeqCst);
        }
    }

    const HOUR: Duration = Duration::from_secs(3_600);
    const MINUTE: Duration = Duration::from_secs(60);

    fn run<F: Future>(test: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(test)
    }

    fn source() -> (Scripted, CredentialSource) {
        let scripted = Scripted::default();
        (scripted.clone(), CredentialSource::of(scripted))
    }

    /// Lets what was spawned run.
    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    async fn key(source: &CredentialSource) -> String {
        source.ready().await.unwrap();
        source
            .provide_credentials()
            .await
            .unwrap()
            .access_key_id()
            .to_owned()
    }

    /// As if the last look had been so long ago.
    fn let_pass(source: &CredentialSource, time: Duration) {
        let mut state = source.0.lock();
        state.last_attempt = state.last_attempt.map(|at| at - time);
    }

    #[test]
    fn good_credentials_are_used_again() {
        run(async {
            let (scripted, source) = source();
            scripted.answer(Ok(HOUR));
            assert_eq!(key(&source).await, "key 1");
            assert_eq!(key(&source).await, "key 1");
            assert_eq!(scripted.loads(), 1);
        });
    }

    #[test]
    fn calls_go_on_with_valid_credentials_while_others_are_looked_for() {
        run(async {
            let (scripted, source) = source();
            scripted.answer(Ok(4 * MINUTE));
            assert_eq!(key(&source).await, "key 1");
            let_pass(&source, REFRESH_PAUSE);
            scripted.hang();
            assert_eq!(key(&source).await, "key 1");
            settle().await;
            assert_eq!(scripted.loads(), 2);
            assert_eq!(key(&source).await, "key 1", "one look at a time");
            assert_eq!(scripted.loads(), 2);
        });
    }

    #[test]
    fn fresh_credentials_replace_those_that_are_about_to_end() {
        run(async {
            let (scripted, source) = source();
            scripted.answer(Ok(4 * MINUTE));
            assert_eq!(key(&source).await, "key 1");
            let_pass(&source, REFRESH_PAUSE);
            scripted.answer(Ok(HOUR));
            key(&source).await;
            settle().await;
            assert_eq!(key(&source).await, "key 2");
        });
    }

    #[test]
    fn a_source_that_fails_is_not_asked_by_every_call() {
        run(async {
            let (scripted, source) = source();
            scripted.answer(Err(()));
            for _ in 0..5 {
                assert_eq!(
                    source.ready().await.unwrap_err().kind,
                    ErrorKind::NoCredentials
                );
            }
            assert_eq!(scripted.loads(), 1);
            let_pass(&source, RETRY_PAUSE);
            scripted.answer(Ok(HOUR));
            assert_eq!(key(&source).await, "key 2");
        });
    }

    #[test]
    fn a_source_that_hangs_is_told_as_that() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (scripted, source) = source();
            let error = source.ready().await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::CredentialsFailed);
            assert!(
                error.detail.contains("did not answer within 10 s"),
                "{}",
                error.detail
            );
            assert_eq!(scripted.loads(), 1, "it goes on while calls give up");
        });
    }

    #[test]
    fn a_source_that_panics_is_asked_again() {
        run(async {
            let (scripted, source) = source();
            scripted.answer(Ok(HOUR));
            scripted.0.panics.store(true, SeqCst);
            let error = source.ready().await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::CredentialsFailed);
            let_pass(&source, RETRY_PAUSE);
            assert_eq!(key(&source).await, "key 2");
        });
    }

    #[test]
    fn rejected_credentials_are_replaced_but_not_again_and_again() {
        run(async {
            let (scripted, source) = source();
            scripted.answer(Ok(HOUR));
            let first = source.ready().await.unwrap();
            source.reject(first);
            assert_eq!(key(&source).await, "key 1", "looked for a moment ago");
            let_pass(&source, REJECTED_PAUSE);
            assert_eq!(key(&source).await, "key 2");
            assert_eq!(scripted.0.fresh_starts.load(SeqCst), 1);
            source.reject(first);
            let_pass(&source, REJECTED_PAUSE);
            assert_eq!(
                key(&source).await,
                "key 2",
                "the first were rejected, not these"
            );
        });
    }
}
