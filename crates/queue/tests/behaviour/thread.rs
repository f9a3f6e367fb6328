//! The thread itself: its signals, its silence.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

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

/// Idle ones to other hosts included.
#[test]
fn no_more_connections_are_open_to_several_hosts_than_allowed() {
    let servers = [(); 3].map(|()| Server::start());
    let io = Io::start_with(Setup {
        connections: 16,
        ..Setup::default()
    })
    .unwrap();
    for server in &servers {
        server.send(1_000);
        server.script(|_| Some(Fault::Late(Duration::from_millis(10))));
        let (queue, _) = queue_at(&server.url());
        let how = Receive {
            concurrency: 64,
            ..at_most(1_000)
        };
        let mut inlet = io.receive(&queue, how, body);
        let (messages, _) = drain(&io, &mut inlet);
        settle_all(&io, receipts(&messages), Fate::Delete);
        let open: usize = servers.iter().map(|server| server.connections().0).sum();
        assert!(open <= 16, "{open}");
    }
}

#[test]
fn polls_that_nobody_wants_any_more_keep_no_other_waiting() {
    let (server, other) = (Server::start(), Server::start());
    other.send(1);
    // As at AWS, where a poll waits for long.
    server.script(|_| Some(Fault::Late(Duration::from_millis(4_500))));
    let io = Io::start_with(Setup {
        connections: 4,
        ..Setup::default()
    })
    .unwrap();
    for number in 1..=2 {
        let (queue, _) = queue_at(&server.url());
        let inlet = io.receive(&queue, at_most(10), body);
        until("a poll", || server.polls() == number);
        drop(inlet);
    }
    let (queue, _) = queue_at(&other.url());
    let how = Receive {
        wait: Duration::ZERO,
        ..at_most(1)
    };
    let began = Instant::now();
    let mut inlet = io.receive(&queue, how, body);
    assert_eq!(drain(&io, &mut inlet).0.len(), 1);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// Run by the next test, in a process of its own, for its limit on open files.
#[test]
#[ignore = "part of a_call_makes_do_with_the_files_that_it_may_open"]
fn receive_with_few_files() {
    let io = Io::start().unwrap();
    let (queue, counts) = queue_at(&std::env::var("QUEUE_URL").unwrap());
    let open = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let limit = libc::rlimit {
        rlim_cur: open + 12,
        rlim_max: open + 12,
    };
    // SAFETY: the limit lives across the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    let how = Receive {
        concurrency: 64,
        ..at_most(3_000)
    };
    let mut inlet = io.receive(&queue, how, body);
    let (messages, outcome) = drain(&io, &mut inlet);
    assert!(matches!(outcome, Outcome::End(_)), "{outcome:?}");
    assert_eq!(messages.len(), 3_000);
    settle_all(&io, receipts(&messages), Fate::Delete);
    assert_eq!(counts.get(), (3_000, 0));
}

#[test]
fn a_call_makes_do_with_the_files_that_it_may_open() {
    let server = Server::start();
    server.send(3_000);
    server.script(|_| Some(Fault::Late(Duration::from_millis(400))));
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "thread::receive_with_few_files", "--ignored"])
        .env("QUEUE_URL", server.url())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
    let (_, most) = server.connections();
    assert!((4..=16).contains(&most), "{most}");
    assert_eq!(server.deleted(), 3_000);
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
