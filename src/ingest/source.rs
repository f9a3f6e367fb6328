//! Where messages come from and how they are read: the queue and the decoder, as the arguments and settings of a
//! call have them.

use std::fs;
use std::sync::Arc;

use login::{Decoder, Masker, VersionEncoding};
use queue::{Queue, QueueUrl, Receive};
use std::time::Duration;
use vault::Recipients;

use super::reader::Reader;
use crate::errors::Failure;
use crate::settings::{self, AppVersionEncoding};
use crate::stat::QueueStat;
use crate::vault::{OriginalsSealer, recipients};

/// SHA-256's output is as long as a key need be; half of that is the least that cannot be guessed.
const SHORTEST_KEY: usize = 16;

/// A queue to ingest from.
pub struct Source {
    queue: Queue,
    stat: QueueStat,
    terms: Terms,
    visibility: Duration,
}

/// What the settings say of a source.
#[derive(PartialEq, Eq)]
struct Terms {
    endpoint: Option<String>,
    region: Option<String>,
    key: Option<Vec<u8>>,
    encoding: AppVersionEncoding,
    recipients: Option<Recipients>,
}

impl Source {
    /// Reads and checks all that a call says of its source; nothing is sent yet.
    ///
    /// # Errors
    /// A URL that is none or is not allowed, an endpoint, a mask key or a file of recipients that cannot be used.
    pub fn new(queue_url: &str) -> Result<Source, Failure> {
        let url = QueueUrl::parse(queue_url)?;
        check_allowed(&url)?;
        let terms = Terms {
            endpoint: settings::endpoint_url(),
            region: settings::region(),
            key: mask_key()?,
            encoding: settings::app_version_encoding(),
            recipients: recipients()?,
        };
        let stat = QueueStat::of(url.as_str());
        let queue = Queue::new(
            url,
            terms.endpoint.as_deref(),
            terms.region.as_deref(),
            Arc::new(stat.clone()),
        )?;
        Ok(Source {
            queue,
            stat,
            terms,
            visibility: settings::visibility_timeout(),
        })
    }

    /// Whether `other` is the same queue, read in the same way.
    pub fn is_as(&self, other: &Source) -> bool {
        self.queue.url().as_str() == other.queue.url().as_str() && self.terms == other.terms
    }

    /// The queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// What is counted of it.
    pub fn stat(&self) -> &QueueStat {
        &self.stat
    }

    /// Whether originals are kept, sealed.
    pub fn keeps_originals(&self) -> bool {
        self.terms.recipients.is_some()
    }

    /// What reads its messages.
    pub fn reader(&self) -> Reader {
        let masker = self
            .terms
            .key
            .as_deref()
            .map_or_else(Masker::plain, Masker::keyed);
        let encoding = match self.terms.encoding {
            AppVersionEncoding::Digits => VersionEncoding::Digits,
            AppVersionEncoding::Sortable => VersionEncoding::Sortable,
        };
        let sealer = self.terms.recipients.as_ref().map(OriginalsSealer::new);
        Reader::new(Decoder::new(masker, encoding), sealer)
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

    /// What to tell when `error` happened.
    pub fn failure(&self, error: queue::Error) -> Failure {
        let url = self.queue.url();
        Failure::Sqs {
            queue: url.name().to_owned(),
            host: url.host().to_owned(),
            region: self.queue.region().to_owned(),
            error,
        }
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

/// The key of the masks, if they are keyed.
///
/// # Errors
/// [`Failure::MaskKeyUnreadable`], [`Failure::MaskKeyTooShort`].
pub fn mask_key() -> Result<Option<Vec<u8>>, Failure> {
    let Some(file) = settings::mask_key_file() else {
        return Ok(None);
    };
    let content = match fs::read(&file) {
        Ok(content) => content,
        Err(why) => return Err(Failure::MaskKeyUnreadable { file, why }),
    };
    let key = content.trim_ascii();
    if key.len() < SHORTEST_KEY {
        return Err(Failure::MaskKeyTooShort {
            file,
            bytes: key.len(),
            least: SHORTEST_KEY,
        });
    }
    Ok(Some(key.to_vec()))
}
