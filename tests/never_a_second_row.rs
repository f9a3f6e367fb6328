//! However often SQS delivers a message, it becomes one row.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, SystemTime};

use tests::check_report::Report;
use tests::database::{Database, Session};
use tests::queue::{Counts, Queue};
use tests::scene::Scene;
use tests::scripted::{Answer, ScriptedSqs};
use tests::wait::eventually;
use tests::{localstack, logins};

#[track_caller]
fn expect_each_once(session: &mut Session, rows: i64) {
    assert_eq!(session.logins(), rows);
    assert_eq!(
        session.number("SELECT count(DISTINCT user_id) FROM user_logins"),
        rows
    );
    assert_eq!(session.number("SELECT count(*) FROM sqs_ledger"), rows);
}

/// Everything of the first call is delivered again, because `failure` kept it from being deleted.
fn a_redelivery_after(failure: Answer) {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(50));
    server.always("DeleteMessageBatch", failure);
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", 2);
    assert_eq!(session.ingest(&queue, 50), 50);
    // A session's deletes are tried again for a while, until the session ends.
    drop(session);
    queue.expect_counts_within(
        Duration::from_secs(30),
        Counts {
            visible: 50,
            in_flight: 0,
        },
    );
    server.behave();
    let mut session = database.connect();

    assert_eq!(session.ingest(&queue, 100), 0);

    let notices = session.take_notices();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].message().contains("50"), "{notices:?}");
    expect_each_once(&mut session, 50);
    queue.expect_drained();
}

#[test]
fn deletes_that_fail_entry_by_entry_give_no_second_row() {
    a_redelivery_after(Answer::FailEntries {
        entries: (0..10).collect(),
        code: "ReceiptHandleIsInvalid",
    });
}

#[test]
fn deletes_that_the_server_cannot_do_give_no_second_row() {
    a_redelivery_after(Answer::Garbage {
        status: 503,
        body: "",
    });
}

#[test]
fn deletes_that_are_denied_give_no_second_row() {
    a_redelivery_after(Answer::Refuse {
        status: 403,
        code: "AccessDenied",
    });
}

#[test]
fn one_message_twice_in_one_answer_gives_one_row() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(100));
    server.always("ReceiveMessage", Answer::ServeTwice);
    let mut session = database.connect();

    assert_eq!(session.ingest(&queue, 1000), 100);

    expect_each_once(&mut session, 100);
    queue.expect_drained();
}

#[test]
fn one_message_in_many_answers_of_one_call_gives_one_row() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(7));
    server.always("ReceiveMessage", Answer::ServeAndKeepVisible);
    let mut session = database.connect();

    assert_eq!(session.ingest(&queue, 500), 7);

    expect_each_once(&mut session, 7);
    server.behave();
    session.ingest(&queue, 500);
    expect_each_once(&mut session, 7);
    queue.expect_drained();
}

#[test]
fn a_message_that_was_in_a_rolled_back_savepoint_is_ingested_in_the_same_transaction() {
    let database = Database::shared();
    let queue = localstack::queue();
    queue.send(&logins::good(5));
    let mut session = database.connect();

    session.run("BEGIN; SAVEPOINT s");
    assert_eq!(session.ingest(&queue, 5), 5);
    session.run("ROLLBACK TO s");
    queue.expect_released(5);
    assert_eq!(session.ingest(&queue, 5), 5);
    session.run("COMMIT");

    expect_each_once(&mut session, 5);
    queue.expect_drained();
}

#[test]
fn sessions_at_once_on_one_queue_share_its_messages() {
    let database = Database::shared();
    let queue = localstack::queue();
    queue.send(&logins::good(1500));

    let inserted: i64 = thread::scope(|scope| {
        let sessions: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut session = database.connect();
                    session.set("user_logins_sqs.visibility_timeout", 1);
                    session.ingest(&queue, 1500)
                })
            })
            .collect();
        sessions
            .into_iter()
            .map(|session| session.join().unwrap())
            .sum()
    });

    let mut session = database.connect();
    assert_eq!(inserted + session.ingest(&queue, 10_000), 1500);
    expect_each_once(&mut session, 1500);
    queue.expect_drained();
}

/// The second of two sessions receives the same ten messages while the first holds them in an open transaction.
struct TwoHolders {
    _server: ScriptedSqs,
    database: Database<'static>,
    queue: Queue,
    first: Session,
}

fn two_holders() -> TwoHolders {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(10));
    server.always("ReceiveMessage", Answer::ServeAndKeepVisible);
    let mut first = database.connect();
    first.run("BEGIN");
    assert_eq!(first.ingest(&queue, 10), 10);
    TwoHolders {
        _server: server,
        database,
        queue,
        first,
    }
}

impl TwoHolders {
    /// Ends the first session's transaction by `end` while the second waits for it; returns what the second inserted.
    fn second_inserts_after(&mut self, end: &str) -> i64 {
        thread::scope(|scope| {
            let mut second = self.database.connect();
            let pid = second.pid();
            let queue = &self.queue;
            let waiting = scope.spawn(move || second.ingest(queue, 10));
            let mut observer = self.database.connect();
            let blockers = format!("SELECT cardinality(pg_blocking_pids({pid}))");
            eventually(
                "the second session waits for the first",
                Duration::from_secs(10),
                || observer.number(&blockers),
                |blockers| *blockers > 0,
            );
            self.first.run(end);
            waiting.join().unwrap()
        })
    }
}

#[test]
fn what_another_session_holds_uncommitted_is_a_duplicate_once_that_commits() {
    let mut holders = two_holders();

    assert_eq!(holders.second_inserts_after("COMMIT"), 0);

    expect_each_once(&mut holders.first, 10);
}

#[test]
fn what_another_session_held_is_inserted_once_that_rolls_back() {
    let mut holders = two_holders();

    assert_eq!(holders.second_inserts_after("ROLLBACK"), 10);

    expect_each_once(&mut holders.first, 10);
}

#[test]
fn two_times_of_sending_under_one_id_are_told_apart() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    let id = "219f8380-5770-4cc2-8c3e-5c715e145f5e";
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let put = |user: &str, later: u128| {
        let sent_at = (now + later).to_string();
        server.put_as(&queue, id, &logins::login(user).to_string(), &sent_at);
    };
    let mut session = database.connect();
    put("first", 0);
    assert_eq!(session.ingest(&queue, 10), 1);
    put("first", 0);
    put("second", 1);

    assert_eq!(session.ingest(&queue, 10), 1);

    expect_each_once(&mut session, 2);
    assert_eq!(session.take_notices().len(), 1, "one was a duplicate");
    queue.expect_drained();
}

#[test]
fn a_message_that_was_sent_days_ahead_of_this_clock_gives_no_second_row() {
    for days_ahead in [4, 30, 200] {
        let database = Database::shared();
        let server = ScriptedSqs::start();
        let queue = server.queue();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let sent_at = (now + days_ahead * 24 * 3600 * 1000).to_string();
        let put = || {
            let id = "219f8380-5770-4cc2-8c3e-5c715e145f5e";
            server.put_as(&queue, id, &logins::login("early").to_string(), &sent_at);
        };
        put();
        // Each session that ingests prunes once a day.
        assert_eq!(database.connect().ingest(&queue, 10), 1);
        put();

        assert_eq!(database.connect().ingest(&queue, 10), 0, "{days_ahead}");

        expect_each_once(&mut database.connect(), 1);
    }
}

#[test]
fn no_call_fails_when_sessions_hold_each_others_messages() {
    const MESSAGES: usize = 5_000;
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(MESSAGES));
    let is_over = AtomicBool::new(false);

    thread::scope(|scope| {
        let (server, queue, database, is_over) = (&server, &queue, &database, &is_over);
        scope.spawn(move || {
            while !is_over.load(Relaxed) {
                server.reveal_all(queue);
                // Visibility timeouts end this often.
                thread::sleep(Duration::from_millis(300));
            }
        });
        let sessions: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn(move || {
                    let mut session = database.connect();
                    session.set("deadlock_timeout", "100ms");
                    // Half of them write several chunks in a transaction, half of them small batches.
                    if number % 2 == 0 {
                        session.ingest(queue, MESSAGES as i32);
                    } else {
                        session.run(&format!("CALL sqs_drain('{}', 1500)", queue.url()));
                    }
                })
            })
            .collect();
        let ended: Vec<_> = sessions.into_iter().map(|session| session.join()).collect();
        is_over.store(true, Relaxed);
        assert!(ended.iter().all(Result::is_ok), "a call failed");
    });

    let mut session = database.connect();
    server.reveal_all(&queue);
    session.ingest(&queue, 2 * MESSAGES as i32);
    expect_each_once(&mut session, MESSAGES as i64);
    queue.expect_drained();
}

#[test]
fn a_lock_on_the_ledger_is_not_mistaken_for_a_session_that_has_the_messages() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(10));
    let mut locker = database.connect();
    locker.run("BEGIN; LOCK TABLE sqs_ledger IN SHARE MODE");
    let mut session = database.connect();
    session.set("lock_timeout", "100ms");

    let error = session.ingest_error(&queue, 10);

    assert_eq!(error.code().code(), "55P03", "{error:?}");
    queue.expect_released(10);
    locker.run("COMMIT");
    assert_eq!(session.ingest(&queue, 10), 10);
}

#[test]
fn a_transaction_left_open_keeps_no_other_from_ingesting() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(20));
    let mut admin = database.connect();
    admin.run("INSERT INTO sqs_ledger VALUES (now() - interval '20 days', gen_random_uuid())");
    let mut open = database.connect();
    open.run("BEGIN");
    open.ingest(&queue, 5);
    let mut other = database.connect();
    other.set("statement_timeout", "10s");

    other.ingest(&queue, 5);

    // That was not in a transaction block, so the old day is gone.
    assert_eq!(admin.number("SELECT count(*) FROM sqs_ledger"), 5);
    open.run("COMMIT");
}

#[test]
fn a_strict_isolation_level_gives_no_second_row_either() {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let database = Database::shared();
        let server = ScriptedSqs::start();
        let queue = server.queue();
        queue.send(&logins::good(10));
        server.always("ReceiveMessage", Answer::ServeAndKeepVisible);
        let mut late = database.connect();
        // Its snapshot is older than the rows.
        late.run(&format!(
            "BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM user_logins"
        ));
        assert_eq!(database.connect().ingest(&queue, 10), 10);

        let result = late.try_ingest(&queue, 10, 1);

        if let Err(error) = &result {
            assert_eq!(
                error.code().map(|code| code.code()),
                Some("40001"),
                "{error:?}"
            );
        }
        late.run("ROLLBACK");
        expect_each_once(&mut late, 10);
    }
}

#[test]
fn messages_with_equal_bodies_are_different_messages() {
    let database = Database::shared();
    let queue = localstack::queue();
    let body = logins::login("one user, thrice").to_string();
    queue.send(&[body.clone(), body.clone(), body]);
    let mut session = database.connect();

    assert_eq!(session.ingest(&queue, 10), 3);
    assert_eq!(session.logins(), 3);
}

/// Without its ledger the extension has no way to know; the checks must see what happens then.
#[test]
fn the_checks_see_a_second_row() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(5));
    server.script(|call| match call.action.as_str() {
        "ReceiveMessage" => Answer::ServeAndKeepVisible,
        "DeleteMessageBatch" => Answer::Refuse {
            status: 403,
            code: "AccessDenied",
        },
        _ => Answer::Serve,
    });
    let mut session = database.connect();
    session.ingest(&queue, 5);
    session.run("DELETE FROM sqs_ledger");
    session.ingest(&queue, 5);

    assert_eq!(session.logins(), 10);
    assert!(catch_unwind(AssertUnwindSafe(|| expect_each_once(&mut session, 5))).is_err());
}

#[test]
fn a_ledger_that_cannot_tell_duplicates_stops_every_call_before_it_receives() {
    const REPLACE: &str = "
        DO $$ DECLARE part regclass; BEGIN
          FOR part IN SELECT relid FROM pg_partition_tree('sqs_ledger') LOOP
            EXECUTE format('ALTER EXTENSION user_logins_sqs DROP TABLE %s', part);
          END LOOP;
        END $$;
        DROP TABLE sqs_ledger;
        CREATE TABLE sqs_ledger (sent_at timestamptz, message_id uuid, extra integer)";
    for index in [
        "",
        "CREATE INDEX ON sqs_ledger (sent_at, message_id)",
        "CREATE UNIQUE INDEX ON sqs_ledger (sent_at, message_id, extra)",
        "CREATE UNIQUE INDEX ON sqs_ledger (sent_at, message_id) WHERE extra > 0",
    ] {
        let mut scene = Scene::shared();
        scene.session.run(REPLACE).run(index);
        scene.queue.send(&logins::good(1));

        let error = scene.session.ingest_error(&scene.queue, 1);

        assert_eq!(error.code().code(), "55000", "{index}: {error:?}");
        assert!(error.message().contains("unique index"), "{error:?}");
        assert!(scene.sqs.calls().is_empty(), "{index}");
        let report = Report::here(&mut scene.session);
        report.expect("tables of the extension", "error", "unique index");
        let hint = error.hint().unwrap();
        let remedy = hint.trim_start_matches("Use ").trim_end_matches('.');
        scene.session.run(remedy);
        assert_eq!(scene.session.ingest(&scene.queue, 1), 1);
    }
}
