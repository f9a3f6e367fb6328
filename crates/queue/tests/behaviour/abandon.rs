//! What becomes of polls, and of what is held, when nobody wants more: a cancel, an error, the end of the process.

use std::time::{Duration, Instant};

use queue::{Fate, Inlet, Io, Receipt, Receive};

use crate::reader::*;
use crate::server::{Fault, Server};

/// A receive at the end of a backlog: its many polls wait at the empty queue, and five messages are held.
fn many_polls_wait(server: &Server, io: &Io) -> (Inlet<String>, Vec<Receipt>) {
    const CALLS: usize = 64;
    server.send(CALLS * 10);
    server.script(|call| match call.action.as_str() {
        "ReceiveMessage" if call.number < CALLS => Some(Fault::Late(Duration::from_millis(50))),
        // As long as they may, so that they wait when the test gets there.
        "ReceiveMessage" => Some(Fault::Wait(4)),
        _ => None,
    });
    let (queue, _) = queue_at(&server.url());
    let how = Receive {
        concurrency: 32,
        ..endless()
    };
    let mut inlet = io.receive(&queue, how, body);
    let (mut taken, mut held) = (0, Vec::new());
    while taken < CALLS * 10 {
        let mut receipts = receipts(&messages(io, &mut inlet));
        taken += receipts.len();
        while held.len() < 5 {
            held.extend(receipts.pop());
        }
        io.settle(receipts, Fate::Delete);
    }
    until("deleted", || io.unsettled() == 0);
    assert!(server.polls() > 4, "{} polls wait", server.polls());
    (inlet, held)
}

fn receive_counts(server: &Server) -> Vec<u32> {
    let left = server.messages().into_iter().filter(|m| !m.deleted);
    left.map(|message| message.receive_count).collect()
}

/// Each time counts against the queue's `maxReceiveCount`.
#[test]
fn messages_released_after_a_cancel_do_not_go_from_poll_to_poll() {
    let server = Server::start();
    let io = Io::start().unwrap();
    let (inlet, held) = many_polls_wait(&server, &io);
    drop(inlet);
    io.settle(held, Fate::Release);
    until("released", || server.polls() == 0 && server.visible() == 5);
    let counts = receive_counts(&server);
    assert!(counts.iter().all(|count| *count <= 2), "{counts:?}");
}

#[test]
fn messages_are_not_received_again_by_polls_of_a_cancelled_call_that_end_soon() {
    let server = Server::start();
    let io = Io::start().unwrap();
    server.send(10);
    let (queue, _) = queue_at(&server.url());
    let how = Receive {
        wait: Duration::from_secs(1),
        ..endless()
    };
    let mut inlet = io.receive(&queue, how, body);
    let held = receipts(&messages(&io, &mut inlet));
    until("another poll waits", || server.polls() > 0);
    drop(inlet);
    io.settle(held, Fate::Release);
    until("released", || io.unsettled() == 0);
    assert_eq!(receive_counts(&server), [1; 10]);
}

#[test]
fn what_a_cancelled_call_holds_is_released_soon_although_its_polls_hang() {
    let server = Server::start();
    let io = Io::start().unwrap();
    server.send(10);
    server
        .script(|call| (call.action == "ReceiveMessage" && call.number > 0).then_some(Fault::Hang));
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, endless(), body);
    let held = receipts(&messages(&io, &mut inlet));
    until("another poll waits", || {
        server.calls("ReceiveMessage").len() > 1
    });
    drop(inlet);
    let began = Instant::now();
    io.settle(held, Fate::Release);
    until("released", || server.visible() == 10);
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[test]
fn messages_released_at_the_end_of_the_thread_do_not_go_from_poll_to_poll() {
    let server = Server::start();
    let io = Io::start().unwrap();
    let (_inlet, _held) = many_polls_wait(&server, &io);
    // No poll is likely to bring something any more.
    std::thread::sleep(Duration::from_millis(600));
    let began = Instant::now();
    assert!(io.shut_down(Duration::from_secs(5)));
    assert!(began.elapsed() < Duration::from_secs(2));
    let counts = receive_counts(&server);
    assert!(counts.iter().all(|count| *count <= 2), "{counts:?}");
    until("visible", || server.visible() == 5);
}

#[test]
fn what_the_polls_of_a_dropped_inlet_bring_is_released_once() {
    let server = Server::start();
    let io = Io::start().unwrap();
    let (inlet, held) = many_polls_wait(&server, &io);
    io.settle(held, Fate::Delete);
    drop(inlet);
    server.send(5);
    until("brought", || receive_counts(&server) == [1; 5]);
    until("released", || server.visible() == 5);
    assert_eq!(server.polls(), 0);
    assert_eq!(receive_counts(&server), [1; 5]);
}
