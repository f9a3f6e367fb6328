//! Receiving: what comes, in what order, how much is asked for, and how it ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use queue::{End, Fate, Io, Next, Observer, Queue, QueueUrl, Receive};

use crate::reader::*;
use crate::server::{Call, Fault, Server, error};

#[test]
fn a_queue_is_drained_and_emptied() {
    let server = Server::start();
    server.send(95);
    let io = Io::start().unwrap();
    let (queue, counts) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(1000), body);
    let (messages, outcome) = drain(&io, &mut inlet);
    assert!(matches!(outcome, Outcome::End(End::Empty)), "{outcome:?}");
    assert!(matches!(inlet.next(), Next::End(End::Empty)));
    let mut bodies: Vec<String> = messages.iter().map(|m| m.content.clone()).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 95);
    let first = &messages[0];
    assert_eq!(first.content, format!("body \"{}\"", first.message_id));
    assert_eq!(first.sent_at, Some(1_700_000_000_000));
    assert_eq!(first.receive_count, 1);
    assert_eq!(first.group, None);

    settle_all(&io, receipts(&messages), Fate::Delete);
    assert_eq!(server.deleted(), 95);
    assert_eq!(counts.get(), (95, 0));
    assert!(io.shut_down(Duration::from_secs(1)));
}

#[test]
fn the_limit_is_kept_and_no_poll_is_left_behind() {
    let server = Server::start();
    server.send(100);
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    for limit in [0, 1, 10, 11, 27] {
        let mut inlet = io.receive(&queue, at_most(limit), body);
        let (messages, outcome) = drain(&io, &mut inlet);
        assert!(
            matches!(outcome, Outcome::End(End::LimitReached)),
            "{outcome:?}"
        );
        assert_eq!(messages.len() as u64, limit);
        assert_eq!(server.polls(), 0);
        settle_all(&io, receipts(&messages), Fate::Delete);
    }
    assert_eq!(server.visible(), 100 - 49);
}

#[test]
fn two_inlets_receive_at_once() {
    let server = Server::start();
    server.send(200);
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlets = [
        io.receive(&queue, at_most(100), body),
        io.receive(&queue, at_most(100), body),
    ];
    for inlet in &mut inlets {
        assert_eq!(drain(&io, inlet).0.len(), 100);
    }
    assert_eq!(server.visible(), 0);
}

#[test]
fn polls_double_while_answers_are_full() {
    let server = Server::start();
    server.send(1_000);
    server.script(|call| {
        (call.action == "ReceiveMessage").then_some(Fault::Late(Duration::from_millis(60)))
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(
        &queue,
        Receive {
            concurrency: 5,
            ..at_most(1_000)
        },
        body,
    );
    assert_eq!(drain(&io, &mut inlet).0.len(), 1_000);
    let calls = server.calls("ReceiveMessage");
    let between = |one: usize, other: usize| calls[other].at - calls[one].at;
    let latency = Duration::from_millis(60);
    assert!(between(0, 1) >= latency, "one at first");
    assert!(between(1, 2) < latency, "then two");
    assert!(between(1, 3) >= latency, "and no third");
    assert_eq!(server.most_in_flight("ReceiveMessage"), 5);
}

#[test]
fn an_idle_queue_costs_one_poll_at_a_time() {
    let server = Server::start();
    server.send(200);
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, endless(), body);
    let mut got = 0;
    while got < 200 {
        got += messages(&io, &mut inlet).len();
    }
    until("idle", || server.polls() <= 1);
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(server.polls(), 1);

    let sent = Instant::now();
    server.send(1);
    assert_eq!(messages(&io, &mut inlet).len(), 1);
    assert!(sent.elapsed() < Duration::from_millis(900));
}

#[test]
fn waits_are_sliced_where_nobody_notices_that_a_caller_has_gone() {
    let server = Server::start();
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let three_seconds = Receive {
        wait: Duration::from_secs(3),
        ..at_most(10)
    };
    let began = Instant::now();
    let mut inlet = io.receive(&queue, three_seconds, body);
    let (_, outcome) = drain(&io, &mut inlet);
    assert!(matches!(outcome, Outcome::End(End::Empty)), "{outcome:?}");
    assert!(began.elapsed() >= Duration::from_secs(3));
    let waits: Vec<u64> = server
        .calls("ReceiveMessage")
        .iter()
        .map(|call| call.body["WaitTimeSeconds"].as_u64().unwrap())
        .collect();
    assert_eq!(waits, [1, 1, 1]);
}

#[test]
fn a_server_that_does_not_wait_is_not_hammered() {
    let server = Server::start();
    server.script(|call| {
        (call.action == "ReceiveMessage").then(|| Fault::Answer(200, "{}".to_owned()))
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let _inlet = io.receive(&queue, endless(), body);
    std::thread::sleep(Duration::from_secs(2));
    let calls = server.calls("ReceiveMessage").len();
    assert!((3..12).contains(&calls), "{calls} calls");
}

#[test]
fn requests_say_what_they_must() {
    let server = Server::start();
    server.send(10);
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(13), body);
    drain(&io, &mut inlet);
    let calls = server.calls("ReceiveMessage");
    for call in &calls {
        assert_eq!(call.body["QueueUrl"], server.url());
        assert_eq!(
            call.body["MessageSystemAttributeNames"],
            serde_json::json!(["SentTimestamp", "ApproximateReceiveCount"])
        );
        assert!(call.body.get("ReceiveRequestAttemptId").is_none());
        assert!(
            call.authorization
                .starts_with("AWS4-HMAC-SHA256 Credential=")
        );
        assert!(call.authorization.contains("/us-east-1/sqs/aws4_request"));
    }
    // The first poll may wait, the second knows of a backlog.
    let of_each = |name: &str| -> Vec<u64> {
        calls
            .iter()
            .take(2)
            .map(|call| call.body[name].as_u64().unwrap())
            .collect()
    };
    assert_eq!(of_each("MaxNumberOfMessages"), [10, 3]);
    assert_eq!(of_each("VisibilityTimeout"), [3, 30]);
}

/// Lets a receive ask for a number of messages.
struct Narrow(AtomicUsize);

impl Observer for Narrow {
    fn deleted(&self, _messages: u64) {}
    fn delete_failed(&self, _messages: u64) {}
    fn most_per_receive(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn the_observer_bounds_what_each_receive_asks_for() {
    let server = Server::start();
    server.send(40);
    server.script(|_| Some(Fault::Late(Duration::from_millis(20))));
    let io = Io::start().unwrap();
    let narrow = Arc::new(Narrow(AtomicUsize::new(0)));
    let url = QueueUrl::parse(&server.fifo_url()).unwrap();
    let queue = Queue::new(url, None, None, narrow.clone()).unwrap();
    let mut inlet = io.receive(&queue, endless(), body);
    for _ in 0..20 {
        assert_eq!(messages(&io, &mut inlet).len(), 1);
    }
    assert!(
        server.most_in_flight("ReceiveMessage") > 1,
        "one is all that was asked for, so the answer is full"
    );
    narrow.0.store(11, Ordering::SeqCst);
    until("all received", || server.visible() == 0);
    server.send(20);
    let asked = |call: &Call| call.body["MaxNumberOfMessages"].as_u64().unwrap();
    until("ten asked for", || {
        server
            .calls("ReceiveMessage")
            .iter()
            .any(|call| asked(call) == 10)
    });
    assert!(
        server
            .calls("ReceiveMessage")
            .iter()
            .all(|call| [1, 10].contains(&asked(call)))
    );
}

#[test]
fn a_receive_that_is_wound_down_delivers_what_its_polls_bring() {
    let server = Server::start();
    server.send(1_000);
    server.script(|call| {
        let is_poll = call.action == "ReceiveMessage";
        is_poll.then_some(Fault::LateAndBlind(Duration::from_millis(100)))
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, endless(), body);
    until("several polls", || server.polls() >= 4);
    inlet.wind_down();
    let polls = server.calls("ReceiveMessage").len();
    assert!(inlet.polls_about_to_answer());
    let (messages, outcome) = drain(&io, &mut inlet);
    assert!(matches!(outcome, Outcome::End(End::Stopped)), "{outcome:?}");
    let all_polls = server.calls("ReceiveMessage").len();
    assert!(all_polls <= polls + 8, "only what was on its way");
    assert_eq!(messages.len(), all_polls * 10);
    assert_eq!(server.visible(), 1_000 - messages.len());
    assert!(!inlet.polls_about_to_answer());
}

#[test]
fn a_poll_that_waits_at_an_empty_queue_is_not_about_to_answer() {
    let server = Server::start();
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, endless(), body);
    until("a poll", || server.polls() == 1);
    inlet.wind_down();
    until("waiting in vain", || !inlet.polls_about_to_answer());
    assert_eq!(server.polls(), 1);
    assert!(matches!(next(&io, &mut inlet), Next::End(End::Stopped)));
    assert_eq!(server.calls("ReceiveMessage").len(), 1);
}

#[test]
fn winding_down_ends_a_pause() {
    let server = Server::start();
    server.script(|_| Some(Fault::Answer(403, error("AccessDenied"))));
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, endless(), body);
    until("long pauses", || server.calls("ReceiveMessage").len() >= 7);
    assert!(matches!(next(&io, &mut inlet), Next::Failed(_)));
    let began = Instant::now();
    inlet.wind_down();
    assert!(matches!(next(&io, &mut inlet), Next::End(End::Stopped)));
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_full_pipe_stops_further_polls() {
    let server = Server::start();
    server.send(10_000);
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(
        &queue,
        Receive {
            limit: Some(10_000),
            ..endless()
        },
        body,
    );
    until("full", || server.visible() <= 10_000 - 5_120);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.visible(), 10_000 - 5_120);
    assert_eq!(server.polls(), 0);
    assert_eq!(drain(&io, &mut inlet).0.len(), 10_000);
}

#[test]
fn a_panic_in_decode_costs_its_message_only() {
    let server = Server::start();
    server.send(20);
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let decode = |body: &str| assert!(!body.contains("\"7\""), "secret {body}");
    let how = Receive {
        visibility: Duration::from_secs(1),
        ..at_most(20)
    };
    let mut inlet = io.receive(&queue, how, decode);
    let (messages, outcome) = drain(&io, &mut inlet);
    assert!(
        matches!(outcome, Outcome::End(End::LimitReached)),
        "{outcome:?}"
    );
    assert_eq!(messages.len(), 19);
    settle_all(&io, receipts(&messages), Fate::Delete);
    until("back in the queue", || server.visible() == 1);
    assert_eq!(server.deleted(), 19);
}

#[test]
fn fifo_order_is_kept_within_a_group() {
    let server = Server::start();
    for number in 0..60 {
        server.send_to_group(Some(["a", "b", "c"][number % 3]));
    }
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.fifo_url());
    let mut inlet = io.receive(&queue, at_most(60), |body| {
        body.trim_matches(|c: char| !c.is_ascii_digit())
            .parse::<u32>()
            .unwrap()
    });
    let mut last: HashMap<String, u32> = HashMap::new();
    let mut got = 0;
    loop {
        match next(&io, &mut inlet) {
            Next::Messages(messages) => {
                for message in &messages {
                    let group = message.group.as_deref().unwrap().to_owned();
                    let before = last.insert(group, message.content);
                    assert!(before.is_none_or(|before| before < message.content));
                }
                got += messages.len();
                io.settle(receipts(&messages), Fate::Delete);
            }
            Next::End(End::LimitReached) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, 60);
}

/// It takes 300 calls a second.
#[test]
fn a_fifo_queue_is_polled_by_sixteen_at_most() {
    let server = Server::start();
    for number in 0..1_500 {
        server.send_to_group(Some(&format!("group {number}")));
    }
    server.script(|_| Some(Fault::Late(Duration::from_millis(50))));
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.fifo_url());
    let how = Receive {
        concurrency: 64,
        ..at_most(1_500)
    };
    let mut inlet = io.receive(&queue, how, body);
    assert_eq!(drain(&io, &mut inlet).0.len(), 1_500);
    let most = server.most_in_flight("ReceiveMessage");
    assert!((8..=16).contains(&most), "{most}");
}

#[test]
fn a_fifo_receive_keeps_its_attempt_id_when_tried_again() {
    let server = Server::start();
    server.send_to_group(Some("a"));
    server.script(|call| {
        (call.action == "ReceiveMessage" && call.number < 2).then_some(Fault::Reset)
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.fifo_url());
    let mut inlet = io.receive(&queue, at_most(2), body);
    assert_eq!(messages(&io, &mut inlet).len(), 1);
    until("a second receive", || {
        server.calls("ReceiveMessage").len() >= 4
    });
    let ids: Vec<String> = server
        .calls("ReceiveMessage")
        .iter()
        .map(|call| {
            call.body["ReceiveRequestAttemptId"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(ids[0], ids[1]);
    assert_eq!(ids[0], ids[2]);
    assert_ne!(ids[0], ids[3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever a server answers, what is asked for in all never exceeds the limit, nor polls in flight the
    /// concurrency.
    #[test]
    fn no_more_is_asked_for_than_is_wanted(
        limit in 1u64..120,
        concurrency in 1usize..9,
        stock in 0usize..200,
        delays in proptest::collection::vec(0u64..6, 1..8),
        failures in proptest::collection::vec(any::<bool>(), 1..6),
    ) {
        let server = Server::start();
        server.send(stock);
        server.script(move |call| {
            if call.action != "ReceiveMessage" {
                None
            } else if failures[call.number % failures.len()] && call.number % 3 == 2 {
                Some(Fault::Answer(503, String::new()))
            } else {
                Some(Fault::Late(Duration::from_millis(delays[call.number % delays.len()])))
            }
        });
        let io = Io::start().unwrap();
        let (queue, _) = queue_at(&server.url());
        let how = Receive { wait: Duration::ZERO, concurrency, ..at_most(limit) };
        let mut inlet = io.receive(&queue, how, body);
        let (messages, outcome) = drain(&io, &mut inlet);
        prop_assert!(matches!(outcome, Outcome::End(_)), "{outcome:?}");
        prop_assert_eq!(messages.len() as u64, limit.min(stock as u64));
        prop_assert!(server.most_in_flight("ReceiveMessage") <= concurrency);
        for call in server.calls("ReceiveMessage") {
            prop_assert!(call.body["MaxNumberOfMessages"].as_u64().unwrap() <= limit);
        }
        let received: u32 = server.messages().iter().map(|message| message.receive_count).sum();
        prop_assert!(u64::from(received) <= limit);
    }
}
