//! The ledger remembers messages for as long as the queues that feed it may redeliver them, and no longer than it is
//! told to.

use std::time::Duration;

use tests::check_report::Report;
use tests::database::{Session, literal};
use tests::logins;
use tests::scene::Scene;
use tests::wait::{eventually, throughout};

const DAYS: [i32; 4] = [3, 7, 10, 20];

/// A database whose ledger has entries of these ages, and a queue.
fn scene() -> Scene<'static> {
    let mut scene = Scene::shared();
    for day in DAYS {
        scene.session.run(&format!(
            "INSERT INTO sqs_ledger VALUES (now() - interval '{day} days', gen_random_uuid())"
        ));
    }
    scene
}

/// A queue fed the ledger `days_ago`, and answered just now that it keeps messages for `retention_days`.
fn record(session: &mut Session, queue: &str, days_ago: i32, retention_days: Option<i32>) {
    session.run(&format!(
        "INSERT INTO sqs_queue VALUES ('{queue}', now() - interval '{days_ago} days', NULL)"
    ));
    if let Some(days) = retention_days {
        record_answer(session, queue, 0, days);
    }
}

fn record_answer(session: &mut Session, queue: &str, hours_ago: i32, retention_days: i32) {
    session.run(&format!(
        "INSERT INTO sqs_queue VALUES ('{queue}', now() - interval '{hours_ago} hours', '{retention_days} days')"
    ));
}

/// How many of the entries are left once the ledger was pruned.
fn left(session: &mut Session) -> i64 {
    session.run("SELECT sqs_prune()");
    session.number("SELECT count(*) FROM sqs_ledger")
}

#[test]
fn a_ledger_whose_queues_said_nothing_keeps_what_the_setting_says() {
    let mut scene = scene();
    assert_eq!(left(&mut scene.session), 3);
    record(&mut scene.session, "silent", 0, None);
    assert_eq!(left(&mut scene.session), 3);
}

#[test]
fn an_answer_is_followed_with_a_day_to_spare() {
    let mut scene = scene();
    record(&mut scene.session, "q", 0, Some(4));
    assert_eq!(left(&mut scene.session), 1);
}

#[test]
fn the_longest_answer_counts_and_the_setting_is_the_bound() {
    let mut scene = scene();
    record(&mut scene.session, "short", 0, Some(1));
    record(&mut scene.session, "longer", 3, Some(7));
    assert_eq!(left(&mut scene.session), 2);
    record(&mut scene.session, "longest", 0, Some(300));
    assert_eq!(left(&mut scene.session), 2);
}

#[test]
fn a_queue_that_was_not_asked_counts_with_the_setting() {
    let mut scene = scene();
    record(&mut scene.session, "asked", 0, Some(1));
    record(&mut scene.session, "not asked", 31, None);
    assert_eq!(left(&mut scene.session), 3);
}

#[test]
fn a_queue_that_fed_the_ledger_long_ago_does_not_count() {
    let mut scene = scene();
    record(&mut scene.session, "asked", 0, Some(4));
    record(&mut scene.session, "gone", 33, None);
    assert_eq!(left(&mut scene.session), 1);
    assert_eq!(
        scene
            .session
            .number("SELECT count(*) FROM sqs_queue WHERE queue_url = 'gone'"),
        0
    );
}

#[test]
fn an_answer_of_two_days_ago_counts_no_longer() {
    let mut scene = scene();
    record(&mut scene.session, "q", 0, None);
    record_answer(&mut scene.session, "q", 48, 4);
    assert_eq!(left(&mut scene.session), 3);
}

#[test]
fn a_call_records_its_queue_once_a_day_and_with_its_rows() {
    let mut scene = scene();
    let recorded = "SELECT count(*) FROM sqs_queue WHERE message_retention IS NULL";
    scene.queue.send(&logins::good(3));
    scene.session.run("BEGIN");
    scene.session.ingest(&scene.queue, 1);
    assert_eq!(scene.session.number(recorded), 1);
    scene.session.run("ROLLBACK");
    assert_eq!(scene.session.number(recorded), 0);
    scene.queue.expect_released(3);

    scene.session.ingest(&scene.queue, 1);
    scene.session.ingest(&scene.queue, 1);
    assert_eq!(scene.session.number(recorded), 1);
    let url = scene
        .session
        .text("SELECT queue_url FROM sqs_queue")
        .unwrap();
    assert_eq!(url, scene.queue.url());
}

#[test]
fn sessions_that_record_the_same_queue_do_not_wait_for_each_other() {
    let mut scene = scene();
    scene.queue.send(&logins::good(2));
    scene.session.run("BEGIN");
    assert_eq!(scene.session.ingest(&scene.queue, 1), 1);

    let mut other = scene.database.connect();
    other.run("SET lock_timeout = '1s'");
    assert_eq!(other.ingest(&scene.queue, 1), 1);
    scene.session.run("COMMIT");
    assert_eq!(scene.session.logins(), 2);
}

/// A server whose clock was set back cannot be had here. To it, what it has written before is of the future.
#[test]
fn a_clock_that_was_set_back_makes_the_ledger_forget_nothing() {
    let mut scene = Scene::shared();
    scene.session.run(
        "INSERT INTO sqs_ledger SELECT now() + interval '10 years' - n * interval '1 day', gen_random_uuid()
         FROM generate_series(0, 14) AS n",
    );
    record(&mut scene.session, "q", -3650, None);
    assert_eq!(left(&mut scene.session), 15);
    let report = Report::here(&mut scene.session);
    report.expect("ledger pruning", "warning", "clock");

    scene.queue.send(&logins::good(1));
    scene.session.ingest(&scene.queue, 1);
    assert_eq!(left(&mut scene.session), 16);

    // As the hint says, once the clock is right.
    scene
        .session
        .run("DELETE FROM sqs_queue WHERE recorded > now()");
    assert!(left(&mut scene.session) < 16);
    Report::here(&mut scene.session).expect("ledger pruning", "ok", "15 days");
}

const EXPIRED: &str =
    "INSERT INTO sqs_ledger VALUES (now() - interval '20 days', gen_random_uuid())";

#[test]
fn a_transaction_that_has_pruned_and_stays_open_holds_up_no_ingest() {
    let mut scene = Scene::shared();
    scene.session.run(EXPIRED);
    scene.queue.send(&logins::good(3));
    scene.session.run("BEGIN");
    assert_eq!(scene.session.number("SELECT sqs_prune()"), 1);

    let mut other = scene.database.connect();
    other.run("SET statement_timeout = '10s'");
    assert_eq!(other.ingest(&scene.queue, 3), 3);

    scene.session.run("COMMIT");
    assert_eq!(scene.session.number("SELECT count(*) FROM sqs_ledger"), 3);
}

#[test]
fn a_statement_that_ingests_twice_prunes_once_it_has_received_all() {
    let mut scene = Scene::shared();
    scene.session.run(EXPIRED);
    let config = scene.database.config();
    let polls = format!(
        "SELECT sqs_ingest({}, 1, wait) FROM generate_series(0, 4, 4) AS wait",
        literal(scene.queue.url())
    );
    let polling = std::thread::spawn(move || {
        config
            .connect(postgres::NoTls)
            .unwrap()
            .batch_execute(&polls)
    });
    eventually(
        "the second call polls",
        Duration::from_secs(10),
        || scene.sqs.calls_of("ReceiveMessage").len(),
        |polls| *polls >= 2,
    );
    let locked = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'
                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    throughout(
        "no table is locked",
        Duration::from_secs(2),
        || scene.session.number(locked),
        |locks| *locks == 0,
    );

    polling.join().unwrap().unwrap();
    assert_eq!(scene.session.number("SELECT count(*) FROM sqs_ledger"), 0);
}

#[test]
fn what_a_fixed_snapshot_does_not_see_is_not_pruned() {
    let mut scene = Scene::shared();
    scene.session.run(EXPIRED);
    let mut other = scene.database.connect();
    other.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    // Of a day that has the leaf of the expired entry.
    scene
        .session
        .run("INSERT INTO sqs_ledger VALUES (now() + interval '12 days', gen_random_uuid())");

    assert_eq!(other.number("SELECT sqs_prune()"), 0);

    other.run("COMMIT");
    assert_eq!(scene.session.number("SELECT count(*) FROM sqs_ledger"), 2);
}

#[test]
fn a_session_follows_leaves_that_are_replaced() {
    let mut scene = Scene::shared();
    scene.queue.send(&logins::good(1));
    assert_eq!(scene.session.ingest(&scene.queue, 1), 1);
    let today = scene
        .session
        .number("SELECT (current_timestamp AT TIME ZONE 'UTC')::date - '2000-01-01' & 31");
    let other = (today + 16) & 31;
    let mut admin = scene.database.connect();
    // Each leaf takes the name and the place of the other one.
    admin.run(&format!(
        "ALTER TABLE sqs_ledger DETACH PARTITION sqs_ledger_{today:02};
         ALTER TABLE sqs_ledger DETACH PARTITION sqs_ledger_{other:02};
         TRUNCATE sqs_ledger_{today:02};
         ALTER TABLE sqs_ledger_{today:02} RENAME TO was_of_today;
         ALTER TABLE sqs_ledger_{other:02} RENAME TO sqs_ledger_{today:02};
         ALTER TABLE was_of_today RENAME TO sqs_ledger_{other:02};
         ALTER TABLE sqs_ledger ATTACH PARTITION sqs_ledger_{today:02} FOR VALUES IN ({today});
         ALTER TABLE sqs_ledger ATTACH PARTITION sqs_ledger_{other:02} FOR VALUES IN ({other})"
    ));
    admin.run(&format!(
        "BEGIN; LOCK TABLE sqs_ledger_{other:02} IN ACCESS EXCLUSIVE MODE"
    ));
    scene.queue.send(&logins::good(1));
    scene.session.run("SET statement_timeout = '10s'");

    assert_eq!(scene.session.ingest(&scene.queue, 1), 1);
}
