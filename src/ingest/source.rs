//! Where messages come from and how they are read: the queue and the decoder, as the arguments and settings of a
//! call have them.

use std::sync::Arc;

use login::{Decoder, Masker, VersionEncoding};
use queue::{Queue, QueueUrl, Receive};
use std::time::Duration;
use vault::Recipients;

use super::reader::{Keep, Reader};
use crate::errors::Failure;
use crate::mask_keys::{MaskKey, MaskKeys};
use crate::settings::{self, AppVersionEncoding};
use crate::stat::QueueStat;
use crate::vault::{recipients, sealer, wipe_data_key};

/// A queue to ingest from.
pub struct Source {
    queue: Queue,
    stat: QueueStat,
    terms: Terms,
    visibility: Duration,
}

/// The settings of a source.
#[derive(PartialEq, Eq)]
struct Terms {
    endpoint: Option<String>,
    region: Option<String>,
    key: Option<MaskKey>,
    encoding: AppVersionEncoding,
    recipients: Option<Recipients>,
}

impl Source {
    /// Reads and checks everything about the source of a call, without sending anything.
    ///
    /// # Errors
    /// A URL that is invalid or not allowed, or an endpoint, mask key or recipients file that cannot be used.
    pub fn new(queue_url: &str) -> Result<Source, Failure> {
        let (queue, stat) = allowed_queue(queue_url)?;
        Ok(Source {
            queue,
            stat,
            terms: Terms {
                endpoint: settings::endpoint_url(),
                region: settings::region(),
                key: MaskKeys::read()?.current(),
                encoding: settings::app_version_encoding(),
                recipients: recipients()?,
            },
            visibility: settings::visibility_timeout(),
        })
    }

    /// Whether requests for `other` go to the same queue at the same place.
    pub fn is_same_queue(&self, other: &Source) -> bool {
        let place = |source: &Source| {
            let terms = &source.terms;
            (terms.endpoint.clone(), terms.region.clone())
        };
        self.queue.url().as_str() == other.queue.url().as_str() && place(self) == place(other)
    }

    /// This source, with the queue and the counts of `other` if it is the same queue, so that a receiver that is
    /// already running continues with those.
    pub fn sharing(self, other: &Source) -> Source {
        if self.is_same_queue(other) {
            Source {
                queue: other.queue.clone(),
                stat: other.stat.clone(),
                ..self
            }
        } else {
            self
        }
    }

    /// The queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Its statistics.
    pub fn stat(&self) -> &QueueStat {
        &self.stat
    }

    /// Whether originals are kept, sealed.
    pub fn keeps_originals(&self) -> bool {
        self.terms.recipients.is_some()
    }

    /// A reader for its messages.
    pub fn reader(&self) -> Reader {
        let originals = match &self.terms.recipients {
            None => {
                wipe_data_key();
                Keep::Nothing
            }
            Some(recipients) => Keep::Sealed(sealer(recipients)),
        };
        Reader::new(self.decoder(), originals)
    }

    /// A reader for messages that are only looked at, which rejects what [`reader`](Source::reader) does.
    pub fn reader_without_originals(&self) -> Reader {
        let originals = match &self.terms.recipients {
            None => Keep::Nothing,
            Some(_) => Keep::NothingButCheck,
        };
        Reader::new(self.decoder(), originals)
    }

    fn decoder(&self) -> Decoder {
        let masker = match &self.terms.key {
            None => Masker::plain(),
            Some(key) => key.masker(),
        };
        let encoding = match self.terms.encoding {
            AppVersionEncoding::Digits => VersionEncoding::Digits,
            AppVersionEncoding::Sortable => VersionEncoding::Sortable,
        };
        Decoder::new(masker, encoding)
    }

    /// How to receive until the queue is empty or `limit` messages have come.
    pub fn until_empty(&self, limit: Option<u64>, wait: Duration) -> Receive {
        Receive {
            limit,
            until_empty: true,
            wait,
            concurrency: settings::receive_concurrency(),
            visibility: self.visibility,
        }
    }

    /// How long a received message is hidden from others.
    pub fn visibility(&self) -> Duration {
        self.visibility
    }

    /// The failure to report for `error`.
    pub fn failure(&self, error: queue::Error) -> Failure {
        failure_of(&self.queue, error)
    }
}

/// The queue that a URL and the settings specify, if it is allowed, and its statistics.
///
/// # Errors
/// A URL that is invalid or not allowed, or an endpoint that cannot be used.
pub fn allowed_queue(queue_url: &str) -> Result<(Queue, QueueStat), Failure> {
    let url = QueueUrl::parse(queue_url)?;
    check_allowed(&url)?;
    let stat = QueueStat::of(url.as_str());
    let queue = Queue::new(
        url,
        settings::endpoint_url().as_deref(),
        settings::region().as_deref(),
        Arc::new(stat.clone()),
    )?;
    Ok((queue, stat))
}

/// The failure to report when a call to `queue` ended with `error`.
pub fn failure_of(queue: &Queue, error: queue::Error) -> Failure {
    let url = queue.url();
    Failure::Sqs {
        queue: url.name().to_owned(),
        host: url.host().to_owned(),
        region: queue.region().to_owned(),
        error,
    }
}

fn check_allowed(url: &QueueUrl) -> Result<(), Failure> {
    let patterns = settings::allowed_queues();
    if patterns.is_empty() || patterns.iter().any(|pattern| url.matches(pattern)) {
        Ok(())
    } else {
        Err(Failure::QueueNotAllowed {
            queue: url.as_str().to_owned(),
        })
    }
}
