//! A GRANT on the extension's tables never turns into the rights of their owner: no code of others runs while they are
//! written.

use tests::check_report::Report;
use tests::cluster::Cluster;
use tests::database::{Database, Session};
use tests::queue::{Counts, Queue};
use tests::scripted::ScriptedSqs;
use tests::{logins, run};

struct Scene {
    server: ScriptedSqs,
    queue: Queue,
    database: Database<'static>,
    admin: Session,
    /// A role with every right that can be granted on the extension's tables and functions.
    role: String,
}

fn scene() -> Scene {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(3));
    queue.send(&["not a login".to_owned()]);
    let role = run::unique_name("app");
    let mut admin = database.connect();
    admin.run(&format!(
        "CREATE ROLE {role} LOGIN;
         GRANT ALL ON SCHEMA public TO {role};
         GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
         GRANT ALL ON ALL ROUTINES IN SCHEMA public TO {role}"
    ));
    Scene {
        server,
        queue,
        database,
        admin,
        role,
    }
}

impl Scene {
    fn connect(&self) -> Session {
        self.database.connect_as(&self.role)
    }

    /// A function of the role that makes the role a superuser if it runs with such rights.
    fn make_evil_function(&self, session: &mut Session) {
        session.run(&format!(
            "CREATE FUNCTION evil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               ALTER ROLE {} SUPERUSER;
               RETURN NEW;
             END $$",
            self.role
        ));
    }

    /// The call fails with an error that names `culprit`, before anything is received.
    #[track_caller]
    fn expect_refused(&self, session: &mut Session, culprit: &str) {
        let error = session.ingest_error(&self.queue, 10);

        assert_eq!(error.code().code(), "55000", "{error:?}");
        assert!(error.message().contains(culprit), "{error:?}");
        assert!(error.hint().is_some(), "{error:?}");
        assert!(self.server.calls().is_empty(), "{:?}", self.server.calls());
    }

    #[track_caller]
    fn expect_no_superuser(&mut self) {
        let is_superuser = format!(
            "SELECT rolsuper FROM pg_roles WHERE rolname = '{}'",
            self.role
        );
        assert_eq!(self.admin.text(&is_superuser).as_deref(), Some("f"));
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.admin.try_run(&format!(
            "DROP OWNED BY {role} CASCADE; DROP ROLE {role}",
            role = self.role
        ));
    }
}

#[test]
fn a_trigger_on_a_table_of_the_extension_stops_every_call_before_it_receives() {
    for table in ["sqs_ledger_07", "sqs_rejected"] {
        for timing in ["BEFORE INSERT", "AFTER INSERT", "BEFORE DELETE"] {
            for level in ["ROW", "STATEMENT"] {
                let mut scene = scene();
                let mut session = scene.connect();
                scene.make_evil_function(&mut session);
                session.run(&format!(
                    "CREATE TRIGGER mischief {timing} ON {table} FOR EACH {level} EXECUTE FUNCTION evil()"
                ));

                scene.expect_refused(&mut session, "trigger mischief");
                let error = session.error_of(&format!("CALL sqs_drain('{}')", scene.queue.url()));
                assert!(error.message().contains("trigger mischief"), "{error:?}");
                let mut admin = scene.database.connect();
                scene.expect_refused(&mut admin, table);
                scene.expect_no_superuser();
            }
        }
    }
}

#[test]
fn a_function_of_the_extension_on_the_wrong_table_is_foreign_too() {
    let scene = scene();
    let mut session = scene.connect();
    session.run(
        "CREATE TRIGGER mischief BEFORE INSERT ON sqs_ledger
           FOR EACH ROW EXECUTE FUNCTION sqs_subscription_changed()",
    );

    scene.expect_refused(&mut session, "trigger mischief");
}

#[test]
fn a_foreign_key_that_refers_to_the_ledger_is_foreign_too() {
    let scene = scene();
    let mut session = scene.connect();
    session.run(
        "CREATE TABLE mine (sent_at timestamptz, message_id uuid,
           FOREIGN KEY (sent_at, message_id) REFERENCES sqs_ledger_07 ON DELETE CASCADE)",
    );

    scene.expect_refused(&mut session, "RI_ConstraintTrigger");
    let hint = session
        .ingest_error(&scene.queue, 10)
        .hint()
        .unwrap()
        .to_owned();
    let remedy = hint.trim_start_matches("Use ").trim_end_matches('.');
    assert!(remedy.starts_with("ALTER TABLE"), "{hint}");
    session.run(remedy);
    assert_eq!(session.ingest(&scene.queue, 10), 3);
}

#[test]
fn a_table_that_its_owner_may_not_write_stops_every_call_before_it_receives() {
    for (revoked, missing) in [
        ("USAGE ON SCHEMA public FROM PUBLIC", "schema public"),
        (
            "INSERT ON sqs_ledger FROM {owner}",
            "table public.sqs_ledger",
        ),
        ("SELECT ON sqs_queue FROM {owner}", "table public.sqs_queue"),
        (
            "UPDATE ON sqs_rejected FROM {owner}",
            "table public.sqs_rejected",
        ),
    ] {
        let mut scene = scene();
        let owner = run::unique_name("owner");
        scene.admin.run(&format!(
            "CREATE ROLE {owner};
             ALTER TABLE sqs_ledger OWNER TO {owner};
             ALTER TABLE sqs_queue OWNER TO {owner};
             ALTER TABLE sqs_rejected OWNER TO {owner};
             REVOKE {}",
            revoked.replace("{owner}", &owner)
        ));

        let error = scene.connect().ingest_error(&scene.queue, 10);

        assert_eq!(error.code().code(), "42501", "{revoked}: {error:?}");
        assert!(error.message().contains(missing), "{error:?}");
        assert!(scene.server.calls().is_empty(), "{revoked}");
        let report = Report::here(&mut scene.database.connect());
        report.expect("tables of the extension", "error", missing);
        let hint = error.hint().unwrap();
        let remedy = hint.trim_start_matches("Use ").trim_end_matches('.');
        scene.admin.run(remedy);
        assert_eq!(scene.connect().ingest(&scene.queue, 10), 3);
        scene.admin.run(&format!(
            "REASSIGN OWNED BY {owner} TO postgres; DROP OWNED BY {owner}; DROP ROLE {owner}"
        ));
    }
}

#[test]
fn a_trigger_that_comes_in_the_middle_of_a_call_does_not_run() {
    let mut scene = scene();
    let mut session = scene.connect();
    scene.make_evil_function(&mut session);
    // The role's own trigger on user_logins runs between the chunks of one call.
    session.run(
        "CREATE FUNCTION plant() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'mischief') THEN
             CREATE TRIGGER mischief BEFORE INSERT ON sqs_ledger FOR EACH ROW EXECUTE FUNCTION evil();
             CREATE TRIGGER mischief BEFORE INSERT ON sqs_rejected FOR EACH ROW EXECUTE FUNCTION evil();
           END IF;
           RETURN NEW;
         END $$;
         CREATE TRIGGER plant BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION plant()",
    );

    let error = session.ingest_error(&scene.queue, 10);

    assert!(error.message().contains("trigger mischief"), "{error:?}");
    assert_eq!(error.code().code(), "55000", "{error:?}");
    scene.queue.expect_released(4);
    scene.expect_no_superuser();
}

#[test]
fn whatever_runs_code_is_named() {
    let attached = [
        (
            "CREATE RULE mischief AS ON INSERT TO sqs_ledger DO ALSO SELECT evil(now())",
            "rule",
        ),
        (
            "ALTER TABLE sqs_ledger ADD CHECK (evil(sent_at))",
            "function evil",
        ),
        (
            "ALTER TABLE sqs_ledger ADD extra boolean, ALTER extra SET DEFAULT evil(now())",
            "function evil",
        ),
        (
            "CREATE INDEX ON sqs_ledger (evil(sent_at))",
            "function evil",
        ),
        (
            "CREATE INDEX ON sqs_rejected (reason) WHERE evil(last_seen)",
            "function evil",
        ),
        (
            "CREATE DOMAIN wrong AS text CHECK (evil(now())); ALTER TABLE sqs_rejected ADD extra wrong",
            "type wrong",
        ),
    ];
    for (ddl, culprit) in attached {
        let scene = scene();
        let mut admin = scene.database.connect();
        admin.run(
            "CREATE FUNCTION evil(timestamptz) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
               $$ BEGIN RAISE 'it ran'; END $$",
        );
        admin.run(ddl);

        scene.expect_refused(&mut admin, culprit);
    }
}

#[test]
fn an_index_and_a_constraint_of_functions_of_postgres_are_nobodys_code() {
    let mut scene = scene();
    scene.admin.run(
        "CREATE INDEX ON sqs_rejected (lower(reason));
         ALTER TABLE sqs_rejected ADD CHECK (length(reason) > 0)",
    );

    assert_eq!(scene.connect().ingest(&scene.queue, 10), 3);
    assert_eq!(scene.admin.rejections().len(), 1);
}

#[test]
fn each_table_is_written_as_its_own_owner() {
    let mut scene = scene();
    let owners = [run::unique_name("owner"), run::unique_name("owner")];
    scene.admin.run(&format!(
        "CREATE ROLE {first}; CREATE ROLE {second};
         ALTER TABLE sqs_ledger OWNER TO {first};
         ALTER TABLE sqs_rejected OWNER TO {second}",
        first = owners[0],
        second = owners[1],
    ));

    assert_eq!(scene.connect().ingest(&scene.queue, 10), 3);

    assert_eq!(scene.admin.rejections().len(), 1);
    scene
        .admin
        .run("UPDATE sqs_ledger SET sent_at = sent_at - interval '20 days'");
    assert_eq!(scene.admin.number("SELECT sqs_prune()"), 3);
    for owner in owners {
        scene.admin.run(&format!(
            "REASSIGN OWNED BY {owner} TO postgres; DROP OWNED BY {owner}; DROP ROLE {owner}"
        ));
    }
}

#[test]
fn the_owner_of_a_table_gets_no_rights_of_its_callers() {
    let cluster = Cluster::private();
    let database = Database::with_extension(&cluster);
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(3));
    let mut admin = database.connect();
    admin.run(
        "CREATE ROLE mallory LOGIN; GRANT ALL ON SCHEMA public TO mallory;
         ALTER TABLE sqs_rejected OWNER TO mallory",
    );
    database.connect_as("mallory").run(
        "CREATE FUNCTION evil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           ALTER ROLE mallory SUPERUSER; RETURN NEW;
         END $$;
         CREATE TRIGGER mischief BEFORE INSERT ON sqs_rejected FOR EACH ROW EXECUTE FUNCTION evil()",
    );

    let error = admin.ingest_error(&queue, 3);

    assert!(error.message().contains("trigger mischief"), "{error:?}");
    queue.expect_counts_within(
        std::time::Duration::from_secs(1),
        Counts {
            visible: 3,
            in_flight: 0,
        },
    );
}

/// A server with subscriptions, and a role with every right that can be granted.
fn site_with_app() -> (Cluster, Session, Session) {
    let cluster = tests::workers::site();
    let mut admin = tests::workers::admin(&cluster);
    admin.run(
        "CREATE ROLE app LOGIN;
         GRANT ALL ON SCHEMA public TO app;
         GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
         GRANT ALL ON ALL ROUTINES IN SCHEMA public TO app",
    );
    let app = Database::existing(&cluster, tests::workers::DATABASE).connect_as("app");
    (cluster, admin, app)
}

#[test]
fn a_trigger_with_a_function_of_the_extension_and_a_condition_of_others_is_foreign() {
    for trigger in [
        "BEFORE INSERT ON sqs_subscription FOR EACH STATEMENT WHEN (evil())
           EXECUTE FUNCTION sqs_subscription_changed()",
        "BEFORE INSERT ON sqs_subscription FOR EACH ROW EXECUTE FUNCTION sqs_subscription_changed()",
        "AFTER UPDATE OF workers ON sqs_subscription FOR EACH ROW EXECUTE FUNCTION sqs_subscription_check_role()",
    ] {
        let (_cluster, mut admin, mut app) = site_with_app();
        app.run(
            "CREATE FUNCTION evil() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
               ALTER ROLE app SUPERUSER; RETURN true;
             END $$",
        );
        app.run(&format!("CREATE TRIGGER mischief {trigger}"));

        let error = admin.error_of("SELECT sqs_subscribe('http://127.0.0.1:9/000000000000/q')");

        assert_eq!(error.code().code(), "55000", "{trigger}: {error:?}");
        assert!(error.message().contains("mischief"), "{error:?}");
        let is_superuser = "SELECT rolsuper FROM pg_roles WHERE rolname = 'app'";
        assert_eq!(admin.text(is_superuser).as_deref(), Some("f"), "{trigger}");
    }
}

#[test]
fn a_role_that_may_add_triggers_cannot_replace_the_check_of_roles() {
    let (_cluster, mut admin, mut app) = site_with_app();
    for replacement in ["TRIGGER", "CONSTRAINT TRIGGER"] {
        let error = app.error_of(&format!(
            "CREATE OR REPLACE {replacement} check_role AFTER INSERT ON sqs_subscription
               FOR EACH ROW EXECUTE FUNCTION sqs_subscription_changed()"
        ));
        assert!(
            ["42710", "0A000"].contains(&error.code().code()),
            "{error:?}"
        );
    }
    app.run(
        "CREATE OR REPLACE TRIGGER wake_launcher AFTER INSERT ON sqs_subscription
           FOR EACH STATEMENT EXECUTE FUNCTION sqs_subscription_changed()",
    );
    let error = admin.error_of("SELECT sqs_subscribe('http://127.0.0.1:9/000000000000/q')");
    assert!(error.message().contains("wake_launcher"), "{error:?}");
}

#[test]
fn a_name_made_to_be_pasted_is_quoted() {
    let scene = scene();
    let mut session = scene.connect();
    scene.make_evil_function(&mut session);
    session.run(
        "CREATE TRIGGER \"a\"\" ON x; DROP TABLE user_logins; --\" BEFORE INSERT ON sqs_rejected
           FOR EACH ROW EXECUTE FUNCTION evil()",
    );
    let error = session.ingest_error(&scene.queue, 10);
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("\"a\"\" ON x; DROP TABLE user_logins; --\""),
        "{hint}"
    );
}

#[test]
fn a_partition_of_another_owner_is_not_written_as_the_tables_owner() {
    let mut scene = scene();
    let owner = run::unique_name("owner");
    scene.admin.run(&format!(
        "CREATE ROLE {owner}; ALTER TABLE sqs_ledger_07 OWNER TO {owner}"
    ));

    let mut session = scene.connect();
    scene.expect_refused(&mut session, "sqs_ledger_07");

    scene.admin.run(&format!(
        "REASSIGN OWNED BY {owner} TO postgres; DROP ROLE {owner}"
    ));
    assert_eq!(session.ingest(&scene.queue, 10), 3);
}

#[test]
fn a_table_of_ours_leaves_no_setting_behind_in_its_callers_session() {
    let mut scene = scene();
    scene.admin.run(
        "ALTER TABLE sqs_rejected ADD CHECK (set_config('search_path', 'pg_temp', false) IS NOT NULL);
         SET search_path = public",
    );
    scene.admin.ingest(&scene.queue, 10);
    assert_eq!(
        scene.admin.text("SHOW search_path").as_deref(),
        Some("public")
    );
}
