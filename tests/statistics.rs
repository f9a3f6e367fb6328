//! What `sqs_stat`, `sqs_stat_lag` and `sqs_progress` say is so, to whom they say it, and for how long.

use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tests::cluster::Cluster;
use tests::database::{Database, Session, TextRow, db_error, literal};
use tests::logins;
use tests::queue::Queue;
use tests::scripted::{Answer, ScriptedSqs};
use tests::wait::eventually;
use tests::workers::{PROMPTLY, admin, preloading, site, site_of};

/// Deletes follow the commit, and are tried again for a while where they fail.
const COUNTED_WITHIN: Duration = Duration::from_secs(20);

const NO_ROWS: [TextRow; 0] = [];

const DENIED: Answer = Answer::Refuse {
    status: 403,
    code: "AccessDenied",
};

/// A trigger function that fails as a server does whose disk is full, with this message (an SQL expression).
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
struct Scene<'c> {
    sqs: ScriptedSqs,
    queue: Queue,
    session: Session,
    database: Database<'c>,
}

fn scene() -> Scene<'static> {
    scene_on(server())
}

fn scene_on(cluster: &Cluster) -> Scene<'_> {
    let database = Database::with_extension(cluster);
    let sqs = ScriptedSqs::start();
    Scene {
        queue: sqs.queue(),
        sqs,
        session: database.connect(),
        database,
    }
}

impl Scene<'_> {
    fn call(&self, n: usize) -> String {
        call(&self.queue, n)
    }

    /// Sends good logins and ingests them.
    fn ingest(&mut self, count: usize) {
        self.queue.send(&logins::good(count));
        let rows = self.session.ingest(&self.queue, count as i32);
        assert_eq!(rows, count as i64);
    }

    #[track_caller]
    fn expect(&mut self, counts: Counts) {
        expect(&mut self.session, &self.queue, counts);
    }

    /// One value of the queue's row; `None` is NULL.
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

    /// So many messages that became rows and were deleted.
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

mod counts {
    use super::*;

    #[test]
    fn tell_rows_from_rejections() {
        let mut scene = scene();
        let bad = ["not a login".to_owned(), logins::login_without("x", "ip")];
        scene.queue.send(&[logins::good(5), bad.into()].concat());

        assert_eq!(scene.session.ingest(&scene.queue, 7), 5);

        scene.expect(Counts {
            received: 7,
            inserted: 5,
            rejected: 2,
            deleted: 5,
            ..Counts::default()
        });
    }

    #[test]
    fn have_failed_deletes_and_the_duplicates_that_come_of_them() {
        let mut scene = scene();
        scene.sqs.script(|call| match call.action.as_str() {
            "ReceiveMessage" if call.earlier == 0 => Answer::ServeAndKeepVisible,
            "DeleteMessageBatch" => DENIED,
            _ => Answer::Serve,
        });
        scene.ingest(3);
        let failed = Counts {
            received: 3,
            inserted: 3,
            delete_failures: 3,
            ..Counts::default()
        };
        scene.expect(failed);

        scene.sqs.behave();
        assert_eq!(scene.session.ingest(&scene.queue, 3), 0);

        scene.expect(Counts {
            received: 6,
            inserted: 3,
            duplicates: 3,
            deleted: 3,
            delete_failures: 3,
            ..Counts::default()
        });
        let lags = "SELECT max(count) FROM sqs_stat_lag";
        assert_eq!(scene.session.number(lags), 3, "no lag of a duplicate");
    }

    #[test]
    fn have_what_was_rolled_back_as_received_only() {
        let mut scene = scene();
        scene
            .queue
            .send(&[logins::good(4), vec!["not a login".to_owned()]].concat());
        let call = scene.call(5);
        let in_vain = [
            format!("BEGIN; SELECT {call}; ROLLBACK"),
            format!("BEGIN; SAVEPOINT a; SELECT {call}; ROLLBACK TO a; COMMIT"),
            format!(
                "BEGIN; SAVEPOINT a; SAVEPOINT b; SELECT {call}; RELEASE b; ROLLBACK TO a; COMMIT"
            ),
            format!(
                "DO $$ BEGIN PERFORM {call}; RAISE 'in vain'; EXCEPTION WHEN raise_exception THEN NULL; END $$"
            ),
        ];
        for (time, sql) in (1..).zip(&in_vain) {
            scene.session.run(sql);
            scene.queue.expect_released(5);
            scene.expect(Counts {
                received: 5 * time,
                ..Counts::default()
            });
            assert_eq!(scene.stat("last_commit"), None, "{sql}");
        }

        let kept = format!("BEGIN; SAVEPOINT a; SELECT {call}; RELEASE a");
        scene.session.run(&kept);
        let mut other = scene.database.connect();
        expect(
            &mut other,
            &scene.queue,
            Counts {
                received: 25,
                ..Counts::default()
            },
        );
        scene.session.run("COMMIT");

        scene.expect(Counts {
            received: 25,
            inserted: 4,
            rejected: 1,
            deleted: 4,
            ..Counts::default()
        });
        let just_now = "now() - last_commit BETWEEN '0 s' AND '20 s'";
        assert_eq!(scene.stat(just_now).as_deref(), Some("t"));
    }

    #[test]
    fn are_those_of_workers_and_calls_together() {
        let mut admin = admin(server());
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();
        queue.send(&logins::good(3));
        admin.ingest(&queue, 3);
        queue.send(&logins::good(4));
        admin.run(&format!("CALL sqs_drain({})", literal(queue.url())));
        expect(&mut admin, &queue, Counts::ingested(7));
        assert_eq!(stat(&mut admin, &queue, "workers").as_deref(), Some("0"));
        assert_eq!(stat(&mut admin, &queue, "state"), None);

        queue.send(&logins::good(5));
        admin.run(&format!(
            "SELECT sqs_subscribe({}, 2)",
            literal(queue.url())
        ));

        expect(&mut admin, &queue, Counts::ingested(12));
        let mut workers_and_state = |expected: TextRow| {
            let sql = format!(
                "SELECT workers, state FROM sqs_stat WHERE queue_url = {}",
                literal(queue.url())
            );
            eventually(
                &format!("{expected:?}"),
                PROMPTLY,
                || admin.rows(&sql).remove(0),
                |seen| *seen == expected,
            );
        };
        workers_and_state(vec![Some("2".to_owned()), Some("idle".to_owned())]);
        let mut other = super::admin(server());
        other.unsubscribe(&queue);
        workers_and_state(vec![Some("0".to_owned()), None]);
        expect(&mut other, &queue, Counts::ingested(12));
    }

    #[test]
    fn are_of_each_database_alone() {
        let (mut one, mut other) = (scene(), scene());
        one.ingest(2);
        let rows = "SELECT count(*) FROM sqs_stat";
        assert_eq!(other.session.number(rows), 0);
        assert_eq!(other.session.number("SELECT count(*) FROM sqs_stat_lag"), 0);

        one.queue.send(&logins::good(3));
        assert_eq!(other.session.ingest(&one.queue, 3), 3);

        one.expect(Counts::ingested(2));
        expect(&mut other.session, &one.queue, Counts::ingested(3));
        assert_eq!(one.session.number(rows), 1);
    }

    #[test]
    fn outlive_a_session_that_is_terminated() {
        let mut scene = scene();
        scene.ingest(3);
        scene.expect(Counts::ingested(3));
        let before = scene.stat("stats_reset");
        let mut other = scene.database.connect();

        other.run(&format!(
            "SELECT pg_terminate_backend({}, 10000)",
            scene.session.pid()
        ));

        expect(&mut other, &scene.queue, Counts::ingested(3));
        assert_eq!(stat(&mut other, &scene.queue, "stats_reset"), before);
    }

    #[test]
    fn begin_anew_after_a_crash_and_after_a_restart() {
        let cluster = site();
        let mut scene = scene_on(&cluster);
        let rows = "SELECT (SELECT count(*) FROM sqs_stat) + (SELECT count(*) FROM sqs_stat_lag)";
        let ends: [fn(&Cluster, i32); 2] = [
            |cluster, pid| cluster.kill_backend(pid),
            |cluster, _| cluster.restart(),
        ];
        for end in ends {
            scene.ingest(3);
            scene.expect(Counts::ingested(3));
            assert!(scene.session.number(rows) > 0);

            end(&cluster, scene.session.pid());

            scene.session = scene.database.connect();
            assert_eq!(scene.session.number(rows), 0);
        }
    }

    /// Queues that are counted, in all databases together.
    const ROOM: usize = 128;

    fn ingest_one(session: &mut Session, queue: &Queue) {
        queue.send(&logins::good(1));
        assert_eq!(session.ingest(queue, 1), 1);
    }

    #[test]
    fn are_not_begun_by_who_may_not_ingest() {
        let mut scene = scene();
        let role = format!("caller_{}", scene.database.name());
        scene.session.run(&format!(
            "CREATE ROLE {role} LOGIN; GRANT EXECUTE ON FUNCTION sqs_ingest TO {role};
             GRANT EXECUTE ON PROCEDURE sqs_drain TO {role}"
        ));
        let mut caller = scene.database.connect_as(&role);
        let refused = [
            format!("SELECT {}", scene.call(1)),
            format!("CALL sqs_drain({})", literal(scene.queue.url())),
        ];
        for call in refused {
            let error = caller.error_of(&call);
            assert_eq!(error.code().code(), "42501", "{error:?}");
        }
        assert_eq!(scene.session.number("SELECT count(*) FROM sqs_stat"), 0);

        scene
            .session
            .run(&format!("GRANT INSERT ON user_logins TO {role}"));
        scene.sqs.always("ReceiveMessage", DENIED);
        caller.ingest_error(&scene.queue, 1);

        scene.expect(Counts {
            errors: 1,
            ..Counts::default()
        });
    }

    #[test]
    fn are_kept_of_the_128_queues_that_were_used_last_and_of_those_with_workers() {
        let cluster = site();
        let mut admin = admin(&cluster);
        let mut scene = scene_on(&cluster);
        let subscribed = scene.sqs.queue();
        admin.subscribe(&subscribed);
        admin.expect_workers_within(PROMPTLY, 1);
        eventually(
            "the worker counts",
            COUNTED_WITHIN,
            || admin.number("SELECT count(*) FROM sqs_stat"),
            |rows| *rows == 1,
        );
        let queues: Vec<Queue> = (0..ROOM - 1).map(|_| scene.sqs.queue()).collect();
        for queue in &queues {
            ingest_one(&mut scene.session, queue);
        }
        ingest_one(&mut scene.session, &queues[0]);
        let newest = scene.sqs.queue();

        ingest_one(&mut scene.session, &newest);

        let rows = "SELECT count(*) FROM sqs_stat";
        assert_eq!(scene.session.number(rows), ROOM as i64 - 1);
        assert_eq!(admin.number(rows), 1);
        let mut has_row = |queue: &Queue| {
            let url = literal(queue.url());
            let rows = format!("SELECT count(*) FROM sqs_stat WHERE queue_url = {url}");
            scene.session.number(&rows) == 1
        };
        assert!(has_row(&newest));
        assert!(!has_row(&queues[1]), "unused for longest");
        let others = queues[2..].iter().chain(&queues[..1]);
        assert!(others.into_iter().all(has_row));
    }

    #[test]
    fn of_a_queue_that_had_to_make_room_are_not_added_to_anothers() {
        let cluster = site();
        let mut scene = scene_on(&cluster);
        scene.queue.send(&logins::good(7));
        scene
            .session
            .run(&format!("BEGIN; SELECT {}", scene.call(7)));
        let mut other = scene.database.connect();
        let queues: Vec<Queue> = (0..ROOM).map(|_| scene.sqs.queue()).collect();
        for queue in &queues {
            ingest_one(&mut other, queue);
        }

        scene.session.run("COMMIT");

        scene.queue.expect_drained();
        for queue in &queues {
            expect(&mut other, queue, Counts::ingested(1));
        }
        scene.ingest(2);
        scene.expect(Counts::ingested(2));
    }

    #[test]
    fn of_a_dropped_database_make_room_first() {
        let cluster = site();
        let mut oldest = scene_on(&cluster);
        oldest.ingest(1);
        let full = scene_on(&cluster);
        let mut session = full.database.connect();
        for _ in 0..ROOM - 1 {
            ingest_one(&mut session, &full.sqs.queue());
        }
        let full = full.database.name();
        oldest
            .session
            .run(&format!("DROP DATABASE {full} WITH (FORCE)"));

        let mut newest = scene_on(&cluster);
        newest.ingest(1);

        newest.expect(Counts::ingested(1));
        oldest.expect(Counts::ingested(1));
    }
}

mod errors {
    use super::*;

    #[test]
    fn of_sqs_and_of_postgres_are_counted_with_the_last_ones_message() {
        let mut scene = scene();
        scene.queue.send(&logins::good(1));
        assert_eq!(scene.session.ingest(&scene.queue, 1), 1);
        assert_eq!(scene.stat("last_error"), None);
        assert_eq!(scene.stat("last_error_at"), None);

        scene.sqs.always("ReceiveMessage", DENIED);
        let error = scene.session.ingest_error(&scene.queue, 1);
        scene.expect(Counts {
            errors: 1,
            ..Counts::ingested(1)
        });
        let last = scene.stat("last_error").unwrap();
        assert!(last.starts_with(error.message()), "{last} of {error:?}");
        let just_now = "now() - last_error_at BETWEEN '0 s' AND '20 s'";
        assert_eq!(scene.stat(just_now).as_deref(), Some("t"));

        scene.sqs.behave();
        scene.session.run(&disk_full("repeat('äöü', 100)"));
        scene.queue.send(&logins::good(1));
        scene.session.ingest_error(&scene.queue, 1);
        scene.expect(Counts {
            received: 2,
            errors: 2,
            ..Counts::ingested(1)
        });
        let cut = "last_error = left(repeat('äöü', 100), 127) AND octet_length(last_error) <= 255";
        assert_eq!(scene.stat(cut).as_deref(), Some("t"));
    }

    #[test]
    fn of_a_batch_of_a_worker_are_counted() {
        let cluster = site();
        let mut admin = admin(&cluster);
        admin.run(&disk_full("'no space left'"));
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();
        queue.send(&logins::good(1));

        admin.subscribe(&queue);

        eventually(
            "the worker has tried twice",
            COUNTED_WITHIN,
            || admin.rows("SELECT errors >= 2, last_error, state, inserted FROM sqs_stat"),
            |rows| {
                *rows == [["t", "no space left", "retrying", "0"].map(|text| Some(text.to_owned()))]
            },
        );
    }

    #[test]
    fn show_no_raw_values() {
        let cluster = site();
        let mut admin = admin(&cluster);
        let sqs = ScriptedSqs::start();
        let (called, subscribed) = (sqs.queue(), sqs.queue());
        let bodies: Vec<String> = (0..12)
            .map(|number| {
                let mut login = logins::login(&format!("user-{number}"));
                login["ip"] = "203.0.113.77".into();
                login["device_id"] = "raw-device-4711".into();
                login.to_string()
            })
            .collect();
        for queue in [&called, &subscribed] {
            queue.send(&bodies);
        }
        // Each says all that it knows of a row.
        admin.run(&disk_full("NEW::text"));
        admin.ingest_error(&called, 12);
        admin.run(
            "DROP TRIGGER disk_full ON user_logins;
             ALTER TABLE user_logins ADD CONSTRAINT none CHECK (length(user_id) < 3)",
        );
        admin.subscribe(&subscribed);
        eventually(
            "the worker pauses",
            COUNTED_WITHIN,
            || stat(&mut admin, &subscribed, "state"),
            |state| state.as_deref() == Some("paused"),
        );

        let shown = admin.rows(
            "SELECT stat::text FROM sqs_stat AS stat
             UNION ALL SELECT call::text FROM sqs_progress AS call
             UNION ALL SELECT lag::text FROM sqs_stat_lag AS lag",
        );
        let shown = format!("{shown:?}");
        assert!(shown.contains("(user-"), "it shows the row: {shown}");
        assert!(shown.contains("refuses every row"), "{shown}");
        assert!(!shown.contains("203.0.113.77"), "{shown}");
        assert!(!shown.contains("raw-device"), "{shown}");
    }
}

mod reset {
    use super::*;

    #[test]
    fn of_one_queue_leaves_the_others() {
        let mut scene = scene();
        let other = scene.sqs.queue();
        other.send(&logins::good(2));
        scene.session.ingest(&other, 2);
        scene.ingest(3);
        scene.sqs.always("ReceiveMessage", DENIED);
        scene.session.ingest_error(&scene.queue, 1);
        scene.expect(Counts {
            errors: 1,
            ..Counts::ingested(3)
        });
        expect(&mut scene.session, &other, Counts::ingested(2));
        let before = scene.session.text("SELECT clock_timestamp()").unwrap();

        let url = literal(scene.queue.url());
        scene.session.run(&format!("SELECT sqs_stat_reset({url})"));

        scene.expect(Counts::default());
        let nothing = "concat(last_error, last_error_at, last_commit, lag_p50, lag_p99)";
        assert_eq!(scene.stat(nothing).as_deref(), Some(""));
        let since = format!("stats_reset >= {}", literal(&before));
        assert_eq!(scene.stat(&since).as_deref(), Some("t"));
        let lags = scene.session.rows(&format!(
            "SELECT le, count, sum FROM sqs_stat_lag WHERE queue_url = {url}"
        ));
        assert_eq!(
            lags,
            [["Infinity", "0", "0"].map(|text| Some(text.to_owned()))]
        );
        expect(&mut scene.session, &other, Counts::ingested(2));
        let untouched = stat(&mut scene.session, &other, &since);
        assert_eq!(untouched.as_deref(), Some("f"));
    }

    #[test]
    fn of_all_leaves_other_databases() {
        let (mut one, mut other) = (scene(), scene());
        one.ingest(2);
        let second = one.sqs.queue();
        second.send(&logins::good(1));
        one.session.ingest(&second, 1);
        other.ingest(3);
        one.expect(Counts::ingested(2));
        expect(&mut one.session, &second, Counts::ingested(1));
        other.expect(Counts::ingested(3));

        one.session.run("SELECT sqs_stat_reset()");

        one.expect(Counts::default());
        expect(&mut one.session, &second, Counts::default());
        other.expect(Counts::ingested(3));
    }

    #[test]
    fn is_what_counting_goes_on_from() {
        let mut scene = scene();
        scene.ingest(2);
        scene.expect(Counts::ingested(2));
        scene.session.run("SELECT sqs_stat_reset()");

        scene.ingest(3);

        scene.expect(Counts::ingested(3));
    }

    #[test]
    fn of_no_queue_is_an_error() {
        let mut scene = scene();
        let error = scene.session.error_of("SELECT sqs_stat_reset(NULL)");
        assert_eq!(error.code().code(), "22004", "{error:?}");
        let error = scene.session.error_of("SELECT sqs_stat_reset('no url')");
        assert_eq!(error.code().code(), "22023", "{error:?}");
    }
}

mod without_preload {
    use super::*;

    #[test]
    fn the_views_name_the_line_to_add_and_ingest_works() {
        let database = Database::shared();
        let mut session = database.connect();
        let queue = ScriptedSqs::start();
        let queue = queue.queue();
        let url = literal(queue.url());

        for sql in [
            "SELECT * FROM sqs_stat",
            "SELECT * FROM sqs_stat_lag",
            "SELECT * FROM sqs_progress",
            "SELECT sqs_stat_reset()",
            &format!("SELECT sqs_stat_reset({url})"),
        ] {
            let error = session.error_of(sql);
            assert_eq!(error.code().code(), "55000", "{sql}: {error:?}");
            assert!(error.message().contains("shared_preload_libraries"));
            let line = "shared_preload_libraries = 'user_logins_sqs'";
            assert!(
                error.hint().is_some_and(|hint| hint.contains(line)),
                "{error:?}"
            );
        }
        queue.send(&logins::good(3));
        assert_eq!(session.ingest(&queue, 3), 3);
        queue.send(&logins::good(3));
        session.run(&format!("CALL sqs_drain({url})"));
        assert_eq!(session.logins(), 6);
        queue.expect_drained();
    }
}

mod access {
    use super::*;

    const ALL: [&str; 8] = [
        "SELECT * FROM sqs_stat",
        "SELECT * FROM sqs_stat_lag",
        "SELECT * FROM sqs_progress",
        "SELECT * FROM sqs_stat_get_queues()",
        "SELECT * FROM sqs_stat_get_lags()",
        "SELECT * FROM sqs_stat_get_calls()",
        "SELECT sqs_stat_reset()",
        "SELECT sqs_stat_reset('http://localhost/1/queue')",
    ];

    #[test]
    fn is_for_pg_monitor_and_resets_are_for_superusers() {
        let mut scene = scene();
        scene.ingest(1);
        let role = |kind: &str| format!("{kind}_{}", scene.database.name());
        let (anybody, watcher) = (role("anybody"), role("watcher"));
        scene.session.run(&format!(
            "CREATE ROLE {anybody} LOGIN; CREATE ROLE {watcher} LOGIN; GRANT pg_monitor TO {watcher}"
        ));
        let refused = |role: &str| {
            let mut session = scene.database.connect_as(role);
            let mut refused = ALL.to_vec();
            refused.retain(|sql| match session.try_run(sql) {
                Ok(()) => false,
                Err(error) => db_error(&error).code().code() == "42501",
            });
            refused
        };

        assert_eq!(refused(&anybody), ALL);
        assert_eq!(refused(&watcher), ALL[6..]);
        assert_eq!(refused("postgres"), [""; 0]);
    }
}

mod progress {
    use super::*;

    const CALLS: &str =
        "SELECT pid, queue_url, target, received, inserted FROM sqs_progress ORDER BY pid";

    /// Messages that are in the queue when a call begins, and those of them that it has inserted: chunks of 1,000.
    const RECEIVED: usize = 1_005;
    const INSERTED: usize = 1_000;

    struct Call {
        /// Its session, and the SQLSTATE with which it failed.
        ended: JoinHandle<(Session, Option<String>)>,
        pid: i32,
        token: postgres::CancelToken,
    }

    fn call(scene: &Scene, sql: &str) -> Call {
        let mut session = scene.database.connect();
        let (pid, token) = (session.pid(), session.cancel_token());
        let sql = sql.to_owned();
        let ended = thread::spawn(move || {
            let error = session.try_run(&sql).err();
            (
                session,
                error.map(|error| db_error(&error).code().code().to_owned()),
            )
        });
        Call { ended, pid, token }
    }

    fn expect_row(scene: &mut Scene, call: &Call, target: Option<&str>) {
        let expected = [
            Some(call.pid.to_string()),
            Some(scene.queue.url().to_owned()),
            target.map(str::to_owned),
            Some(RECEIVED.to_string()),
            Some(INSERTED.to_string()),
        ];
        eventually(
            "the call is shown",
            COUNTED_WITHIN,
            || scene.session.rows(CALLS),
            |rows| *rows == [expected.clone()],
        );
        let just_now = "SELECT now() - started BETWEEN '0 s' AND '20 s' FROM sqs_progress";
        assert_eq!(scene.session.text(just_now).as_deref(), Some("t"));
    }

    /// Shows that a call that waits for one more message is there until `end`, after which it has failed like that,
    /// and is gone. Returns its session.
    fn gone_after(end: impl FnOnce(&mut Scene, &Call), sqlstate: Option<&str>) -> Session {
        let mut scene = scene();
        scene.session.run(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$;
             CREATE TRIGGER fail BEFORE INSERT ON user_logins FOR EACH ROW
               WHEN (NEW.user_id = 'fatal') EXECUTE FUNCTION fail()",
        );
        scene.queue.send(&logins::good(RECEIVED));
        let sql = format!(
            "SELECT sqs_ingest({}, 1006, 20)",
            literal(scene.queue.url())
        );
        let call = call(&scene, &sql);
        expect_row(&mut scene, &call, Some("1006"));

        end(&mut scene, &call);

        let (session, error) = call.ended.join().unwrap();
        assert_eq!(error.as_deref(), sqlstate);
        assert_eq!(scene.session.rows(CALLS), NO_ROWS);
        session
    }

    #[test]
    fn is_shown_until_the_call_returns() {
        let mut session = gone_after(|scene, _| scene.queue.send(&logins::good(1)), None);
        session.run("SELECT 1");
    }

    #[test]
    fn is_shown_until_an_error() {
        let fatal = |scene: &mut Scene, _: &Call| {
            scene.queue.send(&[logins::login("fatal").to_string()]);
        };
        let mut session = gone_after(fatal, Some("53100"));
        session.run("SELECT 1");
    }

    #[test]
    fn is_shown_until_a_cancel() {
        let cancel = |_: &mut Scene, call: &Call| {
            call.token.cancel_query(postgres::NoTls).unwrap();
        };
        let mut session = gone_after(cancel, Some("57014"));
        session.run("SELECT 1");
    }

    #[test]
    fn is_shown_until_the_session_is_terminated() {
        let terminate = |scene: &mut Scene, call: &Call| {
            let sql = format!("SELECT pg_terminate_backend({}, 10000)", call.pid);
            scene.session.run(&sql);
        };
        gone_after(terminate, Some("57P01"));
    }

    #[test]
    fn of_a_drain_has_its_limit() {
        let mut scene = scene();
        for (limit, target) in [("NULL", None), ("2000", Some("2000"))] {
            scene.queue.send(&logins::good(RECEIVED));
            scene.sqs.always(
                "ReceiveMessage",
                Answer::ServeAfter(Duration::from_millis(50)),
            );
            let sql = format!(
                "CALL sqs_drain({}, 1000, {limit})",
                literal(scene.queue.url())
            );
            let call = call(&scene, &sql);
            let expected = [Some(call.pid.to_string()), target.map(str::to_owned)];
            eventually(
                "the call is shown",
                COUNTED_WITHIN,
                || scene.session.rows("SELECT pid, target FROM sqs_progress"),
                |rows| *rows == [expected.clone()],
            );
            let (_, error) = call.ended.join().unwrap();
            assert_eq!(error, None);
            assert_eq!(scene.session.rows(CALLS), NO_ROWS);
        }
    }

    #[test]
    fn of_a_worker_has_no_limit_and_ends_with_it() {
        let cluster = site();
        let mut admin = admin(&cluster);
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();
        queue.send(&logins::good(5));
        admin.subscribe(&queue);
        let worker = admin.expect_workers_within(PROMPTLY, 1)[0];
        let expected = [
            Some(worker.to_string()),
            Some(queue.url().to_owned()),
            None,
            Some("5".to_owned()),
            Some("5".to_owned()),
        ];
        eventually(
            "the worker is shown",
            COUNTED_WITHIN,
            || admin.rows(CALLS),
            |rows| *rows == [expected.clone()],
        );
        let mut elsewhere = scene_on(&cluster);
        assert_eq!(elsewhere.session.rows(CALLS), NO_ROWS);

        admin.unsubscribe(&queue);
        admin.expect_workers_within(PROMPTLY, 0);

        assert_eq!(admin.rows(CALLS), NO_ROWS);
    }
}

mod lag {
    use super::*;

    /// The time of each row from being sent to its commit, in seconds, as Postgres has it.
    const TRUTH: &str = "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin) - sent_at)::float8 AS lag FROM sqs_ledger";

    /// Between the time that Postgres gives to a commit, and that at which the commit is counted.
    const BUSY: &str = "2.0";

    /// 200 messages, from 10 seconds to 12 days old.
    fn ingested() -> Scene<'static> {
        let mut scene = scene();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        for (number, body) in (0..).zip(logins::good(200)) {
            let age = Duration::from_secs_f64(10.0 * 1.06_f64.powi(number));
            let sent_at = (now - age).as_millis();
            scene
                .sqs
                .put(&scene.queue, &body, u64::try_from(sent_at).unwrap());
        }
        assert_eq!(scene.session.ingest(&scene.queue, 200), 200);
        scene
    }

    #[test]
    fn percentiles_are_above_the_truth_by_one_part_in_16_at_most() {
        let mut scene = ingested();
        for (column, share) in [("lag_p50", "0.5"), ("lag_p99", "0.99")] {
            let rows = scene.session.rows(&format!(
                "SELECT extract(epoch FROM {column}) >= lag,
                        extract(epoch FROM {column}) <= (lag + {BUSY}) * 17 / 16, {column}, lag
                 FROM sqs_stat, (SELECT percentile_disc({share}) WITHIN GROUP (ORDER BY lag) AS lag FROM ({TRUTH}) AS each) AS all_of_them"
            ));
            let ok = |at: usize| rows[0][at].as_deref() == Some("t");
            assert!(ok(0) && ok(1), "{column}: {rows:?}");
        }
    }

    #[test]
    fn buckets_count_what_took_no_longer() {
        let mut scene = ingested();
        let rows = scene.session.rows(&format!(
            "SELECT le, count,
                    (SELECT count(*) FROM ({TRUTH}) AS each WHERE lag + {BUSY} <= le) AS least,
                    (SELECT count(*) FROM ({TRUTH}) AS each WHERE lag <= le) AS most
             FROM sqs_stat_lag"
        ));
        let number = |row: &TextRow, at: usize| row[at].as_ref().unwrap().parse::<f64>().unwrap();
        for row in &rows {
            let [le, count, least, most] = [0, 1, 2, 3].map(|at| number(row, at));
            assert!(least <= count && count <= most, "{le}: {row:?}");
        }
        for pair in rows.windows(2) {
            assert!(number(&pair[0], 0) < number(&pair[1], 0), "{pair:?}");
            assert!(number(&pair[0], 1) < number(&pair[1], 1) || number(&pair[1], 0).is_infinite());
        }
        assert!(rows.len() > 100, "{} buckets", rows.len());
        let last = rows.last().unwrap();
        assert_eq!(last[0].as_deref(), Some("Infinity"));
        assert_eq!(last[1].as_deref(), Some("200"));
        let sum = scene.session.text(&format!(
            "SELECT min(sum) = max(sum) AND min(sum) BETWEEN sum(lag) - 1 AND sum(lag) + 200 * {BUSY}
             FROM (SELECT DISTINCT sum FROM sqs_stat_lag) AS stat,
                  (SELECT sum(lag) AS lag FROM ({TRUTH}) AS each) AS truth GROUP BY lag"
        ));
        assert_eq!(sum.as_deref(), Some("t"));
    }

    #[test]
    fn percentiles_are_bounds_of_buckets() {
        let mut scene = ingested();
        for (column, share) in [("lag_p50", 0.5), ("lag_p99", 0.99)] {
            // As the docs have it for any other percentile.
            let of_buckets = scene.session.text(&format!(
                "SELECT min(le)
                   FROM (SELECT *, max(count) OVER (PARTITION BY queue_url) AS total FROM sqs_stat_lag) AS lag
                  WHERE total > 0 AND count >= {share} * total
                  GROUP BY queue_url"
            ));
            let shown = scene.stat(&format!("extract(epoch FROM {column})::float8"));
            assert_eq!(shown, of_buckets, "{column}");
        }
    }
}

mod state {
    use super::*;

    #[track_caller]
    fn expect_state(admin: &mut Session, expected: &str) {
        eventually(
            &format!("the state is {expected}"),
            COUNTED_WITHIN,
            || admin.text("SELECT state FROM sqs_stat"),
            |state| state.as_deref() == Some(expected),
        );
    }

    #[test]
    fn says_what_a_worker_does() {
        let cluster = site();
        let mut admin = admin(&cluster);
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();
        admin.subscribe(&queue);
        admin.expect_workers_within(PROMPTLY, 1);
        expect_state(&mut admin, "idle");

        // Who writes waits for this lock.
        let mut locker = super::admin(&cluster);
        locker.run("BEGIN; LOCK TABLE sqs_ledger");
        queue.send(&logins::good(1));
        expect_state(&mut admin, "running");
        locker.run("COMMIT");
        expect_state(&mut admin, "idle");

        sqs.always("ReceiveMessage", DENIED);
        queue.send(&logins::good(1));
        expect_state(&mut admin, "retrying");
        sqs.behave();
        expect_state(&mut admin, "idle");

        admin.run("ALTER TABLE user_logins ADD CONSTRAINT none CHECK (user_id IS NULL) NOT VALID");
        queue.send(&logins::good(20));
        expect_state(&mut admin, "paused");
        admin.run("ALTER TABLE user_logins DROP CONSTRAINT none");
        expect_state(&mut admin, "idle");
    }
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
