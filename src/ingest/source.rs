//! Where messages come from and how they are read: the queue and the decoder, as the arguments and settings of a
//! call have them.

use std::fs;
use std::sync::Arc;

use login::{Decoder, Masker, VersionEncoding};
use queue::{Queue, QueueUrl, Receive};
use std::time::Duration;

use crate::errors::Failure;
use crate::settings::{self, AppVersionEncoding};
use crate::stat::QueueStat;

/// SHA-256's output is as long as a key need be; half of that is the least that cannot be guessed.
const SHORTEST_KEY: usize = 16;

/// A queue to ingest from.
pub struct Source {
    queue: Queue,
    stat: QueueStat,
    masker: Masker,
    encoding: VersionEncoding,
}

impl Source {
    /// Reads and checks all that a call says of its source; nothing is sent yet.
    ///
    /// # Errors
    /// A URL that is none or is not allowed, an endpoint or a mask key that cannot be used.
    pub fn new(queue_url: &str) -> Result<Source, Failure> {
        let url = QueueUrl::parse(queue_url)?;
        check_allowed(&url)?;
        let endpoint = settings::endpoint_url();
        let region = settings::region();
        let stat = QueueStat::of(url.as_str());
        let queue = Queue::new(url, endpoint.as_deref(), region.as_deref(), Arc::new(stat))?;
        let encoding = match settings::app_version_encoding() {
            AppVersionEncoding::Digits => VersionEncoding::Digits,
            AppVersionEncoding::Sortable => VersionEncoding::Sortable,
        };
        Ok(Source {
            queue,
            stat,
            masker: masker()?,
            encoding,
        })
    }

    /// The queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// What is counted of it.
    pub fn stat(&self) -> QueueStat {
        self.stat
    }

    /// A decoder for its messages.
    pub fn decoder(&self) -> Decoder {
        Decoder::new(self.masker.clone(), self.encoding)
    }

    /// How to receive until the queue is empty or `limit` messages have come.
    pub fn until_empty(&self, limit: Option<u64>, wait: Duration) -> Receive {
        Receive {
            limit,
            until_empty: true,
            wait,
            concurrency: settings::receive_concurrency(),
            visibility: settings::visibility_timeout(),
        }
    }

    /// What to tell when `error` happened.
    pub fn failure(&self, error: queue::Error) -> Failure {
        let url = self.queue.url();
        Failure::Sqs {
            queue: url.name().to_owned(),
            host: url.host().to_owned(),
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

fn masker() -> Result<Masker, Failure> {
    let Some(file) = settings::mask_key_file() else {
        return Ok(Masker::plain());
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
    Ok(Masker::keyed(key))
}
