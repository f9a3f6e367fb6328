//! Rows that `user_logins` refuses, one after another: at some point the table is at fault, not the rows.

use std::collections::HashSet;

use super::rejection::Rejected;

/// How many consecutive refused rows suggest that the table is at fault: where it has taken none in this transaction,
/// and where it has.
const SUSPICIOUS: usize = 10;
const SUSPICIOUS_AFTER_SOME: usize = 100;

/// Messages whose rows `user_logins` refused since it last took one.
#[derive(Clone, Default)]
pub struct Refusals {
    /// Their ids, as far as they matter: one that comes again and again is one.
    messages: HashSet<Box<str>>,
    /// Why the last one was.
    last: String,
}

impl Refusals {
    /// Notes that the row of a message was refused.
    pub fn add(&mut self, message_id: &str, rejected: &Rejected) {
        if self.messages.len() < SUSPICIOUS_AFTER_SOME {
            self.messages.insert(message_id.into());
        }
        self.last = format!("{}: {}", rejected.sqlstate, rejected.reason);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.messages.len()
    }

    /// Why the last one was refused.
    pub fn last(&self) -> &str {
        &self.last
    }

    /// Whether the table may be at fault; `has_taken_some`: it has taken rows in this transaction.
    pub fn are_suspicious(&self, has_taken_some: bool) -> bool {
        let enough = if has_taken_some {
            SUSPICIOUS_AFTER_SOME
        } else {
            SUSPICIOUS
        };
        self.messages.len() >= enough
    }
}
