//! A worker of a quiet queue uses next to no processor time, and reports its counters to Postgres.

use std::time::{Duration, Instant};

use tests::wait::eventually;
use tests::workers::{LogSince, PROMPTLY};

use super::{Scene, scene};

const LOOK_FOR: Duration = Duration::from_secs(10);

/// Processor time that the launcher and a worker may take together on a busy machine.
const LITTLE: Duration = Duration::from_millis(300);

#[test]
fn a_quiet_queue_costs_no_processor_time_and_one_poll_at_a_time() {
    let mut scene = scene(&[]);
    let worker = scene.subscribe();
    let launcher = scene.admin.launcher().unwrap();
    // Enough for several polls to be under way at once.
    scene.send_good(500);
    scene.admin.expect_logins(500);
    scene.queue.expect_drained();
    let at_once = most_at_once(&scene);
    assert!(at_once > 1, "under load: {at_once} polls at once");
    // The server does not show when those polls end.
    std::thread::sleep(Duration::from_secs(3));

    let used = || processor_time(worker) + processor_time(launcher);
    let (before, from) = (used(), Instant::now());
    // The time over which use is measured.
    std::thread::sleep(LOOK_FOR);
    let took = used() - before;

    println!("{took:?} of processor time in {LOOK_FOR:?}");
    assert!(took < LITTLE, "{took:?} of processor time in {LOOK_FOR:?}");
    let calls = scene.sqs.calls();
    let polls = calls.iter().filter(|call| call.at >= from);
    let waits: Vec<u64> = polls
        .map(|call| {
            assert_eq!(call.action, "ReceiveMessage");
            call.request["WaitTimeSeconds"].as_u64().unwrap()
        })
        .collect();
    // Polls one after another cannot wait for longer than the time that has passed, except for the last one.
    let longest = waits.iter().max().copied().unwrap_or_default();
    assert!(longest >= 1, "a long poll");
    assert!(
        waits.iter().sum::<u64>() <= LOOK_FOR.as_secs() + 1 + longest,
        "waits of {waits:?} s"
    );
}

#[test]
fn a_quiet_worker_reports_every_row_to_postgres() {
    let mut scene = scene(&[]);
    scene.subscribe();
    // Postgres takes the counters of a process at most once a second unless forced to.
    for batch in 1..=5 {
        scene.send_good(3);
        scene.admin.expect_logins(3 * batch);
    }

    eventually(
        "autovacuum knows of every row",
        PROMPTLY,
        || {
            scene
                .admin
                .number("SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'user_logins'")
        },
        |rows| *rows == 15,
    );
}

/// The most polls that began within 20 ms.
fn most_at_once(scene: &Scene) -> usize {
    let polls = scene.sqs.calls_of("ReceiveMessage");
    let near = |at: Instant| {
        polls
            .iter()
            .filter(|poll| poll.at >= at && poll.at - at < Duration::from_millis(20))
            .count()
    };
    polls.iter().map(|poll| near(poll.at)).max().unwrap_or(0)
}

fn processor_time(pid: i32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // User and system time, fields 14 and 15 of which the first two are cut off.
    let ticks: u64 = fields[11..=12]
        .iter()
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum();
    // SAFETY: sysconf has no preconditions.
    let ticks_a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs(ticks) / u32::try_from(ticks_a_second).unwrap()
}

#[test]
fn a_server_that_is_read_only_by_default_is_not_warned_about_every_queue() {
    let mut scene = scene(&[]);
    let log = LogSince::now(&scene.cluster);
    scene.admin.run("SET default_transaction_read_only = off");
    scene
        .admin
        .run("ALTER SYSTEM SET default_transaction_read_only = on");
    scene.admin.run("SELECT pg_reload_conf()");
    scene
        .sqs
        .set_attribute(&scene.queue, "MessageRetentionPeriod", 345_600);
    scene.admin.subscribe(&scene.queue);

    eventually(
        "the queue has told its backlog",
        Duration::from_secs(20),
        || scene.admin.text("SELECT max(backlog) FROM sqs_stat"),
        Option::is_some,
    );

    let complaints = log.complaints();
    let of_retention = |line: &&String| line.contains("retention period");
    assert_eq!(complaints.iter().find(of_retention), None);
}
