//! What was deleted from the queue is on disk; and a transaction may stay open longer than the visibility timeout.

use std::thread;
use std::time::Duration;

use tests::cluster::{Cluster, Plan};
use tests::database::{Database, Session};
use tests::queue::Counts;
use tests::wait::eventually;
use tests::{localstack, logins};

/// A server that writes nothing of a commit to disk by itself before the test is over.
fn lazy_server() -> Cluster {
    Plan::default()
        .setting("fsync", "on")
        .setting("synchronous_commit", "off")
        .setting("wal_writer_delay", "10s")
        .setting("bgwriter_delay", "10s")
        .setting("autovacuum", "off")
        .start()
}

#[test]
fn an_ingest_survives_a_crash_without_synchronous_commit() {
    let cluster = lazy_server();
    let database = Database::with_extension(&cluster);
    let queue = localstack::queue();
    queue.send(&logins::good(100));
    let mut session = database.connect();

    assert_eq!(session.ingest(&queue, 100), 100);
    queue.expect_drained();
    cluster.crash();
    cluster.start();

    assert_eq!(database.connect().logins(), 100);
}

#[test]
fn a_drain_survives_a_crash_without_synchronous_commit() {
    let cluster = lazy_server();
    let database = Database::with_extension(&cluster);
    let queue = localstack::queue();
    queue.send(&logins::good(100));

    database
        .connect()
        .run(&format!("CALL sqs_drain('{}', 30)", queue.url()));
    queue.expect_drained();
    cluster.crash();
    cluster.start();

    assert_eq!(database.connect().logins(), 100);
}

#[test]
fn a_deleted_rejection_survives_a_crash_without_synchronous_commit() {
    let cluster = lazy_server();
    let database = Database::with_extension(&cluster);
    let queue = localstack::queue();
    queue.send(&["bad".to_owned()]);
    let mut session = database.connect();
    session.set("user_logins_sqs.rejected_messages", "delete");

    session.ingest(&queue, 1);
    queue.expect_drained();
    cluster.crash();
    cluster.start();

    assert_eq!(database.connect().rejections().len(), 1);
}

/// Such a crash does lose what an ordinary transaction committed: the tests above could fail.
#[test]
fn an_ordinary_row_does_not_survive_that_crash() {
    let cluster = lazy_server();
    let database = Database::bare(&cluster);
    let mut session = database.connect();
    session.run("CREATE TABLE ordinary (row integer)");
    session.run("CHECKPOINT");

    session.run("INSERT INTO ordinary VALUES (1)");
    cluster.crash();
    cluster.start();

    assert_eq!(
        database.connect().number("SELECT count(*) FROM ordinary"),
        0
    );
}

#[test]
fn a_transaction_held_open_keeps_its_messages_hidden() {
    let database = Database::shared();
    let queue = localstack::queue();
    queue.send(&logins::good(25));
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", 2);

    session.run("BEGIN");
    assert_eq!(session.ingest(&queue, 25), 25);
    queue.expect_counts_stay(
        Duration::from_secs(7),
        Counts {
            visible: 0,
            in_flight: 25,
        },
    );
    session.run("COMMIT");

    queue.expect_drained();
    assert_eq!(session.logins(), 25);
    assert_eq!(session.ingest(&queue, 25), 0);
}

#[test]
fn a_transaction_held_open_and_rolled_back_releases() {
    let database = Database::shared();
    let queue = localstack::queue();
    queue.send(&logins::good(25));
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", 2);

    session.run("BEGIN");
    session.ingest(&queue, 25);
    queue.expect_counts_stay(
        Duration::from_secs(5),
        Counts {
            visible: 0,
            in_flight: 25,
        },
    );
    session.run("ROLLBACK");

    queue.expect_released(25);
}

#[test]
fn a_slow_statement_keeps_its_messages_hidden_while_it_inserts() {
    let database = Database::shared();
    let queue = localstack::queue();
    queue.send(&logins::good(25));
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", 2);
    session.run(
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END $$;
         CREATE TRIGGER dawdle BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION dawdle()",
    );

    thread::scope(|scope| {
        let slow = scope.spawn(|| session.ingest(&queue, 25));
        let hidden = Counts {
            visible: 0,
            in_flight: 25,
        };
        queue.expect_counts_within(Duration::from_secs(5), hidden);
        queue.expect_counts_stay(Duration::from_secs(5), hidden);
        assert_eq!(slow.join().unwrap(), 25);
    });

    queue.expect_drained();
}

/// A server whose commits wait for a standby that is not there.
fn server_without_its_standby() -> Cluster {
    Plan::default()
        .setting("synchronous_standby_names", "away")
        .start()
}

/// Ends the wait for a standby in the way that `function` does it.
fn what_no_standby_has_confirmed_stays(function: &str) {
    let cluster = server_without_its_standby();
    let local = "SET synchronous_commit = local";
    let database = {
        let name = "ingest";
        let mut maintenance = Database::existing(&cluster, "postgres").connect();
        maintenance
            .run(local)
            .run(&format!("CREATE DATABASE {name}"));
        Database::existing(&cluster, name)
    };
    let mut admin = database.connect();
    admin.run(local).run("CREATE EXTENSION user_logins_sqs");
    let queue = localstack::queue();
    queue.send(&logins::good(50));
    let wait_for_standby_and_end = |admin: &mut Session| {
        thread::scope(|scope| {
            let mut session = database.connect();
            session.set("user_logins_sqs.visibility_timeout", 3);
            let pid = session.pid();
            let queue = &queue;
            let waiting = scope.spawn(move || session.try_ingest(queue, 50, 1));
            let waits = format!("SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}");
            eventually(
                "COMMIT waits for the standby",
                Duration::from_secs(20),
                || admin.rows(&waits),
                |rows| {
                    rows.first()
                        .is_some_and(|row| row[0].as_deref() == Some("SyncRep"))
                },
            );
            admin.run(&format!("SELECT {function}({pid})"));
            // The transaction is committed on this server, so it may well succeed.
            let _ = waiting.join().unwrap();
        });
    };

    wait_for_standby_and_end(&mut admin);
    assert_eq!(admin.logins(), 50);
    queue.expect_counts_within(
        Duration::from_secs(15),
        Counts {
            visible: 50,
            in_flight: 0,
        },
    );

    // Now all of them are duplicates, of rows that no standby has confirmed.
    wait_for_standby_and_end(&mut admin);
    queue.expect_counts_within(
        Duration::from_secs(15),
        Counts {
            visible: 50,
            in_flight: 0,
        },
    );

    admin.run("ALTER SYSTEM SET synchronous_standby_names = ''");
    admin.run("SELECT pg_reload_conf()");
    assert_eq!(database.connect().ingest(&queue, 50), 0);
    queue.expect_drained();
    assert_eq!(admin.logins(), 50);
}

#[test]
fn what_no_standby_has_confirmed_stays_after_a_cancel() {
    what_no_standby_has_confirmed_stays("pg_cancel_backend");
}

#[test]
fn what_no_standby_has_confirmed_stays_after_a_termination() {
    what_no_standby_has_confirmed_stays("pg_terminate_backend");
}

#[test]
fn what_a_synchronous_standby_has_confirmed_is_deleted() {
    let cluster = Cluster::private();
    let database = Database::with_extension(&cluster);
    let standby = cluster.standby();
    let mut session = database.connect();
    session.run("ALTER SYSTEM SET synchronous_standby_names = '*'");
    session.run("SELECT pg_reload_conf()");
    let queue = localstack::queue();
    queue.send(&logins::good(50));
    eventually(
        "the standby is synchronous",
        Duration::from_secs(20),
        || session.text("SELECT max(sync_state) FROM pg_stat_replication"),
        |state| state.as_deref() == Some("sync"),
    );

    for level in ["remote_write", "on", "remote_apply"] {
        session.set("synchronous_commit", level);
        queue.send(&logins::good(50));
        session.ingest(&queue, 1_000);
        queue.expect_drained();
    }

    assert_eq!(database.on(&standby).connect().logins(), 200);
}
