//! A message is deleted when its row is committed, not before; and what was rolled back is visible again at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tests::cluster::{Cluster, Plan};
use tests::database::{Database, Session, literal};
use tests::queue::{Counts, Queue};
use tests::scripted::{Answer, ScriptedSqs};
use tests::wait::eventually;
use tests::{localstack, logins};

const MESSAGES: u64 = 25;

/// Long enough that nothing comes back by itself during a test.
const TEN_MINUTES: i64 = 600;

/// A queue with 25 messages, and a session to ingest them.
struct Scene {
    queue: Queue,
    session: Session,
    database: Database<'static>,
}

fn scene() -> Scene {
    scene_with(localstack::queue())
}

fn scene_with(queue: Queue) -> Scene {
    let database = Database::shared();
    queue.send(&logins::good(MESSAGES as usize));
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", TEN_MINUTES);
    Scene {
        queue,
        session,
        database,
    }
}

impl Scene {
    /// `sqs_ingest` of all 25 as an SQL expression.
    fn ingest_all(&self) -> String {
        ingest(&self.queue, MESSAGES)
    }

    #[track_caller]
    fn expect_nothing_happened(&mut self) {
        self.queue.expect_released(MESSAGES);
        let mut other = self.database.connect();
        assert_eq!(other.logins(), 0);
        assert_eq!(other.number("SELECT count(*) FROM sqs_ledger"), 0);
    }

    #[track_caller]
    fn expect_ingested(&mut self) {
        self.queue.expect_drained();
        assert_eq!(self.database.connect().logins(), MESSAGES as i64);
    }
}

fn ingest(queue: &Queue, n: u64) -> String {
    format!("sqs_ingest({}, {n})", literal(queue.url()))
}

#[test]
fn autocommit_deletes() {
    let mut scene = scene();

    scene.session.run(&format!("SELECT {}", scene.ingest_all()));

    scene.expect_ingested();
}

#[test]
fn commit_deletes_and_nothing_does_before() {
    let mut scene = scene();

    scene
        .session
        .run(&format!("BEGIN; SELECT {}", scene.ingest_all()));
    let in_flight = Counts {
        visible: 0,
        in_flight: MESSAGES,
    };
    scene
        .queue
        .expect_counts_stay(Duration::from_millis(500), in_flight);
    scene.session.run("COMMIT");

    scene.expect_ingested();
}

#[test]
fn rollback_releases() {
    let mut scene = scene();

    scene
        .session
        .run(&format!("BEGIN; SELECT {}", scene.ingest_all()));
    scene.session.run("ROLLBACK");

    scene.expect_nothing_happened();
}

#[test]
fn an_error_later_in_the_same_statement_releases() {
    let mut scene = scene();

    let error = scene
        .session
        .error_of(&format!("SELECT 1 / ({} - {MESSAGES})", scene.ingest_all()));

    assert_eq!(
        error.code().code(),
        "22012",
        "division by zero, after all were inserted: {error:?}"
    );
    scene.expect_nothing_happened();
}

#[test]
fn an_error_in_a_later_statement_releases_at_once() {
    let mut scene = scene();

    scene
        .session
        .run(&format!("BEGIN; SELECT {}", scene.ingest_all()));
    scene.session.error_of("SELECT no_such_function()");

    // The transaction is still open, and can only be rolled back.
    scene.expect_nothing_happened();
}

#[test]
fn rollback_to_savepoint_releases_even_if_the_rest_commits() {
    let mut scene = scene();

    scene.session.run(&format!(
        "BEGIN; SAVEPOINT s; SELECT {}",
        scene.ingest_all()
    ));
    scene.session.run("ROLLBACK TO SAVEPOINT s");
    scene.queue.expect_released(MESSAGES);
    scene.session.run("COMMIT");

    scene.expect_nothing_happened();
}

#[test]
fn rollback_of_the_outer_transaction_releases_what_a_released_savepoint_held() {
    let mut scene = scene();

    scene.session.run(&format!(
        "BEGIN; SAVEPOINT s; SELECT {}; RELEASE SAVEPOINT s",
        scene.ingest_all()
    ));
    scene.session.run("ROLLBACK");

    scene.expect_nothing_happened();
}

#[test]
fn commit_deletes_what_a_released_savepoint_held() {
    let mut scene = scene();

    scene.session.run(&format!(
        "BEGIN; SAVEPOINT s; SELECT {}; RELEASE SAVEPOINT s",
        scene.ingest_all()
    ));
    scene.session.run("COMMIT");

    scene.expect_ingested();
}

#[test]
fn of_several_savepoints_exactly_the_kept_ones_are_deleted() {
    let mut scene = scene();
    let some = ingest(&scene.queue, 5);

    scene.session.run(&format!(
        "BEGIN; SELECT {some};
         SAVEPOINT kept; SELECT {some};
         SAVEPOINT inside; SELECT {some}; RELEASE inside;
         SAVEPOINT lost; SELECT {some}; SAVEPOINT lost_inside; SELECT {some}; RELEASE lost_inside;
         ROLLBACK TO lost; RELEASE kept; COMMIT"
    ));

    scene.queue.expect_left(10);
    let mut other = scene.database.connect();
    assert_eq!(other.logins(), 15);
    assert_eq!(other.ingest(&scene.queue, 25), 10);
    assert_eq!(
        other.number("SELECT count(DISTINCT user_id) FROM user_logins"),
        25
    );
}

#[test]
fn rolling_back_an_outer_savepoint_releases_what_its_inner_ones_held() {
    let mut scene = scene();
    let some = ingest(&scene.queue, 5);

    scene.session.run(&format!(
        "BEGIN; SAVEPOINT o; SELECT {some}; SAVEPOINT i; SELECT {some}; SAVEPOINT j; SELECT {some};
         ROLLBACK TO o; COMMIT"
    ));

    scene.expect_nothing_happened();
}

#[test]
fn an_exception_block_that_catches_releases() {
    let mut scene = scene();

    scene.session.run(&format!(
        "DO $$ BEGIN
           BEGIN
             PERFORM {};
             RAISE EXCEPTION 'after the ingest';
           EXCEPTION WHEN OTHERS THEN NULL;
           END;
         END $$",
        scene.ingest_all()
    ));

    scene.expect_nothing_happened();
}

#[test]
fn an_exception_block_that_catches_nothing_deletes() {
    let mut scene = scene();

    scene.session.run(&format!(
        "DO $$ BEGIN
           BEGIN PERFORM {}; EXCEPTION WHEN OTHERS THEN RAISE; END;
         END $$",
        scene.ingest_all()
    ));

    scene.expect_ingested();
}

#[test]
fn an_error_after_an_exception_block_releases_what_the_block_held() {
    let mut scene = scene();

    scene.session.error_of(&format!(
        "DO $$ BEGIN
           BEGIN PERFORM {}; EXCEPTION WHEN OTHERS THEN RAISE; END;
           RAISE EXCEPTION 'after the block';
         END $$",
        scene.ingest_all()
    ));

    scene.expect_nothing_happened();
}

#[test]
fn a_deferred_constraint_that_fails_at_commit_releases() {
    let mut scene = scene();
    scene.session.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'too late'; END $$;
         CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON user_logins
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
    );

    scene
        .session
        .run(&format!("BEGIN; SELECT {}", scene.ingest_all()));
    scene.session.error_of("COMMIT");

    scene.expect_nothing_happened();
}

#[test]
fn a_deferred_constraint_that_fails_under_autocommit_releases() {
    let mut scene = scene();
    scene.session.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'too late'; END $$;
         CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON user_logins
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
    );

    scene
        .session
        .error_of(&format!("SELECT {}", scene.ingest_all()));

    scene.expect_nothing_happened();
}

#[test]
fn prepare_transaction_is_refused_and_releases() {
    let mut scene = scene();

    scene
        .session
        .run(&format!("BEGIN; SELECT {}", scene.ingest_all()));
    let error = scene.session.error_of("PREPARE TRANSACTION 'later'");

    assert_eq!(error.code().code(), "0A000", "{error:?}");
    assert!(error.hint().is_some(), "{error:?}");
    scene.expect_nothing_happened();
    assert_eq!(
        scene
            .session
            .number("SELECT count(*) FROM pg_prepared_xacts"),
        0
    );
}

#[test]
fn after_a_refused_prepare_the_next_transaction_deletes_only_its_own() {
    let mut scene = scene();
    scene
        .session
        .run(&format!("BEGIN; SELECT {}", scene.ingest_all()));
    scene.session.error_of("PREPARE TRANSACTION 'later'");
    scene.queue.expect_released(MESSAGES);

    scene.session.run("CREATE TABLE other_work AS SELECT 1");

    scene.queue.expect_counts_stay(
        Duration::from_millis(500),
        Counts {
            visible: MESSAGES,
            in_flight: 0,
        },
    );
}

#[test]
fn prepare_transaction_without_an_ingest_works() {
    let database = Database::shared();
    let mut session = database.connect();
    let queue = localstack::queue();
    queue.send(&logins::good(1));
    session.ingest(&queue, 1);

    session.run(&format!(
        "BEGIN; CREATE TABLE prepared (); PREPARE TRANSACTION '{}'",
        database.name()
    ));
    session.run(&format!("COMMIT PREPARED '{}'", database.name()));

    assert_eq!(session.number("SELECT count(*) FROM prepared"), 0);
}

#[test]
fn a_lost_connection_releases() {
    let mut scene = scene();
    let mut session = scene.database.connect();
    session.set("user_logins_sqs.visibility_timeout", TEN_MINUTES);

    session.run(&format!("BEGIN; SELECT {}", scene.ingest_all()));
    drop(session);

    scene.expect_nothing_happened();
}

#[test]
fn terminating_a_session_in_mid_transaction_releases() {
    let mut scene = scene();
    let mut session = scene.database.connect();
    session.set("user_logins_sqs.visibility_timeout", TEN_MINUTES);
    session.run(&format!("BEGIN; SELECT {}", scene.ingest_all()));

    scene
        .session
        .run(&format!("SELECT pg_terminate_backend({})", session.pid()));

    scene.expect_nothing_happened();
}

#[test]
fn a_rejected_message_of_a_rolled_back_call_is_released_and_not_recorded() {
    let database = Database::shared();
    let queue = localstack::queue();
    queue.send(&["not JSON".to_owned(), logins::login("good").to_string()]);
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", TEN_MINUTES);
    session.set("user_logins_sqs.rejected_messages", "delete");

    session.run(&format!("BEGIN; SELECT {}", ingest(&queue, 2)));
    assert_eq!(session.rejections().len(), 1);
    session.run("ROLLBACK");

    queue.expect_released(2);
    assert_eq!(session.rejections(), []);
}

#[test]
fn a_backend_killed_before_commit_loses_nothing() {
    let cluster = Cluster::private();
    let database = Database::with_extension(&cluster);
    let queue = localstack::queue();
    queue.send(&logins::good(MESSAGES as usize));
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", 3);
    session.run(&format!("BEGIN; SELECT {}", ingest(&queue, MESSAGES)));
    assert_eq!(session.logins(), MESSAGES as i64);

    cluster.kill_backend(session.pid());

    assert_eq!(database.connect().logins(), 0);
    // Nobody was left to release them: they come back with their visibility timeout.
    queue.expect_counts_within(
        Duration::from_secs(10),
        Counts {
            visible: MESSAGES,
            in_flight: 0,
        },
    );
    assert_eq!(database.connect().ingest(&queue, 100), MESSAGES as i64);
    queue.expect_drained();
}

#[test]
fn a_backend_killed_after_commit_doubles_nothing() {
    let cluster = Cluster::private();
    let database = Database::with_extension(&cluster);
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(MESSAGES as usize));
    server.always("DeleteMessageBatch", Answer::Hang);
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", 3);
    session.ingest(&queue, MESSAGES as i32);

    cluster.kill_backend(session.pid());

    server.behave();
    let mut session = database.connect();
    assert_eq!(session.logins(), MESSAGES as i64);
    queue.expect_counts_within(
        Duration::from_secs(10),
        Counts {
            visible: MESSAGES,
            in_flight: 0,
        },
    );
    assert_eq!(session.ingest(&queue, 100), 0);
    assert_eq!(session.logins(), MESSAGES as i64);
    queue.expect_drained();
}

#[test]
fn a_server_crash_before_commit_loses_nothing() {
    let cluster = Plan::default().setting("fsync", "on").start();
    let database = Database::with_extension(&cluster);
    let queue = localstack::queue();
    queue.send(&logins::good(MESSAGES as usize));
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", 3);
    session.run(&format!("BEGIN; SELECT {}", ingest(&queue, MESSAGES)));

    cluster.crash();
    cluster.start();

    let mut session = database.connect();
    assert_eq!(session.logins(), 0);
    queue.expect_counts_within(
        Duration::from_secs(10),
        Counts {
            visible: MESSAGES,
            in_flight: 0,
        },
    );
    assert_eq!(session.ingest(&queue, 100), MESSAGES as i64);
}

#[test]
fn commit_does_not_wait_for_the_deletes() {
    let server = ScriptedSqs::start();
    let mut scene = scene_with(server.queue());
    server.always(
        "DeleteMessageBatch",
        Answer::ServeAfter(Duration::from_secs(3)),
    );

    scene
        .session
        .run(&format!("BEGIN; SELECT {}", scene.ingest_all()));
    let (took, committed) = scene.session.time("COMMIT");

    assert!(committed.is_ok(), "{committed:?}");
    assert!(took < Duration::from_secs(1), "COMMIT took {took:?}");
    scene.expect_ingested();
}

#[test]
fn disconnecting_right_after_commit_still_deletes() {
    let server = ScriptedSqs::start();
    let mut scene = scene_with(server.queue());
    server.always(
        "DeleteMessageBatch",
        Answer::ServeAfter(Duration::from_millis(500)),
    );
    let mut session = scene.database.connect();
    session.set("user_logins_sqs.visibility_timeout", TEN_MINUTES);

    session.run(&format!("SELECT {}", scene.ingest_all()));
    drop(session);

    scene.expect_ingested();
}

#[test]
fn a_backend_whose_deletes_hang_exits_within_seconds() {
    let server = ScriptedSqs::start();
    let scene = scene_with(server.queue());
    server.always("DeleteMessageBatch", Answer::Hang);
    let mut session = scene.database.connect();
    session.run(&format!("SELECT {}", scene.ingest_all()));
    let pid = session.pid();

    let begun = Instant::now();
    drop(session);

    eventually(
        "the backend exits",
        Duration::from_secs(15),
        || Cluster::shared().has_process(pid),
        |alive| !alive,
    );
    println!("gone after {:?}", begun.elapsed());
}

#[test]
fn entries_that_fail_to_be_deleted_are_tried_again() {
    let server = ScriptedSqs::start();
    let mut scene = scene_with(server.queue());
    server.script(|call| {
        if call.action == "DeleteMessageBatch" && call.earlier < 4 {
            Answer::FailEntries {
                entries: vec![0, 3, 4, 9],
                code: "InternalError",
            }
        } else {
            Answer::Serve
        }
    });

    scene.session.run(&format!("SELECT {}", scene.ingest_all()));

    scene.expect_ingested();
}

#[test]
fn deletes_that_are_refused_for_a_while_are_tried_again() {
    let server = ScriptedSqs::start();
    let mut scene = scene_with(server.queue());
    server.script(|call| match (call.action.as_str(), call.earlier) {
        ("DeleteMessageBatch", 0) => Answer::Garbage {
            status: 503,
            body: "",
        },
        ("DeleteMessageBatch", 1) => Answer::Refuse {
            status: 400,
            code: "ThrottlingException",
        },
        ("DeleteMessageBatch", 2) => Answer::Reset,
        ("DeleteMessageBatch", 3) => Answer::ServeAndReset,
        _ => Answer::Serve,
    });

    scene.session.run(&format!("SELECT {}", scene.ingest_all()));

    scene.expect_ingested();
}

#[test]
fn entries_that_fail_to_be_released_are_tried_again() {
    let server = ScriptedSqs::start();
    let mut scene = scene_with(server.queue());
    server.script(|call| {
        if call.action == "ChangeMessageVisibilityBatch" && call.earlier < 2 {
            Answer::FailEntries {
                entries: vec![0, 1, 2],
                code: "InternalError",
            }
        } else {
            Answer::Serve
        }
    });

    scene
        .session
        .run(&format!("BEGIN; SELECT {}; ROLLBACK", scene.ingest_all()));

    scene.expect_nothing_happened();
}

#[test]
fn a_commit_on_a_queue_that_is_gone_is_still_a_commit() {
    let server = ScriptedSqs::start();
    let mut scene = scene_with(server.queue());
    server.always(
        "DeleteMessageBatch",
        Answer::Refuse {
            status: 400,
            code: "com.amazonaws.sqs#QueueDoesNotExist",
        },
    );

    scene.session.run(&format!("SELECT {}", scene.ingest_all()));

    assert_eq!(scene.database.connect().logins(), MESSAGES as i64);
    assert_eq!(scene.session.number("SELECT 1"), 1);
}

/// The checks that the other tests rest on, each against the opposite of what it is for.
#[test]
fn the_checks_can_fail() {
    let mut committed = scene();
    committed
        .session
        .run(&format!("SELECT {}", committed.ingest_all()));
    committed.expect_ingested();
    assert!(
        fails(|| committed.expect_nothing_happened()),
        "a commit must not look like a rollback"
    );

    let mut rolled_back = scene();
    rolled_back.session.run(&format!(
        "BEGIN; SELECT {}; ROLLBACK",
        rolled_back.ingest_all()
    ));
    rolled_back.expect_nothing_happened();
    let drained = Counts {
        visible: 0,
        in_flight: 0,
    };
    let queue = rolled_back.queue.clone();
    assert!(
        fails(|| queue.expect_counts_within(Duration::from_secs(1), drained)),
        "a rollback must not look like a commit"
    );

    let open = scene();
    let messages = open.queue.receive(Duration::from_secs(600));
    assert!(!messages.is_empty());
    let queue = open.queue.clone();
    assert!(
        fails(|| queue.expect_released(MESSAGES)),
        "messages in flight must not look released"
    );
}

fn fails(check: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(check)).is_err()
}
