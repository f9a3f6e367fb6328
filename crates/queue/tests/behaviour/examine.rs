//! Questions about a queue, which receive nothing.

use std::time::{Duration, Instant};

use queue::{ErrorKind, Examination, Io, PendingAnswer, Right};

use crate::reader::*;
use crate::server::{Fault, Server, error};

const LIMIT: Duration = Duration::from_secs(3);

/// The answer, as a backend would wait for it.
fn answer<T>(io: &Io, mut pending: PendingAnswer<T>) -> T {
    let patience = Instant::now() + LIMIT * 2;
    loop {
        io.acknowledge();
        if let Some(answer) = pending.try_take().unwrap() {
            return answer;
        }
        assert!(Instant::now() < patience, "no answer");
        wait(io, LIMIT);
    }
}

fn examine(server: &Server) -> Examination {
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    answer(&io, io.examine(&queue, LIMIT))
}

/// Answers `action` with this code, and everything else as if it were about a handle that does not exist.
fn refusing(server: &Server, action: &'static str, code: &'static str) {
    server.script(move |call| {
        let code = if call.action == action {
            code
        } else {
            "ReceiptHandleIsInvalid"
        };
        Some(Fault::Answer(400, error(code)))
    });
}

#[test]
fn each_right_is_found_out_by_itself() {
    for action in ["DeleteMessage", "ChangeMessageVisibility"] {
        let server = Server::start();
        refusing(&server, action, "AccessDenied");
        let found = examine(&server);
        let is_denied = |right: &Right| matches!(right, Right::Denied(_));
        let is_allowed = |right: &Right| matches!(right, Right::Allowed);
        let rights = [&found.delete, &found.change_visibility];
        let (denied, allowed) = if action == "DeleteMessage" {
            (rights[0], rights[1])
        } else {
            (rights[1], rights[0])
        };
        assert!(is_denied(denied) && is_allowed(allowed), "{found:?}");
        assert!(server.calls("ReceiveMessage").is_empty());
    }
}

#[test]
fn a_server_that_hangs_ends_no_later_than_the_limit() {
    let server = Server::start();
    server.script(|_| Some(Fault::Hang));
    let begun = Instant::now();
    let found = examine(&server);
    assert!(begun.elapsed() < LIMIT + Duration::from_secs(1));
    let Right::Unknown(error) = found.delete else {
        panic!("{found:?}")
    };
    assert_eq!(error.kind, ErrorKind::TimedOut);
    assert!(found.network.unwrap().connection.is_ok());
}

#[test]
fn a_question_that_nobody_waits_for_ends() {
    let server = Server::start();
    server.script(|_| Some(Fault::Hang));
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let pending = io.describe(&queue, LIMIT);
    until("the call is made", || {
        !server.calls("GetQueueAttributes").is_empty()
    });
    drop(pending);
    until("its connection is closed", || server.connections().0 == 0);
}

#[test]
fn a_thread_that_ended_answers_nothing() {
    let server = Server::start();
    server.script(|_| Some(Fault::Hang));
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut pending = io.describe(&queue, LIMIT);
    io.shut_down(Duration::ZERO);
    assert_eq!(pending.try_take().unwrap_err().kind, ErrorKind::Internal);
}
