//! Deleting, releasing, leaving.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use queue::{Fate, Hidden, Io, Receipt, Receive, Setup};

use crate::reader::*;
use crate::server::{Fault, Server, error};

/// A server with a number of messages, all of them received.
fn all_received(count: usize) -> (Server, Io, Arc<Counts>, Vec<Receipt>) {
    let server = Server::start();
    server.send(count);
    let io = Io::start().unwrap();
    let (queue, counts) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(count as u64), body);
    let (messages, _) = drain(&io, &mut inlet);
    assert_eq!(messages.len(), count);
    (server, io, counts, receipts(&messages))
}

#[test]
fn deletes_are_batches_of_ten_several_at_once() {
    let (server, io, counts, receipts) = all_received(1_000);
    server.script(|_| Some(Fault::Late(Duration::from_millis(500))));
    settle_all(&io, receipts, Fate::Delete);
    assert_eq!(server.deleted(), 1_000);
    assert_eq!(counts.get(), (1_000, 0));
    assert_eq!(server.calls("DeleteMessageBatch").len(), 100);
    // Sixteen at first, then more and more, since more get more done.
    let most = server.most_in_flight("DeleteMessageBatch");
    assert!(most > 16, "{most}");
}

/// As a transaction with many calls in it does.
#[test]
fn what_many_receives_brought_is_deleted_in_shared_batches() {
    let server = Server::start();
    server.send(300);
    let io = Io::start().unwrap();
    let mut taken = Vec::new();
    let all_counts: Vec<_> = (0..300)
        .map(|_| {
            let (queue, counts) = queue_at(&server.url());
            let mut inlet = io.receive(&queue, at_most(1), body);
            taken.push(receipts(&messages(&io, &mut inlet)));
            counts
        })
        .collect();
    for receipts in taken {
        io.settle(receipts, Fate::Delete);
    }
    until("settled", || io.unsettled() == 0);
    assert_eq!(server.deleted(), 300);
    assert!(all_counts.iter().all(|counts| counts.get() == (1, 0)));
    let calls = server.calls("DeleteMessageBatch").len();
    assert!(calls <= 40, "{calls} calls");
}

/// 4,000 handles of the server are 1.3 MB, more than stays in memory.
#[test]
fn handles_that_went_to_a_file_are_good_all_the_same() {
    let server = Server::start();
    server.send(4_000);
    let opened = Arc::new(AtomicUsize::new(0));
    let count = opened.clone();
    let open_file = move || {
        count.fetch_add(1, Ordering::SeqCst);
        tempfile::tempfile()
    };
    let io = Io::start_with(Setup {
        open_file: Some(Box::new(open_file)),
        ..Setup::default()
    })
    .unwrap();
    let (queue, counts) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(4_000), body);
    let (messages, _) = drain(&io, &mut inlet);
    assert_eq!(messages.len(), 4_000);
    assert_eq!(opened.load(Ordering::SeqCst), 1);
    settle_all(&io, receipts(&messages), Fate::Delete);
    assert_eq!(server.deleted(), 4_000);
    assert_eq!(counts.get(), (4_000, 0));
    assert_eq!(server.calls("DeleteMessageBatch").len(), 400);
}

#[test]
fn settling_wakes_the_other_side_when_all_is_done() {
    let (server, io, _, receipts) = all_received(30);
    server.script(|_| Some(Fault::Late(Duration::from_millis(100))));
    io.acknowledge();
    io.settle(receipts, Fate::Delete);
    assert!(io.unsettled() > 0);
    let began = Instant::now();
    wait(&io, Duration::from_secs(10));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(io.unsettled(), 0);
}

#[test]
fn failed_entries_are_tried_again_and_only_they() {
    let (server, io, counts, receipts) = all_received(10);
    server.script(|call| match call.number {
        0 => Some(Fault::FailEntries(vec![2, 5], "InternalError", false)),
        1 => Some(Fault::FailEntries(vec![1], "InternalError", false)),
        _ => None,
    });
    settle_all(&io, receipts, Fate::Delete);
    assert_eq!(server.deleted(), 10);
    assert_eq!(counts.get(), (10, 0));
    let sizes: Vec<usize> = server
        .calls("DeleteMessageBatch")
        .iter()
        .map(|c| c.entries())
        .collect();
    assert_eq!(sizes, [10, 2, 1]);
}

#[test]
fn entries_that_are_the_senders_fault_are_not_tried_again() {
    let (server, io, counts, receipts) = all_received(10);
    server.script(|call| (call.number == 0).then(|| Fault::FailEntries(vec![0, 9], "Odd", true)));
    settle_all(&io, receipts, Fate::Delete);
    assert_eq!(server.deleted(), 8);
    assert_eq!(counts.get(), (8, 2));
    assert_eq!(server.calls("DeleteMessageBatch").len(), 1);
}

#[test]
fn an_expired_handle_costs_its_message_only() {
    let (server, io, counts, receipts) = all_received(10);
    server.script(|call| {
        (call.number == 0).then(|| Fault::FailEntries(vec![4], "ReceiptHandleIsInvalid", false))
    });
    settle_all(&io, receipts, Fate::Delete);
    assert_eq!(counts.get(), (9, 1));
}

#[test]
fn an_entry_that_is_not_mentioned_counts_as_failed() {
    let (server, io, counts, receipts) = all_received(10);
    server.script(|call| (call.number == 0).then_some(Fault::MentionNothing));
    settle_all(&io, receipts, Fate::Delete);
    assert_eq!(counts.get(), (10, 0));
    assert_eq!(server.calls("DeleteMessageBatch").len(), 2);
}

#[test]
fn what_passes_is_tried_again() {
    let (server, io, counts, receipts) = all_received(20);
    server.script(|call| match call.number {
        0 => Some(Fault::Answer(503, "<html>".to_owned())),
        1 => Some(Fault::Answer(400, error("RequestThrottled"))),
        2 => Some(Fault::Reset),
        3 => Some(Fault::CarryOutAndReset),
        4 => Some(Fault::Answer(200, "<html>".to_owned())),
        5 => Some(Fault::CarryOutButAnswer(500, error("InternalFailure"))),
        _ => None,
    });
    settle_all(&io, receipts, Fate::Delete);
    assert_eq!(server.deleted(), 20);
    assert_eq!(counts.get(), (20, 0));
}

#[test]
fn what_does_not_pass_is_given_up_at_once() {
    let (server, io, counts, receipts) = all_received(500);
    server.script(|_| Some(Fault::Answer(403, error("AccessDenied"))));
    let began = Instant::now();
    settle_all(&io, receipts, Fate::Delete);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(counts.get(), (0, 500));
    assert_eq!(
        server.calls("DeleteMessageBatch").len(),
        50,
        "each batch once"
    );
}

#[test]
fn a_batch_that_is_refused_costs_no_other() {
    let (server, io, counts, receipts) = all_received(1_000);
    server.script(|call| {
        (call.number == 3).then(|| Fault::Answer(400, error("InvalidParameterValue")))
    });
    settle_all(&io, receipts, Fate::Delete);
    assert_eq!(counts.get(), (990, 10));
    assert_eq!(server.deleted(), 990);
}

#[test]
fn patience_has_an_end() {
    let (server, io, counts, receipts) = all_received(400);
    server.script(|_| Some(Fault::Answer(503, String::new())));
    let began = Instant::now();
    settle_all(&io, receipts, Fate::Delete);
    let took = began.elapsed();
    assert!(
        took > Duration::from_secs(20) && took < Duration::from_secs(40),
        "{took:?}"
    );
    assert_eq!(counts.get(), (0, 400));
}

#[test]
fn released_messages_are_visible_at_once() {
    let (server, io, counts, receipts) = all_received(105);
    assert_eq!(server.visible(), 0);
    settle_all(&io, receipts, Fate::Release);
    assert_eq!(server.visible(), 105);
    assert_eq!(counts.get(), (0, 0));
}

#[test]
fn a_release_outlives_a_short_outage() {
    let (server, io, _, receipts) = all_received(300);
    let began = Instant::now();
    server.script(move |_| {
        let is_out = began.elapsed() < Duration::from_millis(1_500);
        is_out.then(|| Fault::Answer(503, String::new()))
    });
    settle_all(&io, receipts, Fate::Release);
    assert_eq!(server.visible(), 300);
}

#[test]
fn a_release_is_given_up_after_some_time() {
    let (server, io, _, receipts) = all_received(300);
    server.script(|_| Some(Fault::Answer(503, String::new())));
    let began = Instant::now();
    settle_all(&io, receipts, Fate::Release);
    let took = began.elapsed();
    assert!(
        took > Duration::from_secs(5) && took < Duration::from_secs(15),
        "{took:?}"
    );
}

/// They are released one batch after the other.
#[test]
fn a_batch_of_a_fifo_queue_that_cannot_be_released_costs_no_other() {
    let server = Server::start();
    for number in 0..100 {
        server.send_to_group(Some(&format!("group {number}")));
    }
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.fifo_url());
    let mut inlet = io.receive(&queue, at_most(100), body);
    let (messages, _) = drain(&io, &mut inlet);
    server.script(|call| {
        let entries = call.body["Entries"].as_array()?;
        let handle =
            |entry: &serde_json::Value| entry["ReceiptHandle"].as_str().unwrap().to_owned();
        let is_bad = entries
            .iter()
            .any(|entry| handle(entry).starts_with("handle-25-"));
        is_bad.then(|| Fault::Answer(503, String::new()))
    });
    settle_all(&io, receipts(&messages), Fate::Release);
    assert_eq!(server.visible(), 90);
}

#[test]
fn deletes_wait_for_fresh_credentials() {
    let (server, io, counts, receipts) = all_received(100);
    let began = Instant::now();
    server.script(move |_| {
        let is_expired = began.elapsed() < Duration::from_secs(2);
        is_expired.then(|| Fault::Answer(403, error("ExpiredToken")))
    });
    settle_all(&io, receipts, Fate::Delete);
    assert_eq!(counts.get(), (100, 0));
}

#[test]
fn an_answer_to_a_delete_that_stalls_is_given_up_after_five_seconds() {
    let (server, io, counts, receipts) = all_received(10);
    server.script(|call| (call.number == 0).then_some(Fault::Stall));
    let began = Instant::now();
    settle_all(&io, receipts, Fate::Delete);
    let took = began.elapsed();
    assert!(
        took > Duration::from_secs(4) && took < Duration::from_secs(8),
        "{took:?}"
    );
    assert_eq!(counts.get().0 + counts.get().1, 10);
}

/// `hidden_until` says what each was left with.
#[test]
fn messages_of_calls_with_different_timeouts_are_left_apart() {
    let server = Server::start();
    server.send(4);
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut all = Vec::new();
    for seconds in [5, 600] {
        let how = Receive {
            visibility: Duration::from_secs(seconds),
            ..at_most(2)
        };
        let mut inlet = io.receive(&queue, how, body);
        all.extend(receipts(&drain(&io, &mut inlet).0));
    }
    settle_all(&io, all, Fate::Leave);
    let mut left: Vec<(usize, u64)> = server
        .calls("ChangeMessageVisibilityBatch")
        .iter()
        .map(|call| {
            let seconds = &call.body["Entries"][0]["VisibilityTimeout"];
            (call.entries(), seconds.as_u64().unwrap())
        })
        .collect();
    left.sort();
    assert_eq!(left, [(2, 5), (2, 600)]);
}

/// AWS may refuse a whole batch for one bad entry.
#[test]
fn a_handle_that_is_lost_costs_its_message_only() {
    let server = Server::start();
    server.send(4_000);
    let files = Arc::new(Mutex::new(Vec::new()));
    let opened = files.clone();
    let open_file = move || {
        let file = tempfile::tempfile()?;
        opened.lock().unwrap().push(file.try_clone()?);
        Ok(file)
    };
    let io = Io::start_with(Setup {
        open_file: Some(Box::new(open_file)),
        ..Setup::default()
    })
    .unwrap();
    let (queue, counts) = queue_at(&server.url());
    let mut inlet = io.receive(&queue, at_most(4_000), body);
    let (messages, _) = drain(&io, &mut inlet);
    for file in files.lock().unwrap().iter() {
        let length = file.metadata().unwrap().len();
        file.set_len(length / 2).unwrap();
    }
    settle_all(&io, receipts(&messages), Fate::Delete);
    let (deleted, failed) = counts.get();
    assert_eq!(deleted + failed, 4_000);
    assert!(deleted > 1_500 && failed > 500, "{deleted} {failed}");
    for call in server.calls("DeleteMessageBatch") {
        for entry in call.body["Entries"].as_array().unwrap() {
            assert_ne!(entry["ReceiptHandle"], "");
        }
    }
}

#[test]
fn left_messages_come_back_when_their_time_is_up() {
    let server = Server::start();
    server.send(10);
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let how = Receive {
        visibility: Duration::from_secs(5),
        ..at_most(10)
    };
    let mut inlet = io.receive(&queue, how, body);
    let (messages, _) = drain(&io, &mut inlet);
    io.settle(receipts(&messages), Fate::Leave);
    until("settled", || io.unsettled() == 0);
    // Longer than the short timeout that a poll asks for when it may have to wait.
    std::thread::sleep(Duration::from_millis(3_500));
    assert_eq!(server.visible(), 0);
    until("visible", || server.visible() == 10);
    assert_eq!(server.calls("ChangeMessageVisibilityBatch").len(), 1);
}

/// A FIFO queue whose one message was received with a visibility timeout of `seconds`.
fn one_of_fifo(seconds: u64) -> (Server, Io, Receipt) {
    let server = Server::start();
    server.send_to_group(Some("a"));
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.fifo_url());
    let how = Receive {
        visibility: Duration::from_secs(seconds),
        ..at_most(1)
    };
    let mut inlet = io.receive(&queue, how, body);
    let (messages, _) = drain(&io, &mut inlet);
    (server, io, messages[0].receipt)
}

fn visible_again_in(io: &Io, receipt: Receipt) -> Duration {
    match io.hidden_until(receipt) {
        Hidden::Until(until) => until.saturating_duration_since(Instant::now()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn how_long_a_left_message_stays_hidden_is_known() {
    let (server, io, receipt) = one_of_fifo(60);
    server.script(|_| Some(Fault::Late(Duration::from_millis(200))));
    assert_eq!(io.hidden_until(receipt), Hidden::Unknown);
    io.settle(vec![receipt], Fate::Leave);
    assert_eq!(io.hidden_until(receipt), Hidden::Pending);
    until("left", || io.unsettled() == 0);
    let time = visible_again_in(&io, receipt);
    assert!((55..=60).contains(&time.as_secs()), "{time:?}");
    settle_all(&io, vec![receipt], Fate::Leave);
    assert!(matches!(io.hidden_until(receipt), Hidden::Until(_)));
}

#[test]
fn a_message_that_could_not_be_left_is_visible_when_its_last_time_is_over() {
    let (server, io, receipt) = one_of_fifo(60);
    server.script(|_| Some(Fault::Answer(403, error("AccessDenied"))));
    settle_all(&io, vec![receipt], Fate::Leave);
    let time = visible_again_in(&io, receipt);
    assert!(
        time <= Duration::from_secs(3),
        "what the poll asked for: {time:?}"
    );

    let (server, io, receipt) = one_of_fifo(60);
    server.script(|_| Some(Fault::CarryOutAndReset));
    settle_all(&io, vec![receipt], Fate::Leave);
    let time = visible_again_in(&io, receipt);
    assert!(
        time > Duration::from_secs(50),
        "nobody knows that it was not left: {time:?}"
    );
}

#[test]
fn an_extension_counts_for_how_long_a_message_stays_hidden() {
    let (server, io, receipt) = one_of_fifo(60);
    until("extended", || {
        !server.calls("ChangeMessageVisibilityBatch").is_empty()
    });
    server.script(|_| Some(Fault::Answer(403, error("AccessDenied"))));
    settle_all(&io, vec![receipt], Fate::Leave);
    let time = visible_again_in(&io, receipt);
    assert!(time > Duration::from_secs(50), "{time:?}");
}

#[test]
fn only_messages_of_fifo_queues_that_were_left_are_remembered() {
    let (_server, io, _, receipts) = all_received(1);
    settle_all(&io, receipts.clone(), Fate::Leave);
    assert_eq!(io.hidden_until(receipts[0]), Hidden::Unknown);
    let (_server, io, receipt) = one_of_fifo(60);
    settle_all(&io, vec![receipt], Fate::Release);
    settle_all(&io, vec![receipt], Fate::Leave);
    assert_eq!(io.hidden_until(receipt), Hidden::Unknown);
}

#[test]
fn the_first_word_about_a_message_counts() {
    let (server, io, counts, receipts) = all_received(10);
    io.settle(receipts.clone(), Fate::Delete);
    io.settle(receipts.clone(), Fate::Release);
    settle_all(&io, receipts, Fate::Delete);
    assert_eq!(counts.get(), (10, 0));
    assert_eq!(server.calls("DeleteMessageBatch").len(), 1);
    assert!(server.calls("ChangeMessageVisibilityBatch").is_empty());
}

#[test]
fn some_of_a_response_may_be_deleted_and_the_rest_released() {
    let (server, io, counts, receipts) = all_received(40);
    let (delete, release): (Vec<_>, Vec<_>) = receipts
        .into_iter()
        .enumerate()
        .partition(|(i, _)| i % 3 == 0);
    let only =
        |pairs: Vec<(usize, Receipt)>| pairs.into_iter().map(|(_, receipt)| receipt).collect();
    io.settle(only(delete), Fate::Delete);
    settle_all(&io, only(release), Fate::Release);
    assert_eq!(counts.get(), (14, 0));
    assert_eq!((server.deleted(), server.visible()), (14, 26));
}

#[test]
fn a_fifo_release_goes_in_order_one_call_at_a_time() {
    let server = Server::start();
    for number in 0..45 {
        server.send_to_group(Some(&format!("group {number}")));
    }
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.fifo_url());
    let mut inlet = io.receive(&queue, at_most(45), body);
    let (messages, _) = drain(&io, &mut inlet);
    server.script(|_| Some(Fault::Late(Duration::from_millis(20))));
    let mut backwards = receipts(&messages);
    backwards.reverse();
    settle_all(&io, backwards, Fate::Release);
    let calls = server.calls("ChangeMessageVisibilityBatch");
    assert_eq!(calls.len(), 5);
    for pair in calls.windows(2) {
        assert!(pair[1].at - pair[0].at >= Duration::from_millis(20));
    }
    let released: Vec<u32> = calls
        .iter()
        .flat_map(|call| call.body["Entries"].as_array().unwrap().clone())
        .map(|entry| {
            entry["ReceiptHandle"]
                .as_str()
                .unwrap()
                .split('-')
                .nth(2)
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    assert!(released.is_sorted(), "{released:?}");
}

#[test]
fn dropping_the_inlet_releases_everything() {
    let server = Server::start();
    server.send(1_000);
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let mut inlet = io.receive(
        &queue,
        Receive {
            limit: None,
            ..at_most(1)
        },
        body,
    );
    let taken = messages(&io, &mut inlet);
    until("many received", || server.visible() < 900);
    drop(inlet);
    until("released", || server.visible() == 1_000 - taken.len());
    settle_all(&io, receipts(&taken), Fate::Release);
    assert_eq!(server.visible(), 1_000);
}

#[test]
fn what_a_poll_brings_after_the_inlet_was_dropped_is_released() {
    let server = Server::start();
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&server.url());
    let inlet = io.receive(&queue, endless(), body);
    until("a poll", || server.polls() == 1);
    drop(inlet);
    server.send(5);
    until("brought", || {
        server.messages().iter().all(|m| m.receive_count == 1)
    });
    until("released", || server.visible() == 5);
    assert_eq!(server.calls("ReceiveMessage").len(), 1);
}
