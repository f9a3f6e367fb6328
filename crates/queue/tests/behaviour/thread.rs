//! The thread itself: its signals, its silence.

use std::fs;
use std::process::Command;
use std::time::Duration;

use queue::{Fate, Io, Receive, Setup};

use crate::reader::*;
use crate::server::{Fault, Server};

/// The blocked signals of the threads whose name is `name`, as a mask with bit 0 for signal 1.
fn blocked_signals(name: &str) -> Vec<u64> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| {
            let folder = task.unwrap().path();
            let found = fs::read_to_string(folder.join("comm")).ok()?;
            let status = fs::read_to_string(folder.join("status")).ok()?;
            let mask = status
                .lines()
                .find_map(|line| line.strip_prefix("SigBlk:"))?;
            (found.trim() == name).then(|| u64::from_str_radix(mask.trim(), 16).unwrap())
        })
        .collect()
}

#[test]
fn every_signal_is_blocked_there_and_none_more_here() {
    let own_mask = || {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        mask.unwrap().trim().to_owned()
    };
    let before = own_mask();
    let _io = Io::start().unwrap();
    assert_eq!(own_mask(), before);
    let masks = blocked_signals("sqs io");
    assert!(!masks.is_empty());
    // SIGKILL and SIGSTOP cannot be blocked, and the C library keeps 32 and 33 for itself.
    let not_blockable: u64 = [9, 19, 32, 33].iter().map(|signal| 1 << (signal - 1)).sum();
    for mask in masks {
        assert_eq!(mask | not_blockable, u64::MAX, "{mask:x}");
    }
}

#[test]
fn no_more_connections_are_open_than_allowed() {
    let server = Server::start();
    server.send(600);
    server.script(|_| Some(Fault::Late(Duration::from_millis(10))));
    let io = Io::start_with(Setup {
        connections: 4,
        ..Setup::default()
    })
    .unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(300), body);
    let (messages, _) = drain(&io, &mut inlet);
    settle_all(&io, receipts(&messages), Fate::Delete);
    let (_, most) = server.connections();
    assert!(most <= 4, "{most}");

    io.allow_connections(40);
    let mut inlet = io.receive(&queue, at_most(300), body);
    let (messages, _) = drain(&io, &mut inlet);
    settle_all(&io, receipts(&messages), Fate::Delete);
    let (_, most) = server.connections();
    assert!(most > 4 && most <= 40, "{most}");
    assert_eq!(server.deleted(), 600);
}

#[test]
fn idle_connections_are_closed() {
    let server = Server::start();
    server.send(100);
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(100), body);
    let (messages, _) = drain(&io, &mut inlet);
    settle_all(&io, receipts(&messages), Fate::Delete);
    assert!(server.connections().0 > 0);
    until("closed", || server.connections().0 == 0);
}

/// Run by the next test, in a process of its own, for its standard error.
#[test]
#[ignore = "part of a_panic_in_decode_prints_nothing"]
fn decode_that_panics() {
    let server = Server::start();
    server.send(3);
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let how = Receive {
        wait: Duration::ZERO,
        ..at_most(3)
    };
    let mut inlet = io.receive(&queue, how, |body| panic!("secret {body}"));
    let (messages, _): (Vec<queue::Received<()>>, _) = drain(&io, &mut inlet);
    assert!(messages.is_empty());
    std::panic::catch_unwind(|| panic!("another thread's")).unwrap_err();
}

#[test]
fn a_panic_in_decode_prints_nothing() {
    let run = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "thread::decode_that_panics",
            "--ignored",
            "--nocapture",
        ])
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&run.stderr).into_owned() + &String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}");
    assert!(!said.contains("secret"), "{said}");
    assert!(said.contains("another thread's"), "{said}");
}

#[test]
fn work_is_repeated_until_the_thread_ends() {
    const PAUSE: Duration = Duration::from_millis(10);
    let io = Io::start().unwrap();
    let (done, times) = std::sync::mpsc::channel();
    io.repeat(PAUSE, move || {
        let _ = done.send(());
    });
    for _ in 0..3 {
        times.recv_timeout(Duration::from_secs(10)).unwrap();
    }
    assert!(io.shut_down(Duration::from_secs(1)));
    while times.recv().is_ok() {}
}
