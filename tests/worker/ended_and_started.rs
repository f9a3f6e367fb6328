//! How workers and the launcher end and start: terminated, stopped with the server, or without their database.

use std::time::{Duration, Instant};

use tests::cluster::Stop;
use tests::database::{Database, Session, literal};
use tests::queue::Queue;
use tests::scripted::{Answer, ScriptedSqs};
use tests::wait::{eventually, throughout};
use tests::workers::{ARRIVE_WITHIN, LogSince, PROMPTLY, admin, preloading, site, site_of};
use tests::{localstack, logins};

use super::{A_MOMENT, SEVERAL_TRIES, in_flight, reload, scene};

/// A busy machine may be late now and then, so the median of this many workers counts.
const WORKERS: usize = 5;

#[test]
fn pg_terminate_backend_in_a_long_poll_is_prompt_and_writes_what_is_held() {
    // What comes in a poll waits for a full batch, so that the next poll is under way while the worker holds it.
    let mut scene = scene(&[("linger", "60s"), ("visibility_timeout", "600s")]);
    let queues: Vec<Queue> = (0..WORKERS).map(|_| scene.sqs.queue()).collect();
    let mut times = Vec::new();
    for (queue, rows) in queues.iter().zip((5..).step_by(5)) {
        queue.send(&logins::good(5));
        let before = scene.admin.workers();
        scene.admin.subscribe(queue);
        let workers = scene
            .admin
            .expect_workers_within(PROMPTLY, before.len() + 1);
        let worker = *workers.iter().find(|pid| !before.contains(pid)).unwrap();
        queue.expect_counts_within(ARRIVE_WITHIN, in_flight(5));
        // The worker has to take them over, and the next poll to go out: neither shows.
        std::thread::sleep(Duration::from_millis(300));

        let begun = Instant::now();
        scene
            .admin
            .run(&format!("SELECT pg_terminate_backend({worker})"));
        eventually(
            "the worker is gone",
            ARRIVE_WITHIN,
            || scene.cluster.has_process(worker),
            |alive| !alive,
        );
        times.push(begun.elapsed());

        assert_eq!(scene.admin.logins(), rows);
        queue.expect_drained();
        assert_eq!(scene.sqs.handed_out(queue), 5);
        // The launcher starts another.
        scene
            .admin
            .expect_workers_within(ARRIVE_WITHIN, before.len() + 1);
    }
    times.sort();
    println!("{times:?}");
    assert!(times[WORKERS / 2] < Duration::from_millis(100), "{times:?}");
}

#[test]
fn pg_terminate_backend_of_a_worker_that_waits_for_a_lock_is_prompt_and_releases() {
    let mut scene = scene(&[("visibility_timeout", "600s")]);
    let mut times = Vec::new();
    for _ in 0..WORKERS {
        let queue = scene.sqs.queue();
        scene.admin.subscribe(&queue);
        let worker = scene.admin.expect_workers_within(PROMPTLY, 1)[0];
        let mut locker = admin(&scene.cluster);
        locker.run("BEGIN; LOCK TABLE user_logins");
        queue.send(&logins::good(5));
        let waits = format!("SELECT count(*) FROM pg_locks WHERE pid = {worker} AND NOT granted");
        eventually(
            "the worker waits for the lock",
            ARRIVE_WITHIN,
            || scene.admin.number(&waits),
            |waits| *waits > 0,
        );

        let begun = Instant::now();
        scene.admin.unsubscribe(&queue);
        eventually(
            "the worker is gone",
            ARRIVE_WITHIN,
            || scene.cluster.has_process(worker),
            |alive| !alive,
        );
        times.push(begun.elapsed());

        queue.expect_released(5);
        locker.run("ROLLBACK");
    }
    times.sort();
    println!("{times:?}");
    assert!(times[WORKERS / 2] < Duration::from_millis(250), "{times:?}");
    assert_eq!(scene.admin.logins(), 0);
}

#[test]
fn a_terminated_launcher_comes_back_and_its_workers_never_stop() {
    let mut scene = scene(&[]);
    let worker = scene.subscribe();
    let launcher = scene.admin.launcher().unwrap();

    scene
        .admin
        .run(&format!("SELECT pg_terminate_backend({launcher})"));
    scene.send_good(3);
    scene.admin.expect_logins_within(A_MOMENT * 2, 3);
    assert_eq!(scene.admin.workers(), [worker]);

    eventually(
        "another launcher runs",
        Duration::from_secs(10),
        || scene.admin.launcher(),
        |pid| pid.is_some_and(|pid| pid != launcher),
    );
    let queue = scene.sqs.queue();
    scene.admin.subscribe(&queue);
    let workers = scene.admin.expect_workers_within(PROMPTLY, 2);
    assert!(workers.contains(&worker), "{worker} of {workers:?}");
}

#[test]
fn a_fast_stop_is_quick_and_writes_what_is_held() {
    let mut scene = scene(&[("linger", "60s"), ("visibility_timeout", "600s")]);
    scene.send_good(5);
    scene.subscribe();
    scene
        .queue
        .expect_counts_within(ARRIVE_WITHIN, in_flight(5));

    let took = scene.cluster.stop(Stop::Fast);

    assert!(took < Duration::from_secs(3), "stopping took {took:?}");
    scene.queue.expect_drained();
    scene.expect_handed_out_once(5);
    assert!(!scene.cluster.log().contains("was terminated by signal"));
    scene.cluster.start();
    assert_eq!(admin(&scene.cluster).logins(), 5);
}

#[test]
fn restarts_send_no_good_message_to_the_dead_letters() {
    const MESSAGES: usize = 6_000;
    let cluster = site();
    let (queue, dead) = localstack::queue_with_dead_letters(3);
    let bodies = logins::good(MESSAGES);
    queue.send(&bodies);
    admin(&cluster).subscribe(&queue);

    for _ in 1..=3 {
        let before = admin(&cluster).logins();
        eventually(
            "rows flow in",
            ARRIVE_WITHIN,
            || admin(&cluster).logins(),
            |rows| *rows > before,
        );
        cluster.restart();
    }

    let all = u64::try_from(MESSAGES).unwrap();
    let arrived = || admin(&cluster).logins().cast_unsigned();
    eventually(
        "every message has arrived somewhere",
        Duration::from_secs(60),
        || (arrived(), dead.counts().visible),
        |(rows, dead)| rows + dead == all,
    );
    println!(
        "received {}, dead {}",
        admin(&cluster).number("SELECT sum(received) FROM sqs_stat"),
        dead.counts().visible
    );
    assert_eq!(dead.counts().visible, 0);
}

#[test]
fn a_fast_stop_is_quick_and_releases_what_cannot_be_written() {
    let cluster = site_of(
        preloading()
            .setting("max_prepared_transactions", "1")
            .setting("user_logins_sqs.linger", "60s")
            .setting("user_logins_sqs.visibility_timeout", "600s"),
    );
    let mut admin = admin(&cluster);
    let sqs = ScriptedSqs::start();
    let queue = sqs.queue();
    queue.send(&logins::good(5));
    admin.subscribe(&queue);
    queue.expect_counts_within(ARRIVE_WITHIN, in_flight(5));
    // A lock that no session holds.
    admin.run("BEGIN; LOCK TABLE user_logins; PREPARE TRANSACTION 'locker'");

    let took = cluster.stop(Stop::Fast);

    assert!(took < Duration::from_secs(3), "stopping took {took:?}");
    queue.expect_released(5);
}

#[test]
fn a_fast_stop_is_quick_while_the_queue_hangs() {
    let mut scene = scene(&[]);
    scene.sqs.always("ReceiveMessage", Answer::Hang);
    scene.subscribe();
    eventually(
        "the worker asks",
        ARRIVE_WITHIN,
        || scene.sqs.calls_of("ReceiveMessage").len(),
        |calls| *calls > 0,
    );

    let took = scene.cluster.stop(Stop::Fast);

    assert!(took < Duration::from_secs(3), "stopping took {took:?}");
}

#[test]
fn drop_extension_ends_the_workers() {
    let mut scene = scene(&[("linger", "60s"), ("visibility_timeout", "600s")]);
    scene.send_good(5);
    scene.subscribe();
    scene
        .queue
        .expect_counts_within(ARRIVE_WITHIN, in_flight(5));
    let log = LogSince::now(&scene.cluster);

    let (took, dropped) = scene.admin.time("DROP EXTENSION user_logins_sqs");

    assert!(dropped.is_ok(), "{dropped:?}");
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    scene
        .admin
        .expect_workers_within(Duration::from_secs(10), 0);
    scene.queue.expect_released(5);
    assert_eq!(log.complaints(), Vec::<String>::new());

    reload(&mut scene.admin, "linger", "10ms");
    scene.admin.run("CREATE EXTENSION user_logins_sqs");
    scene.subscribe();
    scene.admin.expect_logins(5);
}

#[test]
fn another_database_can_be_dropped_at_once() {
    let mut scene = scene(&[]);
    scene.subscribe();
    let other = Database::bare(&scene.cluster);
    scene.admin.set("statement_timeout", "30s");

    let (took, dropped) = scene.admin.time(&format!("DROP DATABASE {}", other.name()));

    assert!(dropped.is_ok(), "{dropped:?}");
    assert!(took < Duration::from_secs(2), "it took {took:?}");
}

#[test]
fn the_database_of_the_subscriptions_can_be_dropped_by_force_and_recreated() {
    let cluster = preloading()
        .setting("user_logins_sqs.database", "ingest")
        .start();
    let mut maintenance = admin(&cluster);
    let sqs = ScriptedSqs::start();
    let queue = sqs.queue();
    let make = |maintenance: &mut Session| {
        maintenance.run("CREATE DATABASE ingest");
        let mut session = Database::existing(&cluster, "ingest").connect();
        session.run("CREATE EXTENSION user_logins_sqs");
        session.subscribe(&queue);
        maintenance.expect_workers_within(Duration::from_secs(15), 1);
        session
    };
    drop(make(&mut maintenance));

    let error = maintenance.error_of("DROP DATABASE ingest");
    assert_eq!(error.code().code(), "55006", "{error:?}");
    maintenance.set("statement_timeout", "30s");
    let (took, dropped) = maintenance.time("DROP DATABASE ingest WITH (FORCE)");
    assert!(dropped.is_ok(), "{dropped:?}");
    assert!(took < Duration::from_secs(3), "it took {took:?}");
    assert_eq!(maintenance.workers(), Vec::<i32>::new());

    let mut session = make(&mut maintenance);
    queue.send(&logins::good(3));
    session.expect_logins(3);
}

#[test]
fn a_launcher_without_its_database_waits_quietly() {
    let cluster = preloading()
        .setting("user_logins_sqs.database", "not_there_yet")
        .start();
    let log = LogSince::now(&cluster);

    let missing = "database \"not_there_yet\" for subscriptions does not exist";
    eventually(
        "it says what is missing",
        ARRIVE_WITHIN,
        || cluster.log().matches(missing).count(),
        |told| *told == 1,
    );
    let before = log.complaints().len();
    throughout(
        "it says no more",
        Duration::from_secs(12),
        || log.complaints(),
        |complaints| complaints.len() == before,
    );

    admin(&cluster).run("CREATE DATABASE not_there_yet");
    let mut session = Database::existing(&cluster, "not_there_yet").connect();
    session.run("CREATE EXTENSION user_logins_sqs");
    session.subscribe(&ScriptedSqs::start().queue());
    session.expect_workers_within(Duration::from_secs(20), 1);
}

#[test]
fn a_launcher_without_its_extension_waits_quietly() {
    let cluster = preloading().start();
    let log = LogSince::now(&cluster);
    let mut admin = admin(&cluster);
    eventually(
        "there is a launcher",
        ARRIVE_WITHIN,
        || admin.launcher(),
        Option::is_some,
    );

    throughout(
        "there are no complaints",
        Duration::from_secs(6),
        || log.complaints(),
        Vec::is_empty,
    );
    admin.run("CREATE EXTENSION user_logins_sqs");
    let queue = ScriptedSqs::start().queue();
    admin.subscribe(&queue);
    admin.expect_workers_within(PROMPTLY, 1);
}

#[test]
fn a_lock_on_the_ledger_does_not_stop_the_launcher() {
    let mut scene = scene(&[]);
    scene.subscribe();
    scene.admin.expect_workers_within(ARRIVE_WITHIN, 1);
    let mut other = admin(&scene.cluster);
    other.run("BEGIN; LOCK TABLE sqs_ledger IN SHARE MODE");
    let launcher = scene.admin.launcher().expect("a launcher");
    // A new one prunes at once.
    scene
        .admin
        .run(&format!("SELECT pg_terminate_backend({launcher})"));
    eventually(
        "there is another launcher",
        ARRIVE_WITHIN,
        || scene.admin.launcher(),
        |pid| pid.is_some_and(|pid| pid != launcher),
    );

    scene.admin.run("DELETE FROM sqs_subscription");

    scene.admin.expect_workers_within(PROMPTLY, 0);
}

#[test]
fn a_lack_of_worker_slots_is_logged_once() {
    let cluster = preloading().setting("max_worker_processes", "3").start();
    let mut admin = admin(&cluster);
    admin.run("CREATE EXTENSION user_logins_sqs");
    let sqs = ScriptedSqs::start();
    let queue = sqs.queue();
    let log = LogSince::now(&cluster);

    admin.run(&format!(
        "SELECT sqs_subscribe({}, 4)",
        literal(queue.url())
    ));
    log.expect_complaint_within(ARRIVE_WITHIN);
    log.expect_no_second_complaint(SEVERAL_TRIES);

    assert!(cluster.log().contains("max_worker_processes"));
    assert!(!admin.workers().is_empty(), "those that find a place run");
    admin.run(&format!(
        "SELECT sqs_subscribe({}, 1)",
        literal(queue.url())
    ));
    admin.expect_workers_within(PROMPTLY, 1);
}
