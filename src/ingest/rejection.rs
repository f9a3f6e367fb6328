//! Messages that cannot become rows: why, under which SQLSTATE, and the record of it in `sqs_rejected`.

use std::collections::BTreeMap;

use login::{MaskedLogin, Rule};

use crate::pg::error::Caught;

/// Why a message is rejected. Names fields and rules, never quotes a value.
#[derive(Clone)]
pub struct Rejected {
    /// In words.
    pub reason: String,
    /// The code that Postgres has for the like.
    pub sqlstate: String,
}

impl Rejected {
    /// SQS sends `SentTimestamp` with every message; a server that does not is none that we can keep a ledger for.
    pub fn no_time_of_sending() -> Rejected {
        Rejected {
            reason: "the message carries no SentTimestamp".to_owned(),
            sqlstate: "22004".to_owned(),
        }
    }

    /// `user_logins` refused the row of `login`.
    pub fn by_table(error: &Caught, login: &MaskedLogin) -> Rejected {
        let state = error.state();
        let quotable = error.names_a_rule() || !quotes_a_value(error.message(), login);
        let reason = if quotable {
            format!("user_logins refused the row: {}", error.message())
        } else {
            "user_logins refused the row, with an error message that quotes a value of it"
                .to_owned()
        };
        Rejected {
            reason,
            sqlstate: state.to_string(),
        }
    }
}

/// A trigger may say anything in its error, and may say it to everybody who can read `sqs_rejected`.
fn quotes_a_value(message: &str, login: &MaskedLogin) -> bool {
    [
        Some(login.user_id()),
        login.masked_ip(),
        login.masked_device_id(),
    ]
    .into_iter()
    .flatten()
    .any(|value| !value.is_empty() && message.contains(value))
}

impl From<login::Rejection> for Rejected {
    fn from(rejection: login::Rejection) -> Rejected {
        Rejected {
            reason: rejection.to_string(),
            sqlstate: sqlstate(rejection.rule()).to_owned(),
        }
    }
}

/// The codes are those that Postgres itself gives for the like.
fn sqlstate(rule: Rule) -> &'static str {
    match rule {
        Rule::NotJson => "22032",
        Rule::NotALogin | Rule::TooManyEnvelopes => "22023",
        Rule::Missing => "22004",
        Rule::WrongType | Rule::NotAVersion => "22P02",
        Rule::TooLong { .. } => "22001",
        Rule::NulCharacter => "22P05",
        Rule::VersionTooLarge | Rule::TooManyNumbers => "22003",
    }
}

/// The rejections of one chunk, each message once, in the order of their ids, so that concurrent sessions write
/// them in the same order.
#[derive(Default)]
pub struct Rejections {
    by_message: BTreeMap<Box<str>, (Rejected, i64)>,
}

impl Rejections {
    /// Notes that `message_id` was rejected.
    pub fn note(&mut self, message_id: &str, rejected: Rejected) {
        self.by_message
            .entry(message_id.into())
            .and_modify(|(_, times)| *times += 1)
            .or_insert((rejected, 1));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_message.is_empty()
    }

    /// Message id, rejection, and how many times it was seen.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Rejected, i64)> + Clone {
        self.by_message
            .iter()
            .map(|(id, (rejected, times))| (&**id, rejected, *times))
    }
}
