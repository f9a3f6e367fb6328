//! A subscription takes effect within moments of its commit, as the role that subscribed, and ends as soon after it is
//! withdrawn.

use std::time::Duration;

use tests::cluster::Cluster;
use tests::database::{Database, Session, literal};
use tests::queue::{Counts, Queue};
use tests::scripted::ScriptedSqs;
use tests::wait::{eventually, throughout};
use tests::workers::{DATABASE, PROMPTLY, admin, site};
use tests::{localstack, logins};

/// How long a test watches that nothing happens.
const A_WHILE: Duration = Duration::from_millis(1500);

fn subscribe(queue: &Queue, workers: i32) -> String {
    format!(
        "SELECT public.sqs_subscribe({}, {workers})",
        literal(queue.url())
    )
}

fn unsubscribe(queue: &Queue) -> String {
    format!("SELECT public.sqs_unsubscribe({})", literal(queue.url()))
}

/// A role with exactly the rights that subscribing needs.
fn make_ingester(admin: &mut Session, role: &str) {
    admin.run(&format!(
        "CREATE ROLE {role} LOGIN;
         GRANT INSERT ON user_logins TO {role};
         GRANT EXECUTE ON FUNCTION sqs_ingest, sqs_subscribe, sqs_unsubscribe TO {role}"
    ));
}

fn session_of(cluster: &Cluster, role: &str) -> Session {
    Database::existing(cluster, DATABASE).connect_as(role)
}

#[test]
fn rows_flow_in_by_themselves() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let queue = localstack::queue();
    queue.send(&logins::good(25));

    admin.subscribe(&queue);

    admin.expect_logins(25);
    queue.expect_drained();

    queue.send(&logins::good(5));
    admin.expect_logins(30);
    queue.expect_drained();
}

#[test]
fn a_restarted_server_goes_on() {
    let cluster = site();
    let queue = localstack::queue();
    admin(&cluster).subscribe(&queue);

    cluster.restart();
    queue.send(&logins::good(5));

    admin(&cluster).expect_logins(5);
    queue.expect_drained();
}

#[test]
fn each_change_takes_effect_promptly() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let server = ScriptedSqs::start();
    let queue = server.queue();

    admin.run(&subscribe(&queue, 2));
    admin.expect_workers_within(PROMPTLY, 2);
    admin.run("UPDATE sqs_subscription SET workers = 1");
    admin.expect_workers_within(PROMPTLY, 1);
    admin.run("UPDATE sqs_subscription SET enabled = false");
    admin.expect_workers_within(PROMPTLY, 0);
    admin.run("UPDATE sqs_subscription SET enabled = true, workers = 3");
    admin.expect_workers_within(PROMPTLY, 3);
    admin.run("UPDATE sqs_subscription SET enabled = false");
    admin.expect_workers_within(PROMPTLY, 0);
    admin.run(&subscribe(&queue, 1));
    admin.expect_workers_within(PROMPTLY, 1);
    admin.run(&unsubscribe(&queue));
    admin.expect_workers_within(PROMPTLY, 0);
    admin.run(&subscribe(&queue, 1));
    admin.expect_workers_within(PROMPTLY, 1);
    admin.run("TRUNCATE sqs_subscription");
    admin.expect_workers_within(PROMPTLY, 0);
}

#[test]
fn workers_added_one_by_one_come_as_promptly_as_the_first() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let queue = ScriptedSqs::start().queue();

    for workers in 1..=5 {
        admin.run(&subscribe(&queue, workers));
        admin.expect_workers_within(PROMPTLY, usize::try_from(workers).unwrap());
    }
}

#[test]
fn a_change_that_keeps_a_worker_wanted_leaves_it_running() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let server = ScriptedSqs::start();
    let queue = server.queue();
    admin.subscribe(&queue);
    let worker = admin.expect_workers_within(PROMPTLY, 1)[0];

    admin.run(&subscribe(&server.queue(), 1));
    admin.run(&subscribe(&queue, 2));

    let workers = admin.expect_workers_within(PROMPTLY, 3);
    assert!(workers.contains(&worker), "{worker} of {workers:?}");
}

#[test]
fn nothing_happens_before_the_commit() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let queue = ScriptedSqs::start().queue();
    let mut session = Database::existing(&cluster, DATABASE).connect();

    session.run("BEGIN").run(&subscribe(&queue, 1));
    throughout("no worker", A_WHILE, || admin.workers(), Vec::is_empty);
    session.run("COMMIT");
    let workers = admin.expect_workers_within(PROMPTLY, 1);

    session.run("BEGIN").run(&unsubscribe(&queue));
    throughout(
        "the worker stays",
        A_WHILE,
        || admin.workers(),
        |seen| *seen == workers,
    );
    session.run("COMMIT");
    admin.expect_workers_within(PROMPTLY, 0);
}

#[test]
fn nothing_happens_after_a_rollback() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let server = ScriptedSqs::start();
    let (queue, other) = (server.queue(), server.queue());

    admin
        .run("BEGIN")
        .run(&subscribe(&queue, 1))
        .run("ROLLBACK");
    admin
        .run("BEGIN; SAVEPOINT s")
        .run(&subscribe(&queue, 1))
        .run("ROLLBACK TO s; COMMIT");
    throughout("no worker", A_WHILE, || admin.workers(), Vec::is_empty);

    admin.run(&subscribe(&other, 1));
    let workers = admin.expect_workers_within(PROMPTLY, 1);
    admin.run("BEGIN").run(&unsubscribe(&other)).run("ROLLBACK");
    throughout(
        "the worker stays",
        A_WHILE,
        || admin.workers(),
        |seen| *seen == workers,
    );
}

#[test]
fn what_a_released_savepoint_holds_takes_effect_promptly() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let server = ScriptedSqs::start();

    for workers in 1..=3 {
        admin
            .run("BEGIN; SAVEPOINT s")
            .run(&subscribe(&server.queue(), 1))
            .run("RELEASE s; SAVEPOINT t")
            .error_of("SELECT 1 / 0");
        admin.run("ROLLBACK TO t; COMMIT");
        admin.expect_workers_within(PROMPTLY, workers);
    }
}

/// A server with a worker that holds five messages and waits for a full batch.
fn holding_five() -> (Cluster, Session, Queue) {
    let cluster = site();
    let mut admin = admin(&cluster);
    let queue = localstack::queue();
    admin.run("ALTER SYSTEM SET user_logins_sqs.linger = '60s'");
    admin.run("ALTER SYSTEM SET user_logins_sqs.visibility_timeout = '600s'");
    admin.run("SELECT pg_reload_conf()");
    queue.send(&logins::good(5));
    admin.subscribe(&queue);
    let held = Counts {
        visible: 0,
        in_flight: 5,
    };
    queue.expect_counts_within(Duration::from_secs(10), held);
    (cluster, admin, queue)
}

#[test]
fn what_was_held_of_an_unsubscribed_queue_is_written() {
    let (_cluster, mut admin, queue) = holding_five();

    admin.unsubscribe(&queue);

    admin.expect_workers_within(PROMPTLY, 0);
    assert_eq!(admin.logins(), 5);
    queue.expect_drained();
}

#[test]
fn an_unsubscribed_queue_gets_back_what_cannot_be_written() {
    let (cluster, mut admin, queue) = holding_five();
    let mut locker = tests::workers::admin(&cluster);
    locker.run("BEGIN; LOCK TABLE user_logins");

    admin.unsubscribe(&queue);

    admin.expect_workers_within(PROMPTLY, 0);
    // LocalStack may give them to the worker's last poll, which nobody waits for any longer, for three seconds.
    let released = Counts {
        visible: 5,
        in_flight: 0,
    };
    queue.expect_counts_within(Duration::from_secs(10), released);
    locker.run("ROLLBACK");
    assert_eq!(admin.logins(), 0);
}

#[test]
fn subscribing_again_changes_and_enables() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let queue = ScriptedSqs::start().queue();
    admin.run(&subscribe(&queue, 1));
    let created = admin.text("SELECT created FROM sqs_subscription");
    admin.run("UPDATE sqs_subscription SET enabled = false");

    admin.run(&subscribe(&queue, 2));

    let seen =
        admin.rows("SELECT queue_url, role, workers, enabled, created FROM sqs_subscription");
    let expected = [
        Some(queue.url().to_owned()),
        Some("postgres".to_owned()),
        Some("2".to_owned()),
        Some("t".to_owned()),
        created,
    ];
    assert_eq!(seen, [expected]);
}

#[test]
fn spellings_of_a_url_are_one_subscription() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let server = ScriptedSqs::start();
    let queue = server.queue();
    let name = queue.url().rsplit('/').next().unwrap();
    let port = queue.url().split(':').nth(2).unwrap();
    let port = port.split('/').next().unwrap();
    let local = format!("http://localhost:{port}/000000000000/{name}");
    let shouted = format!("HTTP://LocalHost:{port}/000000000000/{name}/");

    admin.run(&subscribe(&queue.under_url(&shouted), 1));
    admin.run(&subscribe(&queue.under_url(&local), 1));

    assert_eq!(
        admin.text("SELECT queue_url FROM sqs_subscription"),
        Some(local)
    );
    admin.expect_workers_within(PROMPTLY, 1);
    queue.send(&logins::good(3));
    admin.expect_logins(3);
    admin.run(&unsubscribe(&queue.under_url(&shouted)));
    assert_eq!(admin.number("SELECT count(*) FROM sqs_subscription"), 0);
}

#[test]
fn a_worker_needs_of_its_role_what_sqs_ingest_needs() {
    let cluster = site();
    let mut admin = admin(&cluster);
    make_ingester(&mut admin, "ingester");
    admin.run("ALTER TABLE user_logins ADD inserted_by text DEFAULT current_user");
    let queue = localstack::queue();
    queue.send(&logins::good(5));

    session_of(&cluster, "ingester").subscribe(&queue);

    admin.expect_logins(5);
    queue.expect_drained();
    assert_eq!(
        admin.rows("SELECT DISTINCT inserted_by FROM user_logins"),
        [[Some("ingester".to_owned())]]
    );
    let seen = admin
        .rows("SELECT usename FROM pg_stat_activity WHERE backend_type = 'user_logins_sqs worker'");
    assert_eq!(seen, [[Some("ingester".to_owned())]]);
}

#[test]
fn a_worker_has_the_settings_of_its_role() {
    let cluster = site();
    let mut admin = admin(&cluster);
    make_ingester(&mut admin, "ingester");
    admin.run("ALTER ROLE ingester SET user_logins_sqs.app_version_encoding = 'sortable'");
    let queue = localstack::queue();
    queue.send(&[logins::login_with("user", "app_version", "2.3.0")]);

    session_of(&cluster, "ingester").subscribe(&queue);

    admin.expect_logins(1);
    assert_eq!(
        admin.number("SELECT app_version FROM user_logins"),
        2_003_000
    );
}

#[test]
fn a_role_that_may_not_insert_may_not_subscribe() {
    let cluster = site();
    let mut admin = admin(&cluster);
    make_ingester(&mut admin, "reader");
    admin.run("REVOKE INSERT ON user_logins FROM reader");
    let queue = ScriptedSqs::start().queue();

    let error = session_of(&cluster, "reader").error_of(&subscribe(&queue, 1));

    assert_eq!(error.code().code(), "42501", "{error:?}");
    assert_eq!(admin.number("SELECT count(*) FROM sqs_subscription"), 0);
}

#[test]
fn nobody_may_subscribe_at_first_nor_change_the_table() {
    let cluster = site();
    let mut admin = admin(&cluster);
    admin.run("CREATE ROLE nobody LOGIN; GRANT INSERT ON user_logins TO nobody");
    let queue = ScriptedSqs::start().queue();
    let mut session = session_of(&cluster, "nobody");

    for sql in [
        subscribe(&queue, 1),
        unsubscribe(&queue),
        "DELETE FROM sqs_subscription".to_owned(),
        "INSERT INTO sqs_subscription (queue_url, role) VALUES ('x', 'postgres')".to_owned(),
        "SELECT sqs_subscription_changed()".to_owned(),
        "SELECT sqs_prune()".to_owned(),
    ] {
        let error = session.error_of(&sql);
        assert_eq!(error.code().code(), "42501", "{sql}: {error:?}");
    }
}

#[test]
fn a_right_to_write_the_table_is_not_a_right_to_have_workers_run_as_anybody() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let queue = ScriptedSqs::start().queue();
    make_ingester(&mut admin, "ingester");
    admin.run(
        "CREATE ROLE writer LOGIN; GRANT pg_write_all_data, pg_read_all_data TO writer;
         CREATE ROLE granted LOGIN; GRANT ALL ON sqs_subscription TO granted;
         CREATE ROLE member LOGIN IN ROLE ingester; GRANT ALL ON sqs_subscription TO member;
         CREATE ROLE owner LOGIN; ALTER TABLE sqs_subscription OWNER TO owner;
         GRANT pg_execute_server_program TO writer, granted, member, owner",
    );
    admin.subscribe(&queue);
    let worker = admin.expect_workers_within(PROMPTLY, 1);
    let insert = |role: &str| {
        format!(
            "INSERT INTO sqs_subscription (queue_url, role) VALUES ('http://localhost/000000000000/q', '{role}')"
        )
    };

    for writer in ["writer", "granted", "member", "owner"] {
        let mut session = session_of(&cluster, writer);
        for sql in [
            insert("postgres"),
            "UPDATE sqs_subscription SET workers = 9".to_owned(),
            "UPDATE sqs_subscription SET installation = 0".to_owned(),
            insert("ingester")
                + " ON CONFLICT (queue_url) DO UPDATE SET role = 'postgres'; "
                + "UPDATE sqs_subscription SET role = 'postgres'",
            "COPY sqs_subscription (queue_url, role) FROM PROGRAM 'echo http://localhost/000000000000/q,postgres' \
             WITH (FORMAT csv)"
                .to_owned(),
        ] {
            let error = session.error_of(&sql);
            assert_eq!(error.code().code(), "42501", "{writer}: {sql}: {error:?}");
        }
    }

    let mut member = session_of(&cluster, "member");
    member.run(&insert("ingester"));
    assert_eq!(
        admin.rows("SELECT role, workers FROM sqs_subscription ORDER BY created"),
        [["postgres", "1"], ["ingester", "1"]].map(|row| row.map(|text| Some(text.to_owned())))
    );
    assert!(admin.workers().contains(&worker[0]));
}

#[test]
fn the_owner_of_the_table_need_not_be_a_member_of_the_role_that_subscribes() {
    let cluster = site();
    let mut admin = admin(&cluster);
    make_ingester(&mut admin, "ingester");
    admin.run(
        "CREATE ROLE owner; GRANT USAGE ON SCHEMA public TO owner;
         ALTER TABLE sqs_subscription OWNER TO owner",
    );
    let queue = localstack::queue();
    queue.send(&logins::good(3));

    session_of(&cluster, "ingester").subscribe(&queue);

    admin.expect_logins(3);
    session_of(&cluster, "ingester").unsubscribe(&queue);
    admin.expect_workers_within(PROMPTLY, 0);
}

#[test]
fn another_roles_subscription_is_left_alone() {
    let cluster = site();
    let mut admin = admin(&cluster);
    for role in ["mine", "theirs", "member"] {
        make_ingester(&mut admin, role);
    }
    admin.run("GRANT mine TO member");
    let queue = ScriptedSqs::start().queue();
    session_of(&cluster, "mine").run(&subscribe(&queue, 1));

    for sql in [subscribe(&queue, 2), unsubscribe(&queue)] {
        let error = session_of(&cluster, "theirs").error_of(&sql);
        assert_eq!(error.code().code(), "42501", "{sql}: {error:?}");
        assert!(error.hint().is_some(), "{error:?}");
    }
    let seen = "SELECT role, workers FROM sqs_subscription";
    assert_eq!(
        admin.rows(seen),
        [[Some("mine".to_owned()), Some("1".to_owned())]]
    );

    session_of(&cluster, "member").run(&subscribe(&queue, 2));
    assert_eq!(
        admin.rows(seen),
        [[Some("mine".to_owned()), Some("2".to_owned())]]
    );
    session_of(&cluster, "mine").run(&unsubscribe(&queue));
    assert_eq!(admin.number("SELECT count(*) FROM sqs_subscription"), 0);
}

#[test]
fn another_roles_subscription_is_left_alone_even_if_it_is_made_meanwhile() {
    let cluster = site();
    let mut admin = admin(&cluster);
    for role in ["mine", "theirs"] {
        make_ingester(&mut admin, role);
    }
    let sqs = ScriptedSqs::start();
    let queue = sqs.queue();
    let mut mine = session_of(&cluster, "mine");
    let mut theirs = session_of(&cluster, "theirs");
    mine.run("BEGIN").run(&subscribe(&queue, 1));

    let waits = format!(
        "SELECT count(*) FROM pg_locks WHERE pid = {} AND NOT granted",
        theirs.pid()
    );
    let other = subscribe(&queue, 5);
    let theirs = std::thread::spawn(move || theirs.try_run(&other));
    eventually(
        "the second waits for the first",
        PROMPTLY,
        || admin.number(&waits),
        |count| *count > 0,
    );
    mine.run("COMMIT");

    let error = theirs.join().unwrap().expect_err("it is refused");
    assert_eq!(
        error.code().map(|code| code.code()),
        Some("42501"),
        "{error:?}"
    );
    assert_eq!(
        admin.rows("SELECT role, workers FROM sqs_subscription"),
        [[Some("mine".to_owned()), Some("1".to_owned())]]
    );
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let elsewhere = Database::with_extension(&cluster);
    admin.run("CREATE ROLE group_role; GRANT INSERT ON user_logins TO group_role");
    admin.run("GRANT EXECUTE ON FUNCTION sqs_subscribe TO group_role");
    let url = "http://127.0.0.1:9/000000000000/q";

    let expected = [
        (format!("sqs_subscribe('{url}', 0)"), "22023"),
        (format!("sqs_subscribe('{url}', -1)"), "22023"),
        (format!("sqs_subscribe('{url}', 33)"), "22023"),
        (format!("sqs_subscribe('{url}', NULL)"), "22004"),
        ("sqs_subscribe(NULL)".to_owned(), "22004"),
        ("sqs_subscribe('login-queue')".to_owned(), "22023"),
        ("sqs_subscribe('')".to_owned(), "22023"),
        ("sqs_unsubscribe(NULL)".to_owned(), "22004"),
        ("sqs_unsubscribe('login-queue')".to_owned(), "22023"),
        (format!("sqs_unsubscribe('{url}')"), "42704"),
    ];
    for (call, sqlstate) in expected {
        let error = admin.error_of(&format!("SELECT {call}"));
        assert_eq!(error.code().code(), sqlstate, "{call}: {error:?}");
        assert!(error.hint().is_some(), "{call}: {error:?}");
    }

    let error = elsewhere
        .connect()
        .error_of(&format!("SELECT sqs_subscribe('{url}')"));
    assert_eq!(error.code().code(), "55000", "{error:?}");
    assert!(error.message().contains(DATABASE), "{error:?}");

    let error = admin.error_of(&format!(
        "SET ROLE group_role; SELECT sqs_subscribe('{url}')"
    ));
    assert_eq!(error.code().code(), "55000", "{error:?}");
    assert!(error.message().contains("group_role"), "{error:?}");
    admin.run("RESET ROLE");

    assert_eq!(admin.number("SELECT count(*) FROM sqs_subscription"), 0);
    assert_eq!(admin.workers(), Vec::<i32>::new());
}

#[test]
fn a_hint_of_a_subscription_does_not_speak_of_sqs_ingest() {
    let cluster = site();
    let mut admin = admin(&cluster);

    for call in ["sqs_subscribe(NULL)", "sqs_unsubscribe(NULL)"] {
        let error = admin.error_of(&format!("SELECT {call}"));
        let hint = error.hint().unwrap_or_default();
        assert!(!hint.contains("sqs_ingest("), "{call}: {hint}");
    }
}

#[test]
fn a_queue_that_is_not_allowed_cannot_be_subscribed_to() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let queue = ScriptedSqs::start().queue();
    admin.set("user_logins_sqs.allowed_queues", "https://*");

    let error = admin.error_of(&subscribe(&queue, 1));

    assert_eq!(error.code().code(), "42501", "{error:?}");
}

#[test]
fn without_preload_the_line_to_add_is_named() {
    let database = Database::shared();
    let queue = ScriptedSqs::start().queue();

    let error = database.connect().error_of(&subscribe(&queue, 1));

    assert_eq!(error.code().code(), "55000", "{error:?}");
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("shared_preload_libraries"), "{error:?}");
    assert!(hint.contains("'user_logins_sqs'"), "{error:?}");
}

#[test]
fn a_worker_shows_a_query_while_it_writes_and_none_while_it_waits() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let sqs = ScriptedSqs::start();
    let queue = sqs.queue();
    admin.subscribe(&queue);
    let worker = admin.expect_workers_within(PROMPTLY, 1)[0];
    let mut expect = |state: &str, query: &str| {
        let shown = format!("SELECT state, query FROM pg_stat_activity WHERE pid = {worker}");
        eventually(
            &format!("the worker is {state}"),
            Duration::from_secs(10),
            || admin.rows(&shown),
            |rows| *rows == [[state, query].map(|text| Some(text.to_owned()))],
        );
    };
    eventually(
        "the worker polls",
        Duration::from_secs(10),
        || sqs.calls_of("ReceiveMessage").len(),
        |calls| *calls > 0,
    );
    expect("idle", "");

    // Writers wait for this lock.
    let mut locker = tests::workers::admin(&cluster);
    locker.run("BEGIN; LOCK TABLE sqs_ledger");
    queue.send(&logins::good(1));
    expect("active", "writing a batch of logins");
    locker.run("COMMIT");

    expect("idle", "");
}

#[test]
fn workers_and_launcher_can_be_told_apart() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let queue = localstack::queue();
    let name = queue.url().rsplit('/').next().unwrap();
    admin.subscribe(&queue);
    let worker = admin.expect_workers_within(PROMPTLY, 1)[0];
    let launcher = admin.launcher().expect("a launcher");

    let seen = eventually(
        "the worker waits for its queue",
        Duration::from_secs(10),
        || {
            admin.rows(&format!(
                "SELECT backend_type, application_name, datname, wait_event_type, xact_start, backend_xmin
                 FROM pg_stat_activity WHERE pid = {worker}"
            ))
        },
        |rows| rows[0][3].as_deref() == Some("Extension"),
    );
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        seen,
        [[
            text("user_logins_sqs worker"),
            Some(format!("user_logins_sqs: {name}")),
            text(DATABASE),
            text("Extension"),
            None,
            None,
        ]]
    );
    let seen = admin.rows(&format!(
        "SELECT backend_type, application_name, datname, xact_start, backend_xmin
         FROM pg_stat_activity WHERE pid = {launcher}"
    ));
    assert_eq!(
        seen,
        [[
            text("user_logins_sqs launcher"),
            text("user_logins_sqs launcher"),
            text(DATABASE),
            None,
            None,
        ]]
    );
    let title = |pid: i32| {
        let title = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        String::from_utf8_lossy(&title)
            .trim_end_matches(['\0', ' '])
            .to_owned()
    };
    assert_eq!(
        title(worker),
        format!("postgres: user_logins_sqs worker for {name}")
    );
    assert_eq!(title(launcher), "postgres: user_logins_sqs launcher");
}
