//! A session stays within its limit of open files, whatever it ingests, and leaves Postgres those that it needs.

use std::fs;
use std::time::Duration;

use tests::cluster::{Cluster, Plan};
use tests::database::{Database, Session};
use tests::logins;
use tests::queue::Queue;
use tests::scripted::{Answer, ScriptedSqs};
use tests::wait::eventually;

/// What calls that receive one message each may have open, far fewer than the 512 connections that a session may use:
/// those of polls and of deletes that share batches, and what the I/O thread has open besides.
const MOST_OF_OURS: usize = 96;

fn queue_of(server: &ScriptedSqs, messages: usize) -> Queue {
    let queue = server.queue();
    queue.send(&logins::good(messages));
    queue
}

/// The open files of a process that begin like this.
fn open_files(pid: i32, kind: &str) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with(kind))
        .count()
}

fn run_in_parallel(session: &mut Session) {
    session.run(
        "SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0",
    );
    let plan = session.rows("EXPLAIN ANALYZE SELECT count(*) FROM user_logins");
    let launched = plan
        .into_iter()
        .flatten()
        .flatten()
        .any(|line| line.contains("Workers Launched: ") && !line.ends_with("Launched: 0"));
    assert!(launched, "no worker was launched");
}

#[test]
fn many_calls_in_one_transaction_share_connections() {
    let cluster = Cluster::private();
    let database = Database::with_extension(&cluster);
    let server = ScriptedSqs::start();
    let queue = queue_of(&server, 1_000);
    // The limit is only reached with many deletes under way.
    server.always(
        "DeleteMessageBatch",
        Answer::ServeAfter(Duration::from_millis(300)),
    );
    let mut session = database.connect();
    let before = open_files(session.pid(), "");

    let sql = format!(
        "SELECT sum(sqs_ingest('{}', 1, 0)) FROM generate_series(1, 1000)",
        queue.url()
    );
    assert_eq!(session.number(&sql), 1_000);

    let more = open_files(session.pid(), "") - before;
    assert!(more <= MOST_OF_OURS, "{more} files");
    let deletes = server.calls_of("DeleteMessageBatch").len();
    queue.expect_drained();
    assert!(
        deletes <= 150,
        "deletes of many calls share batches: {deletes}"
    );
    run_in_parallel(&mut session);
    eventually(
        "idle connections are closed",
        Duration::from_secs(60),
        || open_files(session.pid(), "socket:"),
        |sockets| *sockets <= 4,
    );
}

#[test]
fn a_session_with_many_open_tables_ingests_and_runs_parallel_queries() {
    let cluster = Plan::default()
        .setting("max_files_per_process", "200")
        .start();
    let database = Database::with_extension(&cluster);
    let server = ScriptedSqs::start();
    let queue = queue_of(&server, 2_000);
    let mut session = database.connect();
    session.run(
        "CREATE TABLE many (i integer) PARTITION BY RANGE (i);
         DO $$ BEGIN
             FOR i IN 0..299 LOOP
                 EXECUTE format('CREATE TABLE many_%s PARTITION OF many FOR VALUES FROM (%s) TO (%s)', i, i, i + 1);
             END LOOP;
         END $$;
         INSERT INTO many SELECT generate_series(0, 299)",
    );
    assert_eq!(session.number("SELECT count(*) FROM many"), 300);

    assert_eq!(session.ingest(&queue, 2_000), 2_000);

    queue.expect_drained();
    assert_eq!(session.number("SELECT count(*) FROM many"), 300);
    let files = open_files(session.pid(), "");
    assert!(files <= 200, "{files} files are open");
    run_in_parallel(&mut session);
}
