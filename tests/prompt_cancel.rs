//! A call in the middle of a 20 s long poll ends within 100 ms, however it is ended, and no message stays invisible.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tests::cluster::{Cluster, Stop};
use tests::database::{Database, Session};
use tests::queue::{Counts, Queue};
use tests::scripted::{Answer, ScriptedSqs};
use tests::wait::eventually;
use tests::{localstack, logins};

const PROMPT: Duration = Duration::from_millis(100);

/// Messages that the call has received already when its long poll begins.
const HELD: u64 = 5;

/// A busy machine may be late now and then, so the median of this many tries counts.
const TRIES: usize = 5;

/// A call in its 20 s long poll.
struct Call {
    pid: i32,
    token: postgres::CancelToken,
    /// When it ended, how, and its session.
    ended: JoinHandle<(Instant, Option<String>, Session)>,
}

fn call_in_long_poll(database: &Database, queue: &Queue) -> Call {
    queue.send(&logins::good(HELD as usize));
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", 600);
    let (pid, token) = (session.pid(), session.cancel_token());
    let url = queue.clone();
    let ended = thread::spawn(move || {
        let result = session.try_ingest(&url, 1000, 20);
        let sqlstate = result.err().map(|error| match error.code() {
            Some(code) => code.code().to_owned(),
            None => "connection lost".to_owned(),
        });
        (Instant::now(), sqlstate, session)
    });
    queue.expect_counts_within(
        Duration::from_secs(10),
        Counts {
            visible: 0,
            in_flight: HELD,
        },
    );
    // The poll after the one that brought them; it goes on for 20 s.
    thread::sleep(Duration::from_millis(300));
    assert!(!ended.is_finished(), "the call is in its long poll");
    Call { pid, token, ended }
}

#[track_caller]
fn expect_prompt(mut times: Vec<Duration>) {
    times.sort();
    println!("{times:?}");
    assert!(times[times.len() / 2] < PROMPT, "{times:?}");
}

#[test]
fn cancel_is_prompt() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let times = (0..TRIES).map(|_| {
        let queue = server.queue();
        let call = call_in_long_poll(&database, &queue);

        let begun = Instant::now();
        call.token.cancel_query(postgres::NoTls).unwrap();
        let (ended, sqlstate, mut session) = call.ended.join().unwrap();

        assert_eq!(sqlstate.as_deref(), Some("57014"));
        queue.expect_released(HELD);
        assert_eq!(session.logins(), 0);
        ended - begun
    });
    expect_prompt(times.collect());
}

#[test]
fn statement_timeout_is_prompt() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let timeout = Duration::from_secs(2);
    let times = (0..TRIES).map(|_| {
        let queue = server.queue();
        queue.send(&logins::good(HELD as usize));
        let mut session = database.connect();
        session.set("user_logins_sqs.visibility_timeout", 600);
        session.set("statement_timeout", timeout.as_millis());

        let begun = Instant::now();
        let error = session.try_ingest(&queue, 1000, 20).unwrap_err();
        let took = begun.elapsed();

        assert_eq!(
            error.code().map(|code| code.code()),
            Some("57014"),
            "{error:?}"
        );
        queue.expect_released(HELD);
        took.saturating_sub(timeout)
    });
    expect_prompt(times.collect());
}

#[test]
fn pg_terminate_backend_is_prompt() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let mut admin = database.connect();
    let times = (0..TRIES).map(|_| {
        let queue = server.queue();
        let call = call_in_long_poll(&database, &queue);

        let begun = Instant::now();
        admin.run(&format!("SELECT pg_terminate_backend({})", call.pid));
        let (ended, sqlstate, _session) = call.ended.join().unwrap();

        assert_eq!(sqlstate.as_deref(), Some("57P01"));
        eventually(
            "the backend is gone",
            Duration::from_secs(5),
            || Cluster::shared().has_process(call.pid),
            |alive| !alive,
        );
        let gone = begun.elapsed();
        println!("told after {:?}, gone after {gone:?}", ended - begun);
        queue.expect_released(HELD);
        gone
    });
    expect_prompt(times.collect());
}

#[test]
fn a_fast_stop_is_prompt() {
    let cluster = Cluster::private();
    let database = Database::with_extension(&cluster);
    let server = ScriptedSqs::start();
    let times = (0..3).map(|_| {
        let queue = server.queue();
        let call = call_in_long_poll(&database, &queue);

        let begun = Instant::now();
        cluster.begin_fast_stop();
        let (ended, sqlstate, _session) = call.ended.join().unwrap();
        let stopped = cluster.stop(Stop::Fast);

        println!(
            "session ended after {:?}, server stopped {stopped:?} later",
            ended - begun
        );
        assert_eq!(sqlstate.as_deref(), Some("57P01"));
        queue.expect_released(HELD);
        cluster.start();
        ended - begun
    });
    let times = times.collect();
    expect_prompt(times);
    assert!(
        !cluster.log().contains("was terminated by signal"),
        "nothing crashed"
    );
}

#[test]
fn what_is_sent_after_a_cancel_is_not_swallowed() {
    let database = Database::shared();
    let queue = localstack::queue();
    let call = call_in_long_poll(&database, &queue);
    call.token.cancel_query(postgres::NoTls).unwrap();
    let (_, _, mut session) = call.ended.join().unwrap();
    queue.expect_released(HELD);

    queue.send(&logins::good(3));

    // The server may still give these to the poll that nobody waits for any longer; they come back then.
    queue.expect_released(HELD + 3);
    assert_eq!(session.ingest(&queue, 8), 8);
    queue.expect_drained();
}

#[test]
fn cancel_releases_on_localstack() {
    released_on_localstack_after("pg_cancel_backend");
}

#[test]
fn pg_terminate_backend_releases_on_localstack() {
    released_on_localstack_after("pg_terminate_backend");
}

/// LocalStack goes on with a poll whose client has hung up, for the whole 20 s, and gives it messages.
fn released_on_localstack_after(end: &str) {
    let database = Database::shared();
    let queue = localstack::queue();
    let call = call_in_long_poll(&database, &queue);

    database
        .connect()
        .run(&format!("SELECT {end}({})", call.pid));
    call.ended.join().unwrap();

    expect_back_within_seconds(&queue);
}

/// A server gives messages to the poll of a backend that is exiting, too: first of all those that it releases.
#[test]
fn what_an_orphaned_poll_gets_comes_back_within_seconds() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    server.always(
        "ReceiveMessage",
        Answer::ServeAndReplyAfter(Duration::from_millis(30)),
    );
    let call = call_in_long_poll(&database, &queue);

    database
        .connect()
        .run(&format!("SELECT pg_terminate_backend({})", call.pid));
    call.ended.join().unwrap();

    expect_back_within_seconds(&queue);
}

fn expect_back_within_seconds(queue: &Queue) {
    let back = Counts {
        visible: HELD,
        in_flight: 0,
    };
    queue.expect_counts_within(Duration::from_secs(6), back);
}

#[test]
fn the_session_goes_on_after_a_cancel() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    let call = call_in_long_poll(&database, &queue);
    call.token.cancel_query(postgres::NoTls).unwrap();
    let (_, _, mut session) = call.ended.join().unwrap();
    queue.expect_released(HELD);

    assert_eq!(session.ingest(&queue, 1000), HELD as i64);
}

#[test]
fn a_waiting_call_can_be_seen_as_such() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    let call = call_in_long_poll(&database, &queue);
    let mut admin = database.connect();

    let seen = admin.rows(&format!(
        "SELECT wait_event_type, wait_event FROM pg_stat_activity WHERE pid = {}",
        call.pid
    ));

    assert_eq!(seen[0][0].as_deref(), Some("Extension"), "{seen:?}");
    call.token.cancel_query(postgres::NoTls).unwrap();
    call.ended.join().unwrap();
}

#[test]
fn a_server_that_hangs_can_be_cancelled_just_as_well() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    server.always("ReceiveMessage", Answer::Hang);
    let mut session = database.connect();
    let (token, url) = (session.cancel_token(), queue.clone());
    let ended = thread::spawn(move || session.try_ingest(&url, 10, 20).unwrap_err());
    eventually(
        "the call hangs",
        Duration::from_secs(10),
        || server.calls().len(),
        |calls| *calls > 0,
    );

    let begun = Instant::now();
    token.cancel_query(postgres::NoTls).unwrap();
    let error = ended.join().unwrap();

    assert_eq!(error.code().map(|code| code.code()), Some("57014"));
    assert!(
        begun.elapsed() < Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_call_with_many_polls_in_flight_ends_promptly_and_gives_everything_back() {
    const MESSAGES: u64 = 8_000;
    let database = Database::shared();
    let server = ScriptedSqs::start();
    server.always(
        "ReceiveMessage",
        Answer::ServeAfter(Duration::from_millis(500)),
    );
    let times = (0..3).map(|_| {
        let queue = server.queue();
        queue.send(&logins::good(MESSAGES as usize));
        let before = server.calls_of("ReceiveMessage").len();
        let mut session = database.connect();
        let (token, url) = (session.cancel_token(), queue.clone());
        let ended = thread::spawn(move || {
            let error = session.try_ingest(&url, MESSAGES as i32, 20).unwrap_err();
            (Instant::now(), error)
        });
        // Polls double with each round: after 1 + 2 + ... + 64 calls as many as 128 are in flight.
        eventually(
            "128 polls are in flight",
            Duration::from_secs(60),
            || server.calls_of("ReceiveMessage").len() - before,
            |calls| *calls >= 127 + 128,
        );

        let begun = Instant::now();
        token.cancel_query(postgres::NoTls).unwrap();
        let (ended, error) = ended.join().unwrap();

        assert_eq!(error.code().map(|code| code.code()), Some("57014"));
        queue.expect_counts_within(
            Duration::from_secs(20),
            Counts {
                visible: MESSAGES,
                in_flight: 0,
            },
        );
        ended - begun
    });
    expect_prompt(times.collect());
}

#[test]
fn a_session_whose_postmaster_was_killed_does_not_wait_for_its_deletes() {
    let cluster = Cluster::private();
    let database = Database::with_extension(&cluster);
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(10));
    server.always("DeleteMessageBatch", Answer::Hang);
    let mut session = database.connect();
    assert_eq!(session.ingest(&queue, 10), 10);

    let begun = Instant::now();
    cluster.kill_postmaster();

    // As long as it lives, no new server can be started.
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}
