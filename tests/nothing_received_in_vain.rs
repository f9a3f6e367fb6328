//! Nothing is received that cannot be stored: the call fails before its first ReceiveMessage.

use tests::cluster::Cluster;
use tests::database::{Database, Session, literal};
use tests::queue::{Counts, Queue};
use tests::scripted::ScriptedSqs;
use tests::{localstack, logins, run};

/// A queue with messages that must stay as they are.
struct Scene {
    server: ScriptedSqs,
    queue: Queue,
    database: Database<'static>,
}

fn scene() -> Scene {
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(5));
    Scene {
        server,
        queue,
        database: Database::shared(),
    }
}

impl Scene {
    /// The call fails with `sqlstate` and a hint, and sends nothing to the server.
    #[track_caller]
    fn expect_untouched(&self, session: &mut Session, sqlstate: &str) {
        let error = session.ingest_error(&self.queue, 5);

        assert_eq!(error.code().code(), sqlstate, "{error:?}");
        assert!(!error.message().is_empty());
        let calls = self.server.calls();
        assert!(calls.is_empty(), "{calls:?}");
        assert_eq!(
            self.queue.counts(),
            Counts {
                visible: 5,
                in_flight: 0
            }
        );
    }
}

/// A role that may call `sqs_ingest`.
fn role(database: &Database) -> String {
    let role = run::unique_name("role");
    database.connect().run(&format!(
        "CREATE ROLE {role} LOGIN; GRANT EXECUTE ON FUNCTION sqs_ingest(text, integer, integer) TO {role}"
    ));
    role
}

#[test]
fn execute_and_insert_are_all_a_role_needs() {
    let scene = scene();
    let role = role(&scene.database);
    scene
        .database
        .connect()
        .run(&format!("GRANT INSERT ON user_logins TO {role}"));
    scene.queue.send(&["bad".to_owned()]);

    let mut session = scene.database.connect_as(&role);
    assert_eq!(session.ingest(&scene.queue, 10), 5);

    let mut owner = scene.database.connect();
    assert_eq!(owner.logins(), 5);
    assert_eq!(owner.number("SELECT count(*) FROM sqs_ledger"), 5);
    assert_eq!(owner.rejections().len(), 1);
}

#[test]
fn a_role_with_these_rights_cannot_touch_the_ledger() {
    let database = Database::shared();
    let role = role(&database);
    let mut session = database.connect_as(&role);

    for statement in [
        "DELETE FROM sqs_ledger",
        "INSERT INTO sqs_ledger VALUES (now(), gen_random_uuid())",
        "DELETE FROM sqs_rejected",
    ] {
        assert_eq!(
            session.error_of(statement).code().code(),
            "42501",
            "{statement}"
        );
    }
}

#[test]
fn a_role_without_execute_receives_nothing() {
    let scene = scene();
    let role = run::unique_name("role");
    scene.database.connect().run(&format!(
        "CREATE ROLE {role} LOGIN; GRANT INSERT ON user_logins TO {role}"
    ));

    scene.expect_untouched(&mut scene.database.connect_as(&role), "42501");
}

#[test]
fn a_role_without_insert_receives_nothing() {
    let scene = scene();
    let role = role(&scene.database);
    let mut session = scene.database.connect_as(&role);

    scene.expect_untouched(&mut session, "42501");

    let error = session.ingest_error(&scene.queue, 5);
    assert!(
        error.hint().is_some_and(|hint| hint.contains("GRANT")),
        "{error:?}"
    );
}

#[test]
fn a_right_to_insert_some_of_the_columns_is_not_enough() {
    let scene = scene();
    let role = role(&scene.database);
    scene.database.connect().run(&format!(
        "GRANT INSERT (user_id, locale) ON user_logins TO {role}"
    ));

    scene.expect_untouched(&mut scene.database.connect_as(&role), "42501");
}

#[test]
fn a_right_to_insert_each_of_the_columns_is_enough() {
    let scene = scene();
    let role = role(&scene.database);
    scene.database.connect().run(&format!(
        "GRANT INSERT (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date)
         ON user_logins TO {role}"
    ));

    assert_eq!(scene.database.connect_as(&role).ingest(&scene.queue, 5), 5);
}

#[test]
fn a_read_only_transaction_receives_nothing() {
    let scene = scene();
    let mut session = scene.database.connect();
    session.run("BEGIN READ ONLY");

    scene.expect_untouched(&mut session, "25006");
}

#[test]
fn a_session_that_is_read_only_by_default_receives_nothing() {
    let scene = scene();
    let mut session = scene.database.connect();
    session.set("default_transaction_read_only", "on");

    scene.expect_untouched(&mut session, "25006");
}

#[test]
fn a_standby_receives_nothing() {
    let primary = Cluster::private();
    let database = Database::with_extension(&primary);
    let standby = primary.standby();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(5));

    let error = database.on(&standby).connect().ingest_error(&queue, 5);

    assert_eq!(error.code().code(), "25006", "{error:?}");
    assert!(server.calls().is_empty());
}

#[test]
fn a_missing_user_logins_receives_nothing() {
    let scene = scene();
    let mut session = scene.database.connect();
    session.run("DROP TABLE user_logins");

    scene.expect_untouched(&mut session, "42P01");

    let error = session.ingest_error(&scene.queue, 5);
    assert!(error.hint().is_some(), "{error:?}");
}

/// The table after `change` cannot take logins, and the error names `column`.
fn misshapen(change: &str, column: &str) {
    let scene = scene();
    let mut session = scene.database.connect();
    session.run(change);

    scene.expect_untouched(&mut session, "42804");

    let error = session.ingest_error(&scene.queue, 5);
    let said = format!("{} {}", error.message(), error.detail().unwrap_or_default());
    assert!(said.contains(column), "names {column}: {error:?}");
    assert!(error.hint().is_some(), "{error:?}");
}

#[test]
fn a_missing_column_is_named() {
    misshapen("ALTER TABLE user_logins DROP masked_ip", "masked_ip");
}

#[test]
fn a_column_of_another_type_is_named() {
    misshapen(
        "ALTER TABLE user_logins DROP masked_ip, ADD masked_ip integer",
        "masked_ip",
    );
}

#[test]
fn a_column_that_takes_no_value_is_named() {
    misshapen(
        "ALTER TABLE user_logins DROP locale, ADD locale varchar(32) GENERATED ALWAYS AS ('DE') STORED",
        "locale",
    );
}

#[test]
fn a_further_column_without_a_default_is_named() {
    misshapen(
        "ALTER TABLE user_logins ADD tenant integer NOT NULL",
        "tenant",
    );
}

#[test]
fn a_user_logins_that_is_not_a_table_receives_nothing() {
    let scene = scene();
    let mut session = scene.database.connect();
    session.run("DROP TABLE user_logins; CREATE SEQUENCE user_logins");

    scene.expect_untouched(&mut session, "42804");
}

#[test]
fn the_counters_of_localstack_are_untouched() {
    let database = Database::shared();
    let queue = localstack::queue();
    queue.send(&logins::good(5));
    let mut session = database.connect();
    session.run("DROP TABLE user_logins");

    session.ingest_error(&queue, 5);

    queue.expect_counts_stay(
        std::time::Duration::from_millis(500),
        Counts {
            visible: 5,
            in_flight: 0,
        },
    );
}

#[test]
fn sqs_drain_checks_before_it_receives_too() {
    let scene = scene();
    let mut session = scene.database.connect();
    session.run("DROP TABLE user_logins");

    let error = session.error_of(&format!("CALL sqs_drain({})", literal(scene.queue.url())));

    assert_eq!(error.code().code(), "42P01", "{error:?}");
    assert!(scene.server.calls().is_empty());
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let scene = scene();
    // The extension cannot be created in such a database, and only the catalog lets an encoding be changed.
    scene.database.connect().run(&format!(
        "UPDATE pg_database SET encoding = pg_char_to_encoding('LATIN1') WHERE datname = '{}'",
        scene.database.name()
    ));
    let mut session = scene.database.connect();

    scene.expect_untouched(&mut session, "0A000");
}

#[test]
fn a_caller_whom_no_policy_lets_in_receives_nothing() {
    let policies = [
        "",
        "CREATE POLICY readers ON user_logins FOR SELECT USING (true)",
        "CREATE POLICY others ON user_logins FOR INSERT TO pg_monitor WITH CHECK (true)",
        "CREATE POLICY narrower ON user_logins AS RESTRICTIVE FOR INSERT WITH CHECK (true)",
    ];
    for policy in policies {
        let scene = scene();
        let role = role(&scene.database);
        scene.database.connect().run(&format!(
            "GRANT INSERT ON user_logins TO {role};
             ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY; {policy}"
        ));

        scene.expect_untouched(&mut scene.database.connect_as(&role), "42501");
    }
}

#[test]
fn a_caller_whom_a_policy_may_let_in_is_let_in() {
    let policies = [
        "CREATE POLICY all_may ON user_logins WITH CHECK (true)",
        "CREATE POLICY members ON user_logins FOR INSERT TO pg_monitor WITH CHECK (true)",
    ];
    for policy in policies {
        let scene = scene();
        let role = role(&scene.database);
        scene.database.connect().run(&format!(
            "GRANT INSERT ON user_logins TO {role}; GRANT pg_monitor TO {role};
             ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY; {policy}"
        ));

        assert_eq!(scene.database.connect_as(&role).ingest(&scene.queue, 5), 5);
    }
}
