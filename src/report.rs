//! What background processes write to the server's log.

use pgrx::PgLogLevel;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;

use crate::pg::error::Caught;

/// A WARNING about an error that was caught: what it means here, then what it said.
pub fn warn(what: &str, error: &Caught) {
    let mut warning = warning(format!("{what}: {}", error.message()));
    if let Some(detail) = error.detail() {
        warning = warning.set_detail(detail);
    }
    if let Some(hint) = error.hint() {
        warning = warning.set_hint(hint);
    }
    warning.report(PgLogLevel::WARNING);
}

/// A WARNING with a hint.
pub fn hint(what: &str, hint: &str) {
    warning(what.to_owned())
        .set_hint(hint)
        .report(PgLogLevel::WARNING);
}

/// A line for the log.
pub fn log(what: String) {
    warning(what).report(PgLogLevel::LOG);
}

fn warning(message: String) -> ErrorReport {
    ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "user_logins_sqs")
}

/// What was last reported of something that is tried again and again, so that it is reported once.
#[derive(Default)]
pub struct LastReport(Option<String>);

impl LastReport {
    /// Whether `problem` is another one than that of the last try.
    pub fn is_news(&mut self, problem: &str) -> bool {
        let is_news = self.0.as_deref() != Some(problem);
        self.0 = Some(problem.to_owned());
        is_news
    }

    /// A try has succeeded: whatever comes next is news.
    pub fn forget(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_news_when_it_begins_changes_or_comes_back() {
        let mut last = LastReport::default();
        let seen = ["a", "a", "b", "a"].map(|problem| last.is_news(problem));
        assert_eq!(seen, [true, false, true, true]);
        last.forget();
        assert!(last.is_news("a"));
    }
}
