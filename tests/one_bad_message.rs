//! One bad message costs one message: it is rejected with its reason, and the thousand around it go in.
//! What is not a message's fault fails the call, and rejects nothing.

use std::thread;
use std::time::Duration;

use tests::database::{Database, show_db};
use tests::queue::Counts;
use tests::scene::Scene;
use tests::scripted::{Answer, ScriptedSqs};
use tests::wait::eventually;
use tests::{localstack, logins};

const GOOD: usize = 1000;

/// Stands in every bad message where its raw value is; nothing may ever repeat it.
const SECRET: &str = "Zq7secret";

/// A queue with a thousand good messages, and a bad one in the middle of them.
fn scene_with(bad: &str) -> Scene<'static> {
    let mut scene = Scene::shared();
    let mut bodies = logins::good(GOOD);
    bodies.insert(GOOD / 2, bad.to_owned());
    scene.queue.send(&bodies);
    scene.session.set("user_logins_sqs.visibility_timeout", 2);
    scene
}

/// Ingests everything; the bad message must be rejected for `reason_names`, with an SQLSTATE of `class`.
#[track_caller]
fn expect_only_the_bad_one_rejected(scene: &mut Scene, reason_names: &str, class: &str) {
    assert_eq!(
        scene.session.ingest(&scene.queue, GOOD as i32 + 1),
        GOOD as i64
    );

    assert_eq!(scene.session.logins(), GOOD as i64);
    let rejections = scene.session.rejections();
    assert_eq!(rejections.len(), 1, "{rejections:?}");
    let rejection = &rejections[0];
    assert!(
        rejection.reason.contains(reason_names),
        "names {reason_names}: {rejection:?}"
    );
    assert!(
        rejection.sqlstate.starts_with(class),
        "of class {class}: {rejection:?}"
    );
    assert_eq!(rejection.times_seen, 1);
    assert_eq!(rejection.queue_url, scene.queue.url());
    for notice in scene.session.take_notices() {
        assert!(!show_db(&notice).contains(SECRET), "{notice:?}");
    }
    let everything = scene
        .session
        .rows("SELECT sqs_rejected::text FROM sqs_rejected");
    assert!(
        !format!("{everything:?}").contains(SECRET),
        "{everything:?}"
    );
    expect_it_stays_and_counts_up(scene);
}

#[track_caller]
fn expect_it_stays_and_counts_up(scene: &mut Scene) {
    let left = Counts {
        visible: 1,
        in_flight: 0,
    };
    scene
        .queue
        .expect_counts_within(Duration::from_secs(5), left);

    assert_eq!(scene.session.ingest(&scene.queue, 1), 0);

    assert_eq!(scene.session.logins(), GOOD as i64);
    let rejections = scene.session.rejections();
    assert_eq!(rejections.len(), 1, "{rejections:?}");
    assert_eq!(rejections[0].times_seen, 2);
    assert_eq!(
        scene
            .session
            .text("SELECT last_seen > first_seen FROM sqs_rejected")
            .as_deref(),
        Some("t")
    );
    scene
        .queue
        .expect_counts_within(Duration::from_secs(5), left);
}

/// A test for a message that is bad in itself.
macro_rules! rejected_in_itself {
    ($($test:ident: $bad:expr, naming $names:literal, class $class:literal;)*) => {
        $(#[test]
        fn $test() {
            expect_only_the_bad_one_rejected(&mut scene_with(&$bad), $names, $class);
        })*
    };
}

rejected_in_itself! {
    not_json: format!("{{\"user_id\": \"{SECRET}"), naming "JSON", class "22";
    not_an_object: format!("[\"{SECRET}\"]"), naming "", class "22";
    another_type_of_message: format!("{{\"foo\": \"{SECRET}\", \"bar\": 1}}"), naming "login", class "2";
    a_missing_user_id: logins::login_without("Zq7secret", "user_id"), naming "user_id", class "2";
    a_missing_ip: logins::login_without("Zq7secret", "ip"), naming "ip", class "2";
    a_missing_app_version: logins::login_without("Zq7secret", "app_version"), naming "app_version", class "2";
    a_null_user_id: logins::login_with("x", "user_id", serde_json::Value::Null), naming "user_id", class "2";
    an_ip_of_the_wrong_type: logins::login_with("Zq7secret", "ip", 7), naming "ip", class "22";
    a_device_id_of_the_wrong_type: logins::login_with("x", "device_id", serde_json::json!([SECRET])),
        naming "device_id", class "22";
    a_user_id_too_long: logins::login_with("x", "user_id", SECRET.repeat(15)), naming "user_id", class "22";
    a_locale_too_long: logins::login_with("x", "locale", SECRET.repeat(4)), naming "locale", class "22";
    a_device_type_too_long: logins::login_with("x", "device_type", SECRET.repeat(4)), naming "device_type", class "22";
    a_nul_character: logins::login_with("x", "user_id", format!("{SECRET}\0")), naming "user_id", class "22";
    a_version_that_is_none: logins::login_with("x", "app_version", SECRET), naming "app_version", class "22";
    a_version_that_does_not_fit: logins::login_with("x", "app_version", "99999.99999.99999"),
        naming "app_version", class "22";
}

/// A test for a message that is good, but that the table refuses.
macro_rules! refused_by_the_table {
    ($($test:ident: $bad:expr, by $ddl:literal, class $class:literal;)*) => {
        $(#[test]
        fn $test() {
            let mut scene = scene_with(&$bad);
            scene.session.run($ddl);
            expect_only_the_bad_one_rejected(&mut scene, "", $class);
        })*
    };
}

refused_by_the_table! {
    refused_by_a_check_constraint: logins::login_with("x", "user_id", SECRET),
        by "ALTER TABLE user_logins ADD CHECK (user_id NOT LIKE '%secret%')", class "23514";
    refused_by_not_null: logins::login_with("Zq7secret", "device_type", serde_json::Value::Null),
        by "ALTER TABLE user_logins ALTER device_type SET NOT NULL", class "23502";
    refused_by_a_unique_index: logins::login_with("user-1", "locale", "XX"),
        by "CREATE UNIQUE INDEX ON user_logins (user_id)", class "23505";
    refused_by_a_foreign_key: logins::login_with("x", "locale", "XX"),
        by "CREATE TABLE locales (name varchar PRIMARY KEY); INSERT INTO locales VALUES ('DE');
            ALTER TABLE user_logins ADD FOREIGN KEY (locale) REFERENCES locales", class "23503";
    refused_by_a_trigger: logins::login_with("x", "user_id", SECRET),
        by "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              IF NEW.user_id LIKE '%secret%' THEN RAISE EXCEPTION 'refused: %', NEW.user_id; END IF;
              RETURN NEW;
            END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION refuse()", class "P0001";
    refused_by_a_trigger_that_divides_by_zero: logins::login_with("x", "user_id", SECRET),
        by "CREATE FUNCTION divide() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              IF NEW.user_id LIKE '%secret%' THEN NEW.app_version := 1 / 0; END IF;
              RETURN NEW;
            END $$;
            CREATE TRIGGER divide BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION divide()", class "22012";
    refused_by_a_trigger_that_warns_and_raises_again: logins::login_with("x", "user_id", SECRET),
        by "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              IF NEW.user_id LIKE '%secret%' THEN RAISE EXCEPTION 'refused'; END IF;
              RETURN NEW;
            EXCEPTION WHEN OTHERS THEN
              RAISE WARNING 'noted';
              RAISE;
            END $$;
            CREATE TRIGGER warn BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION warn()", class "P0001";
    refused_by_a_trigger_with_a_constraints_sqlstate: logins::login_with("x", "user_id", SECRET),
        by "CREATE FUNCTION check_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              IF NEW.user_id LIKE '%secret%' THEN
                RAISE EXCEPTION 'refused: %', NEW.user_id USING ERRCODE = 'check_violation';
              END IF;
              RETURN NEW;
            END $$;
            CREATE TRIGGER check_it BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION check_it()",
        class "23514";
    refused_by_a_trigger_in_another_language: logins::login_with("x", "user_id", SECRET),
        by "CREATE FUNCTION as_python_does() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              IF NEW.user_id LIKE '%secret%' THEN
                RAISE EXCEPTION 'ValueError: no' USING ERRCODE = 'external_routine_exception';
              END IF;
              RETURN NEW;
            END $$;
            CREATE TRIGGER as_python_does BEFORE INSERT ON user_logins
              FOR EACH ROW EXECUTE FUNCTION as_python_does()", class "38000";
}

#[test]
fn a_row_that_a_policy_refuses_is_rejected() {
    let mut scene = scene_with(&logins::login_with("x", "user_id", SECRET));
    let role = tests::run::unique_name("tenant");
    scene.session.run(&format!(
        "CREATE ROLE {role} LOGIN;
         GRANT EXECUTE ON FUNCTION sqs_ingest TO {role};
         GRANT INSERT ON user_logins TO {role};
         ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY;
         CREATE POLICY no_secrets ON user_logins FOR INSERT WITH CHECK (user_id NOT LIKE '%secret%')"
    ));

    let inserted = scene
        .database
        .connect_as(&role)
        .ingest(&scene.queue, GOOD as i32 + 1);

    assert_eq!(inserted, GOOD as i64);
    let rejections = scene.session.rejections();
    assert_eq!(rejections.len(), 1, "{rejections:?}");
    assert_eq!(rejections[0].sqlstate, "42501");
    assert!(rejections[0].reason.contains("policy"), "{rejections:?}");
    scene
        .session
        .run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn bad_messages_of_every_kind_at_once_on_localstack() {
    let database = Database::shared();
    let queue = localstack::queue();
    let bad = [
        SECRET.to_owned(),
        logins::login_without("x", "device_id"),
        logins::login_with("x", "user_id", SECRET.repeat(15)),
        logins::login_with("x", "user_id", format!("{SECRET}\0")),
        logins::login_with("x", "app_version", SECRET),
        logins::login_with("Zq7secret", "device_type", serde_json::Value::Null),
    ];
    let mut bodies = logins::good(500);
    for (at, body) in bad.iter().enumerate() {
        bodies.insert(at * 80, body.clone());
    }
    queue.send(&bodies);
    let mut session = database.connect();
    session.run("ALTER TABLE user_logins ALTER device_type SET NOT NULL");
    session.set("user_logins_sqs.visibility_timeout", 60);

    assert_eq!(session.ingest(&queue, 10_000), 500);

    let rejections = session.rejections();
    assert_eq!(rejections.len(), bad.len(), "{rejections:?}");
    assert_eq!(session.take_notices().len(), 1);
    queue.expect_counts_within(
        Duration::from_secs(10),
        Counts {
            visible: 0,
            in_flight: bad.len() as u64,
        },
    );
}

#[test]
fn a_queue_of_nothing_but_bad_messages_comes_to_an_end() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&vec!["bad".to_owned(); 300]);
    let mut session = database.connect();

    assert_eq!(session.ingest(&queue, 10_000), 0);

    assert_eq!(session.rejections().len(), 300);
}

#[test]
fn a_table_that_refuses_every_other_row_takes_the_rest() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(400));
    let mut session = database.connect();
    session.run("ALTER TABLE user_logins ADD CHECK (right(user_id, 1)::int % 2 = 0)");

    assert_eq!(session.ingest(&queue, 400), 200);

    assert_eq!(session.rejections().len(), 200);
    assert_eq!(session.number("SELECT count(*) FROM sqs_ledger"), 200);
}

#[test]
fn a_rejected_message_is_deleted_if_that_is_wanted() {
    let database = Database::shared();
    let queue = localstack::queue();
    queue.send(&["bad".to_owned(), logins::login("good").to_string()]);
    let mut session = database.connect();
    session.set("user_logins_sqs.rejected_messages", "delete");

    assert_eq!(session.ingest(&queue, 10), 1);

    assert_eq!(session.rejections().len(), 1);
    queue.expect_drained();
}

#[test]
fn a_rejected_message_goes_to_the_dead_letter_queue_with_its_body() {
    let database = Database::shared();
    let (queue, dead) = localstack::queue_with_dead_letters(2);
    queue.send(&["bad, but kept".to_owned()]);
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", 1);

    for times in 1..=2 {
        queue.expect_counts_within(
            Duration::from_secs(5),
            Counts {
                visible: 1,
                in_flight: 0,
            },
        );
        session.ingest(&queue, 1);
        assert_eq!(session.rejections()[0].times_seen, times);
    }
    queue.expect_counts_within(
        Duration::from_secs(5),
        Counts {
            visible: 1,
            in_flight: 0,
        },
    );
    session.ingest(&queue, 1);

    dead.expect_counts_within(
        Duration::from_secs(5),
        Counts {
            visible: 1,
            in_flight: 0,
        },
    );
    assert_eq!(
        dead.receive(Duration::from_secs(1))[0].body,
        "bad, but kept"
    );
    assert_eq!(session.rejections()[0].times_seen, 2);
}

#[test]
fn a_message_that_was_rejected_becomes_a_row_once_the_table_takes_it() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(3));
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", 1);
    session.run("ALTER TABLE user_logins ADD CONSTRAINT too_strict CHECK (user_id <> 'user-2')");
    assert_eq!(session.ingest(&queue, 3), 2);
    session.run("ALTER TABLE user_logins DROP CONSTRAINT too_strict");
    queue.expect_counts_within(
        Duration::from_secs(5),
        Counts {
            visible: 1,
            in_flight: 0,
        },
    );

    assert_eq!(session.ingest(&queue, 3), 1);

    assert_eq!(session.logins(), 3);
    queue.expect_drained();
}

/// A table that raises XX000 for any batch with the one message, like a distributed table that passes on a node's
/// error, and does `alone` when that message comes on its own for the second time.
fn scene_without_sqlstates(alone: &str) -> Scene<'static> {
    let mut scene = scene_with(&logins::login("the-one").to_string());
    scene.session.run(&format!(
        "CREATE SEQUENCE times_alone;
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NOT EXISTS (SELECT FROM added WHERE user_id = 'the-one') THEN RETURN NULL; END IF;
           IF (SELECT count(*) FROM added) > 1 OR nextval('times_alone') = 1 THEN
             RAISE EXCEPTION 'failure on node' USING ERRCODE = 'internal_error';
           END IF;
           {alone};
           RETURN NULL;
         END $$;
         CREATE TRIGGER refuse AFTER INSERT ON user_logins REFERENCING NEW TABLE AS added
           FOR EACH STATEMENT EXECUTE FUNCTION refuse()"
    ));
    scene
}

#[test]
fn an_error_that_does_not_say_is_told_apart_by_the_row_alone() {
    let mut scene =
        scene_without_sqlstates("RAISE EXCEPTION 'refused' USING ERRCODE = 'check_violation'");
    expect_only_the_bad_one_rejected(&mut scene, "refused", "23514");
}

#[test]
fn an_error_that_does_not_say_even_then_fails_the_call() {
    for (alone, sqlstate) in [
        (
            "RAISE EXCEPTION 'failure on node' USING ERRCODE = 'internal_error'",
            "XX000",
        ),
        (
            "RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'",
            "53100",
        ),
    ] {
        let mut scene = scene_without_sqlstates(alone);

        let error = scene.session.ingest_error(&scene.queue, GOOD as i32 + 1);

        assert_eq!(error.code().code(), sqlstate, "{error:?}");
        scene.queue.expect_released(GOOD as u64 + 1);
        assert_eq!(scene.session.rejections(), []);
        assert_eq!(scene.session.logins(), 0);
    }
}

/// `user_logins` as `ddl` makes it, by day or by locale, has no place for some rows: the call fails with a hint, and
/// rejects nothing, whichever function is called and whatever happens to rejected messages.
fn a_partition_is_missing(ddl: &str) {
    let mut scene = scene_with(&logins::login_with("x", "locale", "XX"));
    scene
        .session
        .set("user_logins_sqs.rejected_messages", "delete");
    scene.session.run(
        "DROP TABLE user_logins;
         CREATE TABLE all_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
           masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)
           PARTITION BY LIST (locale)",
    );
    scene.session.run(ddl);
    let url = scene.queue.url().to_owned();

    for call in [
        format!("SELECT sqs_ingest('{url}', 2000)"),
        format!("CALL sqs_drain('{url}')"),
    ] {
        let error = scene.session.error_of(&call);

        assert_eq!(error.code().code(), "55000", "{error:?}");
        assert!(error.message().contains("user_logins"), "{error:?}");
        assert!(error.hint().unwrap().contains("partition"), "{error:?}");
        assert_eq!(scene.session.rejections(), []);
        assert_eq!(scene.session.logins(), 0);
        scene.queue.expect_released(GOOD as u64 + 1);
    }
}

#[test]
fn a_missing_partition_fails_the_call() {
    a_partition_is_missing(
        "ALTER TABLE all_logins RENAME TO user_logins;
         CREATE TABLE logins_de PARTITION OF user_logins FOR VALUES IN ('DE', NULL)",
    );
}

#[test]
fn a_table_that_is_the_wrong_partition_fails_the_call() {
    a_partition_is_missing(
        "CREATE TABLE user_logins PARTITION OF all_logins FOR VALUES IN ('DE', NULL)",
    );
}

#[test]
fn yesterdays_partition_takes_nothing_of_today() {
    a_partition_is_missing(
        "CREATE TABLE user_logins (LIKE all_logins) PARTITION BY RANGE (create_date);
         CREATE TABLE yesterday PARTITION OF user_logins FOR VALUES FROM ('2020-01-01') TO ('2020-01-02')",
    );
}

/// This many subtransactions are the price of finding out that the table is at fault.
const FEW_TRANSACTION_IDS: i64 = 200;

#[test]
fn a_table_that_refuses_everything_fails_the_call_and_rejects_nothing() {
    for fate in ["leave", "delete"] {
        let database = Database::shared();
        let server = ScriptedSqs::start();
        let queue = server.queue();
        queue.send(&logins::good(4_000));
        let mut session = database.connect();
        session.set("user_logins_sqs.rejected_messages", fate);
        session.run("ALTER TABLE user_logins ADD CONSTRAINT nothing CHECK (user_id IS NULL)");
        let next_id = "SELECT pg_current_xact_id()::text::bigint";
        let before = session.number(next_id);

        let error = session.ingest_error(&queue, 4_000);

        assert_eq!(error.code().code(), "55000", "{error:?}");
        assert!(error.detail().unwrap().contains("23514"), "{error:?}");
        assert!(error.detail().unwrap().contains("nothing"), "{error:?}");
        assert!(error.hint().is_some(), "{error:?}");
        let used = session.number(next_id) - before;
        println!("{used} transaction ids");
        assert!(used < FEW_TRANSACTION_IDS, "{used}");
        assert_eq!(session.rejections(), []);
        queue.expect_released(4_000);
        let error = session.error_of(&format!("CALL sqs_drain('{}')", queue.url()));
        assert_eq!(error.code().code(), "55000", "{error:?}");
        queue.expect_released(4_000);
    }
}

#[test]
fn duplicates_do_not_show_that_a_table_takes_rows() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    server.always(
        "DeleteMessageBatch",
        Answer::Refuse {
            status: 403,
            code: "AccessDenied",
        },
    );
    queue.send(&logins::good(30));
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", 1);
    assert_eq!(session.ingest(&queue, 30), 30);
    queue.expect_counts_within(
        Duration::from_secs(10),
        Counts {
            visible: 30,
            in_flight: 0,
        },
    );
    server.behave();
    session.run("ALTER TABLE user_logins ADD CONSTRAINT nothing CHECK (user_id IS NULL) NOT VALID");
    queue.send(&logins::good(300));
    queue.expect_counts_within(
        Duration::from_secs(5),
        Counts {
            visible: 330,
            in_flight: 0,
        },
    );

    let error = session.ingest_error(&queue, 1_000);

    assert_eq!(error.code().code(), "55000", "{error:?}");
    assert_eq!(session.rejections(), []);
    queue.expect_released(330);
}

#[test]
fn many_bad_rows_in_succession_are_still_their_own_fault() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    // A hundred users whom the table refuses, and then a thousand whom it takes.
    for user in (0..100).chain(1_000..2_000) {
        server.put(
            &queue,
            &logins::login(&user.to_string()).to_string(),
            1_700_000_000_000,
        );
    }
    let mut session = database.connect();
    session.run("ALTER TABLE user_logins ADD CHECK (user_id::int >= 1000)");

    assert_eq!(session.ingest(&queue, 2_000), 1_000);

    assert_eq!(session.rejections().len(), 100);
}

#[test]
fn a_login_that_only_the_table_refused_is_never_deleted() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&["bad".to_owned()]);
    queue.send(&logins::good(3));
    let mut session = database.connect();
    session.set("user_logins_sqs.rejected_messages", "delete");
    session.set("user_logins_sqs.visibility_timeout", 1);
    session.run("ALTER TABLE user_logins ADD CHECK (user_id <> 'user-2')");

    assert_eq!(session.ingest(&queue, 10), 2);

    assert_eq!(session.rejections().len(), 2);
    queue.expect_left(1);
}

/// A trigger's `body` fails one row for a reason that is not the message's: the call fails with `sqlstate`.
fn the_call_fails(body: &str, sqlstate: &str) {
    let mut scene = scene_with(&logins::login("the-one").to_string());
    scene.session.set("user_logins_sqs.visibility_timeout", 600);
    scene.session.run(&format!(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.user_id = 'the-one' THEN {body}; END IF;
           RETURN NEW;
         END $$;
         CREATE TRIGGER fail BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION fail()"
    ));

    let error = scene.session.ingest_error(&scene.queue, GOOD as i32 + 1);

    assert_eq!(error.code().code(), sqlstate, "{error:?}");
    scene.queue.expect_released(GOOD as u64 + 1);
    let mut other = scene.database.connect();
    assert_eq!(other.logins(), 0);
    assert_eq!(other.rejections(), []);
}

#[test]
fn a_full_disk_fails_the_call() {
    the_call_fails(
        "RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'",
        "53100",
    );
}

#[test]
fn a_deadlock_fails_the_call() {
    the_call_fails(
        "RAISE EXCEPTION 'deadlock detected' USING ERRCODE = 'deadlock_detected'",
        "40P01",
    );
}

#[test]
fn a_deadlock_that_a_trigger_caught_and_raised_again_fails_the_call() {
    the_call_fails(
        "BEGIN
           RAISE EXCEPTION 'deadlock detected' USING ERRCODE = 'deadlock_detected';
         EXCEPTION WHEN OTHERS THEN
           BEGIN
             RAISE EXCEPTION 'noted already' USING ERRCODE = 'unique_violation';
           EXCEPTION WHEN unique_violation THEN NULL;
           END;
           RAISE;
         END",
        "40P01",
    );
}

#[test]
fn a_serialization_failure_fails_the_call() {
    the_call_fails(
        "RAISE EXCEPTION 'try again' USING ERRCODE = 'serialization_failure'",
        "40001",
    );
}

#[test]
fn a_missing_table_behind_a_trigger_fails_the_call() {
    the_call_fails("INSERT INTO no_such_table VALUES (1)", "42P01");
}

#[test]
fn a_missing_right_behind_a_trigger_fails_the_call() {
    the_call_fails(
        "RAISE EXCEPTION 'denied' USING ERRCODE = 'insufficient_privilege'",
        "42501",
    );
}

#[test]
fn a_cancel_while_inserting_fails_the_call() {
    let mut scene = scene_with(&logins::login("the-one").to_string());
    scene.session.set("user_logins_sqs.visibility_timeout", 600);
    scene.session.run(
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.user_id = 'the-one' THEN PERFORM pg_sleep(60); END IF;
           RETURN NEW;
         END $$;
         CREATE TRIGGER dawdle BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION dawdle()",
    );
    let token = scene.session.cancel_token();
    let mut other = scene.database.connect();
    let waits = format!(
        "SELECT wait_event FROM pg_stat_activity WHERE pid = {}",
        scene.session.pid()
    );
    let canceller = thread::spawn(move || {
        eventually(
            "the insert dawdles",
            Duration::from_secs(20),
            || other.text(&waits),
            |event| event.as_deref() == Some("PgSleep"),
        );
        token.cancel_query(postgres::NoTls).unwrap();
    });

    let error = scene.session.ingest_error(&scene.queue, GOOD as i32 + 1);

    canceller.join().unwrap();
    assert_eq!(error.code().code(), "57014", "{error:?}");
    scene.queue.expect_released(GOOD as u64 + 1);
    assert_eq!(scene.session.logins(), 0);
    assert_eq!(scene.session.rejections(), []);
}

#[test]
fn a_time_of_sending_that_cannot_be_costs_one_message() {
    let mut scene = scene_with("bad");
    let odd = [
        "-1000000000000000",
        "-9223372036854775808",
        "946684799999",
        "253402300800000",
        "9223372036854775807",
    ];
    for (number, sent_at) in (0..).zip(odd) {
        let body = logins::login(&format!("odd-{number}")).to_string();
        scene
            .sqs
            .put_as(&scene.queue, &format!("odd-{number}"), &body, sent_at);
    }
    let last = logins::login("last").to_string();
    scene
        .sqs
        .put_as(&scene.queue, "last", &last, "253402300799999");

    scene.session.ingest(&scene.queue, 2 * GOOD as i32);

    assert_eq!(scene.session.logins(), GOOD as i64 + 1);
    let mut rejections = scene.session.rejections();
    rejections.retain(|rejection| rejection.message_id.starts_with("odd-"));
    assert_eq!(rejections.len(), odd.len());
    for rejection in rejections {
        assert!(rejection.reason.contains("SentTimestamp"), "{rejection:?}");
    }
    let readable = "SELECT count(*) FROM user_logins WHERE create_date::text = '9999-12-31'";
    assert_eq!(scene.session.number(readable), 1);
}

#[test]
fn an_id_that_no_text_holds_is_kept_as_its_hash() {
    let mut scene = scene_with("bad");
    let now = "1700000000000";
    let odd = ["nul\0one", "nul\0two", &"long".repeat(10_000)];
    for id in odd {
        let good = logins::login(&id[..5].replace('\0', "-")).to_string();
        scene.sqs.put_as(&scene.queue, id, &good, now);
        let bad = format!("{id}, bad");
        scene.sqs.put_as(&scene.queue, &bad, "bad", now);
    }

    scene.session.ingest(&scene.queue, 2 * GOOD as i32);

    assert_eq!(scene.session.logins(), (GOOD + odd.len()) as i64);
    let rejections = scene.session.rejections();
    assert_eq!(rejections.len(), 1 + odd.len(), "{rejections:?}");
    for rejection in rejections {
        assert_eq!(rejection.message_id.len(), 36, "{rejection:?}");
    }
}
