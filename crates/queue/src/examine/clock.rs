//! What answers tell of time: how long they took, and what time it is where they come from.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_sdk_sqs::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_sqs::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

use crate::error::{Error, ErrorKind};

/// What the answers to one examination told.
#[derive(Default)]
pub(super) struct Clock {
    fastest: Cell<Option<Duration>>,
    ahead: Arc<Mutex<Option<i64>>>,
}

impl Clock {
    /// How long the fastest call took that was answered.
    pub(super) fn fastest(&self) -> Option<Duration> {
        self.fastest.get()
    }

    /// By how many seconds this machine's clock is ahead of that of the server.
    pub(super) fn ahead(&self) -> Option<i64> {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the dates of a call's answers.
    pub(super) fn reader(&self) -> DateReader {
        DateReader(self.ahead.clone())
    }

    /// Makes a call and takes its time.
    pub(super) async fn time<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let outcome = call.await;
        let was_answered = match &outcome {
            Ok(_) => true,
            Err(error) => matches!(error.kind, ErrorKind::AccessDenied | ErrorKind::Refused),
        };
        if was_answered {
            let took = begun.elapsed();
            let fastest = self.fastest.get().map_or(took, |fastest| fastest.min(took));
            self.fastest.set(Some(fastest));
        }
        outcome
    }
}

/// Compares the `Date` of an answer with this machine's clock.
#[derive(Debug)]
pub(super) struct DateReader(Arc<Mutex<Option<i64>>>);

#[dyn_dispatch_hint]
impl Intercept for DateReader {
    fn name(&self) -> &'static str {
        "DateReader"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        if let Some(date) = date.and_then(|text| DateTime::from_str(text, Format::HttpDate).ok()) {
            let here = DateTime::from(SystemTime::now());
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(here.secs() - date.secs());
        }
        Ok(())
    }
}
