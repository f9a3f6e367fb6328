//! Vault and rows agree, whatever becomes of a transaction, and sessions that share values never wait for each other's
//! users.

use std::thread;
use std::time::Duration;

use tests::cluster::Cluster;
use tests::database::{Database, Session, db_error};
use tests::scripted::{Answer, ScriptedSqs};
use tests::vault::KeyPair;

use super::{login, logins_of, originals_of, scene};

#[test]
fn a_rollback_takes_the_entries_along_and_a_later_commit_brings_them() {
    let scene = scene();
    let mut session = scene.connect();
    for end in ["ROLLBACK", "COMMIT"] {
        scene.queue.expect_left(0);
        scene.send(&["a", "b"]);
        session.run("BEGIN");
        assert_eq!(session.ingest(&scene.queue, 2), 2);
        session.run(end);
        if end == "ROLLBACK" {
            // Each of these is a transaction that commits.
            assert!(session.vault_masks().is_empty());
            assert!(session.vault_masks().is_empty());
            scene.queue.expect_released(2);
            assert_eq!(session.ingest(&scene.queue, 2), 2);
        }
        session.expect_vault_agrees(&scene.pair);
    }
    assert_eq!(session.logins(), 4);
}

#[test]
fn a_savepoint_that_is_rolled_back_takes_its_entries_along() {
    let scene = scene();
    let mut session = scene.connect();
    session.run("BEGIN");
    scene.ingest(&mut session, &["kept"]);
    session.run("SAVEPOINT one");
    scene.ingest(&mut session, &["gone", "kept"]);
    session.run("SAVEPOINT two");
    scene.ingest(&mut session, &["gone as well"]);
    session.run("RELEASE two; ROLLBACK TO one; SAVEPOINT three");
    scene.ingest(&mut session, &["kept too"]);
    session.run("RELEASE three; COMMIT");

    session.expect_vault_agrees(&scene.pair);
    assert_eq!(session.vault_masks().len(), 4);
    // What was rolled back is not known.
    let gone = session.logins();
    assert_eq!(session.ingest(&scene.queue, 10) + gone, 5);
    session.expect_vault_agrees(&scene.pair);
    assert_eq!(session.vault_masks().len(), 8);
}

#[test]
fn an_exception_block_takes_its_entries_along() {
    let scene = scene();
    let mut session = scene.connect();
    scene.send(&["a"]);
    session.run(&format!(
        "DO $$ BEGIN
           BEGIN
             PERFORM sqs_ingest('{}', 1);
             RAISE 'undo';
           EXCEPTION WHEN raise_exception THEN NULL;
           END;
         END $$",
        scene.queue.url()
    ));
    assert_eq!(session.logins(), 0);
    assert!(session.vault_masks().is_empty());
}

#[test]
fn a_procedure_that_commits_writes_its_entries() {
    let scene = scene();
    let mut session = scene.connect();
    scene.send(&["a", "b"]);
    session.run(&format!(
        "DO $$ BEGIN
           PERFORM sqs_ingest('{url}', 1);
           COMMIT;
           PERFORM sqs_ingest('{url}', 1);
           ROLLBACK;
         END $$",
        url = scene.queue.url()
    ));
    assert_eq!(session.logins(), 1);
    session.expect_vault_agrees(&scene.pair);
}

#[test]
fn a_refused_row_has_no_entry() {
    let scene = scene();
    let mut session = scene.connect();
    session.run("ALTER TABLE user_logins ADD CHECK (user_id <> 'refused')");
    scene.send(&["a", "refused", "b"]);
    assert_eq!(session.ingest(&scene.queue, 3), 2);
    assert_eq!(session.rejections().len(), 1);
    session.expect_vault_agrees(&scene.pair);
}

#[test]
fn duplicates_change_nothing() {
    let scene = scene();
    let mut session = scene.connect();
    scene.server.always(
        "DeleteMessageBatch",
        Answer::FailEntries {
            entries: (0..10).collect(),
            code: "InternalError",
        },
    );
    scene.ingest(&mut session, &["a", "b"]);
    let all = "SELECT mask, sealed, first_seen, last_seen, xmin FROM sqs_vault ORDER BY mask";
    let before = session.rows(all);
    scene.server.reveal_all(&scene.queue);

    assert_eq!(scene.connect().ingest(&scene.queue, 2), 0);

    assert_eq!(session.rows(all), before);
    session.expect_vault_agrees(&scene.pair);
}

#[test]
fn a_message_that_comes_twice_at_once_is_one_row_with_its_entries() {
    let scene = scene();
    let mut session = scene.connect();
    scene.server.always("ReceiveMessage", Answer::ServeTwice);
    scene.send(&["a"]);
    assert_eq!(session.ingest(&scene.queue, 2), 1);
    session.expect_vault_agrees(&scene.pair);
}

#[test]
fn an_entry_that_is_known_is_not_written_again_until_another_day() {
    const DAY: u64 = 86_400_000;
    const BEGIN: u64 = 20_000 * DAY;
    let scene = scene();
    let mut session = scene.connect();
    let mut ingest_on = |day: u64| {
        let body = login("a");
        scene.server.put(&scene.queue, &body, BEGIN + day * DAY);
        session.ingest(&scene.queue, 1);
        let seen = session.rows("SELECT DISTINCT first_seen, last_seen FROM sqs_vault");
        let versions = session.rows("SELECT xmin, xmax FROM sqs_vault ORDER BY mask");
        (seen, versions)
    };
    let days = |first: &str, last: &str| [[Some(first.to_owned()), Some(last.to_owned())]];

    let (seen, first_versions) = ingest_on(3);
    assert_eq!(seen, days("2024-10-07", "2024-10-07"));
    for day in [3, 0] {
        let (seen, versions) = ingest_on(day);
        assert_eq!(seen, days("2024-10-07", "2024-10-07"));
        assert_eq!(versions, first_versions, "written, though known");
    }
    let (seen, _) = ingest_on(5);
    assert_eq!(seen, days("2024-10-07", "2024-10-09"));
    session.expect_vault_agrees(&scene.pair);
}

#[test]
fn what_a_session_has_committed_it_does_not_look_up_again() {
    let scene = scene();
    let (mut session, mut other) = (scene.connect(), scene.connect());
    let look_ups = "SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE relname = 'sqs_vault'";
    let look_ups_of = |session: &mut Session| {
        let count = |session: &mut Session| {
            session.run("SELECT pg_stat_force_next_flush()");
            session.number(look_ups)
        };
        let before = count(session);
        scene.ingest(session, &["a", "b"]);
        count(session) - before
    };

    assert!(look_ups_of(&mut session) > 0);
    assert_eq!(look_ups_of(&mut session), 0);
    assert!(look_ups_of(&mut other) > 0);
    assert_eq!(look_ups_of(&mut other), 0);
}

#[test]
fn days_within_one_transaction_are_told_apart() {
    let scene = scene();
    let mut session = scene.connect();
    let body = login("a");
    for day in [20_003, 20_001, 20_002] {
        scene.server.put(&scene.queue, &body, day * 86_400_000);
    }
    session.ingest(&scene.queue, 3);
    assert_eq!(
        session.rows("SELECT DISTINCT first_seen, last_seen FROM sqs_vault"),
        [[Some("2024-10-05".to_owned()), Some("2024-10-07".to_owned())]]
    );
}

#[test]
fn open_transactions_that_share_new_values_do_not_wait_for_each_other() {
    let scene = scene();
    let (mut one, mut other) = (scene.connect(), scene.connect());
    for session in [&mut one, &mut other] {
        session.set("lock_timeout", "5s").run("BEGIN");
    }
    // Each has what the other one has, in the other order: written with each chunk, they would be a deadlock.
    scene.ingest(&mut one, &["a"]);
    scene.ingest(&mut other, &["b"]);
    scene.ingest(&mut one, &["b"]);
    scene.ingest(&mut other, &["a"]);
    other.run("COMMIT");
    other.expect_vault_agrees(&scene.pair);
    one.run("COMMIT");

    assert_eq!(one.logins(), 4);
    one.expect_vault_agrees(&scene.pair);
}

#[test]
fn sessions_that_drain_the_same_values_at_once_all_succeed() {
    let scene = scene();
    // Each session has new values of the others in every batch, in an order of its own.
    let users = (0..16_000).map(|number| number * 7_919 % 4_000);
    scene.queue.send(&logins_of(users));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut session = scene.connect();
                session.run(&format!("CALL sqs_drain('{}', 1000)", scene.queue.url()));
            });
        }
    });
    let mut session = scene.connect();
    assert_eq!(session.logins(), 16_000);
    session.expect_vault_agrees(&scene.pair);
}

#[test]
fn a_transaction_that_cannot_write_its_entries_leaves_no_rows() {
    let scene = scene();
    let mut session = scene.connect();
    scene.send(&["a"]);
    session.run("BEGIN");
    session.ingest(&scene.queue, 1);
    session.run("DROP EXTENSION user_logins_sqs");

    let error = session.error_of("COMMIT");

    assert_eq!(error.code().code(), "42704", "{error:?}");
    assert_eq!(session.logins(), 0);
    scene.queue.expect_released(1);
}

#[test]
fn a_killed_session_leaves_vault_and_rows_agreeing() {
    let cluster = Cluster::private();
    let database = Database::with_extension(&cluster);
    let server = ScriptedSqs::start();
    let queue = server.queue();
    let pair = KeyPair::generate();
    queue.send(&logins_of(0..20));
    let mut session = database.connect();
    session.seal_for(&pair).ingest(&queue, 10);
    session.run("BEGIN");
    session.ingest(&queue, 10);

    cluster.kill_backend(session.pid());

    let mut session = database.connect();
    assert_eq!(session.logins(), 10);
    session.expect_vault_agrees(&pair);
    server.reveal_all(&queue);
    session.seal_for(&pair);
    assert_eq!(session.ingest(&queue, 10), 10);
    session.expect_vault_agrees(&pair);
    cluster.crash();
    cluster.start();
    let mut session = database.connect();
    assert_eq!(session.logins(), 20);
    session.expect_vault_agrees(&pair);
}

#[test]
fn a_session_killed_while_it_commits_leaves_vault_and_rows_agreeing() {
    let cluster = Cluster::private();
    let database = Database::with_extension(&cluster);
    let server = ScriptedSqs::start();
    let queue = server.queue();
    let pair = KeyPair::generate();
    let connect = || {
        let mut session = database.connect();
        session.seal_for(&pair);
        session
    };

    // Before the commit record: some entries are written, another one is waited for.
    let (mut session, mut holder) = (connect(), database.connect());
    let mut originals: Vec<String> = (0..5)
        .map(|user| originals_of(&format!("user-{user}"))[0].clone())
        .collect();
    originals.sort_by_key(|original| {
        holder.text(&format!("SELECT encode(sha256('{original}'), 'hex')"))
    });
    holder.run(&format!(
        "BEGIN; INSERT INTO sqs_vault
         SELECT encode(sha256('{}'), 'hex'), 'ip', gen_random_uuid(), '', now(), now()",
        originals[4]
    ));
    queue.send(&logins_of(0..5));
    let pid = session.pid();
    thread::scope(|scope| {
        let ingest = scope.spawn(|| session.try_ingest(&queue, 5, 1));
        holder.expect_waiting(pid);
        cluster.kill_backend(pid);
        assert!(ingest.join().unwrap().is_err());
    });
    let mut session = connect();
    assert_eq!(session.logins(), 0);
    assert!(session.vault_masks().is_empty());

    // After the commit record, when nobody sees it yet.
    server.reveal_all(&queue);
    let mut observer = database.connect();
    observer.run("SET synchronous_commit = local");
    observer.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    observer.run("SELECT pg_reload_conf()");
    let pid = session.pid();
    thread::scope(|scope| {
        let ingest = scope.spawn(|| session.try_ingest(&queue, 5, 1));
        tests::wait::eventually(
            "the session waits for the standby",
            Duration::from_secs(20),
            || {
                observer.text(&format!(
                    "SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}"
                ))
            },
            |event| event.as_deref() == Some("SyncRep"),
        );
        cluster.kill_backend(pid);
        assert!(ingest.join().unwrap().is_err());
    });
    let mut observer = database.connect();
    observer.run("SET synchronous_commit = local");
    observer.run("ALTER SYSTEM RESET synchronous_standby_names");
    observer.run("SELECT pg_reload_conf()");
    assert_eq!(observer.logins(), 5);
    observer.expect_vault_agrees(&pair);

    // Anywhere, while one short transaction follows the other.
    queue.send(&logins_of(5..2_005));
    for round in 0..6 {
        server.reveal_all(&queue);
        let mut session = connect();
        let pid = session.pid();
        thread::scope(|scope| {
            let drain = format!("CALL sqs_drain('{}', 10)", queue.url());
            scope.spawn(move || session.try_run(&drain));
            thread::sleep(Duration::from_millis(40 + 13 * round));
            cluster.kill_backend(pid);
        });
        database.connect().expect_vault_agrees(&pair);
    }
    server.reveal_all(&queue);
    let mut session = connect();
    session.run(&format!("CALL sqs_drain('{}')", queue.url()));
    assert_eq!(session.logins(), 2_005);
    session.expect_vault_agrees(&pair);
}

#[test]
fn a_commit_that_waits_for_an_entry_can_be_cancelled() {
    let scene = scene();
    let (mut holder, mut waiter) = (scene.connect(), scene.connect());
    // As a session does that is about to commit.
    let [ip, _] = originals_of("a");
    holder.run(&format!(
        "BEGIN; INSERT INTO sqs_vault
         SELECT encode(sha256('{ip}'), 'hex'), 'ip', gen_random_uuid(), '', now(), now()"
    ));
    scene.send(&["a"]);
    waiter.run("BEGIN");
    waiter.ingest(&scene.queue, 1);
    let cancel = waiter.cancel_token();
    let pid = waiter.pid();

    let committed = thread::scope(|scope| {
        let commit = scope.spawn(|| waiter.try_run("COMMIT"));
        holder.expect_waiting(pid);
        cancel.cancel_query(postgres::NoTls).unwrap();
        commit.join().unwrap()
    });

    assert_eq!(db_error(&committed.unwrap_err()).code().code(), "57014");
    assert_eq!(waiter.logins(), 0);
    scene.queue.expect_released(1);
    holder.run("ROLLBACK");
    assert_eq!(waiter.ingest(&scene.queue, 1), 1);
    waiter.expect_vault_agrees(&scene.pair);
}
