//! What is deleted from the vault is gone, comes back with the next login that has it, and takes its data key along.

use tests::database::{Database, Session};
use tests::scripted::ScriptedSqs;
use tests::vault::{KeyPair, recipients_file};
use tests::workers;
use tests::{logins, run};

use super::{logins_of, originals_of, scene};

fn forget(session: &mut Session, value: &str) -> i64 {
    session.number(&format!("SELECT sqs_forget('{value}')"))
}

#[test]
fn a_forgotten_value_opens_no_more() {
    let scene = scene();
    let mut session = scene.connect();
    scene.ingest(&mut session, &["a", "b"]);
    let [ip, device_id] = originals_of("a");

    assert_eq!(forget(&mut session, &ip), 1);
    assert_eq!(forget(&mut session, &device_id), 1);
    assert_eq!(forget(&mut session, &ip), 0);
    assert_eq!(forget(&mut session, "never seen"), 0);

    let opened = scene.pair.open(&mut session).originals;
    let mut left: Vec<String> = opened.into_values().collect();
    let mut of_b = originals_of("b");
    left.sort();
    of_b.sort();
    assert_eq!(left, of_b);
    assert_eq!(session.masks().len(), 4, "masks stay in user_logins");
}

#[test]
fn a_value_is_forgotten_under_each_mask_that_it_has() {
    let scene = scene();
    let mut session = scene.connect();
    let send = || {
        scene.queue.send(&[
            logins::login_with("a", "ip", "2001:DB8:0::1"),
            logins::login_with("b", "device_id", "2001:DB8:0::1"),
        ]);
    };
    send();
    session.ingest(&scene.queue, 2);
    let key = recipients_file(&"k".repeat(32));
    session.set("user_logins_sqs.mask_key_file", key);
    send();
    session.ingest(&scene.queue, 2);
    assert_eq!(session.vault_masks().len(), 8);

    assert_eq!(forget(&mut session, "2001:db8:0::1"), 2);
    assert_eq!(forget(&mut session, "2001:DB8:0::1"), 2);
}

#[test]
fn a_null_is_not_a_value() {
    let error = Database::shared()
        .connect()
        .error_of("SELECT sqs_forget(NULL)");
    assert_eq!(error.code().code(), "22004", "{error:?}");
    assert!(error.hint().is_some(), "{error:?}");
}

#[test]
fn whatever_deletes_entries_has_every_session_write_them_again() {
    let [ip, _] = originals_of("a");
    let deletions = [
        format!("SELECT sqs_forget('{ip}')"),
        "DELETE FROM sqs_vault".to_owned(),
        "TRUNCATE sqs_vault".to_owned(),
        "UPDATE sqs_vault SET mask = mask || ' of old'".to_owned(),
        "SET session_replication_role = replica; DELETE FROM sqs_vault".to_owned(),
        "DROP EXTENSION user_logins_sqs; CREATE EXTENSION user_logins_sqs".to_owned(),
    ];
    for deletion in deletions {
        let scene = scene();
        let (mut one, mut other) = (scene.connect(), scene.connect());
        for session in [&mut one, &mut other] {
            scene.ingest(session, &["a"]);
            scene.ingest(session, &["a"]);
        }
        let mut masks = other.masks();
        masks.sort();

        // By another session, and by one of them.
        for by_itself in [false, true] {
            if by_itself {
                other.run(&deletion);
            } else {
                scene.database.connect().run(&deletion);
            }
            // Those of a new extension are open.
            other.close_vault();
            for session in [&mut one, &mut other] {
                scene.ingest(session, &["a"]);
                let mut found = session.vault_masks();
                found.retain(|mask| !mask.ends_with("of old"));
                assert_eq!(found, masks, "{deletion}");
                let opened = scene.pair.open(session).originals;
                assert_eq!(opened.into_keys().collect::<Vec<_>>(), masks, "{deletion}");
            }
        }
    }
}

#[test]
fn a_deletion_that_is_rolled_back_changes_nothing() {
    let scene = scene();
    let mut session = scene.connect();
    scene.ingest(&mut session, &["a"]);
    session.run("BEGIN; DELETE FROM sqs_vault");
    scene.ingest(&mut session, &["a"]);
    session.run("ROLLBACK");
    session.ingest(&scene.queue, 10);
    session.expect_vault_agrees(&scene.pair);
}

#[test]
fn what_is_forgotten_while_a_transaction_is_open_is_there_when_it_has_committed() {
    let scene = scene();
    let mut session = scene.connect();
    scene.ingest(&mut session, &["a"]);
    session.run("BEGIN");
    scene.ingest(&mut session, &["a"]);
    scene
        .database
        .connect()
        .run("DELETE FROM sqs_vault; DELETE FROM sqs_vault_key");
    session.run("COMMIT");
    session.expect_vault_agrees(&scene.pair);
}

#[test]
fn data_keys_that_seal_nothing_go_and_come_back_when_they_do() {
    let scene = scene();
    let (mut one, mut other) = (scene.connect(), scene.connect());
    scene.ingest(&mut one, &["a"]);
    scene.ingest(&mut other, &["b"]);
    let keys = "SELECT count(*) FROM sqs_vault_key";
    assert_eq!(one.number(keys), 2);

    for original in originals_of("a") {
        forget(&mut other, &original);
    }
    assert_eq!(one.number(keys), 1, "sqs_forget");
    one.run("DELETE FROM sqs_vault");
    one.run("SELECT sqs_prune()");
    assert_eq!(one.number(keys), 0, "sqs_prune");

    scene.ingest(&mut one, &["a"]);
    scene.ingest(&mut other, &["b"]);
    assert_eq!(one.number(keys), 2);
    assert_eq!(scene.pair.open(&mut one).status, 0);
}

#[test]
fn pruning_does_not_take_a_data_key_that_is_about_to_seal() {
    let scene = scene();
    let (mut session, mut pruner) = (scene.connect(), scene.connect());
    scene.ingest(&mut session, &["a"]);
    for isolation in ["READ COMMITTED", "REPEATABLE READ"] {
        pruner.run("DELETE FROM sqs_vault");
        pruner.run(&format!(
            "BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM sqs_vault"
        ));
        scene.ingest(&mut session, &["a"]);
        pruner.run("SELECT sqs_prune(); COMMIT");
        assert_eq!(scene.pair.open(&mut session).status, 0, "{isolation}");
    }
}

#[test]
fn pruning_does_not_take_a_data_key_of_a_transaction_that_is_about_to_commit() {
    let cluster = tests::cluster::Cluster::private();
    let database = Database::with_extension(&cluster);
    let server = ScriptedSqs::start();
    let queue = server.queue();
    let pair = KeyPair::generate();
    let (mut session, mut pruner) = (database.connect(), database.connect());
    queue.send(&logins_of(0..1));
    session.seal_for(&pair).ingest(&queue, 1);
    pruner.run("DELETE FROM sqs_vault");
    // COMMIT waits for a standby that never comes, when all is written and nobody sees it yet.
    pruner.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    pruner.run("SELECT pg_reload_conf(); SET synchronous_commit = local");
    queue.send(&logins_of(1..2));
    std::thread::scope(|scope| {
        let cancel = session.cancel_token();
        let pid = session.pid();
        scope.spawn(|| session.ingest(&queue, 1));
        tests::wait::eventually(
            "the session waits for the standby",
            std::time::Duration::from_secs(20),
            || {
                pruner.text(&format!(
                    "SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}"
                ))
            },
            |event| event.as_deref() == Some("SyncRep"),
        );
        pruner.run("SELECT sqs_prune()");
        cancel.cancel_query(postgres::NoTls).unwrap();
    });
    let opened = pair.open(&mut pruner);
    assert_eq!(
        (opened.status, opened.originals.len()),
        (0, 2),
        "{opened:?}"
    );
}

#[test]
fn a_session_waits_for_the_data_key_that_is_being_pruned_and_writes_it_again() {
    let scene = scene();
    let (mut session, mut pruner) = (scene.connect(), scene.connect());
    scene.ingest(&mut session, &["a"]);
    pruner.run("DELETE FROM sqs_vault");
    pruner.run("BEGIN; SELECT sqs_prune()");
    scene.send(&["a"]);
    std::thread::scope(|scope| {
        let pid = session.pid();
        scope.spawn(|| session.ingest(&scene.queue, 1));
        pruner.expect_waiting(pid);
        pruner.run("COMMIT");
    });
    session.expect_vault_agrees(&scene.pair);
}

#[test]
fn values_that_were_not_seen_for_the_retention_are_pruned_by_hand() {
    let cluster = tests::cluster::Plan::default()
        .setting("user_logins_sqs.vault_retention", "10d")
        .start();
    let database = Database::with_extension(&cluster);
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins_of(1..6));
    let pair = KeyPair::generate();
    let mut session = database.connect();
    session.seal_for(&pair).ingest(&queue, 5);
    let age = |days: i32, ip_of: &str| {
        let [ip, _] = originals_of(ip_of);
        format!(
            "UPDATE sqs_vault SET last_seen = (now() AT TIME ZONE 'UTC')::date - {days}
             WHERE mask = encode(sha256('{ip}'), 'hex');"
        )
    };
    session.run(
        &[
            age(9, "user-1"),
            age(10, "user-2"),
            age(11, "user-3"),
            age(400, "user-4"),
        ]
        .concat(),
    );

    session.run("SELECT sqs_prune(1)");
    assert_eq!(session.vault_masks().len(), 9);
    session.run("SELECT sqs_prune()");
    assert_eq!(session.vault_masks().len(), 8);
    session.run("SELECT sqs_prune()");
    assert_eq!(session.vault_masks().len(), 8);

    // And those who know them write them again.
    server.reveal_all(&queue);
    queue.send(&logins_of(1..6));
    session.ingest(&queue, 5);
    session.expect_vault_agrees(&pair);
}

#[test]
fn nothing_is_pruned_without_a_retention() {
    let scene = scene();
    let mut session = scene.connect();
    scene.ingest(&mut session, &["a"]);
    session.run("UPDATE sqs_vault SET last_seen = '2000-01-01'; SELECT sqs_prune()");
    session.expect_vault_agrees(&scene.pair);
}

#[test]
fn the_launcher_prunes_too() {
    let cluster =
        workers::site_of(workers::preloading().setting("user_logins_sqs.vault_retention", "1d"));
    let mut session = workers::admin(&cluster);
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins_of(1..1_501));
    session.seal_for(&KeyPair::generate()).ingest(&queue, 1_500);
    session.run("UPDATE sqs_vault SET last_seen = last_seen - 3");

    // A round comes once a minute; the first one when the launcher starts.
    cluster.restart();

    let mut session = workers::admin(&cluster);
    tests::wait::eventually(
        "all entries and keys are pruned",
        std::time::Duration::from_secs(30),
        || {
            session.number(
                "SELECT (SELECT count(*) FROM sqs_vault) + (SELECT count(*) FROM sqs_vault_key)",
            )
        },
        |left| *left == 0,
    );
}

#[test]
fn each_table_of_the_vault_is_written_as_its_own_owner() {
    let scene = scene();
    let mut session = scene.connect();
    let owners = [run::unique_name("owner"), run::unique_name("owner")];
    session.run(&format!(
        "CREATE ROLE {first}; CREATE ROLE {second};
         ALTER TABLE sqs_vault OWNER TO {first};
         ALTER TABLE sqs_vault_key OWNER TO {second}",
        first = owners[0],
        second = owners[1],
    ));
    scene.ingest(&mut session, &["a", "b"]);
    session.expect_vault_agrees(&scene.pair);
    for original in [originals_of("a"), originals_of("b")].concat() {
        assert_eq!(forget(&mut session, &original), 1);
    }
    assert_eq!(session.number("SELECT count(*) FROM sqs_vault_key"), 0);
    for owner in owners {
        session.run(&format!(
            "REASSIGN OWNED BY {owner} TO postgres; DROP OWNED BY {owner}; DROP ROLE {owner}"
        ));
    }
}
