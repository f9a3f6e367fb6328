//! What receiving does when things go wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use queue::{End, Error, ErrorKind, Io, Next, Receive};

use crate::reader::*;
use crate::server::{Fault, Server, error};

/// The error that a receive with an end comes to under `fault`, and how long it took.
fn failure(fault: impl Fn() -> Fault + Send + 'static) -> (Error, Duration) {
    let server = Server::start();
    server.send(1);
    server.script(move |_| Some(fault()));
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let began = Instant::now();
    let mut inlet = io.receive(&queue, at_most(10), body);
    match drain(&io, &mut inlet) {
        (messages, Outcome::Failed(error)) => {
            assert!(messages.is_empty());
            assert!(matches!(inlet.next(), Next::Failed(_)), "it comes again");
            (error, began.elapsed())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_does_not_pass_fails_at_once() {
    use ErrorKind::*;
    let cases = [
        (400, error("QueueDoesNotExist"), NoSuchQueue),
        (403, error("AccessDenied"), AccessDenied),
        (403, error("InvalidClientTokenId"), BadCredentials),
        (403, error("ExpiredToken"), BadCredentials),
        (400, error("InvalidParameterValue"), Refused),
        (200, "<html>hello</html>".to_owned(), NotSqs),
        (404, "not here".to_owned(), NotSqs),
    ];
    for (status, text, kind) in cases {
        let answer = text.clone();
        let (error, took) = failure(move || Fault::Answer(status, answer.clone()));
        assert_eq!(error.kind, kind, "{text}");
        assert!(took < Duration::from_secs(3), "{text} {took:?}");
    }
}

#[test]
fn what_may_pass_fails_within_a_bound() {
    let cases: [(fn() -> Fault, ErrorKind); 3] = [
        (|| Fault::Hang, ErrorKind::TimedOut),
        (|| Fault::Answer(503, String::new()), ErrorKind::Unavailable),
        (
            || Fault::Answer(400, error("RequestThrottled")),
            ErrorKind::Throttled,
        ),
    ];
    let runs: Vec<_> = cases
        .into_iter()
        .map(|(fault, kind)| std::thread::spawn(move || (failure(fault), kind)))
        .collect();
    for run in runs {
        let ((error, took), kind) = run.join().unwrap();
        assert_eq!(error.kind, kind);
        assert!(
            took > Duration::from_secs(12) && took < Duration::from_secs(23),
            "{kind:?} {took:?}"
        );
    }
}

#[test]
fn a_clock_that_is_wrong_is_put_right() {
    let server = Server::start();
    server.send(1);
    server.script(|call| {
        (call.number == 0).then_some(Fault::RefuseSignature("Tue, 01 Jan 2041 00:00:00 GMT"))
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(1), body);
    assert_eq!(drain(&io, &mut inlet).0.len(), 1);
    let signed_at: Vec<String> = server
        .calls("ReceiveMessage")
        .into_iter()
        .map(|call| call.signed_at)
        .collect();
    assert!(signed_at[0].starts_with("20"));
    assert!(signed_at[1].starts_with("20410101T"), "{signed_at:?}");
}

#[test]
fn a_slow_answer_is_not_cut_off() {
    let server = Server::start();
    server.send(10);
    server.script(|call| {
        let is_poll = call.action == "ReceiveMessage";
        is_poll.then_some(Fault::Slowly(9, Duration::from_secs(1)))
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(10), body);
    let (messages, _) = drain(&io, &mut inlet);
    assert_eq!(messages.len(), 10);
    assert_eq!(server.calls("ReceiveMessage").len(), 1);
}

#[test]
fn an_answer_that_stalls_is_given_up() {
    let server = Server::start();
    server.send(20);
    server.script(|call| (call.number == 0).then_some(Fault::Stall));
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let began = Instant::now();
    let mut inlet = io.receive(&queue, at_most(10), body);
    assert_eq!(drain(&io, &mut inlet).0.len(), 10);
    let took = began.elapsed();
    assert!(
        took > Duration::from_secs(4) && took < Duration::from_secs(9),
        "{took:?}"
    );
}

/// Patience counts from the first failure, not from when the poll was sent.
#[test]
fn a_poll_that_breaks_late_is_tried_again() {
    let server = Server::start();
    server.send(1);
    server.script(|call| (call.number < 2).then_some(Fault::ResetAfter(Duration::from_secs(4))));
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(1), body);
    assert_eq!(drain(&io, &mut inlet).0.len(), 1);
}

#[test]
fn a_message_with_an_odd_body_costs_no_other() {
    let server = Server::start();
    let message =
        |id: &str, body: &str| format!(r#"{{"MessageId":"{id}","ReceiptHandle":"{id}"{body}}}"#);
    let odd = [
        message("a", ""),
        message("b", r#","Body":null"#),
        message("c", r#","Body":"good""#),
    ];
    let answer = format!(r#"{{"Messages":[{}]}}"#, odd.join(","));
    server.script(move |call| (call.number == 0).then(|| Fault::Answer(200, answer.clone())));
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(3), body);
    let bodies: Vec<String> = drain(&io, &mut inlet)
        .0
        .into_iter()
        .map(|message| message.content)
        .collect();
    assert_eq!(bodies, ["", "", "good"]);
}

/// SQS accepts no such body, and the SDK reads no such answer.
#[test]
fn an_answer_with_a_lone_surrogate_is_not_one_of_sqs() {
    let answer = r#"{"Messages":[{"MessageId":"a","ReceiptHandle":"a","Body":"\ud800"}]}"#;
    let (error, took) = failure(move || Fault::Answer(200, answer.to_owned()));
    assert_eq!(error.kind, ErrorKind::NotSqs);
    assert!(!error.detail.contains("ud800"), "{}", error.detail);
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_server_that_is_not_there_is_given_up_soon() {
    let io = Io::start().unwrap();
    let began = Instant::now();
    let (queue, _) = queue_at("http://127.0.0.1:1/000000000000/login-queue");
    let mut inlet = io.receive(&queue, at_most(10), body);
    let (_, outcome) = drain(&io, &mut inlet);
    let Outcome::Failed(error) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(
        error.detail.contains("http://127.0.0.1:1"),
        "{}",
        error.detail
    );
    assert!(began.elapsed() < Duration::from_secs(6));
}

#[test]
fn a_server_without_tls_is_told_apart() {
    let server = Server::start();
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url().replace("http:", "https:"));
    let mut inlet = io.receive(&queue, at_most(10), body);
    let (_, outcome) = drain(&io, &mut inlet);
    assert!(
        matches!(&outcome, Outcome::Failed(error) if error.kind == ErrorKind::Tls),
        "{outcome:?}"
    );
}

#[test]
fn what_passes_is_not_noticed() {
    let server = Server::start();
    server.send(40);
    server.script(|call| match (call.action.as_str(), call.number) {
        ("ReceiveMessage", 0) => Some(Fault::Answer(503, String::new())),
        ("ReceiveMessage", 1) => Some(Fault::Answer(400, error("ThrottlingException"))),
        ("ReceiveMessage", 2) => Some(Fault::Reset),
        ("ReceiveMessage", 4) => Some(Fault::Reset),
        _ => None,
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(40), body);
    let (messages, outcome) = drain(&io, &mut inlet);
    assert!(
        matches!(outcome, Outcome::End(End::LimitReached)),
        "{outcome:?}"
    );
    assert_eq!(messages.len(), 40);
}

#[test]
fn what_came_before_a_failure_is_delivered_first() {
    let server = Server::start();
    server.send(40);
    server.script(|call| (call.number >= 2).then(|| Fault::Answer(403, error("AccessDenied"))));
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(
        &queue,
        Receive {
            concurrency: 1,
            ..at_most(40)
        },
        body,
    );
    until("refused", || server.calls("ReceiveMessage").len() >= 3);
    std::thread::sleep(Duration::from_millis(100));
    let (messages, outcome) = drain(&io, &mut inlet);
    assert_eq!(messages.len(), 20);
    assert!(matches!(outcome, Outcome::Failed(_)));
}

#[test]
fn other_polls_of_a_failed_receive_release_what_they_bring() {
    let server = Server::start();
    server.send(40);
    server.script(|call| match (call.action.as_str(), call.number) {
        ("ReceiveMessage", 1) => Some(Fault::Answer(403, error("AccessDenied"))),
        ("ReceiveMessage", 2) => Some(Fault::Late(Duration::from_millis(200))),
        _ => None,
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(40), body);
    let (messages, outcome) = drain(&io, &mut inlet);
    assert!(matches!(outcome, Outcome::Failed(_)));
    assert_eq!(messages.len(), 10);
    until("the last poll", || {
        server
            .messages()
            .iter()
            .filter(|m| m.receive_count > 0)
            .count()
            == 20
    });
    until("released", || server.visible() == 30);
}

#[test]
fn without_an_end_a_failure_is_told_once_and_passes() {
    let server = Server::start();
    server.script(|call| {
        let fails = call.action == "ReceiveMessage" && call.number < 6;
        fails.then(|| Fault::Answer(503, String::new()))
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, endless(), body);
    let Next::Failed(error) = next(&io, &mut inlet) else {
        panic!()
    };
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(server.calls("ReceiveMessage").len() >= 3);
    assert!(inlet.trouble().is_some());
    until("calm", || inlet.trouble().is_none());
    assert!(matches!(inlet.next(), Next::Nothing));
    server.send(1);
    assert_eq!(messages(&io, &mut inlet).len(), 1);
}

#[test]
fn without_an_end_a_lasting_failure_is_told_once_and_tried_ever_more_slowly() {
    let server = Server::start();
    server.script(|_| Some(Fault::Answer(400, error("QueueDoesNotExist"))));
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, endless(), body);
    let Next::Failed(error) = next(&io, &mut inlet) else {
        panic!()
    };
    assert_eq!(error.kind, ErrorKind::NoSuchQueue);
    std::thread::sleep(Duration::from_secs(2));
    assert!(matches!(inlet.next(), Next::Nothing));
    let calls = server.calls("ReceiveMessage").len();
    assert!((2..=25).contains(&calls), "{calls} calls in two seconds");
}

#[test]
fn without_an_end_a_hiccup_is_not_told() {
    let server = Server::start();
    server.script(|call| (call.number == 0).then_some(Fault::Reset));
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, endless(), body);
    server.send(1);
    assert_eq!(messages(&io, &mut inlet).len(), 1);
}

/// Polls that fail together are one failure.
#[test]
fn without_an_end_a_hiccup_of_many_polls_is_not_told() {
    let server = Server::start();
    server.send(3_000);
    let mut broken = 0;
    server.script(move |call| {
        if call.action != "ReceiveMessage" {
            return None;
        }
        if call.number > 60 && broken < 8 {
            broken += 1;
            return Some(Fault::Reset);
        }
        Some(Fault::Late(Duration::from_millis(30)))
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, endless(), body);
    let mut taken = 0;
    while taken < 3_000 {
        taken += messages(&io, &mut inlet).len();
    }
}

/// Polls that sleep between attempts do not keep others from being sent.
#[test]
fn a_queue_is_polled_as_soon_as_an_outage_is_over() {
    let server = Server::start();
    server.send(2_000);
    server.script(|_| Some(Fault::Late(Duration::from_millis(20))));
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, endless(), body);
    let mut taken = 0;
    while taken < 1_000 {
        taken += messages(&io, &mut inlet).len();
    }
    server.script(|_| Some(Fault::Answer(503, String::new())));
    let pass = |inlet: &mut queue::Inlet<String>, time, look: &mut dyn FnMut()| {
        let began = Instant::now();
        while began.elapsed() < time {
            while let Next::Messages(_) | Next::Failed(_) = inlet.next() {}
            look();
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    pass(&mut inlet, Duration::from_secs(15), &mut || {});
    server.script(|_| None);
    until("calm", || inlet.trouble().is_none());
    let mut last_poll = Instant::now();
    let mut longest = Duration::ZERO;
    pass(&mut inlet, Duration::from_secs(12), &mut || {
        if server.polls() > 0 {
            last_poll = Instant::now();
        }
        longest = longest.max(last_poll.elapsed());
    });
    assert!(longest < Duration::from_secs(1), "no poll for {longest:?}");
}

#[test]
fn a_burst_of_throttling_leaves_half_of_the_polls() {
    let server = Server::start();
    server.send(5_000);
    let started = Arc::new(AtomicUsize::new(0));
    let after = started.clone();
    server.script(move |call| {
        if call.action != "ReceiveMessage" {
            return None;
        }
        if (100..132).contains(&call.number) {
            return Some(Fault::Answer(400, error("RequestThrottled")));
        }
        if call.number >= 200 {
            after.fetch_add(1, Ordering::SeqCst);
        }
        Some(Fault::Late(Duration::from_millis(100)))
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let how = Receive {
        concurrency: 32,
        ..endless()
    };
    let mut inlet = io.receive(&queue, how, body);
    let (mut most, began) = (0, Instant::now());
    while most == 0 || started.load(Ordering::SeqCst) < 60 {
        assert!(began.elapsed() < Duration::from_secs(20), "{most} polls");
        io.acknowledge();
        match inlet.next() {
            Next::Messages(_) => {}
            _ => wait(&io, Duration::from_millis(10)),
        }
        if started.load(Ordering::SeqCst) > 0 {
            most = most.max(server.polls());
        }
    }
    assert!((4..=16).contains(&most), "{most} polls");
}
