//! The ledger remembers messages for as long as the queues that feed it may redeliver them, and no longer than it is
//! told to.

use tests::database::{Database, Session};
use tests::logins;
use tests::queue::Queue;
use tests::scripted::ScriptedSqs;

const DAYS: [i32; 4] = [3, 7, 10, 20];

/// A database whose ledger has entries of these ages, and a queue.
struct Scene {
    session: Session,
    queue: Queue,
    database: Database<'static>,
    _sqs: ScriptedSqs,
}

fn scene() -> Scene {
    let database = Database::shared();
    let sqs = ScriptedSqs::start();
    let mut session = database.connect();
    for day in DAYS {
        session.run(&format!(
            "INSERT INTO sqs_ledger VALUES (now() - interval '{day} days', gen_random_uuid())"
        ));
    }
    Scene {
        session,
        queue: sqs.queue(),
        database,
        _sqs: sqs,
    }
}

impl Scene {
    /// A queue fed the ledger so many days ago, and answered just now that it keeps messages for so many days.
    fn record(&mut self, queue: &str, days_ago: i32, retention_days: Option<i32>) {
        self.session.run(&format!(
            "INSERT INTO sqs_queue VALUES ('{queue}', now() - interval '{days_ago} days', NULL)"
        ));
        if let Some(days) = retention_days {
            self.record_answer(queue, 0, days);
        }
    }

    fn record_answer(&mut self, queue: &str, hours_ago: i32, retention_days: i32) {
        self.session.run(&format!(
            "INSERT INTO sqs_queue VALUES ('{queue}', now() - interval '{hours_ago} hours', '{retention_days} days')"
        ));
    }

    /// How many of the entries are left once the ledger was pruned.
    fn left(&mut self) -> i64 {
        self.session.run("SELECT sqs_prune()");
        self.session.number("SELECT count(*) FROM sqs_ledger")
    }
}

#[test]
fn a_ledger_whose_queues_said_nothing_keeps_what_the_setting_says() {
    let mut scene = scene();
    assert_eq!(scene.left(), 3);
    scene.record("silent", 0, None);
    assert_eq!(scene.left(), 3);
}

#[test]
fn an_answer_is_followed_with_a_day_to_spare() {
    let mut scene = scene();
    scene.record("q", 0, Some(4));
    assert_eq!(scene.left(), 1);
}

#[test]
fn the_longest_answer_counts_and_the_setting_is_the_bound() {
    let mut scene = scene();
    scene.record("short", 0, Some(1));
    scene.record("longer", 3, Some(7));
    assert_eq!(scene.left(), 2);
    scene.record("longest", 0, Some(300));
    assert_eq!(scene.left(), 2);
}

#[test]
fn a_queue_that_was_not_asked_counts_with_the_setting() {
    let mut scene = scene();
    scene.record("asked", 0, Some(1));
    scene.record("not asked", 31, None);
    assert_eq!(scene.left(), 3);
}

#[test]
fn a_queue_that_fed_the_ledger_long_ago_does_not_count() {
    let mut scene = scene();
    scene.record("asked", 0, Some(4));
    scene.record("gone", 33, None);
    assert_eq!(scene.left(), 1);
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
    scene.record("q", 0, None);
    scene.record_answer("q", 48, 4);
    assert_eq!(scene.left(), 3);
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
