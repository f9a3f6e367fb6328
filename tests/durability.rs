//! What was deleted from the queue is on disk; and a transaction may stay open longer than the visibility timeout.

use std::thread;
use std::time::Duration;

use tests::cluster::{Cluster, Plan};
use tests::database::Database;
use tests::queue::Counts;
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
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END $$;
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
