//! `sqs_peek` shows what an ingest would make of the next messages, and leaves them and the database as they were.

use std::thread;
use std::time::Duration;

use tests::database::{Database, TextRow, db_error, literal};
use tests::scene::Scene;
use tests::scripted::Answer;
use tests::vault::KeyPair;
use tests::wait::eventually;
use tests::{localstack, logins, run};

const BOUND: Duration = Duration::from_secs(10);

/// These columns of what a peek shows, in the order of sending.
#[track_caller]
fn peek(scene: &mut Scene, columns: &str) -> Vec<TextRow> {
    let sql = format!(
        "SELECT {columns} FROM sqs_peek({}, 100) ORDER BY sent_at, message_id",
        literal(scene.queue.url())
    );
    scene.session.rows(&sql)
}

#[test]
fn sqs_peek_shows_the_rows_that_an_ingest_then_makes() {
    let queue = localstack::queue();
    queue.send(&logins::good(12));
    let database = Database::shared();
    let mut session = database.connect();
    let columns =
        "user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date";

    let mut shown = session.rows(&format!(
        "SELECT {columns} FROM sqs_peek({}, 100) WHERE NOT known AND reason IS NULL AND bytes > 0",
        literal(queue.url())
    ));
    queue.expect_released(12);
    assert_eq!(session.ingest(&queue, 12), 12);

    let mut ingested = session.rows(&format!("SELECT {columns} FROM user_logins"));
    shown.sort();
    ingested.sort();
    assert_eq!(shown, ingested);
}

#[test]
fn messages_and_tables_stay_as_they_were() {
    let mut scene = Scene::shared();
    scene.queue.send(&logins::good(25));

    assert_eq!(peek(&mut scene, "message_id").len(), 25);

    scene.queue.expect_released(25);
    assert_eq!(scene.session.logins(), 0);
    for table in ["sqs_ledger", "sqs_rejected"] {
        assert_eq!(
            scene
                .session
                .number(&format!("SELECT count(*) FROM {table}")),
            0
        );
    }
    assert!(scene.sqs.calls_of("DeleteMessageBatch").is_empty());
    let notices = scene.session.take_notices();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].message().contains("25 messages"), "{notices:?}");
    assert!(
        notices[0].detail().unwrap().contains("receive count"),
        "{notices:?}"
    );
    assert_eq!(peek(&mut scene, "receive_count")[0], [Some("2".to_owned())]);
}

#[test]
fn a_value_that_the_vault_does_not_keep_is_shown_as_rejected_while_it_is_on() {
    let mut scene = Scene::shared();
    let long = logins::login_with("long", "device_id", "x".repeat(1_100));
    scene.queue.send(&[long]);
    let columns = "reason, sqlstate, user_id";
    assert_eq!(
        peek(&mut scene, columns),
        [[None, None, Some("long".to_owned())]]
    );

    scene.session.seal_for(&KeyPair::generate());

    let reason = "device_id is longer than 1024 characters".to_owned();
    let rejected = [[Some(reason), Some("22001".to_owned()), None]];
    assert_eq!(peek(&mut scene, columns), rejected);
    assert_eq!(scene.session.ingest(&scene.queue, 1), 0);
    assert_eq!(
        scene
            .session
            .rows("SELECT reason, sqlstate, NULL FROM sqs_rejected"),
        rejected
    );
}

#[test]
fn an_empty_queue_shows_nothing_and_says_nothing() {
    let mut scene = Scene::shared();
    assert!(peek(&mut scene, "1").is_empty());
    assert!(scene.session.take_notices().is_empty());
}

#[test]
fn rejections_have_their_reason_and_no_row() {
    let mut scene = Scene::shared();
    scene.queue.send(&["not a login".to_owned()]);

    let shown = peek(&mut scene, "reason, sqlstate, user_id, bytes, known");

    let expected = ["not JSON (line 1, column 2)", "22032", "", "11", "f"];
    let shown: Vec<_> = shown[0]
        .iter()
        .map(|value| value.clone().unwrap_or_default())
        .collect();
    assert_eq!(shown, expected);
    assert!(scene.session.rejections().is_empty());
}

#[test]
fn what_the_table_refuses_is_shown_with_its_row() {
    let mut scene = Scene::shared();
    scene.session.run(
        "CREATE TABLE seen_by_trigger (n int);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN INSERT INTO seen_by_trigger VALUES (1); RETURN NEW; END';
         CREATE TRIGGER f BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION f();
         ALTER TABLE user_logins ADD CHECK (user_id <> 'refused'), ADD UNIQUE (user_id)",
    );
    for user in ["taken", "refused", "taken"] {
        scene
            .queue
            .send(&[logins::login_with(user, "ip", "1.2.3.4")]);
    }

    let shown = peek(&mut scene, "user_id, sqlstate");

    let mut shown: Vec<_> = shown
        .into_iter()
        .map(|row| {
            row.into_iter()
                .map(Option::unwrap_or_default)
                .collect::<Vec<_>>()
        })
        .collect();
    shown.sort();
    assert_eq!(
        shown,
        [["refused", "23514"], ["taken", ""], ["taken", "23505"]]
    );
    assert_eq!(scene.session.logins(), 0);
    assert_eq!(
        scene.session.number("SELECT count(*) FROM seen_by_trigger"),
        0
    );
}

#[test]
fn a_message_that_was_ingested_before_is_known() {
    let mut scene = Scene::shared();
    let body = &logins::good(1)[0];
    let id = "219f8380-5770-4cc2-8c3e-5c715e145f5e";
    let sent_at = "1790000000000";
    scene.sqs.put_as(&scene.queue, id, body, sent_at);
    assert_eq!(scene.session.ingest(&scene.queue, 1), 1);

    scene.sqs.put_as(&scene.queue, id, body, sent_at);
    scene.sqs.put_as(&scene.queue, id, body, "1790000000001");

    let known = peek(&mut scene, "known");
    assert_eq!(known, [[Some("t".to_owned())], [Some("f".to_owned())]]);
}

#[test]
fn a_missing_partition_is_the_error_that_an_ingest_would_raise() {
    let mut scene = Scene::shared();
    scene.session.run(
        "ALTER TABLE user_logins RENAME TO old; CREATE TABLE user_logins (LIKE old) PARTITION BY LIST (create_date)",
    );
    scene.queue.send(&logins::good(3));
    let error = scene.session.error_of(&format!(
        "SELECT * FROM sqs_peek({})",
        literal(scene.queue.url())
    ));
    assert_eq!(error.code().code(), "55000", "{error:?}");
    scene.queue.expect_released(3);
}

#[test]
fn a_cancel_gives_everything_back_at_once() {
    let mut scene = Scene::shared();
    scene.queue.send(&logins::good(3));
    let token = scene.session.cancel_token();
    let queue = scene.queue.clone();
    // The second poll, for what is still wanted, waits.
    scene.sqs.script(|call| match call.action.as_str() {
        "ReceiveMessage" if call.earlier > 0 => Answer::Hang,
        _ => Answer::Serve,
    });
    let canceller = thread::spawn(move || {
        eventually(
            "the messages are in flight",
            BOUND,
            || queue.counts(),
            |counts| counts.in_flight == 3,
        );
        token.cancel_query(postgres::NoTls).unwrap();
    });

    let peek = format!("SELECT * FROM sqs_peek({}, 50)", literal(scene.queue.url()));
    let error = db_error(&scene.session.try_run(&peek).unwrap_err());

    canceller.join().unwrap();
    assert_eq!(error.code().code(), "57014", "{error:?}");
    scene.queue.expect_released(3);
}

#[test]
fn arguments_are_checked_before_anything_is_received() {
    let mut scene = Scene::shared();
    let url = literal(scene.queue.url());
    for (arguments, code) in [
        ("NULL".to_owned(), "22004"),
        (format!("{url}, NULL"), "22004"),
        (format!("{url}, 0"), "22023"),
        (format!("{url}, 1001"), "22023"),
        ("'nonsense'".to_owned(), "22023"),
    ] {
        let error = scene
            .session
            .error_of(&format!("SELECT * FROM sqs_peek({arguments})"));
        assert_eq!(error.code().code(), code, "{arguments}: {error:?}");
    }
    scene.session.run("BEGIN READ ONLY");
    let error = scene
        .session
        .error_of(&format!("SELECT * FROM sqs_peek({url})"));
    assert_eq!(error.code().code(), "25006", "{error:?}");
    assert!(error.message().contains("sqs_peek()"), "{error:?}");
    assert!(scene.sqs.calls().is_empty());
}

#[test]
fn a_role_needs_execute_and_insert() {
    let mut scene = Scene::shared();
    scene.queue.send(&logins::good(1));
    let role = run::unique_name("role");
    scene.session.run(&format!("CREATE ROLE {role} LOGIN"));
    let mut other = scene.database.connect_as(&role);
    let peek = format!("SELECT * FROM sqs_peek({})", literal(scene.queue.url()));
    assert_eq!(other.error_of(&peek).code().code(), "42501");

    scene
        .session
        .run(&format!("GRANT EXECUTE ON FUNCTION sqs_peek TO {role}"));
    let error = other.error_of(&peek);
    assert!(error.message().contains("user_logins"), "{error:?}");

    scene
        .session
        .run(&format!("GRANT INSERT ON user_logins TO {role}"));
    assert_eq!(other.rows(&peek).len(), 1);
    scene
        .session
        .run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn messages_that_the_redrive_policy_takes_next_are_a_warning() {
    let mut scene = Scene::shared();
    scene.queue.send(&logins::good(2));
    let dead_letters = scene.sqs.queue();
    scene.sqs.set_redrive(&scene.queue, &dead_letters, 2);
    peek(&mut scene, "1");
    assert_eq!(scene.session.take_notices().len(), 1);

    peek(&mut scene, "1");

    let notices = scene.session.take_notices();
    let warning = notices.iter().find(|notice| notice.severity() == "WARNING");
    let warning = warning.unwrap_or_else(|| panic!("{notices:?}"));
    assert!(warning.message().contains("2 messages"), "{notices:?}");
    assert!(
        warning
            .detail()
            .unwrap()
            .contains("has been received 2 times"),
        "{notices:?}"
    );
}

#[test]
fn a_queue_that_does_not_answer_about_itself_can_be_peeked_into() {
    let mut scene = Scene::shared();
    scene.queue.send(&logins::good(2));
    for answer in [
        Answer::Refuse {
            status: 403,
            code: "AccessDenied",
        },
        Answer::Hang,
    ] {
        scene.sqs.always("GetQueueAttributes", answer);
        assert_eq!(peek(&mut scene, "1").len(), 2);
        assert_eq!(scene.session.take_notices().len(), 1);
    }
}
