//! How many messages wait in the queues of subscriptions, and for how long those keep them: the launcher asks for it,
//! where it may.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use queue::{Description, Error, ErrorKind, PendingAnswer};

use crate::ingest::{allowed_queue, note_retention};
use crate::io_thread;
use crate::own_tables::{OwnTable, QUEUE};
use crate::pg::{database, transaction};
use crate::report::{self, LastReport};
use crate::stat::QueueStat;

/// How often a queue is asked.
const ASK_INTERVAL: Duration = Duration::from_secs(60);

/// How long it may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// How often to look for its answer.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What the launcher has asked of queues, by their URLs.
#[derive(Default)]
pub struct Backlogs {
    asked: HashMap<String, Asked>,
    /// What keeps answers from being recorded is the same for all queues.
    reported: LastReport,
}

struct Asked {
    at: Instant,
    answer: Option<PendingAnswer<Result<Description, Error>>>,
}

impl Backlogs {
    /// Asks those of `queues` that are due, and collects the answers that have arrived; returns when to call again.
    pub fn step(&mut self, queues: &[String]) -> Duration {
        let Backlogs { asked, reported } = self;
        asked.retain(|url, _| queues.contains(url));
        for url in queues {
            let last = asked.get(url);
            if last.is_none_or(|last| last.at.elapsed() >= ASK_INTERVAL) {
                asked.insert(url.clone(), ask(url));
            }
        }
        for (url, asked) in asked.iter_mut() {
            if let Some(answer) = asked.take_answer() {
                use_answer(url, answer, reported);
            }
        }
        let pauses = asked.values().map(Asked::pause);
        pauses.min().unwrap_or(ASK_INTERVAL)
    }
}

fn ask(url: &str) -> Asked {
    // What keeps a queue from being asked keeps its workers from receiving, and they report it.
    let answer = allowed_queue(url)
        .and_then(|(queue, _)| io_thread::with(|io| io.describe(&queue, LIMIT)))
        .ok();
    Asked {
        at: Instant::now(),
        answer,
    }
}

impl Asked {
    fn take_answer(&mut self) -> Option<Result<Description, Error>> {
        let answer = match self.answer.as_mut()?.try_take() {
            Ok(answer) => answer?,
            Err(error) => Err(error),
        };
        self.answer = None;
        Some(answer)
    }

    fn pause(&self) -> Duration {
        let until_asked = ASK_INTERVAL.saturating_sub(self.at.elapsed());
        if self.answer.is_some() {
            POLL_INTERVAL.min(until_asked)
        } else {
            until_asked
        }
    }
}

fn use_answer(url: &str, answer: Result<Description, Error>, reported: &mut LastReport) {
    let stat = QueueStat::of(url);
    match answer {
        Ok(description) => {
            stat.set_backlog(description.attributes.visible);
            if let Some(retention) = description.longest_retention() {
                record(url, retention, reported);
            }
        }
        // The last answer is still of use.
        Err(error) if error.is_transient() || error.kind == ErrorKind::Internal => {}
        Err(_) => stat.set_backlog(None),
    }
}

/// Where transactions are read-only by default, nothing is recorded, and the ledger remembers for as long as it is
/// told.
fn record(url: &str, retention: Duration, reported: &mut LastReport) {
    let recorded = transaction::run(|| {
        if !database::is_read_only()
            && let Ok(table) = OwnTable::find(QUEUE)
        {
            note_retention(&table, url, retention);
        }
        Ok::<_, Infallible>(())
    });
    match recorded {
        Ok(_) => reported.forget(),
        Err(error) if reported.is_news(error.message()) => {
            let what = format!("could not record the retention period of queue \"{url}\"");
            report::warn(&what, &error);
        }
        Err(_) => {}
    }
}
