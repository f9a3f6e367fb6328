//! What is held stays hidden, whatever the time.

use std::time::Duration;

use queue::{Fate, Io, Receive};

use crate::reader::*;
use crate::server::{Fault, Server};

fn two_seconds(limit: u64) -> Receive {
    Receive {
        visibility: Duration::from_secs(2),
        ..at_most(limit)
    }
}

fn hidden_for(server: &Server, time: Duration) {
    let end = std::time::Instant::now() + time;
    while std::time::Instant::now() < end {
        assert_eq!(server.visible(), 0);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_is_held_stays_hidden_until_it_is_settled() {
    let server = Server::start();
    server.send(95);
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut taken = io.receive(&queue, two_seconds(50), body);
    let (messages, _) = drain(&io, &mut taken);
    let untaken = io.receive(&queue, two_seconds(45), body);
    until("all received", || server.visible() == 0);
    hidden_for(&server, Duration::from_secs(6));

    settle_all(&io, receipts(&messages), Fate::Delete);
    drop(untaken);
    until("released", || server.visible() == 45);
    let extensions = server.calls("ChangeMessageVisibilityBatch");
    assert!(extensions.iter().all(|call| call.entries() <= 10));
}

#[test]
fn what_a_waiting_poll_brought_is_extended_to_the_wanted_time() {
    let server = Server::start();
    server.send(1);
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(1), body);
    drain(&io, &mut inlet);
    hidden_for(&server, Duration::from_secs(4));
    let calls = server.calls("ChangeMessageVisibilityBatch");
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].body["Entries"][0]["VisibilityTimeout"], 30);
}

/// Else a large backlog, answered with fewer than ten now and then as SQS does, would have to be extended faster than
/// it is received.
#[test]
fn only_a_poll_that_knows_of_no_backlog_asks_for_a_short_time() {
    let server = Server::start();
    server.send(500);
    server.script(|call| {
        let is_later = call.action == "ReceiveMessage" && call.number >= 3;
        is_later.then_some(Fault::AtMost(9))
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(500), body);
    let (messages, _) = drain(&io, &mut inlet);
    assert_eq!(messages.len(), 500);
    let asked: Vec<u64> = server
        .calls("ReceiveMessage")
        .iter()
        .map(|call| call.body["VisibilityTimeout"].as_u64().unwrap())
        .collect();
    assert_eq!(asked[0], 3);
    assert!(asked[1..].iter().all(|seconds| *seconds == 30), "{asked:?}");
}

/// 3,000 messages take 150 calls each second, of 200 ms each.
#[test]
fn much_that_is_held_stays_hidden_at_a_slow_server() {
    let server = Server::start();
    server.send(3_000);
    server.script(|call| {
        let is_extension = call.action == "ChangeMessageVisibilityBatch";
        is_extension.then_some(Fault::Late(Duration::from_millis(200)))
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let how = Receive {
        visibility: Duration::from_secs(4),
        ..at_most(3_000)
    };
    let mut inlet = io.receive(&queue, how, body);
    let (messages, _) = drain(&io, &mut inlet);
    assert_eq!(messages.len(), 3_000);
    hidden_for(&server, Duration::from_secs(9));
}

/// Their owner allows connections accordingly.
#[test]
fn how_many_responses_are_held_is_known() {
    let server = Server::start();
    server.send(95);
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(95), body);
    let (messages, _) = drain(&io, &mut inlet);
    until("ten", || io.responses_held() == 10);
    settle_all(&io, receipts(&messages), Fate::Delete);
    until("none", || io.responses_held() == 0);
}

#[test]
fn a_failed_extension_is_tried_again() {
    let server = Server::start();
    server.send(20);
    server.script(|call| {
        let fails = call.action == "ChangeMessageVisibilityBatch" && call.number < 4;
        fails.then(|| match call.number % 2 {
            0 => Fault::Answer(503, String::new()),
            _ => Fault::FailEntries(vec![3], "InternalError", false),
        })
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let how = Receive {
        visibility: Duration::from_secs(3),
        ..at_most(20)
    };
    let mut inlet = io.receive(&queue, how, body);
    drain(&io, &mut inlet);
    hidden_for(&server, Duration::from_secs(5));
}

#[test]
fn a_refused_extension_is_not_tried_again() {
    let server = Server::start();
    server.send(1);
    server.script(|call| {
        (call.action == "ChangeMessageVisibilityBatch")
            .then(|| Fault::FailEntries(vec![0], "MessageNotInflight", true))
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, two_seconds(1), body);
    drain(&io, &mut inlet);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(server.calls("ChangeMessageVisibilityBatch").len(), 1);
}

#[test]
fn extending_keeps_neither_receiving_nor_deleting_waiting() {
    let server = Server::start();
    server.send(400);
    server.script(|call| (call.action == "ChangeMessageVisibilityBatch").then_some(Fault::Hang));
    let io = Io::start().unwrap();
    let (queue, counts) = queue_at(&server.url());
    let mut held = io.receive(&queue, two_seconds(200), body);
    let (messages, _) = drain(&io, &mut held);
    until("extending", || {
        server.calls("ChangeMessageVisibilityBatch").len() >= 8
    });
    let began = std::time::Instant::now();
    let mut more = io.receive(&queue, at_most(200), body);
    let (others, _) = drain(&io, &mut more);
    settle_all(&io, receipts(&messages), Fate::Delete);
    settle_all(&io, receipts(&others), Fate::Delete);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(counts.get().0 > 300);
}

#[test]
fn a_release_waits_for_an_extension_under_way() {
    let server = Server::start();
    server.send(1);
    server.script(|call| {
        (call.action == "ChangeMessageVisibilityBatch" && call.number == 0)
            .then_some(Fault::Late(Duration::from_millis(500)))
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, two_seconds(1), body);
    let (messages, _) = drain(&io, &mut inlet);
    until("extending", || {
        !server.calls("ChangeMessageVisibilityBatch").is_empty()
    });
    settle_all(&io, receipts(&messages), Fate::Release);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(server.visible(), 1);
}

/// At a queue that gives fewer than ten, nothing else would ever ask for more than the short time.
#[test]
fn messages_of_an_answer_that_arrives_slowly_are_received_once() {
    let server = Server::start();
    server.send(5);
    server.script(|call| {
        let is_poll = call.action == "ReceiveMessage";
        is_poll.then_some(Fault::Slowly(5, Duration::from_secs(1)))
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(100), body);
    let (messages, _) = drain(&io, &mut inlet);
    assert_eq!(messages.len(), 5);
    assert!(server.messages().iter().all(|m| m.receive_count == 1));
    let calls = server.calls("ReceiveMessage");
    assert_eq!(calls[0].body["VisibilityTimeout"], 3);
    assert_eq!(calls[1].body["VisibilityTimeout"], 30);
}

/// A poll that is left behind at the end of a backlog hides what it is given for as long as it asked.
#[test]
fn no_poll_asks_for_more_than_half_a_minute() {
    let server = Server::start();
    server.send(100);
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let how = Receive {
        visibility: Duration::from_secs(3_600),
        ..at_most(100)
    };
    let mut inlet = io.receive(&queue, how, body);
    let (messages, _) = drain(&io, &mut inlet);
    let asked: Vec<u64> = server
        .calls("ReceiveMessage")
        .iter()
        .map(|call| call.body["VisibilityTimeout"].as_u64().unwrap())
        .collect();
    assert_eq!(asked[0], 3);
    assert!(asked[1..].iter().all(|seconds| *seconds == 30), "{asked:?}");
    // Only what was received for 3 s is extended soon.
    std::thread::sleep(Duration::from_millis(1_500));
    let extensions = server.calls("ChangeMessageVisibilityBatch");
    assert_eq!(extensions.len(), 1);
    assert_eq!(extensions[0].body["Entries"][0]["VisibilityTimeout"], 3_600);
    settle_all(&io, receipts(&messages), Fate::Delete);
}
