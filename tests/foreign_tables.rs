//! `user_logins` and ledger on another server, by postgres_fdw, which commits there before Postgres commits here.
//! Ingestion is exact where both are reached over one connection; anything else is refused unless a setting allows it.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use tests::check_report::Report;
use tests::cluster::{Cluster, Stop};
use tests::database::{Database, Session};
use tests::logins;
use tests::queue::{Counts, Queue};
use tests::scripted::{Answer, ScriptedSqs};
use tests::vault::KeyPair;

/// What makes the ledger somebody else's to replace.
const FORGET_LEDGER: &str = "DO $$ DECLARE part regclass; BEGIN
       FOR part IN SELECT relid FROM pg_partition_tree('sqs_ledger') LOOP
         EXECUTE format('ALTER EXTENSION user_logins_sqs DROP TABLE %s', part);
       END LOOP;
     END $$;
     DROP TABLE sqs_ledger";

const FAR_LOGINS: &str = "DROP TABLE user_logins;
     CREATE FOREIGN TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
       masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)
       SERVER far OPTIONS (batch_size '1000')";

const FAR_LEDGER: &str = "CREATE FOREIGN TABLE sqs_ledger (sent_at timestamptz, message_id uuid)
       SERVER far OPTIONS (batch_size '1000')";

/// A server that ingests, and one that the rows go to; both have the extension.
struct Scene {
    sqs: ScriptedSqs,
    queue: Queue,
    near: Session,
    far: Session,
    far_cluster: Cluster,
    near_cluster: Cluster,
}

fn scene() -> Scene {
    let (near_cluster, far_cluster) = (Cluster::private(), Cluster::private());
    let open = |cluster: &Cluster| {
        let mut session = Database::existing(cluster, "postgres").connect();
        session.run("CREATE EXTENSION user_logins_sqs");
        session
    };
    let (mut near, far) = (open(&near_cluster), open(&far_cluster));
    let (directory, port) = far_cluster.address();
    near.run(&format!(
        "CREATE EXTENSION postgres_fdw;
         CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', port '{port}', dbname 'postgres');
         CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (user 'postgres', password_required 'false')",
        directory.display(),
    ));
    near.set("user_logins_sqs.visibility_timeout", 2);
    let sqs = ScriptedSqs::start();
    Scene {
        queue: sqs.queue(),
        sqs,
        near,
        far,
        far_cluster,
        near_cluster,
    }
}

/// Both tables on the other server.
fn exact_scene() -> Scene {
    let mut scene = scene();
    scene
        .near
        .run(FORGET_LEDGER)
        .run(FAR_LEDGER)
        .run(FAR_LOGINS);
    scene
}

impl Scene {
    #[track_caller]
    fn expect_refused(&mut self, names: &str) {
        self.queue.send(&logins::good(3));

        let error = self.near.ingest_error(&self.queue, 3);

        assert_eq!(error.code().code(), "55000", "{error:?}");
        assert!(error.message().contains(names), "{error:?}");
        assert!(error.hint().is_some(), "{error:?}");
        assert!(self.sqs.calls().is_empty(), "nothing was received");
    }

    #[track_caller]
    fn expect_each_once(&mut self, rows: i64) {
        assert_eq!(self.far.logins(), rows);
        let users = "SELECT count(DISTINCT user_id) FROM user_logins";
        assert_eq!(self.far.number(users), rows);
        assert_eq!(self.far.number("SELECT count(*) FROM sqs_ledger"), rows);
    }
}

#[test]
fn rows_far_away_and_a_ledger_here_are_refused() {
    let mut scene = scene();
    scene.near.run(FAR_LOGINS);
    scene.expect_refused("user_logins");
}

#[test]
fn rows_far_away_and_a_ledger_here_are_taken_if_that_is_wanted() {
    let mut scene = scene();
    scene.near.run(FAR_LOGINS);
    scene.near.set("user_logins_sqs.allow_foreign_table", "on");
    scene.queue.send(&logins::good(30));

    assert_eq!(scene.near.ingest(&scene.queue, 100), 30);

    assert_eq!(scene.far.logins(), 30);
    scene.queue.expect_drained();
}

#[test]
fn a_partition_far_away_counts_as_a_table_far_away() {
    let mut scene = scene();
    scene.near.run(
        "DROP TABLE user_logins;
         CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
           masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)
           PARTITION BY LIST (locale);
         CREATE TABLE here PARTITION OF user_logins FOR VALUES IN ('DE');
         CREATE FOREIGN TABLE there PARTITION OF user_logins DEFAULT SERVER far OPTIONS (table_name 'user_logins')",
    );
    scene.expect_refused("user_logins");
}

#[test]
fn a_ledger_far_away_and_rows_here_are_refused() {
    let mut scene = scene();
    scene.near.run(FORGET_LEDGER).run(FAR_LEDGER);
    // Not even then: it would lose messages.
    scene.near.set("user_logins_sqs.allow_foreign_table", "on");
    scene.expect_refused("sqs_ledger");
}

#[test]
fn two_connections_to_one_server_are_refused() {
    let mut scene = exact_scene();
    scene.near.run(
        "CREATE ROLE ledger_owner; GRANT USAGE ON FOREIGN SERVER far TO ledger_owner;
         ALTER FOREIGN TABLE sqs_ledger OWNER TO ledger_owner;
         CREATE USER MAPPING FOR ledger_owner SERVER far OPTIONS (user 'postgres', password_required 'false')",
    );
    scene.expect_refused("sqs_ledger");
}

#[test]
fn both_far_away_are_exact() {
    let mut scene = exact_scene();
    scene.queue.send(&logins::good(1_500));
    scene.near.run("BEGIN");
    assert_eq!(scene.near.ingest(&scene.queue, 2_000), 1_500);
    scene.near.run("ROLLBACK");
    scene.queue.expect_released(1_500);
    scene.expect_each_once(0);
    scene.sqs.always(
        "DeleteMessageBatch",
        Answer::Refuse {
            status: 403,
            code: "AccessDenied",
        },
    );
    assert_eq!(scene.near.ingest(&scene.queue, 2_000), 1_500);
    scene.expect_each_once(1_500);
    scene.queue.expect_counts_within(
        std::time::Duration::from_secs(20),
        Counts {
            visible: 1_500,
            in_flight: 0,
        },
    );
    scene.sqs.behave();
    scene.queue.send(&logins::good(2_000)[1_500..]);

    assert_eq!(scene.near.ingest(&scene.queue, 3_000), 500);

    scene.expect_each_once(2_000);
    scene.queue.expect_drained();
}

#[test]
fn a_backend_killed_in_the_middle_doubles_and_loses_nothing_far_away() {
    let mut scene = exact_scene();
    scene.queue.send(&logins::good(3_000));
    let pid = scene.near.pid();
    std::thread::scope(|scope| {
        let queue = &scene.queue;
        let near = &mut scene.near;
        let call =
            scope.spawn(move || near.try_run(&format!("CALL sqs_drain('{}', 200)", queue.url())));
        tests::wait::eventually(
            "some batches are there",
            std::time::Duration::from_secs(20),
            || scene.far.logins(),
            |rows| *rows >= 400,
        );
        scene.near_cluster.kill_backend(pid);
        assert!(call.join().unwrap().is_err());
    });
    let mut near = Database::existing(&scene.near_cluster, "postgres").connect();
    near.set("user_logins_sqs.visibility_timeout", 2);

    tests::wait::eventually(
        "all of them are rows",
        std::time::Duration::from_secs(60),
        || {
            near.ingest(&scene.queue, 5_000);
            scene.far.logins()
        },
        |rows| *rows >= 3_000,
    );

    scene.expect_each_once(3_000);
}

#[test]
fn a_thousand_rows_go_in_a_few_statements() {
    let mut scene = exact_scene();
    scene.far.run("ALTER SYSTEM SET log_statement = 'all'");
    scene.far.run("SELECT pg_reload_conf()");
    scene.queue.send(&logins::good(1_000));

    assert_eq!(scene.near.ingest(&scene.queue, 1_000), 1_000);

    let log = scene.far_cluster.log();
    let inserts = log.matches("INSERT INTO public.").count();
    assert!((2..20).contains(&inserts), "{inserts} statements");
    scene.queue.expect_drained();
}

#[test]
fn a_row_that_the_far_table_refuses_is_rejected() {
    let mut scene = exact_scene();
    scene
        .far
        .run("ALTER TABLE user_logins ADD CHECK (user_id <> 'user-7')");
    scene.queue.send(&logins::good(50));

    assert_eq!(scene.near.ingest(&scene.queue, 50), 49);

    let rejections = scene.near.rejections();
    assert_eq!(rejections.len(), 1);
    assert_eq!(rejections[0].sqlstate, "23514");
    scene.expect_each_once(49);
}

#[test]
fn a_ledger_far_away_is_pruned_where_it_is_and_nowhere_else() {
    let mut scene = exact_scene();
    scene.far.run(
        "CREATE ROLE ingest LOGIN;
         GRANT INSERT ON user_logins TO ingest;
         GRANT INSERT, SELECT ON sqs_ledger TO ingest",
    );
    scene
        .near
        .run("ALTER USER MAPPING FOR PUBLIC SERVER far OPTIONS (SET user 'ingest')");
    scene.queue.send(&logins::good(100));
    assert_eq!(scene.near.ingest(&scene.queue, 100), 100);
    scene.far.run(
        "INSERT INTO sqs_ledger SELECT now() - interval '20 days', gen_random_uuid() FROM generate_series(1, 100)",
    );

    assert_eq!(scene.near.number("SELECT sqs_prune()"), 0);
    assert_eq!(scene.far.number("SELECT count(*) FROM sqs_ledger"), 200);

    assert_eq!(scene.far.number("SELECT sqs_prune()"), 100);
    assert_eq!(scene.far.number("SELECT count(*) FROM sqs_ledger"), 100);
    let mut late = Database::existing(&scene.near_cluster, "postgres").connect();
    scene.queue.send(&logins::good(101)[100..]);
    assert_eq!(late.ingest(&scene.queue, 10), 1);
}

#[test]
fn while_the_far_server_is_down_nothing_is_received() {
    let mut scene = exact_scene();
    scene.far_cluster.stop(Stop::Fast);
    scene.queue.send(&logins::good(3));

    for _ in 0..3 {
        let error = scene.near.ingest_error(&scene.queue, 3);
        assert_eq!(error.code().code(), "08001", "{error:?}");
    }
    assert!(scene.sqs.calls().is_empty(), "{:?}", scene.sqs.calls());

    scene.far_cluster.start();
    assert_eq!(scene.near.ingest(&scene.queue, 3), 3);
}

#[test]
fn originals_of_rows_far_away_are_not_kept() {
    let pair = KeyPair::generate();
    let mut scene = exact_scene();
    scene.near.seal_for(&pair);
    scene.expect_refused("sqs_vault");
    Report::here(&mut scene.near).expect("tables of the vault", "error", "sqs_vault");

    scene.near.set("user_logins_sqs.vault_recipients_file", "");
    assert_eq!(scene.near.ingest(&scene.queue, 3), 3);

    let mut scene = self::scene();
    scene.near.run(FAR_LOGINS).seal_for(&pair);
    scene.near.set("user_logins_sqs.allow_foreign_table", "on");
    scene.expect_refused("sqs_vault");
}

#[test]
fn a_check_does_not_wait_for_a_far_server_that_hangs() {
    const BOUND: Duration = Duration::from_secs(15);
    let mut scene = exact_scene();
    // Accepts, and says nothing for as long as it is there: longer than a check may take.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    scene.near.run(&format!(
        "ALTER SERVER far OPTIONS (SET host '127.0.0.1', SET port '{}')",
        hanging.local_addr().unwrap().port()
    ));
    let ends = thread::spawn(move || {
        thread::sleep(BOUND);
        drop(hanging);
    });

    let begun = Instant::now();
    let report = Report::on(&mut scene.near, &scene.queue);
    let elapsed = begun.elapsed();

    assert!(elapsed < BOUND / 2, "{elapsed:?}");
    for check in ["ledger", "ledger pruning"] {
        report.expect(check, "unknown", "on another server");
    }
    report.expect("answer", "ok", "");
    ends.join().unwrap();
}

/// The setting says what it costs, where people read it first.
#[test]
fn the_setting_says_at_least_once() {
    let mut scene = scene();
    scene.near.run("LOAD 'user_logins_sqs'");
    let text = scene.near.text(
        "SELECT short_desc FROM pg_settings WHERE name = 'user_logins_sqs.allow_foreign_table'",
    );
    assert!(text.unwrap().contains("at least once"));
}
