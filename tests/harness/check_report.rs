//! What `sqs_check` says, by what it is about.

use std::collections::BTreeMap;

use crate::database::{Session, literal};
use crate::queue::Queue;

/// What `sqs_check` says of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `ok`, `warning`, `error`, `unknown`.
    pub status: String,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Everything that `sqs_check` says, by what it is about.
#[derive(Debug)]
pub struct Report(BTreeMap<String, Found>);

impl Report {
    /// What is said without a queue.
    pub fn here(session: &mut Session) -> Report {
        Report::of(session, "NULL")
    }

    /// What is said of a queue.
    #[track_caller]
    pub fn on(session: &mut Session, queue: &Queue) -> Report {
        Report::of(session, &literal(queue.url()))
    }

    /// What is said with this argument.
    #[track_caller]
    pub fn of(session: &mut Session, argument: &str) -> Report {
        let rows = session.rows(&format!("SELECT * FROM public.sqs_check({argument})"));
        let found = rows.into_iter().map(|row| {
            let [name, status, detail, hint] = row.try_into().unwrap();
            let found = Found {
                status: status.unwrap(),
                detail: detail.unwrap(),
                hint,
            };
            (name.unwrap(), found)
        });
        Report(found.collect())
    }

    /// What is said of one thing.
    #[track_caller]
    pub fn get(&self, check: &str) -> &Found {
        self.0
            .get(check)
            .unwrap_or_else(|| panic!("no check \"{check}\" in {self:#?}"))
    }

    /// The check has this status, its detail these words; it has a hint unless there is nothing to do.
    #[track_caller]
    pub fn expect(&self, check: &str, status: &str, words: &str) {
        let found = self.get(check);
        assert_eq!(found.status, status, "{check}: {found:?}");
        assert!(found.detail.contains(words), "{check}: {found:?}");
        assert_eq!(found.hint.is_some(), status != "ok", "{check}: {found:?}");
    }

    /// What has this status.
    pub fn with_status(&self, status: &str) -> Vec<&str> {
        let of_status = self.0.iter().filter(|(_, found)| found.status == status);
        of_status.map(|(name, _)| name.as_str()).collect()
    }
}
