//! How the I/O thread ends.

use std::time::{Duration, Instant};

use queue::{ErrorKind, Fate, Io, Next, Receive};

use crate::reader::*;
use crate::server::{Fault, Server};

/// How long it took, and whether all got done.
fn shut_down(io: Io, deadline: Duration) -> (Duration, bool) {
    let began = Instant::now();
    let all_done = io.shut_down(deadline);
    (began.elapsed(), all_done)
}

#[test]
fn a_long_poll_is_not_waited_for() {
    let server = Server::start();
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, endless(), body);
    until("a poll", || server.polls() == 1);
    std::thread::sleep(Duration::from_millis(100));
    let (took, all_done) = shut_down(io, Duration::from_secs(5));
    assert!(all_done);
    assert!(took < Duration::from_millis(100), "{took:?}");
    match inlet.next() {
        Next::Failed(error) => assert_eq!(error.kind, ErrorKind::Internal),
        other => panic!("{other:?}"),
    }
}

#[test]
fn idle_is_over_at_once() {
    let (took, all_done) = shut_down(Io::start().unwrap(), Duration::from_secs(5));
    assert!(all_done);
    assert!(took < Duration::from_millis(100), "{took:?}");
}

#[test]
fn everything_held_is_released_and_settlements_are_finished() {
    let server = Server::start();
    server.send(300);
    server.script(|call| {
        (call.action != "ReceiveMessage").then_some(Fault::Late(Duration::from_millis(10)))
    });
    let io = Io::start().unwrap();
    let (queue, counts) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(200), body);
    let taken: Vec<_> = (0..5).map(|_| messages(&io, &mut inlet)).collect();
    until("200 received", || server.visible() == 100);
    io.settle(receipts(&taken[0]), Fate::Delete);
    let (took, all_done) = shut_down(io, Duration::from_secs(5));
    assert!(all_done);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(counts.get(), (10, 0));
    assert_eq!((server.deleted(), server.visible()), (10, 290));
}

#[test]
fn what_a_young_poll_brings_is_released() {
    let server = Server::start();
    server.send(1_000);
    server.script(|call| {
        (call.action == "ReceiveMessage").then_some(Fault::Late(Duration::from_millis(20)))
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let _inlet = io.receive(
        &queue,
        Receive {
            limit: None,
            ..at_most(1)
        },
        body,
    );
    until("many received", || server.visible() < 800);
    let (took, all_done) = shut_down(io, Duration::from_secs(5));
    assert!(all_done);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(server.visible(), 1_000);
}

#[test]
fn a_young_poll_is_waited_for_although_nothing_is_held() {
    let server = Server::start();
    server.send(5);
    server.script(|call| {
        let is_poll = call.action == "ReceiveMessage";
        is_poll.then_some(Fault::LateAndBlind(Duration::from_millis(10)))
    });
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let _inlet = io.receive(&queue, at_most(10), body);
    until("a poll", || server.polls() == 1);
    assert!(io.shut_down(Duration::from_secs(5)));
    until("received", || server.messages()[0].receive_count == 1);
    assert_eq!(server.visible(), 5);
}

#[test]
fn the_deadline_is_kept() {
    let server = Server::start();
    server.send(300);
    let io = Io::start().unwrap();
    let (queue, counts) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(300), body);
    let (messages, _) = drain(&io, &mut inlet);
    server.script(|_| Some(Fault::Hang));
    io.settle(receipts(&messages), Fate::Delete);
    let (took, all_done) = shut_down(io, Duration::from_millis(300));
    assert!(!all_done);
    assert!(
        took >= Duration::from_millis(300) && took < Duration::from_secs(1),
        "{took:?}"
    );
    assert_eq!(counts.get(), (0, 300));
}

#[test]
fn connections_are_dropped() {
    let server = Server::start();
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let _inlet = io.receive(&queue, endless(), body);
    until("a poll", || server.polls() == 1);
    io.shut_down(Duration::from_secs(1));
    until("gone", || server.polls() == 0);
}

#[test]
fn dropping_ends_the_thread() {
    let server = Server::start();
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, endless(), body);
    until("a poll", || server.polls() == 1);
    drop(io);
    assert!(matches!(inlet.next(), Next::Failed(_)));
    until("gone", || server.polls() == 0);
}
