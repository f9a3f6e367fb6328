//! A worker goes on: through faults of the queue, of the table, of single messages, and through what a DBA does to it.

use std::time::{Duration, Instant};

use tests::cluster::{Cluster, Stop};
use tests::database::{Database, Session, literal};
use tests::gate::Gate;
use tests::queue::{Counts, FifoMessage, Queue};
use tests::scripted::{Answer, ScriptedSqs};
use tests::wait::{eventually, throughout};
use tests::workers::{
    ARRIVE_WITHIN, DATABASE, LogSince, PROMPTLY, admin, preloading, site, site_of,
};
use tests::{localstack, logins};

const A_MOMENT: Duration = Duration::from_millis(1500);

/// Several retries of a batch, and several visibility timeouts of those tests that set a short one.
const SEVERAL_TRIES: Duration = Duration::from_secs(5);

/// Pauses between calls that fail are random, up to a minute; after some seconds of them 30 s can still be to come.
const RECOVERS_WITHIN: Duration = Duration::from_secs(70);

/// A server with one subscription, of a queue whose server a test can tell to misbehave.
struct Scene {
    admin: Session,
    queue: Queue,
    sqs: ScriptedSqs,
    cluster: Cluster,
}

/// `settings` are those of the extension, without their prefix.
fn scene(settings: &[(&str, &str)]) -> Scene {
    let cluster = site_with(settings);
    let sqs = ScriptedSqs::start();
    Scene {
        admin: admin(&cluster),
        queue: sqs.queue(),
        sqs,
        cluster,
    }
}

fn site_with(settings: &[(&str, &str)]) -> Cluster {
    let plan = settings.iter().fold(preloading(), |plan, (name, value)| {
        plan.setting(&format!("user_logins_sqs.{name}"), value)
    });
    site_of(plan)
}

impl Scene {
    fn subscribe(&mut self) -> i32 {
        self.admin.subscribe(&self.queue);
        self.admin.expect_workers_within(PROMPTLY, 1)[0]
    }

    fn send_good(&self, count: usize) {
        self.queue.send(&logins::good(count));
    }

    /// Every message was handed out once: nothing counts towards a redrive policy.
    #[track_caller]
    fn expect_handed_out_once(&self, messages: u64) {
        assert_eq!(self.sqs.handed_out(&self.queue), messages);
    }
}

fn reload(admin: &mut Session, name: &str, value: &str) {
    admin.run(&format!(
        "ALTER SYSTEM SET user_logins_sqs.{name} = {}",
        literal(value)
    ));
    admin.run("SELECT pg_reload_conf()");
}

fn in_flight(messages: u64) -> Counts {
    Counts {
        visible: 0,
        in_flight: messages,
    }
}

mod ended_and_started {
    use super::*;

    /// A machine busy with other tests may be late now and then: of this many workers the middle one counts.
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
            let waits =
                format!("SELECT count(*) FROM pg_locks WHERE pid = {worker} AND NOT granted");
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
    fn the_database_of_the_subscriptions_can_be_dropped_by_force_and_made_again() {
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

        let missing = "database \"not_there_yet\", where subscriptions live, does not exist";
        eventually(
            "it says what is missing",
            ARRIVE_WITHIN,
            || cluster.log().matches(missing).count(),
            |told| *told == 1,
        );
        let before = log.complaints().len();
        std::thread::sleep(Duration::from_secs(12));
        assert_eq!(log.complaints().len(), before, "{}", cluster.log());

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

        std::thread::sleep(Duration::from_secs(6));

        assert_eq!(log.complaints(), Vec::<String>::new());
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
    fn workers_that_find_no_place_are_told_of_once() {
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
        std::thread::sleep(SEVERAL_TRIES);

        let complaints = log.complaints();
        assert_eq!(complaints.len(), 1, "{complaints:#?}");
        assert!(cluster.log().contains("max_worker_processes"));
        assert!(!admin.workers().is_empty(), "those that find a place run");
        admin.run(&format!(
            "SELECT sqs_subscribe({}, 1)",
            literal(queue.url())
        ));
        admin.expect_workers_within(PROMPTLY, 1);
    }
}

mod told_of_settings {
    use super::*;

    #[test]
    fn a_reload_counts_for_the_next_message_of_a_quiet_queue() {
        let mut scene = scene(&[("visibility_timeout", "600s")]);
        scene.subscribe();
        eventually(
            "the worker polls",
            ARRIVE_WITHIN,
            || scene.sqs.calls_of("ReceiveMessage").len(),
            |calls| *calls > 0,
        );

        reload(&mut scene.admin, "rejected_messages", "delete");
        std::thread::sleep(A_MOMENT);
        scene.queue.send(&["not a login".to_owned()]);

        scene.queue.expect_drained();
        assert_eq!(scene.admin.rejections().len(), 1);
        scene.expect_handed_out_once(1);
    }

    #[test]
    fn linger_is_how_long_a_message_waits_for_others() {
        let mut scene = scene(&[("linger", "60s"), ("visibility_timeout", "600s")]);
        scene.send_good(5);
        scene.subscribe();
        scene
            .queue
            .expect_counts_within(ARRIVE_WITHIN, in_flight(5));
        throughout(
            "no rows",
            A_MOMENT,
            || scene.admin.logins(),
            |rows| *rows == 0,
        );

        reload(&mut scene.admin, "linger", "0");

        scene.admin.expect_logins_within(PROMPTLY, 5);
        let begun = Instant::now();
        scene.queue.send(&[logins::login("late").to_string()]);
        scene.admin.expect_logins_within(PROMPTLY, 6);
        println!("arrived after {:?}", begun.elapsed());
    }

    #[test]
    fn batch_size_is_how_much_a_transaction_holds() {
        let mut scene = scene(&[("linger", "60s"), ("visibility_timeout", "600s")]);
        scene.subscribe();
        let transactions = "SELECT count(DISTINCT xmin::text) FROM user_logins";

        reload(&mut scene.admin, "batch_size", "100");
        std::thread::sleep(A_MOMENT);
        scene.send_good(100);
        scene.admin.expect_logins(100);
        assert_eq!(scene.admin.number(transactions), 1);

        scene.admin.run("TRUNCATE user_logins");
        reload(&mut scene.admin, "batch_size", "10");
        std::thread::sleep(A_MOMENT);
        scene.send_good(100);
        scene.admin.expect_logins(100);
        assert_eq!(scene.admin.number(transactions), 10);
    }

    const SLOWLY: &str = "
        CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$;
        CREATE TRIGGER slowly BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION slowly()";

    #[test]
    fn a_reload_gives_nothing_back_to_the_queue() {
        let mut scene = scene(&[("batch_size", "10"), ("visibility_timeout", "600s")]);
        scene.admin.run(SLOWLY);
        scene.send_good(400);
        scene.subscribe();

        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(300));
            scene.admin.run("SELECT pg_reload_conf()");
        }

        scene.admin.expect_logins(400);
        scene.expect_handed_out_once(400);
    }

    #[test]
    fn a_changed_setting_costs_no_receive() {
        let mut scene = scene(&[("batch_size", "10"), ("visibility_timeout", "600s")]);
        scene.admin.run(SLOWLY);
        // Polls are under way at each change, and answers that nobody has taken yet.
        scene.sqs.always(
            "ReceiveMessage",
            Answer::ServeAfter(Duration::from_millis(100)),
        );
        scene.send_good(1_000);
        let worker = scene.subscribe();

        for (name, value) in [
            ("visibility_timeout", "500s"),
            ("receive_concurrency", "3"),
            ("region", "eu-west-1"),
            ("endpoint_url", scene.sqs.endpoint()),
            ("app_version_encoding", "sortable"),
            ("receive_concurrency", "20"),
            ("endpoint_url", ""),
        ] {
            std::thread::sleep(Duration::from_millis(400));
            reload(&mut scene.admin, name, value);
        }

        scene.admin.expect_logins_within(ARRIVE_WITHIN * 2, 1_000);
        scene.queue.expect_drained();
        scene.expect_handed_out_once(1_000);
        assert_eq!(scene.admin.workers(), [worker]);
    }

    #[test]
    fn what_is_received_after_a_reload_is_decoded_as_it_says() {
        let mut scene = scene(&[]);
        scene.subscribe();
        eventually(
            "the worker polls",
            ARRIVE_WITHIN,
            || scene.sqs.calls_of("ReceiveMessage").len(),
            |calls| *calls > 0,
        );

        // The poll that brings the message was sent before.
        reload(&mut scene.admin, "app_version_encoding", "sortable");
        std::thread::sleep(A_MOMENT);
        scene
            .queue
            .send(&[logins::login_with("user", "app_version", "2.3.0")]);

        scene.admin.expect_logins(1);
        assert_eq!(
            scene.admin.number("SELECT app_version FROM user_logins"),
            2_003_000
        );
    }

    #[test]
    fn a_queue_that_is_not_allowed_any_more_is_left_alone_until_it_is() {
        let mut scene = scene(&[("batch_size", "10"), ("visibility_timeout", "600s")]);
        scene.admin.run(SLOWLY);
        scene.send_good(200);
        let worker = scene.subscribe();
        scene.admin.expect_logins(10);
        let log = LogSince::now(&scene.cluster);

        reload(&mut scene.admin, "allowed_queues", "https://*");
        let complaint = log.expect_complaint_within(ARRIVE_WITHIN);
        assert!(complaint.contains("is not allowed"), "{complaint}");
        eventually(
            "what was received is written",
            ARRIVE_WITHIN,
            || {
                let counts = scene.queue.counts();
                (counts.in_flight, scene.sqs.handed_out(&scene.queue))
            },
            |(in_flight, _)| *in_flight == 0,
        );
        let polls = scene.sqs.calls_of("ReceiveMessage").len();
        scene.send_good(5);
        std::thread::sleep(SEVERAL_TRIES);
        assert_eq!(scene.sqs.calls_of("ReceiveMessage").len(), polls);
        assert_eq!(
            scene.admin.text("SELECT state FROM sqs_stat"),
            Some("retrying".to_owned())
        );

        reload(&mut scene.admin, "allowed_queues", "");

        scene.admin.expect_logins(205);
        scene.expect_handed_out_once(205);
        assert_eq!(scene.admin.workers(), [worker]);
        assert_eq!(log.complaints().len(), 1, "{:#?}", log.complaints());
    }
}

mod roles {
    use super::*;

    fn subscribed_as(scene: &mut Scene, role: &str) -> i32 {
        scene.admin.run(&format!(
            "CREATE ROLE {role} LOGIN; GRANT INSERT ON user_logins TO {role};
             GRANT EXECUTE ON FUNCTION sqs_subscribe TO {role}"
        ));
        Database::existing(&scene.cluster, DATABASE)
            .connect_as(role)
            .subscribe(&scene.queue);
        scene.admin.expect_workers_within(PROMPTLY, 1)[0]
    }

    #[test]
    fn a_renamed_role_goes_on() {
        let mut scene = scene(&[]);
        let worker = subscribed_as(&mut scene, "before");
        // While it starts, a process looks its role up by name.
        scene.send_good(1);
        scene.admin.expect_logins(1);

        scene.admin.run("ALTER ROLE before RENAME TO after");
        scene.send_good(3);

        scene.admin.expect_logins(4);
        assert_eq!(scene.admin.workers(), [worker]);
        assert_eq!(
            scene.admin.text("SELECT role FROM sqs_subscription"),
            Some("after".to_owned())
        );
        scene
            .admin
            .run(&format!("SELECT pg_terminate_backend({worker})"));
        scene.admin.expect_successor_within(ARRIVE_WITHIN, worker);
    }

    #[test]
    fn a_role_that_loses_its_rights_loses_no_message() {
        let mut scene = scene(&[("visibility_timeout", "2s")]);
        subscribed_as(&mut scene, "ingester");
        scene
            .admin
            .run("REVOKE INSERT ON user_logins FROM ingester");
        let log = LogSince::now(&scene.cluster);

        scene.send_good(5);
        log.expect_complaint_within(ARRIVE_WITHIN);
        std::thread::sleep(SEVERAL_TRIES);

        let complaints = log.complaints();
        assert_eq!(complaints.len(), 1, "{complaints:#?}");
        scene.admin.run("GRANT INSERT ON user_logins TO ingester");
        scene.admin.expect_logins(5);
        scene.expect_handed_out_once(5);
    }
}

mod ledger {
    use super::*;

    #[test]
    fn days_older_than_their_retention_are_pruned() {
        let mut scene = scene(&[("ledger_retention", "10d")]);
        scene.admin.run(
            "INSERT INTO sqs_ledger SELECT now() - days * interval '1 day', gen_random_uuid()
             FROM generate_series(1, 20) AS days, generate_series(1, 200);
             INSERT INTO sqs_rejected (queue_url, message_id, reason, sqlstate, times_seen, first_seen, last_seen)
             SELECT 'q', id, 'r', '22023', 1, seen, seen
             FROM (VALUES ('old', now() - interval '20 days'), ('new', now())) AS v (id, seen)",
        );

        // The launcher's first round is that of its start.
        scene.cluster.restart();
        scene.admin = admin(&scene.cluster);

        eventually(
            "the old entries go",
            ARRIVE_WITHIN,
            || scene.admin.number("SELECT count(*) FROM sqs_ledger"),
            |count| *count <= 10 * 200,
        );
        let rows = scene
            .admin
            .rows("SELECT count(*), max(now() - sent_at) < interval '11 days' FROM sqs_ledger");
        assert_eq!(rows, [[Some("2000".to_owned()), Some("t".to_owned())]]);
        let left = scene.admin.rows("SELECT message_id FROM sqs_rejected");
        assert_eq!(left, [[Some("new".to_owned())]]);
    }

    #[test]
    fn entries_can_be_pruned_by_hand() {
        let database = Database::shared();
        let mut session = database.connect();
        session.run(
            "INSERT INTO sqs_ledger SELECT now() - days * interval '1 day', gen_random_uuid()
             FROM generate_series(1, 30) AS days",
        );

        assert_eq!(session.number("SELECT sqs_prune()"), 15);
        assert_eq!(session.number("SELECT sqs_prune()"), 0);

        assert_eq!(session.number("SELECT count(*) FROM sqs_ledger"), 15);
        for (call, sqlstate) in [("sqs_prune(0)", "22023"), ("sqs_prune(NULL)", "22004")] {
            let error = session.error_of(&format!("SELECT {call}"));
            assert_eq!(error.code().code(), sqlstate, "{call}: {error:?}");
        }
    }
}

mod table {
    use super::*;

    const MAKE: &str = "CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), \
        masked_ip varchar(256), masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)";

    #[test]
    fn dropped_and_made_again_costs_one_line_and_no_message() {
        let mut scene = scene(&[("visibility_timeout", "2s")]);
        scene.subscribe();
        scene.admin.expect_workers_within(PROMPTLY, 1);
        std::thread::sleep(A_MOMENT);
        let log = LogSince::now(&scene.cluster);
        scene.admin.run("DROP TABLE user_logins");

        scene.send_good(5);
        log.expect_complaint_within(ARRIVE_WITHIN);
        std::thread::sleep(SEVERAL_TRIES);
        scene.send_good(5);
        std::thread::sleep(SEVERAL_TRIES);

        let complaints = log.complaints();
        assert_eq!(complaints.len(), 1, "{complaints:#?}");
        scene.admin.run(MAKE);
        scene.admin.expect_logins(10);
        scene.expect_handed_out_once(10);
        scene.queue.expect_drained();
        assert_eq!(scene.admin.rejections(), []);
    }

    #[test]
    fn dropped_and_made_again_sends_nothing_to_the_dead_letters() {
        let cluster = site_with(&[("visibility_timeout", "2s")]);
        let mut admin = admin(&cluster);
        let (queue, dead) = localstack::queue_with_dead_letters(2);
        admin.subscribe(&queue);
        admin.run("DROP TABLE user_logins");

        queue.send(&logins::good(20));
        std::thread::sleep(SEVERAL_TRIES * 2);

        admin.run(MAKE);
        admin.expect_logins(20);
        queue.expect_drained();
        assert_eq!(dead.counts().visible, 0);
    }

    #[test]
    fn while_it_is_missing_a_new_worker_receives_nothing() {
        let mut scene = scene(&[]);
        scene.send_good(5);
        scene.admin.subscribe(&scene.queue);
        scene.admin.expect_logins(5);
        let worker = scene.admin.workers()[0];
        scene.admin.run("DROP TABLE user_logins");
        scene
            .admin
            .run(&format!("SELECT pg_terminate_backend({worker})"));
        scene.admin.expect_successor_within(ARRIVE_WITHIN, worker);
        std::thread::sleep(A_MOMENT);

        scene.send_good(5);

        scene.queue.expect_counts_stay(
            SEVERAL_TRIES,
            Counts {
                visible: 5,
                in_flight: 0,
            },
        );
        scene.admin.run(MAKE);
        scene.admin.expect_logins(5);
    }

    #[test]
    fn that_refuses_everything_pauses_the_worker() {
        let cluster = site_with(&[("visibility_timeout", "2s")]);
        let mut admin = admin(&cluster);
        let (queue, dead) = localstack::queue_with_dead_letters(2);
        admin.subscribe(&queue);
        admin.run("ALTER TABLE user_logins ADD CONSTRAINT nothing CHECK (user_id IS NULL)");

        queue.send(&logins::good(50));
        std::thread::sleep(SEVERAL_TRIES * 2);

        assert_eq!(admin.logins(), 0);
        assert_eq!(dead.counts().visible, 0);
        admin.run("ALTER TABLE user_logins DROP CONSTRAINT nothing");
        admin.expect_logins(50);
        queue.expect_drained();
        assert_eq!(dead.counts().visible, 0);
    }

    #[test]
    fn that_refuses_messages_that_come_one_by_one_pauses_the_worker_too() {
        let mut scene = scene(&[("visibility_timeout", "3s")]);
        scene.subscribe();
        scene
            .admin
            .run("ALTER TABLE user_logins ADD CONSTRAINT nothing CHECK (user_id IS NULL)");

        for number in 1..=20 {
            scene
                .queue
                .send(&[logins::login(&format!("user-{number}")).to_string()]);
            std::thread::sleep(Duration::from_millis(100));
        }

        std::thread::sleep(A_MOMENT);
        let refused = scene.admin.rejections().len();
        assert!(refused < 10, "{refused} of 20 were rejected");
        scene
            .admin
            .run("ALTER TABLE user_logins DROP CONSTRAINT nothing");
        scene.admin.expect_logins(20);
    }

    #[test]
    fn that_goes_on_refusing_costs_one_line() {
        let mut scene = scene(&[("visibility_timeout", "600s")]);
        scene.subscribe();
        scene
            .admin
            .run("ALTER TABLE user_logins ADD CONSTRAINT nothing CHECK (user_id IS NULL)");
        let log = LogSince::now(&scene.cluster);

        for _ in 0..3 {
            // One request, so that they come together: fewer would each be rejected.
            scene.send_good(10);
            std::thread::sleep(SEVERAL_TRIES / 2);
        }

        let complaints = log.complaints();
        assert_eq!(complaints.len(), 1, "{complaints:#?}");
        scene
            .admin
            .run("ALTER TABLE user_logins DROP CONSTRAINT nothing");
        scene.admin.expect_logins(30);
        scene.expect_handed_out_once(30);
        let told = |what: &str| scene.cluster.log().matches(what).count();
        eventually(
            "the end is told",
            PROMPTLY,
            || told("resumed"),
            |lines| *lines == 1,
        );
    }

    #[test]
    fn locked_for_a_while_is_waited_for() {
        let mut scene = scene(&[("visibility_timeout", "2s")]);
        scene.subscribe();
        let mut other = admin(&scene.cluster);
        other.run("BEGIN; LOCK TABLE user_logins");

        scene.send_good(5);
        std::thread::sleep(SEVERAL_TRIES);
        other.run("COMMIT");

        scene.admin.expect_logins(5);
        scene.expect_handed_out_once(5);
    }

    #[test]
    fn a_passing_fault_of_the_server_costs_no_message() {
        let mut scene = scene(&[("visibility_timeout", "2s")]);
        scene.admin.run(
            "CREATE TABLE fault AS SELECT true AS present;
             CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF (SELECT present FROM fault) THEN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END IF;
               RETURN NEW;
             END $$;
             CREATE TRIGGER fail BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION fail()",
        );
        scene.subscribe();
        let log = LogSince::now(&scene.cluster);

        scene.send_good(5);
        let complaint = log.expect_complaint_within(ARRIVE_WITHIN);
        std::thread::sleep(SEVERAL_TRIES);

        assert!(complaint.contains("no space left"), "{complaint}");
        assert_eq!(log.complaints().len(), 1, "{:#?}", log.complaints());
        scene.admin.run("UPDATE fault SET present = false");
        scene.admin.expect_logins(5);
        scene.expect_handed_out_once(5);
        assert_eq!(scene.admin.rejections(), []);
    }
}

mod bad_messages {
    use super::*;

    #[test]
    fn one_among_good_ones_costs_one() {
        let mut scene = scene(&[("rejected_messages", "delete"), ("linger", "300ms")]);
        scene
            .admin
            .run("ALTER TABLE user_logins ADD CONSTRAINT not_this CHECK (user_id <> 'refused')");
        scene.subscribe();
        let mut bodies = logins::good(40);
        bodies.insert(7, "not a login".to_owned());
        bodies.insert(23, logins::login("refused").to_string());

        scene.queue.send(&bodies);

        scene.admin.expect_logins(40);
        // What is no login is deleted; a login that the table refused stays.
        scene
            .queue
            .expect_counts_within(ARRIVE_WITHIN, in_flight(1));
        let mut states: Vec<String> = scene
            .admin
            .rejections()
            .into_iter()
            .map(|rejection| rejection.sqlstate)
            .collect();
        states.sort();
        assert_eq!(states, ["22032", "23514"]);
        scene.expect_handed_out_once(42);
    }

    #[test]
    fn a_left_one_stays_hidden_for_its_visibility_timeout() {
        let mut scene = scene(&[("visibility_timeout", "20s")]);
        scene.subscribe();
        std::thread::sleep(A_MOMENT);

        scene.queue.send(&["not a login".to_owned()]);
        eventually(
            "it is rejected",
            ARRIVE_WITHIN,
            || scene.admin.rejections().len(),
            |count| *count == 1,
        );

        scene
            .queue
            .expect_counts_stay(Duration::from_secs(8), in_flight(1));
        scene.expect_handed_out_once(1);
    }

    #[test]
    fn left_ones_reach_the_dead_letters_and_only_they() {
        let cluster = site_with(&[("visibility_timeout", "1s")]);
        let mut admin = admin(&cluster);
        let (queue, dead) = localstack::queue_with_dead_letters(2);
        let mut bodies = logins::good(10);
        bodies.push("not a login".to_owned());
        admin.subscribe(&queue);

        queue.send(&bodies);

        admin.expect_logins(10);
        dead.expect_counts_within(
            ARRIVE_WITHIN,
            Counts {
                visible: 1,
                in_flight: 0,
            },
        );
        queue.expect_drained();
        assert_eq!(admin.logins(), 10);
    }

    #[test]
    fn many_behind_a_good_one_do_not_hold_it_up() {
        let mut scene = scene(&[("rejected_messages", "delete")]);
        scene
            .admin
            .run("ALTER TABLE user_logins ADD CONSTRAINT good CHECK (user_id NOT LIKE 'bad%')");
        let good = [logins::login("good").to_string()];
        let bad = (0..15).map(|number| logins::login(&format!("bad-{number}")).to_string());
        let bodies: Vec<String> = good.into_iter().chain(bad).collect();
        for chunk in bodies.chunks(10) {
            scene.queue.send(chunk);
        }

        scene.subscribe();

        scene.admin.expect_logins_within(Duration::from_secs(5), 1);
    }

    #[test]
    fn a_deferred_constraint_is_broken_by_one() {
        let mut scene = scene(&[("rejected_messages", "delete"), ("linger", "300ms")]);
        scene.admin.run(
            "ALTER TABLE user_logins ADD CONSTRAINT once UNIQUE (user_id) DEFERRABLE INITIALLY DEFERRED;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.user_id = 'refused' THEN RAISE EXCEPTION 'too late'; END IF;
               RETURN NEW;
             END $$;
             CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON user_logins
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
        );
        scene.subscribe();
        let mut bodies = logins::good(10);
        bodies.insert(3, logins::login("refused").to_string());
        bodies.insert(5, logins::login("user-1").to_string());

        scene.queue.send(&bodies);

        scene.admin.expect_logins(10);
        scene
            .queue
            .expect_counts_within(ARRIVE_WITHIN, in_flight(2));
        let mut states: Vec<String> = scene
            .admin
            .rejections()
            .into_iter()
            .map(|rejection| rejection.sqlstate)
            .collect();
        states.sort();
        assert_eq!(states, ["23505", "P0001"]);
    }
}

mod queue_faults {
    use super::*;

    #[test]
    fn a_queue_that_is_made_later_is_found() {
        let cluster = site();
        let mut admin = admin(&cluster);
        let name = tests::run::unique_name("later");
        let queue = Queue::existing(localstack::endpoint(), &name);
        let log = LogSince::now(&cluster);

        admin.subscribe(&queue);
        let complaint = log.expect_complaint_within(ARRIVE_WITHIN);
        std::thread::sleep(SEVERAL_TRIES);

        assert!(complaint.contains("does not exist"), "{complaint}");
        assert_eq!(log.complaints().len(), 1, "{:#?}", log.complaints());
        let context = format!("CONTEXT:  ingesting from queue \"{}\"", queue.url());
        assert!(cluster.log().contains(&context), "{}", cluster.log());
        Queue::create(localstack::endpoint(), &name, &[]);
        queue.send(&logins::good(3));
        admin.expect_logins_within(RECOVERS_WITHIN, 3);
    }

    #[test]
    fn a_server_that_is_not_there_yet_is_waited_for() {
        let cluster = site();
        let mut admin = admin(&cluster);
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();
        let gate = Gate::to(sqs.endpoint());
        gate.cut();
        let log = LogSince::now(&cluster);

        admin.subscribe(&gate.queue(&queue));
        let complaint = log.expect_complaint_within(ARRIVE_WITHIN);
        std::thread::sleep(SEVERAL_TRIES);

        assert!(complaint.contains("could not reach"), "{complaint}");
        assert_eq!(log.complaints().len(), 1, "{:#?}", log.complaints());
        gate.open();
        queue.send(&logins::good(3));
        admin.expect_logins_within(RECOVERS_WITHIN, 3);
        queue.expect_drained();
    }

    #[test]
    fn a_server_that_comes_and_goes_is_told_of_each_time() {
        let cluster = site();
        let mut admin = admin(&cluster);
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();
        let gate = Gate::to(sqs.endpoint());
        admin.subscribe(&gate.queue(&queue));
        admin.expect_workers_within(PROMPTLY, 1);

        for round in 1..=2 {
            let polls = || sqs.calls_of("ReceiveMessage").len();
            let before = polls();
            eventually("the worker polls", ARRIVE_WITHIN, polls, |count| {
                *count > before
            });
            let log = LogSince::now(&cluster);
            gate.cut();
            log.expect_complaint_within(ARRIVE_WITHIN);
            gate.open();
            eventually(
                "the log says that it works again",
                ARRIVE_WITHIN,
                || cluster.log().matches("resumed").count(),
                |count| *count == round,
            );
        }
        queue.send(&logins::good(3));
        admin.expect_logins(3);
    }

    #[test]
    fn an_outage_is_not_over_because_what_came_before_it_is_written() {
        let cluster = site_with(&[("batch_size", "30"), ("visibility_timeout", "600s")]);
        let mut admin = admin(&cluster);
        admin.run(
            "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END $$;
             CREATE TRIGGER slowly BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION slowly()",
        );
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();
        let gate = Gate::to(sqs.endpoint());
        // The last batch is not full: the news of the outage comes while it is gathered.
        queue.send(&logins::good(200));
        admin.subscribe(&gate.queue(&queue));
        eventually(
            "all are received",
            ARRIVE_WITHIN,
            || sqs.handed_out(&queue),
            |count| *count == 200,
        );
        // They are on their way through the gate.
        std::thread::sleep(Duration::from_millis(500));
        let log = LogSince::now(&cluster);

        gate.cut();
        log.expect_complaint_within(ARRIVE_WITHIN);
        admin.expect_logins(200);
        std::thread::sleep(A_MOMENT);

        // The connections that were open broke, new ones are refused.
        let complaints = log.complaints();
        assert!(complaints.len() <= 2, "{complaints:#?}");
        assert_eq!(cluster.log().matches("resumed").count(), 0);
        assert_eq!(
            admin.text("SELECT state FROM sqs_stat"),
            Some("retrying".to_owned())
        );
        gate.open();
        eventually(
            "the log says that it works again",
            RECOVERS_WITHIN,
            || cluster.log().matches("resumed").count(),
            |count| *count == 1,
        );
    }

    #[test]
    fn a_server_that_fails_is_asked_ever_more_rarely() {
        let mut scene = scene(&[]);
        let refusal = Answer::Refuse {
            status: 500,
            code: "InternalError",
        };
        scene.sqs.always("ReceiveMessage", refusal);
        let log = LogSince::now(&scene.cluster);
        scene.admin.subscribe(&scene.queue);

        std::thread::sleep(Duration::from_secs(10));

        let calls = scene.sqs.calls_of("ReceiveMessage").len();
        assert!((3..=25).contains(&calls), "{calls} calls");
        assert_eq!(log.complaints().len(), 1, "{:#?}", log.complaints());
        scene.sqs.behave();
        scene.send_good(3);
        scene.admin.expect_logins_within(RECOVERS_WITHIN, 3);
    }

    #[test]
    fn messages_whose_delete_failed_make_no_second_row() {
        let mut scene = scene(&[("visibility_timeout", "1s")]);
        let refusal = Answer::Refuse {
            status: 403,
            code: "AccessDenied",
        };
        scene.sqs.always("DeleteMessageBatch", refusal);
        scene.subscribe();
        scene.send_good(10);
        scene.admin.expect_logins(10);
        std::thread::sleep(SEVERAL_TRIES);

        scene.sqs.behave();

        scene.queue.expect_drained();
        assert_eq!(scene.admin.logins(), 10);
    }
}

mod order {
    use super::*;

    /// A FIFO queue, and a `user_logins` that shows the order of its rows.
    fn fifo_scene(settings: &[(&str, &str)]) -> (Cluster, Session, Queue) {
        let cluster = site_with(settings);
        let mut admin = admin(&cluster);
        admin.run("ALTER TABLE user_logins ADD place bigserial");
        (cluster, admin, localstack::fifo_queue())
    }

    fn message(user: &str, body: String) -> FifoMessage {
        FifoMessage {
            group: user.split('-').next().unwrap().to_owned(),
            body,
        }
    }

    fn good(user: &str) -> FifoMessage {
        message(user, logins::login(user).to_string())
    }

    fn arrived(admin: &mut Session, group: &str) -> Vec<String> {
        let rows = admin.rows(&format!(
            "SELECT user_id FROM user_logins WHERE user_id LIKE '{group}-%' ORDER BY place"
        ));
        rows.into_iter().flatten().flatten().collect()
    }

    #[test]
    fn of_a_group_is_kept_across_batches_and_workers() {
        let (_cluster, mut admin, queue) = fifo_scene(&[("batch_size", "3")]);
        let users = |group: &str| -> Vec<String> {
            (1..=40).map(|number| format!("{group}-{number}")).collect()
        };
        let groups = ["a", "b"].map(users);
        let messages: Vec<_> = (0..40)
            .flat_map(|at| groups.iter().map(move |users| good(&users[at])))
            .collect();
        queue.send_in_order(&messages);

        admin.run(&format!(
            "SELECT sqs_subscribe({}, 2)",
            literal(queue.url())
        ));

        admin.expect_logins_within(ARRIVE_WITHIN * 2, 80);
        for (group, users) in ["a", "b"].iter().zip(&groups) {
            assert_eq!(arrived(&mut admin, group), *users);
        }
        queue.expect_drained();
    }

    #[test]
    fn of_a_group_waits_for_its_bad_message_through_a_failed_batch() {
        let (_cluster, mut admin, queue) =
            fifo_scene(&[("batch_size", "2"), ("visibility_timeout", "20s")]);
        admin.run(
            "CREATE TABLE fault AS SELECT true AS present;
             CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.user_id = 'b-1' AND (SELECT present FROM fault)
               THEN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END IF;
               RETURN NEW;
             END $$;
             CREATE TRIGGER fail BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION fail()",
        );
        // The first batch blocks group a, the second holds what has to wait for that, and fails.
        queue.send_in_order(&[
            good("a-1"),
            message("a-2", "not a login".to_owned()),
            good("a-3"),
            good("b-1"),
        ]);
        admin.subscribe(&queue);
        admin.expect_logins(1);
        std::thread::sleep(A_MOMENT);
        admin.run("UPDATE fault SET present = false");

        eventually(
            "the second batch is written",
            ARRIVE_WITHIN,
            || arrived(&mut admin, "b"),
            |users| users.len() == 1,
        );
        assert_eq!(arrived(&mut admin, "a"), ["a-1"]);
    }

    #[test]
    fn of_a_group_does_not_have_its_bad_message_received_over_and_over() {
        let (_cluster, mut admin, queue) = fifo_scene(&[("visibility_timeout", "30s")]);
        admin.subscribe(&queue);
        admin.expect_workers_within(PROMPTLY, 1);
        std::thread::sleep(A_MOMENT);

        queue.send_in_order(&[message("a-1", "not a login".to_owned()), good("a-2")]);
        std::thread::sleep(Duration::from_secs(8));

        let received = admin.number("SELECT received FROM sqs_stat");
        assert!(received <= 2, "{received} received of two messages sent");
    }
}

mod quiet {
    use super::*;

    const LOOK_FOR: Duration = Duration::from_secs(10);

    /// Processor time that the launcher and a worker may take together on a busy machine.
    const LITTLE: Duration = Duration::from_millis(300);

    #[test]
    fn costs_no_processor_and_one_poll_at_a_time() {
        let mut scene = scene(&[]);
        let worker = scene.subscribe();
        let launcher = scene.admin.launcher().unwrap();
        // So many that several polls are under way at once.
        scene.send_good(500);
        scene.admin.expect_logins(500);
        scene.queue.expect_drained();
        let at_once = most_at_once(&scene);
        assert!(at_once > 1, "under load: {at_once} polls at once");
        // Those polls end by themselves.
        std::thread::sleep(Duration::from_secs(3));

        let used = || processor_time(worker) + processor_time(launcher);
        let (before, from) = (used(), Instant::now());
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
        // One after the other they cannot wait for longer than the time that has passed, but for the last one.
        let longest = waits.iter().max().copied().unwrap_or_default();
        assert!(longest >= 1, "a long poll");
        assert!(
            waits.iter().sum::<u64>() <= LOOK_FOR.as_secs() + 1 + longest,
            "waits of {waits:?} s"
        );
    }

    #[test]
    fn leaves_postgres_nothing_uncounted() {
        let mut scene = scene(&[]);
        scene.subscribe();
        // Postgres takes the counters of a process once a second unless it insists.
        for batch in 1..=5 {
            scene.send_good(3);
            scene.admin.expect_logins(3 * batch);
        }

        eventually(
            "autovacuum knows of every row",
            PROMPTLY,
            || {
                scene.admin.number(
                    "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'user_logins'",
                )
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
}
