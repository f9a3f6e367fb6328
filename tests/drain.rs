//! `sqs_drain` commits batch by batch, whatever the size of the backlog, and can be interrupted without loss.

use std::thread;
use std::time::Duration;

use tests::cluster::Cluster;
use tests::database::{Database, Session, db_error, literal};
use tests::queue::{Counts, Queue};
use tests::scripted::{Answer, ScriptedSqs};
use tests::wait::eventually;
use tests::{localstack, logins};

fn drain(queue: &Queue, arguments: &str) -> String {
    format!("CALL sqs_drain({}{arguments})", literal(queue.url()))
}

/// How many transactions the rows came in. Their subtransactions share the time of their commit.
fn transactions(session: &mut Session) -> i64 {
    session.number("SELECT count(DISTINCT pg_xact_commit_timestamp(xmin)) FROM user_logins")
}

#[test]
fn a_drain_empties_a_queue_batch_by_batch() {
    let database = Database::shared();
    let queue = localstack::queue();
    queue.send(&logins::good(1050));
    let mut session = database.connect();

    session.run(&drain(&queue, ", 100"));

    assert_eq!(
        session.number("SELECT count(DISTINCT user_id) FROM user_logins"),
        1050
    );
    assert_eq!(session.logins(), 1050);
    assert_eq!(transactions(&mut session), 11);
    queue.expect_drained();
}

#[test]
fn a_drain_takes_no_more_than_it_is_told() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(300));
    let mut session = database.connect();

    session.run(&drain(&queue, ", 50, 120"));

    assert_eq!(session.logins(), 120);
    assert_eq!(transactions(&mut session), 3);
    assert_eq!(server.handed_out(&queue), 120);
    queue.expect_left(180);
}

#[test]
fn arguments_of_sqs_drain_have_defaults() {
    let database = Database::shared();
    let queue = localstack::queue();
    queue.send(&logins::good(30));
    let mut session = database.connect();

    session.run(&drain(&queue, ""));

    assert_eq!(session.logins(), 30);
    queue.expect_drained();
}

#[test]
fn an_empty_queue_is_drained_already() {
    let database = Database::shared();
    let queue = localstack::queue();

    database.connect().run(&drain(&queue, ""));

    assert_eq!(database.connect().logins(), 0);
}

#[test]
fn a_drain_rejects_what_is_bad_and_goes_on() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    let mut bodies = logins::good(200);
    for at in [0, 55, 110, 203] {
        bodies.insert(at, "bad".to_owned());
    }
    queue.send(&bodies);
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", 60);

    session.run(&drain(&queue, ", 50"));

    assert_eq!(session.logins(), 200);
    assert_eq!(session.rejections().len(), 4);
    queue.expect_counts_within(
        Duration::from_secs(10),
        Counts {
            visible: 0,
            in_flight: 4,
        },
    );
}

/// It needs to commit, and says so before it receives anything.
fn refused(sql: impl Fn(&str) -> String) {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(5));
    let mut session = database.connect();

    let error = session.error_of(&sql(&drain(&queue, "")));

    assert_eq!(error.code().code(), "2D000", "{error:?}");
    assert!(
        error.hint().is_some_and(|hint| hint.contains("sqs_ingest")),
        "{error:?}"
    );
    assert!(server.calls().is_empty());
}

#[test]
fn sqs_drain_refuses_to_run_in_a_transaction_block() {
    refused(|call| format!("BEGIN; {call}"));
}

#[test]
fn sqs_drain_refuses_to_run_in_a_function() {
    refused(|call| {
        format!(
            "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN {call}; END $f$;
             SELECT f()"
        )
    });
}

#[test]
fn sqs_drain_refuses_to_run_in_an_exception_block() {
    refused(|call| {
        format!("DO $$ BEGIN BEGIN {call}; EXCEPTION WHEN division_by_zero THEN NULL; END; END $$")
    });
}

#[test]
fn sqs_drain_runs_in_a_do_block_that_may_commit() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(100));
    let mut session = database.connect();

    session.run(&format!("DO $$ BEGIN {}; END $$", drain(&queue, ", 30")));

    assert_eq!(session.logins(), 100);
    assert_eq!(transactions(&mut session), 4);
    queue.expect_drained();
}

/// The sum of what is in the table and what is in the queue stays the same.
#[track_caller]
fn expect_all_somewhere(session: &mut Session, queue: &Queue, all: i64) {
    let inserted = session.logins();
    let left = u64::try_from(all - inserted).unwrap();
    queue.expect_counts_within(
        Duration::from_secs(20),
        Counts {
            visible: left,
            in_flight: 0,
        },
    );
    assert_eq!(session.number("SELECT count(*) FROM sqs_ledger"), inserted);
}

/// A drain of 2,000 messages, slow enough to be interrupted in its middle.
struct UnderWay<'c> {
    _server: ScriptedSqs,
    queue: Queue,
    database: Database<'c>,
    pid: i32,
    token: postgres::CancelToken,
    ended: thread::JoinHandle<(Option<postgres::Error>, Session)>,
}

const BACKLOG: i64 = 2000;

fn under_way(cluster: &Cluster) -> UnderWay<'_> {
    let database = Database::with_extension(cluster);
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(BACKLOG as usize));
    server.always(
        "ReceiveMessage",
        Answer::ServeAfter(Duration::from_millis(100)),
    );
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", 5);
    session.set("user_logins_sqs.receive_concurrency", 2);
    let (pid, token) = (session.pid(), session.cancel_token());
    let call = drain(&queue, ", 100");
    let ended = thread::spawn(move || (session.try_run(&call).err(), session));
    let mut observer = database.connect();
    eventually(
        "some batches are in",
        Duration::from_secs(30),
        || observer.logins(),
        |rows| *rows >= 300,
    );
    UnderWay {
        _server: server,
        queue,
        database,
        pid,
        token,
        ended,
    }
}

#[test]
fn a_cancelled_drain_keeps_its_batches_and_releases_the_rest() {
    let under_way = under_way(Cluster::shared());
    under_way.token.cancel_query(postgres::NoTls).unwrap();
    let (error, mut session) = under_way.ended.join().unwrap();

    assert_eq!(db_error(&error.unwrap()).code().code(), "57014");
    let rows = session.logins();
    assert!((300..BACKLOG).contains(&rows), "{rows}");
    assert_eq!(rows % 100, 0, "whole batches");
    expect_all_somewhere(&mut session, &under_way.queue, BACKLOG);
    session.run(&drain(&under_way.queue, ""));
    assert_eq!(
        session.number("SELECT count(DISTINCT user_id) FROM user_logins"),
        BACKLOG
    );
    assert_eq!(session.logins(), BACKLOG);
    under_way.queue.expect_drained();
}

#[test]
fn a_terminated_drain_keeps_its_batches_and_releases_the_rest() {
    let under_way = under_way(Cluster::shared());
    let mut admin = under_way.database.connect();
    admin.run(&format!("SELECT pg_terminate_backend({})", under_way.pid));
    under_way.ended.join().unwrap();

    assert_eq!(admin.logins() % 100, 0, "whole batches");
    expect_all_somewhere(&mut admin, &under_way.queue, BACKLOG);
}

#[test]
fn a_drain_killed_in_its_middle_loses_and_doubles_nothing() {
    let cluster = Cluster::private();
    let under_way = under_way(&cluster);
    cluster.kill_backend(under_way.pid);
    let (error, _session) = under_way.ended.join().unwrap();
    assert!(error.is_some());

    let mut session = under_way.database.connect();
    let in_flight = || under_way.queue.counts().in_flight;
    eventually(
        "nothing is in flight",
        Duration::from_secs(20),
        in_flight,
        |count| *count == 0,
    );
    session.run(&drain(&under_way.queue, ""));

    assert_eq!(
        session.number("SELECT count(DISTINCT user_id) FROM user_logins"),
        BACKLOG
    );
    assert_eq!(session.logins(), BACKLOG);
    under_way.queue.expect_drained();
}

#[test]
fn a_batch_that_fails_leaves_the_earlier_ones_in() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(500));
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", 600);
    session.run(
        "CREATE SEQUENCE seen;
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF nextval('seen') > 250 THEN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END IF;
           RETURN NEW;
         END $$;
         CREATE TRIGGER fail BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION fail()",
    );

    let error = session.error_of(&drain(&queue, ", 100"));

    assert_eq!(error.code().code(), "53100", "{error:?}");
    assert_eq!(session.logins(), 200);
    expect_all_somewhere(&mut session, &queue, 500);
}

#[test]
fn a_batch_is_deleted_after_its_commit_and_before_the_end() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(300));
    let mut session = database.connect();

    session.run(&drain(&queue, ", 50"));

    queue.expect_drained();
    let calls = server.calls();
    let first_delete = calls
        .iter()
        .position(|call| call.action == "DeleteMessageBatch")
        .unwrap();
    let last_receive = calls
        .iter()
        .rposition(|call| call.action == "ReceiveMessage")
        .unwrap();
    assert!(
        first_delete < last_receive,
        "deletes go on while batches are received"
    );
}

#[test]
fn a_role_may_drain_with_execute_and_insert() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(30));
    let role = tests::run::unique_name("role");
    database.connect().run(&format!(
        "CREATE ROLE {role} LOGIN; GRANT INSERT ON user_logins TO {role};
         GRANT EXECUTE ON PROCEDURE sqs_drain(text, integer, bigint) TO {role}"
    ));

    database.connect_as(&role).run(&drain(&queue, ", 10"));

    assert_eq!(database.connect().logins(), 30);
    queue.expect_drained();
}
