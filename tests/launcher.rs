//! The launcher looks before it starts a worker, shares the worker slots available, and says why a worker is missing.

use std::time::Duration;

use tests::cluster::Cluster;
use tests::database::{Database, Session, literal};
use tests::logins;
use tests::queue::{Counts, Queue};
use tests::scripted::ScriptedSqs;
use tests::wait::{eventually, throughout};
use tests::workers::{
    ARRIVE_WITHIN, DATABASE, LogSince, PROMPTLY, admin, preloading, site, site_of,
};

/// The launcher looks every five seconds even if nothing wakes it.
const LOOKED_WITHIN: Duration = Duration::from_secs(10);

const SEVERAL_LOOKS: Duration = Duration::from_secs(12);

fn subscribe(queue: &Queue, workers: usize) -> String {
    format!("SELECT sqs_subscribe({}, {workers})", literal(queue.url()))
}

/// What `sqs_stat` shows of a queue's workers: how many, their state, and why there are no more.
#[track_caller]
fn shown(session: &mut Session, queue: &Queue) -> (i64, Option<String>, Option<String>) {
    let rows = session.rows(&format!(
        "SELECT workers, state, reason FROM sqs_stat WHERE queue_url = {}",
        literal(queue.url())
    ));
    assert_eq!(rows.len(), 1, "a row of {queue:?}");
    let [workers, state, reason] = rows[0].clone().try_into().unwrap();
    (workers.unwrap().parse().unwrap(), state, reason)
}

#[track_caller]
fn expect_waiting(session: &mut Session, queue: &Queue, why: &str) {
    eventually(
        &format!("sqs_stat says: {why}"),
        LOOKED_WITHIN,
        || shown(session, queue),
        |(workers, state, reason)| {
            *workers == 0
                && state.as_deref() == Some("waiting")
                && reason.as_ref().is_some_and(|reason| reason.contains(why))
        },
    );
}

/// How many workers ingest from each queue.
fn workers_of(session: &mut Session, queues: &[&Queue]) -> Vec<i64> {
    queues.iter().map(|queue| shown(session, queue).0).collect()
}

#[track_caller]
fn expect_workers_of(session: &mut Session, queues: &[&Queue], expected: &[i64]) {
    eventually(
        &format!("the queues have {expected:?} workers"),
        LOOKED_WITHIN,
        || workers_of(session, queues),
        |seen| seen == expected,
    );
}

mod looks_first {
    use super::*;

    /// A server with a subscription of a role that is not a superuser.
    struct Scene {
        cluster: Cluster,
        admin: Session,
        queue: Queue,
        _sqs: ScriptedSqs,
    }

    fn scene() -> Scene {
        let cluster = site_of(
            preloading()
                .setting("user_logins_sqs.linger", "60s")
                .setting("user_logins_sqs.visibility_timeout", "600s"),
        );
        let mut admin = admin(&cluster);
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();
        admin.run(
            "CREATE ROLE ingester LOGIN; GRANT INSERT ON user_logins TO ingester;
             GRANT EXECUTE ON FUNCTION sqs_subscribe TO ingester",
        );
        Database::existing(&cluster, DATABASE)
            .connect_as("ingester")
            .subscribe(&queue);
        admin.expect_workers_within(PROMPTLY, 1);
        // The worker has connected.
        eventually(
            "the worker polls",
            ARRIVE_WITHIN,
            || sqs.calls_of("ReceiveMessage").len(),
            |calls| *calls > 0,
        );
        Scene {
            cluster,
            admin,
            queue,
            _sqs: sqs,
        }
    }

    impl Scene {
        /// Does `forbid`; then the launcher says why there is no worker, in `sqs_stat` and once in the log, and tries
        /// none; then does `allow`, and rows come in.
        #[track_caller]
        fn expect_waiting_between(&mut self, forbid: &str, why: &str, allow: &str) {
            let log = LogSince::now(&self.cluster);

            self.admin.run(forbid);

            expect_waiting(&mut self.admin, &self.queue, why);
            self.admin.expect_workers_within(PROMPTLY, 0);
            throughout(
                "no worker is tried",
                SEVERAL_LOOKS,
                || self.admin.workers(),
                Vec::is_empty,
            );
            let complaints = log.complaints();
            assert_eq!(complaints.len(), 1, "{complaints:#?}");
            assert!(complaints[0].contains(self.queue.url()), "{complaints:?}");
            assert!(complaints[0].contains(why), "{complaints:?}");

            self.admin.run(allow);

            self.admin.expect_workers_within(LOOKED_WITHIN, 1);
            self.admin
                .run("ALTER SYSTEM SET user_logins_sqs.linger = 0; ")
                .run("SELECT pg_reload_conf()");
            self.queue.send(&logins::good(3));
            self.admin.expect_logins(3);
            let (_, _, reason) = shown(&mut self.admin, &self.queue);
            assert_eq!(reason, None);
        }
    }

    #[test]
    fn a_role_that_has_lost_login_is_waited_for() {
        scene().expect_waiting_between(
            "ALTER ROLE ingester NOLOGIN",
            "role \"ingester\" is not permitted to log in",
            "ALTER ROLE ingester LOGIN",
        );
    }

    #[test]
    fn a_role_that_has_lost_connect_is_waited_for() {
        scene().expect_waiting_between(
            "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC",
            "role \"ingester\" does not have CONNECT privilege",
            "GRANT CONNECT ON DATABASE postgres TO ingester",
        );
    }

    #[test]
    fn the_worker_of_a_dropped_role_ends_and_releases() {
        let mut scene = scene();
        scene.admin.run("GRANT INSERT ON user_logins TO PUBLIC");
        scene.queue.send(&logins::good(5));
        let held = Counts {
            visible: 0,
            in_flight: 5,
        };
        scene.queue.expect_counts_within(ARRIVE_WITHIN, held);

        scene
            .admin
            .run("DROP OWNED BY ingester; DROP ROLE ingester");

        expect_waiting(&mut scene.admin, &scene.queue, "does not exist");
        scene.queue.expect_released(5);
        assert_eq!(scene.admin.logins(), 0);
        scene.admin.expect_workers_within(PROMPTLY, 0);
    }

    #[test]
    fn nothing_that_a_table_says_is_done_while_code_of_others_runs_on_it() {
        let mut scene = scene();
        scene.admin.run(
            "CREATE ROLE app LOGIN; GRANT ALL ON sqs_subscription TO app; GRANT CREATE ON SCHEMA public TO app;
             GRANT EXECUTE ON FUNCTION sqs_subscribe TO app; GRANT INSERT ON user_logins TO app",
        );
        let mut app = Database::existing(&scene.cluster, DATABASE).connect_as("app");
        app.run(
            "CREATE FUNCTION climb() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN NEW.role := 'postgres'; RETURN NEW; END $$;
             CREATE TRIGGER zz_climb BEFORE INSERT ON sqs_subscription FOR EACH ROW EXECUTE FUNCTION climb()",
        );
        let url = "http://127.0.0.1:9/000000000000/q";

        let error = app.error_of(&format!("SELECT sqs_subscribe('{url}')"));
        assert_eq!(error.code().code(), "55000", "{error:?}");
        assert!(error.message().contains("zz_climb"), "{error:?}");
        let error = app.error_of(&format!(
            "INSERT INTO sqs_subscription (queue_url, role) VALUES ('{url}', 'app')"
        ));
        assert_eq!(error.code().code(), "42501", "{error:?}");

        scene.expect_waiting_between(
            "SELECT 1",
            "trigger zz_climb on table public.sqs_subscription is not part of the extension",
            "DROP TRIGGER zz_climb ON sqs_subscription",
        );
    }

    #[test]
    fn nothing_that_a_table_says_is_done_while_its_rows_are_not_checked() {
        scene().expect_waiting_between(
            "ALTER TABLE sqs_subscription DISABLE TRIGGER check_role",
            "trigger check_role on table public.sqs_subscription is not enabled",
            "ALTER TABLE sqs_subscription ENABLE TRIGGER check_role",
        );
    }

    #[test]
    fn a_database_that_accepts_no_connections_is_waited_for() {
        let cluster = preloading()
            .setting("user_logins_sqs.database", "ingest")
            .start();
        let mut maintenance = admin(&cluster);
        maintenance.run("CREATE DATABASE ingest");
        let mut session = Database::existing(&cluster, "ingest").connect();
        session.run("CREATE EXTENSION user_logins_sqs");
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();
        session.subscribe(&queue);
        session.expect_workers_within(LOOKED_WITHIN, 1);
        eventually(
            "the worker polls",
            ARRIVE_WITHIN,
            || sqs.calls_of("ReceiveMessage").len(),
            |calls| *calls > 0,
        );
        let log = LogSince::now(&cluster);

        maintenance.run("ALTER DATABASE ingest ALLOW_CONNECTIONS false");

        expect_waiting(&mut session, &queue, "not currently accepting connections");
        let launcher = session.launcher().unwrap();
        session.run(&format!("SELECT pg_terminate_backend({launcher})"));
        eventually(
            "another launcher waits",
            LOOKED_WITHIN,
            || cluster.log().matches("for subscriptions is not").count(),
            |told| *told == 1,
        );
        let before = log.complaints().len();
        throughout(
            "nothing is tried",
            SEVERAL_LOOKS,
            || log.complaints().len(),
            |lines| *lines == before,
        );
        assert!(before <= 3, "{:#?}", log.complaints());

        maintenance.run("ALTER DATABASE ingest ALLOW_CONNECTIONS true");

        session.expect_workers_within(LOOKED_WITHIN, 1);
    }

    #[test]
    fn a_disabled_subscription_is_shown() {
        let mut scene = scene();

        scene
            .admin
            .run("UPDATE sqs_subscription SET enabled = false");

        let expected = (0, Some("disabled".to_owned()), None);
        eventually(
            "sqs_stat shows it",
            PROMPTLY,
            || shown(&mut scene.admin, &scene.queue),
            |seen| *seen == expected,
        );
        scene.admin.run("DELETE FROM sqs_subscription");
        eventually(
            "nothing is said of what is gone",
            PROMPTLY,
            || shown(&mut scene.admin, &scene.queue),
            |seen| *seen == (0, None, None),
        );
    }

    #[test]
    fn a_queue_that_is_subscribed_to_has_a_row_before_anything_comes() {
        let cluster = site();
        let mut admin = admin(&cluster);
        admin.run("ALTER SYSTEM SET user_logins_sqs.max_workers = 0; ");
        admin.run("SELECT pg_reload_conf()");
        let queue = ScriptedSqs::start().queue();
        admin.subscribe(&queue);
        // The server forgets what it counted.
        cluster.restart();
        let mut admin = tests::workers::admin(&cluster);

        eventually(
            "the queue has a row",
            LOOKED_WITHIN,
            || admin.rows("SELECT workers, state, reason FROM sqs_stat"),
            |rows| {
                let reason = "0 of 1 workers running: user_logins_sqs.max_workers is 0";
                *rows == [["0", "waiting", reason].map(|text| Some(text.to_owned()))]
            },
        );
    }
}

mod shares {
    use super::*;

    #[test]
    fn every_queue_gets_a_worker_before_any_gets_a_second() {
        let cluster = site_of(preloading().setting("user_logins_sqs.max_workers", "3"));
        let mut admin = admin(&cluster);
        let sqs = ScriptedSqs::start();
        let [greedy, second, third] = [sqs.queue(), sqs.queue(), sqs.queue()];
        let log = LogSince::now(&cluster);

        admin.run(&subscribe(&greedy, 32));
        expect_workers_of(&mut admin, &[&greedy], &[3]);
        admin.run(&subscribe(&second, 1));
        expect_workers_of(&mut admin, &[&greedy, &second], &[2, 1]);
        admin.run(&subscribe(&third, 2));
        let queues = [&greedy, &second, &third];
        expect_workers_of(&mut admin, &queues, &[1, 1, 1]);

        admin.expect_workers_within(PROMPTLY, 3);
        let (_, _, reason) = shown(&mut admin, &greedy);
        assert_eq!(
            reason.as_deref(),
            Some("1 of 32 workers running: user_logins_sqs.max_workers is 3")
        );
        assert_eq!(shown(&mut admin, &second).2, None);
        let complaints = log.complaints();
        assert_eq!(complaints.len(), 1, "{complaints:#?}");
        assert!(
            cluster
                .log()
                .contains("increase user_logins_sqs.max_workers")
        );

        admin.run("ALTER SYSTEM SET user_logins_sqs.max_workers = 5");
        admin.run("SELECT pg_reload_conf()");
        expect_workers_of(&mut admin, &queues, &[2, 1, 2]);
    }

    #[test]
    fn a_default_server_has_places_left_whatever_is_subscribed_to() {
        let cluster = site();
        let mut admin = admin(&cluster);
        let queue = ScriptedSqs::start().queue();

        admin.run(&subscribe(&queue, 32));

        expect_workers_of(&mut admin, &[&queue], &[5]);
        // A worker is counted a moment before pg_stat_activity shows it.
        admin.expect_workers_within(ARRIVE_WITHIN, 5);
        throughout(
            "no more are started",
            Duration::from_secs(3),
            || admin.workers().len(),
            |workers| *workers == 5,
        );
    }

    #[test]
    fn a_queue_without_a_worker_gets_the_place_of_another_ones_second() {
        // The launcher and Postgres' own launcher of logical replication have one each.
        let cluster = site_of(preloading().setting("max_worker_processes", "5"));
        let mut admin = admin(&cluster);
        let sqs = ScriptedSqs::start();
        let [greedy, second, third] = [sqs.queue(), sqs.queue(), sqs.queue()];

        admin.run(&subscribe(&greedy, 5));
        expect_workers_of(&mut admin, &[&greedy], &[3]);
        admin.run(&subscribe(&second, 1));
        admin.run(&subscribe(&third, 1));

        let queues = [&greedy, &second, &third];
        expect_workers_of(&mut admin, &queues, &[1, 1, 1]);
        throughout(
            "it stays so",
            SEVERAL_LOOKS,
            || workers_of(&mut admin, &queues),
            |workers| *workers == [1, 1, 1],
        );
        assert_eq!(
            shown(&mut admin, &greedy).2.as_deref(),
            Some("1 of 5 workers running: all of max_worker_processes are in use")
        );
    }
}

mod waits_for_nobody {
    use super::*;

    #[test]
    fn a_lock_on_the_subscriptions_holds_up_neither_vacuum_nor_workers() {
        let cluster = site();
        let mut admin = admin(&cluster);
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();
        admin.subscribe(&queue);
        admin.expect_workers_within(PROMPTLY, 1);
        let launcher = admin.launcher().unwrap();
        let mut locker = tests::workers::admin(&cluster);
        locker.run("BEGIN; LOCK TABLE sqs_subscription");
        let seen = format!(
            "SELECT (SELECT count(*) FROM pg_locks WHERE pid = {launcher} AND NOT granted),
                    (SELECT backend_xmin FROM pg_stat_activity
                     WHERE pid = {launcher} AND xact_start < clock_timestamp() - interval '500 ms')"
        );

        throughout(
            "the launcher holds no snapshot for long and waits for no lock",
            SEVERAL_LOOKS,
            || admin.rows(&seen),
            |rows| *rows == [[Some("0".to_owned()), None]],
        );
        queue.send(&logins::good(3));
        admin.expect_logins(3);

        locker.run("DELETE FROM sqs_subscription; COMMIT");
        admin.expect_workers_within(PROMPTLY, 0);
    }

    #[test]
    fn a_lock_on_a_catalog_is_not_waited_for_long() {
        let cluster = site();
        let mut admin = admin(&cluster);
        let launcher = admin.launcher().unwrap();
        let mut locker = tests::workers::admin(&cluster);
        let log = LogSince::now(&cluster);
        locker.run("BEGIN; LOCK TABLE pg_authid");
        let waits = format!(
            "SELECT count(*) FROM pg_locks WHERE pid = {launcher} AND NOT granted
             AND waitstart < clock_timestamp() - interval '1 second'"
        );

        throughout(
            "the launcher does not wait",
            SEVERAL_LOOKS,
            || admin.number(&waits),
            |waits| *waits == 0,
        );

        let complaints = log.complaints();
        assert_eq!(complaints.len(), 1, "told once: {complaints:#?}");
        locker.run("COMMIT");
        assert_eq!(admin.launcher(), Some(launcher));
        let queue = ScriptedSqs::start().queue();
        admin.subscribe(&queue);
        admin.expect_workers_within(PROMPTLY, 1);
    }

    #[test]
    fn the_database_of_the_subscriptions_can_be_renamed() {
        let cluster = preloading()
            .setting("user_logins_sqs.database", "ingest")
            .start();
        let mut maintenance = admin(&cluster);
        maintenance.run("CREATE DATABASE ingest");
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();
        let mut session = Database::existing(&cluster, "ingest").connect();
        session
            .run("CREATE EXTENSION user_logins_sqs")
            .subscribe(&queue);
        session.expect_workers_within(LOOKED_WITHIN, 1);
        drop(session);
        let log = LogSince::now(&cluster);

        maintenance.run("ALTER SYSTEM SET user_logins_sqs.database = 'logins'");
        maintenance.run("SELECT pg_reload_conf()");
        maintenance.run("ALTER DATABASE ingest RENAME TO logins");

        maintenance.expect_workers_within(LOOKED_WITHIN, 1);
        queue.send(&logins::good(3));
        Database::existing(&cluster, "logins")
            .connect()
            .expect_logins(3);
        let complaints = log.complaints();
        assert!(complaints.len() <= 1, "{complaints:#?}");
    }
}

mod extension {
    use super::*;

    #[test]
    fn old_workers_write_nothing_once_the_extension_is_dropped_and_recreated() {
        let cluster = site_of(preloading().setting("user_logins_sqs.batch_size", "2"));
        let mut admin = admin(&cluster);
        admin.run(
            "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END $$;
             CREATE TRIGGER slowly BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION slowly()",
        );
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();
        queue.send(&logins::good(500));
        admin.subscribe(&queue);
        eventually(
            "rows flow in",
            ARRIVE_WITHIN,
            || admin.logins(),
            |rows| *rows > 10,
        );

        admin
            .run("BEGIN; DROP EXTENSION user_logins_sqs; CREATE EXTENSION user_logins_sqs; COMMIT");
        let rows = admin.logins();

        admin.expect_workers_within(LOOKED_WITHIN, 0);
        assert_eq!(admin.logins(), rows);
        assert_eq!(admin.number("SELECT count(*) FROM sqs_ledger"), 0);
        queue.expect_released(500 - u64::try_from(rows).unwrap());
    }
}

mod configuration {
    use super::*;

    #[test]
    fn settings_of_sessions_disturb_neither_launcher_nor_workers() {
        let mut plan = preloading()
            .setting("default_transaction_isolation", "serializable")
            .setting("default_transaction_deferrable", "on")
            .setting("search_path", "nowhere")
            .setting("row_security", "off")
            .setting("client_min_messages", "error")
            .setting("check_function_bodies", "off");
        for timeout in [
            "statement_timeout",
            "lock_timeout",
            "idle_in_transaction_session_timeout",
            "idle_session_timeout",
            "tcp_user_timeout",
            "client_connection_check_interval",
            "deadlock_timeout",
        ] {
            plan = plan.setting(timeout, "1s");
        }
        let version = Cluster::shared().server_version();
        if version >= 17 {
            plan = plan.setting("transaction_timeout", "1s");
        }
        let cluster = plan.start();
        let unbothered = "-c statement_timeout=0 -c idle_session_timeout=0 -c transaction_timeout=0 \
                          -c idle_in_transaction_session_timeout=0 -c search_path=public";
        let unbothered = if version >= 17 {
            unbothered.to_owned()
        } else {
            unbothered.replace("-c transaction_timeout=0 ", "")
        };
        let connect = || {
            let mut config = Database::existing(&cluster, DATABASE).config();
            Session::open(config.options(&unbothered).clone())
        };
        let mut admin = connect();
        admin.run("CREATE EXTENSION user_logins_sqs");
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();
        admin.run(&format!(
            "SELECT public.sqs_subscribe({})",
            literal(queue.url())
        ));
        let worker = admin.expect_workers_within(PROMPTLY, 1);
        let launcher = admin.launcher();
        let log = LogSince::now(&cluster);
        let mut locker = connect();
        locker.run("BEGIN; LOCK TABLE user_logins");

        queue.send(&logins::good(20));
        throughout(
            "launcher and worker stay",
            Duration::from_secs(5),
            || (admin.launcher(), admin.workers()),
            |seen| *seen == (launcher, worker.clone()),
        );
        locker.run("COMMIT");

        admin.expect_logins(20);
        queue.expect_drained();
        assert_eq!(sqs.handed_out(&queue), 20);
        assert_eq!(
            admin.rows("SELECT errors, last_error FROM sqs_stat"),
            [[Some("0".to_owned()), None]]
        );
        assert_eq!(log.complaints(), Vec::<String>::new());
        assert_eq!(admin.workers(), worker);
    }
}
