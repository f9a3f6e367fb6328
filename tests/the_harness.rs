//! The harness keeps its own promises, without the extension.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::cluster::Cluster;
use tests::database::Database;
use tests::queue::{Counts, Queue};
use tests::scripted::{Answer, ScriptedSqs};
use tests::wait::eventually;
use tests::{localstack, logins, run};

const AN_HOUR: Duration = Duration::from_secs(3600);

fn a_queue_holds_what_was_sent(queue: &Queue) {
    queue.send(&logins::good(25));
    assert_eq!(
        queue.counts(),
        Counts {
            visible: 25,
            in_flight: 0
        }
    );

    let received = queue.receive(AN_HOUR);

    assert!(!received.is_empty());
    let in_flight = received.len() as u64;
    queue.expect_counts_within(
        AN_HOUR,
        Counts {
            visible: 25 - in_flight,
            in_flight,
        },
    );
}

#[test]
fn localstack_holds_what_was_sent() {
    a_queue_holds_what_was_sent(&localstack::queue());
}

#[test]
fn the_scripted_server_holds_what_was_sent() {
    a_queue_holds_what_was_sent(&ScriptedSqs::start().queue());
}

#[test]
fn the_scripted_server_gives_a_message_again_when_its_time_is_over() {
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(1));

    let first = queue.receive(Duration::from_secs(1));
    queue.expect_counts_within(
        Duration::from_secs(3),
        Counts {
            visible: 1,
            in_flight: 0,
        },
    );
    let second = queue.receive(Duration::from_secs(1));

    assert_eq!(first[0].id, second[0].id);
    assert_ne!(first[0].receipt_handle, second[0].receipt_handle);
    assert_eq!(server.handed_out(&queue), 2);
}

#[test]
fn the_scripted_server_gives_a_message_twice_over_when_told() {
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(5));
    server.always("ReceiveMessage", Answer::ServeTwice);

    let received = queue.receive(AN_HOUR);

    assert_eq!(received.len(), 10);
    assert!(received.chunks(2).all(|pair| pair[0].id == pair[1].id));
}

#[test]
fn a_crashed_server_recovers() {
    let cluster = Cluster::private();
    let database = Database::bare(&cluster);
    database
        .connect()
        .run("CREATE TABLE kept AS SELECT 1 AS one; CHECKPOINT");

    cluster.crash();
    cluster.start();

    assert_eq!(database.connect().number("SELECT one FROM kept"), 1);
}

#[test]
fn a_standby_follows() {
    let primary = Cluster::private();
    let standby = primary.standby();
    let database = Database::bare(&primary);
    database
        .connect()
        .run("CREATE TABLE followed AS SELECT 1 AS one");

    eventually(
        "the standby has the table",
        Duration::from_secs(20),
        || {
            let mut config = database.on(&standby).config();
            let mut client = config
                .connect_timeout(Duration::from_secs(1))
                .connect(postgres::NoTls)
                .ok()?;
            client
                .query_one("SELECT one FROM followed", &[])
                .ok()
                .map(|row| row.get::<_, i32>(0))
        },
        |one| *one == Some(1),
    );
}

#[test]
fn a_killed_run_leaves_nothing() {
    let mut run = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "the_harness::a_run_to_be_killed",
            "--ignored",
            "--nocapture",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(run.stdout.take().unwrap());
    let directory = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("running in ").map(str::to_owned))
        .expect("the run says where it is");
    assert!(
        !processes_under(&directory).is_empty(),
        "the run has started servers"
    );

    run.kill().unwrap();
    run.wait().unwrap();

    eventually(
        "processes end and the directory goes",
        Duration::from_secs(20),
        || (processes_under(&directory), Path::new(&directory).exists()),
        |(processes, exists)| processes.is_empty() && !exists,
    );
}

/// Not a test of its own: `a_killed_run_leaves_nothing` kills it.
#[test]
#[ignore = "runs until it is killed"]
fn a_run_to_be_killed() {
    let _cluster = Cluster::private();
    localstack::queue();
    println!("running in {}", run::directory().display());
    std::thread::sleep(Duration::from_secs(600));
}

fn processes_under(directory: &str) -> Vec<String> {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory))
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
