//! Messages that cannot become rows: why, and under which SQLSTATE.

use login::{MaskedLogin, Rule};

use super::fault::names_a_rule;
use crate::pg::error::Caught;

/// Why a message is rejected. Names fields and rules, never quotes a value.
#[derive(Clone)]
pub struct Rejected {
    /// In words.
    pub reason: String,
    /// The SQLSTATE that Postgres uses for the same problem.
    pub sqlstate: String,
    /// Its body is a login, so it may still be wanted.
    pub is_login: bool,
}

impl Rejected {
    /// SQS sends `SentTimestamp` with every message; the ledger does not work with a server that does not.
    pub fn no_time_of_sending() -> Rejected {
        Rejected {
            reason: "the message has no SentTimestamp between 2000 and 9999".to_owned(),
            sqlstate: "22004".to_owned(),
            is_login: true,
        }
    }

    /// `user_logins` refused the row of `login`.
    pub fn by_table(error: &Caught, login: &MaskedLogin) -> Rejected {
        let state = error.state();
        let quotable = names_a_rule(error) || !quotes_a_value(error.message(), login);
        let reason = if quotable {
            format!("user_logins refused the row: {}", error.message())
        } else {
            "user_logins refused the row, with an error message that quotes a value of it"
                .to_owned()
        };
        Rejected {
            reason,
            sqlstate: state.to_string(),
            is_login: true,
        }
    }
}

/// A trigger's error may contain anything, and everybody who can read `sqs_rejected` may see it.
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
            is_login: false,
        }
    }
}

/// The SQLSTATE that Postgres uses for the same problem.
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
