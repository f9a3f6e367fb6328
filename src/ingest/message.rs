//! A message as it reaches the backend: masked, or rejected already.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use login::MaskedLogin;
use queue::{Receipt, Received};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::ledger::Key;
use super::reader::Content;
use super::receipts;
use super::rejection::Rejected;
use crate::pg::clock;
use crate::vault::Originals;

/// Milliseconds from 1970 to 2000 and to the end of 9999: no queue is older, and a `timestamptz` and a `date` hold all
/// of it. A server whose clock is ahead costs no messages.
const TIMES_OF_SENDING: RangeInclusive<i64> = 946_684_800_000..=253_402_300_799_999;

/// SQS' longest message id, in characters.
const LONGEST_ID: usize = 100;

/// A message that was received.
pub struct Message {
    /// Its receipt.
    pub receipt: Receipt,
    /// Its id: as SQS wrote it, if it can be one.
    pub id: Box<str>,
    /// Its group, in a FIFO queue.
    pub group: Option<Arc<str>>,
    /// When it was taken from the channel.
    pub taken_at: Instant,
    /// Its row, or why it cannot have one.
    pub content: Result<Row, Rejected>,
}

/// Messages taken from the channel. Those whose fate is not [decided](Taken::decided) when it is dropped, as when an
/// error propagates, are released.
#[derive(Default)]
pub struct Taken(Vec<Message>);

impl Taken {
    /// Messages, in the order of their arrival.
    pub fn messages(&self) -> &[Message] {
        &self.0
    }

    /// Adds messages that arrived later.
    pub fn extend(&mut self, messages: impl Iterator<Item = Message>) {
        self.0.extend(messages);
    }

    /// Gives them back to the queue if the originals of some were not kept, so that they come again with them.
    pub fn release_if_originals_are_missing(&mut self) {
        if self.0.iter().any(|message| {
            let row = message.content.as_ref();
            row.is_ok_and(|row| matches!(row.originals, Originals::NotKept))
        }) {
            drop(std::mem::take(self));
        }
    }

    /// The transaction that they were written in decides what becomes of them, or already has.
    pub fn decided(mut self) {
        self.0.clear();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        receipts::release(self.0.drain(..).map(|message| message.receipt).collect());
    }
}

/// A masked login and where it came from: all that a row and its ledger entry need.
pub struct Row {
    /// Its place in the ledger.
    pub key: Key,
    /// The decoded login.
    pub login: MaskedLogin,
    /// What is kept of what was masked.
    pub originals: Originals,
}

impl From<Received<Content>> for Message {
    fn from(received: Received<Content>) -> Message {
        let key = received
            .sent_at
            .and_then(|sent_at| key(sent_at, &received.message_id));
        let content = match (received.content, key) {
            (Ok(login), Some(key)) => Ok(Row {
                key,
                login: login.masked,
                originals: login.originals,
            }),
            (Ok(_), None) => Err(Rejected::no_time_of_sending()),
            (Err(rejection), _) => Err(Rejected::from(rejection)),
        };
        Message {
            receipt: received.receipt,
            id: storable_id(received.message_id),
            group: received.group,
            taken_at: Instant::now(),
            content,
        }
    }
}

/// `sent_at` in milliseconds since 1970.
fn key(sent_at: i64, message_id: &str) -> Option<Key> {
    Some(Key {
        sent_at: time_of_sending(sent_at)?,
        message_id: id_bytes(message_id),
    })
}

/// A `SentTimestamp`, milliseconds since 1970, in microseconds since 2000-01-01 UTC.
pub fn time_of_sending(sent_at: i64) -> Option<i64> {
    TIMES_OF_SENDING
        .contains(&sent_at)
        .then(|| clock::at_unix_milliseconds(sent_at))
}

/// A server that is not SQS may send an id that no text, or no index, can hold: its hash stands for it.
fn storable_id(message_id: Box<str>) -> Box<str> {
    if message_id.contains('\0') || message_id.chars().count() > LONGEST_ID {
        Uuid::from_bytes(id_bytes(&message_id)).to_string().into()
    } else {
        message_id
    }
}

/// SQS' message ids are UUIDs, though its documentation promises no more than 100 characters: another server's are
/// brought to the same size by a hash.
fn id_bytes(message_id: &str) -> [u8; 16] {
    match Uuid::try_parse(message_id) {
        Ok(uuid) => uuid.into_bytes(),
        Err(_) => {
            let digest = Sha256::digest(message_id.as_bytes());
            std::array::from_fn(|i| digest[i])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_is_that_of_utc() {
        let day = |millis| key(millis, "x").map(|key| key.day());
        assert_eq!(day(946_684_800_000), Some(0));
        assert_eq!(day(946_684_800_000 + 86_399_999), Some(0));
        assert_eq!(day(946_684_800_000 + 86_400_000), Some(1));
        assert_eq!(day(253_402_300_799_999), Some(2_921_939));
    }

    #[test]
    fn ids_that_are_no_uuids_stay_apart() {
        assert_ne!(id_bytes("one"), id_bytes("two"));
        assert_eq!(id_bytes("219f8380-5770-4cc2-8c3e-5c715e145f5e")[0], 0x21);
    }

    #[test]
    fn a_time_that_no_clock_shows_is_no_key() {
        for millis in [i64::MIN, -1, 946_684_799_999, 253_402_300_800_000, i64::MAX] {
            assert_eq!(key(millis, "x"), None, "{millis}");
        }
    }

    #[test]
    fn an_id_stays_as_it_is_if_it_can() {
        let longest = "ä".repeat(100);
        for id in ["219f8380-5770-4cc2-8c3e-5c715e145f5e", "", &longest] {
            assert_eq!(&*storable_id(id.into()), id);
        }
        let hashes =
            ["ä".repeat(101), "a\0".to_owned(), "b\0".to_owned()].map(|id| storable_id(id.into()));
        for hash in &hashes {
            assert!(Uuid::try_parse(hash).is_ok(), "{hash}");
        }
        assert_ne!(hashes[1], hashes[2]);
    }
}
