//! `sqs_progress` shows what a call or a worker is doing.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use tests::database::{Session, db_error, literal};
use tests::logins;
use tests::scene::Scene;
use tests::scripted::{Answer, ScriptedSqs};
use tests::wait::eventually;
use tests::workers::{PROMPTLY, admin, site};

use super::{COUNTED_WITHIN, NO_ROWS, scene};

const CALLS: &str =
    "SELECT pid, queue_url, target, received, inserted FROM sqs_progress ORDER BY pid";

/// Messages that are in the queue when a call begins, and those of them that it has inserted: chunks of 1,000. Every
/// answer is a full one, so that no answer holds messages of two chunks.
const RECEIVED: usize = 1_010;
const INSERTED: usize = 1_000;

/// What a call waits for then.
const MISSING: usize = 10;

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

/// Shows that a call that waits for a few more messages is there until `end`, after which it has failed like that,
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
    let target = (RECEIVED + MISSING).to_string();
    let sql = format!(
        "SELECT sqs_ingest({}, {target}, 20)",
        literal(scene.queue.url())
    );
    let call = call(&scene, &sql);
    expect_row(&mut scene, &call, Some(&target));

    end(&mut scene, &call);

    let (session, error) = call.ended.join().unwrap();
    assert_eq!(error.as_deref(), sqlstate);
    assert_eq!(scene.session.rows(CALLS), NO_ROWS);
    session
}

#[test]
fn a_call_is_shown_until_it_returns() {
    let mut session = gone_after(|scene, _| scene.queue.send(&logins::good(MISSING)), None);
    session.run("SELECT 1");
}

#[test]
fn a_call_is_shown_until_an_error() {
    let fatal = |scene: &mut Scene, _: &Call| {
        scene.queue.send(&logins::good(MISSING - 1));
        scene.queue.send(&[logins::login("fatal").to_string()]);
    };
    let mut session = gone_after(fatal, Some("53100"));
    session.run("SELECT 1");
}

#[test]
fn a_call_is_shown_until_a_cancel() {
    let cancel = |_: &mut Scene, call: &Call| {
        call.token.cancel_query(postgres::NoTls).unwrap();
    };
    let mut session = gone_after(cancel, Some("57014"));
    session.run("SELECT 1");
}

#[test]
fn a_call_is_shown_until_its_session_is_terminated() {
    let terminate = |scene: &mut Scene, call: &Call| {
        let sql = format!("SELECT pg_terminate_backend({}, 10000)", call.pid);
        scene.session.run(&sql);
    };
    gone_after(terminate, Some("57P01"));
}

#[test]
fn progress_of_a_drain_shows_its_limit() {
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
fn progress_of_a_worker_has_no_limit_and_ends_with_it() {
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
    let mut elsewhere = Scene::on(&cluster);
    assert_eq!(elsewhere.session.rows(CALLS), NO_ROWS);

    admin.unsubscribe(&queue);
    admin.expect_workers_within(PROMPTLY, 0);

    assert_eq!(admin.rows(CALLS), NO_ROWS);
}
