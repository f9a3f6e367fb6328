//! A copy of an installation does not take the messages of the original; a server that takes the original's place
//! goes on.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::cluster::{Cluster, Plan, Stop};
use tests::database::{Database, Session, TextRow, literal};
use tests::document::Document;
use tests::logins;
use tests::queue::{Counts, Queue};
use tests::run;
use tests::scripted::ScriptedSqs;
use tests::vault::KeyPair;
use tests::wait::{eventually, throughout};
use tests::workers::{DATABASE, PROMPTLY, admin, preloading, site, site_of};

/// The launcher has looked by then, without having been woken.
const LOOKED_AT_WITHIN: Duration = Duration::from_secs(6);

const REPLICATED_WITHIN: Duration = Duration::from_secs(30);

const SUBSCRIPTIONS: &str =
    "SELECT queue_url, role, workers, enabled, created FROM sqs_subscription ORDER BY queue_url";

#[track_caller]
fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A role that may subscribe.
fn make_ingester(admin: &mut Session) {
    admin.run(
        "CREATE ROLE ingester LOGIN; GRANT INSERT ON user_logins TO ingester;
         GRANT EXECUTE ON FUNCTION sqs_subscribe, sqs_unsubscribe TO ingester",
    );
}

#[track_caller]
fn expect_no_workers(admin: &mut Session) {
    throughout(
        "no worker",
        LOOKED_AT_WITHIN,
        || admin.workers(),
        Vec::is_empty,
    );
}

mod restored {
    use super::*;

    const RESTS: &str = "the subscription was made in another installation";

    /// A server whose subscriptions are to be dumped, and an empty one.
    struct Scene {
        old: Cluster,
        new: Cluster,
        queue: Queue,
        _sqs: ScriptedSqs,
    }

    fn scene() -> Scene {
        let (old, new) = (site(), preloading().start());
        let sqs = ScriptedSqs::start();
        let (queue, paused) = (sqs.queue(), sqs.queue());
        let mut session = admin(&old);
        make_ingester(&mut session);
        session.subscribe(&paused);
        session.run("UPDATE sqs_subscription SET enabled = false");
        Database::existing(&old, DATABASE)
            .connect_as("ingester")
            .subscribe(&queue);
        admin(&new).run("CREATE ROLE ingester LOGIN");
        Scene {
            old,
            new,
            queue,
            _sqs: sqs,
        }
    }

    impl Scene {
        /// Dumps as `dumper` with these arguments and gives the file to a program on the other server.
        fn restore(
            &self,
            dumper: &str,
            dump_arguments: &[&str],
            program: &str,
            arguments: &[&str],
        ) {
            let file = run::directory().join(run::unique_name("dump"));
            succeed(
                self.old
                    .client_program("pg_dump")
                    .env("PGUSER", dumper)
                    .args(dump_arguments)
                    .arg("--file")
                    .arg(&file)
                    .arg(DATABASE),
            );
            let mut restore = self.new.client_program(program);
            restore.args(["--dbname", DATABASE]).args(arguments);
            if program == "psql" {
                restore.arg("--file");
            }
            succeed(restore.arg(&file).stdout(Stdio::null()));
        }

        /// The statement that the log says to use against what keeps the queue from being ingested from, once.
        #[track_caller]
        fn what_the_log_says_to_do(&self, against: &str) -> String {
            let log = self.new.log();
            let told = format!(
                "no worker ingests from queue \"{}\": {against}",
                self.queue.url()
            );
            assert_eq!(log.matches(&told).count(), 1, "{log}");
            let (_, hint) = log.split_once(&told).unwrap();
            let hint = hint.lines().find(|line| line.contains("HINT:  ")).unwrap();
            let start = hint.find("use ").or(hint.find("Use ")).unwrap() + "use ".len();
            hint[start..].trim_end_matches('.').to_owned()
        }

        #[track_caller]
        fn expect_to_rest_until_enabled(self) {
            let mut copy = self.expect_to_rest();
            copy.run(&self.what_the_log_says_to_do(RESTS));
            self.expect_to_ingest_within(PROMPTLY, &mut copy);
        }

        #[track_caller]
        fn expect_to_rest(&self) -> Session {
            let original = admin(&self.old).rows(SUBSCRIPTIONS);
            self.old.stop(Stop::Fast);
            let mut copy = admin(&self.new);
            assert_eq!(copy.rows(SUBSCRIPTIONS), original);
            expect_no_workers(&mut copy);
            let states = copy.rows("SELECT DISTINCT state, reason FROM sqs_stat");
            assert_eq!(
                states,
                [["resting", RESTS].map(|text| Some(text.to_owned()))]
            );
            copy
        }

        #[track_caller]
        fn expect_to_ingest_within(&self, bound: Duration, copy: &mut Session) {
            copy.expect_workers_within(bound, 1);
            self.queue.send(&logins::good(3));
            copy.expect_logins(3);
        }
    }

    const PSQL: &[&str] = &["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"];

    #[test]
    fn a_plain_dump_rests_until_it_is_enabled() {
        let scene = scene();
        scene.restore("postgres", &[], "psql", PSQL);
        scene.expect_to_rest_until_enabled();
    }

    #[test]
    fn a_dump_of_inserts_rests_until_it_is_enabled() {
        let scene = scene();
        scene.restore("postgres", &["--column-inserts"], "psql", PSQL);
        scene.expect_to_rest_until_enabled();
    }

    #[test]
    fn a_custom_dump_rests_until_it_is_enabled() {
        let scene = scene();
        scene.restore(
            "postgres",
            &["--format=custom"],
            "pg_restore",
            &["--exit-on-error"],
        );
        scene.expect_to_rest_until_enabled();
    }

    #[test]
    fn data_that_are_restored_without_triggers_wait_until_the_trigger_is_enabled_always() {
        let scene = scene();
        admin(&scene.new)
            .run("CREATE EXTENSION user_logins_sqs; GRANT INSERT ON user_logins TO ingester");
        scene.restore(
            "postgres",
            &["--format=custom"],
            "pg_restore",
            &["--data-only", "--disable-triggers", "--exit-on-error"],
        );
        let mut copy = scene.expect_to_rest();
        copy.run(&scene.what_the_log_says_to_do(RESTS));
        let problem = "trigger stamp_installation on table public.sqs_subscription is not enabled ALWAYS, \
                       so it does not fire for replicated changes";
        let of_queue = format!(
            "SELECT state, reason FROM sqs_stat WHERE queue_url = {}",
            literal(scene.queue.url())
        );
        eventually(
            "it waits",
            LOOKED_AT_WITHIN,
            || copy.rows(&of_queue),
            |rows| *rows == [["waiting", problem].map(|text| Some(text.to_owned()))],
        );

        copy.run(&scene.what_the_log_says_to_do(problem));

        scene.expect_to_ingest_within(LOOKED_AT_WITHIN, &mut copy);
    }

    #[test]
    fn data_that_are_restored_in_a_session_of_any_settings_rest() {
        let scene = scene();
        admin(&scene.new)
            .run("CREATE EXTENSION user_logins_sqs; GRANT INSERT ON user_logins TO ingester")
            .run("ALTER ROLE postgres SET row_security = off");
        scene.restore("postgres", &["--data-only"], "psql", PSQL);
        scene.expect_to_rest_until_enabled();
    }

    #[test]
    fn a_member_of_pg_read_all_data_can_dump_all_of_it() {
        let scene = scene();
        admin(&scene.old).run("CREATE ROLE backup LOGIN IN ROLE pg_read_all_data");
        scene.restore("backup", &[], "psql", PSQL);
        scene.expect_to_rest_until_enabled();
    }

    #[test]
    fn a_row_written_by_hand_after_a_set_row_security_runs() {
        let cluster = site();
        let mut admin = admin(&cluster);
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();

        admin.set("row_security", "on").subscribe(&queue);

        admin.expect_workers_within(PROMPTLY, 1);
    }
}

mod replicated {
    use super::*;

    fn plan() -> Plan {
        preloading().setting("wal_level", "logical")
    }

    /// A publisher of all tables, with a subscription of a queue, and a replica that has caught up.
    struct Scene {
        publisher: Cluster,
        replica: Cluster,
        queue: Queue,
        sqs: ScriptedSqs,
    }

    fn scene() -> Scene {
        let (publisher, replica) = (site_of(plan()), site_of(plan()));
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();
        let mut original = admin(&publisher);
        original.run("CREATE PUBLICATION everything FOR ALL TABLES");
        original.subscribe(&queue);
        queue.send(&logins::good(10));
        original.expect_logins(10);
        let (host, port) = publisher.address();
        admin(&replica).run(&format!(
            "CREATE SUBSCRIPTION everything CONNECTION 'host={} port={port} user=postgres dbname={DATABASE}' \
             PUBLICATION everything",
            host.display()
        ));
        let scene = Scene {
            publisher,
            replica,
            queue,
            sqs,
        };
        scene.expect_replicated(10);
        scene
    }

    impl Scene {
        #[track_caller]
        fn expect_replicated(&self, logins: i64) {
            let mut replica = admin(&self.replica);
            let state =
                "SELECT (SELECT count(*) FROM user_logins), (SELECT count(*) FROM sqs_ledger),
                                (SELECT count(*) FROM sqs_subscription)";
            let all = vec![vec![
                Some(logins.to_string()),
                Some(logins.to_string()),
                Some("1".to_owned()),
            ]];
            eventually(
                "everything is replicated",
                REPLICATED_WITHIN,
                || replica.rows(state),
                |seen| *seen == all,
            );
        }

        fn unreplicate(&self) {
            admin(&self.replica).run("DROP SUBSCRIPTION everything");
        }
    }

    #[test]
    fn a_replica_of_all_tables_takes_no_message_and_gets_every_row() {
        let scene = scene();
        let mut replica = admin(&scene.replica);
        expect_no_workers(&mut replica);

        scene.queue.send(&logins::good(90));
        scene.queue.expect_drained();
        scene.expect_replicated(100);

        // What was changed on the publisher still belongs there.
        admin(&scene.publisher).run("UPDATE sqs_subscription SET workers = 2");
        eventually(
            "the change is replicated",
            REPLICATED_WITHIN,
            || replica.number("SELECT workers FROM sqs_subscription"),
            |workers| *workers == 2,
        );
        expect_no_workers(&mut replica);
        assert_eq!(scene.sqs.handed_out(&scene.queue), 100);
        assert_eq!(
            replica.number(
                "SELECT count(*) FROM pg_stat_subscription_stats WHERE apply_error_count > 0"
            ),
            0
        );
    }

    /// A server that a procedure in the documentation names.
    struct Named<'c> {
        name: &'static str,
        cluster: &'c Cluster,
        session: Session,
    }

    impl<'c> Named<'c> {
        fn new(name: &'static str, cluster: &'c Cluster) -> Named<'c> {
            let session = admin(cluster);
            Named {
                name,
                cluster,
                session,
            }
        }

        /// A command or statement that reaches this server where it names it.
        fn resolve(&self, text: &str) -> String {
            let (host, port) = self.cluster.address();
            let host = host.display();
            let of_program = format!("--host={host} --port={port} --username=postgres");
            let of_connection = format!("host={host} port={port} user=postgres");
            text.replace(&format!("--host={}", self.name), &of_program)
                .replace(&format!("host={}", self.name), &of_connection)
        }
    }

    /// Waits as the documentation says to.
    fn await_initial_copy(green: &mut Session) {
        let unready = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'";
        eventually(
            "the initial copy is done",
            REPLICATED_WITHIN,
            || green.number(unready),
            |rows| *rows == 0,
        );
    }

    /// Waits as the documentation says to.
    fn await_replication(blue: &mut Session) {
        let caught_up = "SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn >= pg_current_wal_lsn()";
        eventually(
            "green has caught up",
            REPLICATED_WITHIN,
            || blue.number(caught_up),
            |slots| *slots == 1,
        );
    }

    #[test]
    fn a_replica_takes_over_when_its_subscriptions_are_enabled() {
        let scene = scene();
        let mut original = admin(&scene.publisher);
        original.run("UPDATE sqs_subscription SET enabled = false");
        original.expect_workers_within(PROMPTLY, 0);
        let mut replica = admin(&scene.replica);
        eventually(
            "the replica has caught up",
            REPLICATED_WITHIN,
            || replica.text("SELECT enabled FROM sqs_subscription"),
            |enabled| enabled.as_deref() == Some("f"),
        );
        scene.unreplicate();
        scene.queue.send(&logins::good(5));

        replica.run("UPDATE sqs_subscription SET enabled = true");

        replica.expect_logins(15);
        scene.queue.expect_drained();
        assert_eq!(original.logins(), 10);
    }

    #[test]
    fn a_replica_takes_over_when_somebody_subscribes_there() {
        let scene = scene();
        scene.unreplicate();
        scene.publisher.stop(Stop::Fast);
        scene.queue.send(&logins::good(5));
        let mut replica = admin(&scene.replica);

        replica.subscribe(&scene.queue);

        replica.expect_logins(15);
    }

    #[test]
    fn rows_can_be_deleted_on_a_publisher_that_does_not_publish_deletes() {
        let publisher = site_of(plan());
        let mut original = admin(&publisher);
        original.run("INSERT INTO user_logins (user_id) VALUES ('x')");

        original.run("CREATE PUBLICATION everything FOR ALL TABLES");
        let error = original.error_of("DELETE FROM user_logins");
        assert_eq!(error.code().code(), "55000", "{error:?}");
        original.run("DROP PUBLICATION everything");

        original.run(
            "CREATE PUBLICATION logins FOR TABLE user_logins WITH (publish = 'insert, truncate')",
        );
        original.run("DELETE FROM user_logins");

        original.run("CREATE PUBLICATION everything FOR ALL TABLES");
        original
            .run("ALTER TABLE user_logins ADD id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY");
        original.run("INSERT INTO user_logins (user_id) VALUES ('x'); DELETE FROM user_logins");
    }

    /// Runs the steps of docs/operations.md as written, while messages come in.
    #[test]
    fn the_documented_change_of_servers_loses_and_doubles_nothing() {
        const MESSAGES: usize = 2_000;
        let pair = KeyPair::generate();
        let keeping =
            |plan: Plan| plan.setting("user_logins_sqs.vault_recipients_file", &pair.file());
        let (old, new) = (site_of(keeping(plan())), keeping(preloading()).start());
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();
        let mut blue = Named::new("blue", &old);
        let mut green = Named::new("green", &new);
        blue.session.close_vault().subscribe(&queue);
        let bodies = logins::good(MESSAGES);
        let mut bodies = bodies.chunks(MESSAGES / 4);
        let mut send = || queue.send(bodies.next().unwrap());
        send();
        blue.session.expect_logins(500);

        for block in Document::read(Path::new("docs/operations.md")).blocks {
            let Some(server) = block.mark("on") else {
                continue;
            };
            if block.language == "console" {
                for command in block.commands() {
                    run_shell(&old, &green.resolve(&blue.resolve(&command.text)));
                }
                continue;
            }
            let on_blue = server == "blue";
            for (_, statement) in block.statements() {
                if statement.starts_with("DROP SUBSCRIPTION") {
                    send();
                    await_replication(&mut blue.session);
                }
                let resolved = blue.resolve(&statement);
                let on = if on_blue {
                    &mut blue.session
                } else {
                    &mut green.session
                };
                on.run(&resolved);
                if statement.starts_with("CREATE SUBSCRIPTION") {
                    send();
                    await_initial_copy(&mut green.session);
                    send();
                }
                if on_blue && statement.contains("SET enabled = false") {
                    blue.session.expect_workers_within(PROMPTLY, 0);
                }
            }
        }

        let all = i64::try_from(MESSAGES).unwrap();
        green.session.expect_logins(all);
        queue.expect_drained();
        for count in [
            "SELECT count(DISTINCT user_id) FROM user_logins",
            "SELECT count(*) FROM sqs_ledger",
        ] {
            assert_eq!(green.session.number(count), all, "{count}");
        }
        green.session.expect_vault_agrees(&pair);
        let recorded = "SELECT count(*) FROM sqs_queue WHERE message_retention IS NULL";
        let recorded = green.session.number(recorded);
        assert_eq!(recorded, 1, "the queue that blue ingested from");
    }

    /// Runs a command with the programs of this server in the path.
    #[track_caller]
    fn run_shell(server: &Cluster, command: &str) {
        let psql = server.client_program("psql");
        let programs = Path::new(psql.get_program()).parent().unwrap();
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c"]);
        shell.arg(format!("PATH={}:$PATH; {command}", programs.display()));
        succeed(shell.stdin(Stdio::null()));
    }

    #[test]
    fn what_is_replicated_rests_whatever_number_it_brings() {
        let (publisher, replica) = (site_of(plan()), site_of(plan()));
        let mut there = admin(&replica);
        let number = there
            .text("SELECT seqstart FROM pg_sequence WHERE seqrelid = 'sqs_installation'::regclass")
            .unwrap();
        let mut here = admin(&publisher);
        let forged = |queue: &str| {
            format!(
                "INSERT INTO sqs_subscription (queue_url, role, installation)
                 VALUES ('http://127.0.0.1:9/000000000000/{queue}', 'postgres', {number})"
            )
        };
        here.run(&forged("copied"));
        here.run("CREATE PUBLICATION forged FOR TABLE sqs_subscription");
        let (host, port) = publisher.address();
        there.run(&format!(
            "CREATE SUBSCRIPTION forged CONNECTION 'host={} port={port} user=postgres dbname={DATABASE}' \
             PUBLICATION forged",
            host.display()
        ));

        here.run(&forged("applied"));

        eventually(
            "both are replicated",
            REPLICATED_WITHIN,
            || there.number("SELECT count(*) FROM sqs_subscription"),
            |rows| *rows == 2,
        );
        expect_no_workers(&mut there);
        assert_eq!(
            there.rows("SELECT DISTINCT state FROM sqs_stat"),
            [[Some("resting".to_owned())]]
        );
    }
}

mod in_the_place_of_the_original {
    use super::*;

    #[test]
    fn a_promoted_standby_goes_on() {
        let cluster = site();
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();
        let mut original = admin(&cluster);
        original.subscribe(&queue);
        queue.send(&logins::good(3));
        original.expect_logins(3);
        queue.expect_drained();
        let standby = cluster.standby();
        cluster.stop(Stop::Fast);
        queue.send(&logins::good(5));
        let mut promoted = admin(&standby);
        throughout(
            "the standby leaves the queue alone",
            Duration::from_secs(3),
            || (promoted.launcher(), promoted.workers(), queue.counts()),
            |seen| {
                let waiting = Counts {
                    visible: 5,
                    in_flight: 0,
                };
                *seen == (None, vec![], waiting)
            },
        );

        promoted.run("SELECT pg_promote()");

        promoted.expect_logins(8);
        queue.expect_drained();
    }

    #[test]
    fn a_cluster_that_pg_upgrade_made_goes_on_and_ingests_nothing_meanwhile() {
        let (old, new) = (site(), preloading().start());
        let sqs = ScriptedSqs::start();
        let queue = sqs.queue();
        let mut original = admin(&old);
        make_ingester(&mut original);
        Database::existing(&old, DATABASE)
            .connect_as("ingester")
            .run(&format!(
                "SELECT sqs_subscribe({}, 2)",
                literal(queue.url())
            ));
        queue.send(&logins::good(3));
        original.expect_logins(3);
        queue.expect_drained();
        let before: Vec<TextRow> = original.rows(SUBSCRIPTIONS);
        old.stop(Stop::Fast);
        new.stop(Stop::Fast);
        queue.send(&logins::good(5));

        old.upgrade_to(&new);

        assert_eq!(sqs.handed_out(&queue), 3, "nothing meanwhile");
        new.start();
        let mut upgraded = admin(&new);
        assert_eq!(upgraded.rows(SUBSCRIPTIONS), before);
        upgraded.expect_logins(8);
        queue.expect_drained();
    }

    #[test]
    fn a_new_extension_in_the_same_database_is_another_installation() {
        let database = Database::shared();
        let mut session = database.connect();
        let number =
            "SELECT seqstart FROM pg_sequence WHERE seqrelid = 'sqs_installation'::regclass";
        let first = session.text(number);

        session.run("DROP EXTENSION user_logins_sqs; CREATE EXTENSION user_logins_sqs");

        assert_ne!(session.text(number), first);
    }

    #[test]
    fn a_physical_copy_that_is_given_another_number_rests() {
        let cluster = site();
        admin(&cluster).subscribe(&ScriptedSqs::start().queue());
        let copy = cluster.standby();
        let mut copied = admin(&copy);
        copied.run("SELECT pg_promote()");
        copied.run("ALTER SEQUENCE sqs_installation START WITH 1");

        eventually(
            "it rests",
            LOOKED_AT_WITHIN,
            || copied.rows("SELECT workers, state FROM sqs_stat"),
            |rows| *rows == [["0", "resting"].map(|text| Some(text.to_owned()))],
        );
    }

    #[test]
    fn nobody_but_the_owner_changes_the_number_of_an_installation() {
        let cluster = site();
        let mut admin = admin(&cluster);
        admin.run("CREATE ROLE app LOGIN; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app");
        admin.subscribe(&ScriptedSqs::start().queue());
        let mut app = Database::existing(&cluster, DATABASE).connect_as("app");
        let ours = "SELECT count(*) FROM sqs_subscription, pg_sequence
                    WHERE seqrelid = 'sqs_installation'::regclass AND installation = seqstart";

        app.run("SELECT setval('sqs_installation', 5), nextval('sqs_installation')");

        assert_eq!(admin.number(ours), 1);
        let error = app.error_of("ALTER SEQUENCE sqs_installation START 5");
        assert_eq!(error.code().code(), "42501", "{error:?}");
    }
}
