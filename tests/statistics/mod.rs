//! What `sqs_stat`, `sqs_stat_lag` and `sqs_progress` show is correct, and shown to the right roles for the right time.

use std::sync::OnceLock;
use std::time::Duration;

use tests::cluster::Cluster;
use tests::database::{Database, Session, TextRow, literal};
use tests::logins;
use tests::queue::Queue;
use tests::scene::Scene;
use tests::scripted::Answer;
use tests::wait::eventually;
use tests::workers::{preloading, site_of};

mod access;
mod counts;
mod errors;
mod lag;
mod progress;
mod reset;
mod state;
mod without_preload;

/// Deletes follow the commit, and are tried again for a while where they fail.
const COUNTED_WITHIN: Duration = Duration::from_secs(20);

const NO_ROWS: [TextRow; 0] = [];

const DENIED: Answer = Answer::Refuse {
    status: 403,
    code: "AccessDenied",
};

/// A trigger function that fails like a server with a full disk, with this message (an SQL expression).
fn disk_full(message: &str) -> String {
    format!(
        "CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           RAISE EXCEPTION USING MESSAGE = {message}, ERRCODE = 'disk_full'; END $$;
         CREATE TRIGGER disk_full BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION disk_full()"
    )
}

/// A server that counts, for tests that neither stop it nor crash it.
fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| site_of(preloading().setting("track_commit_timestamp", "on")))
}

/// A database on a server that counts, and a queue.
fn scene() -> Scene<'static> {
    Scene::on(server())
}

/// What tests of the statistics do with a scene.
trait Counted {
    fn call(&self, n: usize) -> String;

    /// Sends good logins and ingests them.
    fn ingest(&mut self, count: usize);

    fn expect(&mut self, counts: Counts);

    /// One value of the queue's row; `None` is NULL.
    fn stat(&mut self, expression: &str) -> Option<String>;
}

impl Counted for Scene<'_> {
    fn call(&self, n: usize) -> String {
        call(&self.queue, n)
    }

    fn ingest(&mut self, count: usize) {
        self.queue.send(&logins::good(count));
        let rows = self.session.ingest(&self.queue, count as i32);
        assert_eq!(rows, count as i64);
    }

    #[track_caller]
    fn expect(&mut self, counts: Counts) {
        expect(&mut self.session, &self.queue, counts);
    }

    #[track_caller]
    fn stat(&mut self, expression: &str) -> Option<String> {
        stat(&mut self.session, &self.queue, expression)
    }
}

fn call(queue: &Queue, n: usize) -> String {
    format!("sqs_ingest({}, {n})", literal(queue.url()))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    received: i64,
    inserted: i64,
    duplicates: i64,
    rejected: i64,
    deleted: i64,
    delete_failures: i64,
    errors: i64,
}

impl Counts {
    fn of(session: &mut Session, queue: &Queue) -> Counts {
        let mut count = |column: &str| {
            let text = stat(session, queue, column).unwrap_or_else(|| panic!("{column} is NULL"));
            text.parse().unwrap()
        };
        Counts {
            received: count("received"),
            inserted: count("inserted"),
            duplicates: count("duplicates"),
            rejected: count("rejected"),
            deleted: count("deleted"),
            delete_failures: count("delete_failures"),
            errors: count("errors"),
        }
    }

    /// This many messages became rows and were deleted.
    fn ingested(messages: i64) -> Counts {
        Counts {
            received: messages,
            inserted: messages,
            deleted: messages,
            ..Counts::default()
        }
    }
}

#[track_caller]
fn stat(session: &mut Session, queue: &Queue, expression: &str) -> Option<String> {
    session.text(&format!(
        "SELECT {expression} FROM sqs_stat WHERE queue_url = {}",
        literal(queue.url())
    ))
}

#[track_caller]
fn expect(session: &mut Session, queue: &Queue, counts: Counts) {
    eventually(
        &format!("counted is {counts:?}"),
        COUNTED_WITHIN,
        || Counts::of(session, queue),
        |seen| *seen == counts,
    );
}

#[test]
fn every_column_and_function_says_what_it_is() {
    let database = Database::shared();
    let mut session = database.connect();
    let silent = session.rows(
        "SELECT pg_describe_object(classoid, objoid, objsubid) FROM (
           SELECT 'pg_class'::regclass, attrelid, attnum::integer FROM pg_attribute
             WHERE attrelid IN ('sqs_stat'::regclass, 'sqs_stat_lag'::regclass, 'sqs_progress'::regclass)
           UNION ALL SELECT 'pg_class'::regclass, oid, 0 FROM pg_class WHERE relname ~ '^sqs_(stat|progress)'
           UNION ALL SELECT 'pg_proc'::regclass, oid, 0 FROM pg_proc WHERE proname ~ '^sqs_stat'
         ) AS object (classoid, objoid, objsubid)
         LEFT JOIN pg_description USING (classoid, objoid, objsubid) WHERE description IS NULL",
    );
    assert_eq!(silent, NO_ROWS);
}
