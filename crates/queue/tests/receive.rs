//! Receiving: what comes, in what order, how much is asked for, and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server;

use std::time::Duration;

use queue::{End, Fate, Io};
use server::Server;
use server::reader::*;

#[test]
fn a_queue_is_drained_and_emptied() {
    let server = Server::start();
    server.send(95);
    let io = Io::start().unwrap();
    let (queue, counts) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(1000), body);
    let (messages, outcome) = drain(&io, &mut inlet);
    assert!(matches!(outcome, Outcome::End(End::Empty)), "{outcome:?}");
    assert_eq!(messages.len(), 95);
    let mut bodies: Vec<String> = messages.iter().map(|m| m.content.clone()).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 95);
    let first = &messages[0];
    assert_eq!(first.content, format!("body \"{}\"", first.message_id));
    assert_eq!(
        (first.sent_at, first.receive_count),
        (Some(1_700_000_000_000), 1)
    );

    settle_all(&io, receipts(&messages), Fate::Delete);
    assert_eq!(server.deleted(), 95);
    assert_eq!(counts.get(), (95, 0));
    assert!(io.shut_down(Duration::from_secs(1)));
}
