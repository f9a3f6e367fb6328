//! Nobody but the owner reads the vault, and nobody needs a right on it to ingest.

use tests::database::Session;
use tests::run;

use super::{Scene, scene};

/// A role with nothing, and the setting for all sessions of the database.
fn role_of(scene: &Scene, admin: &mut Session) -> String {
    let role = run::unique_name("app");
    admin.close_vault();
    admin.run(&format!(
        "CREATE ROLE {role} LOGIN;
         ALTER DATABASE {} SET user_logins_sqs.vault_recipients_file = '{}'",
        scene.database.name(),
        scene.pair.file()
    ));
    role
}

fn drop_role(admin: &mut Session, role: &str) {
    admin.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"));
}

#[test]
fn a_role_with_every_right_but_ownership_reads_and_writes_nothing() {
    let scene = scene();
    let mut admin = scene.connect();
    let role = role_of(&scene, &mut admin);
    admin.run(&format!(
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
         GRANT pg_read_all_data, pg_write_all_data TO {role}"
    ));
    scene.ingest(&mut admin, &["a", "b"]);

    let mut session = scene.database.connect_as(&role);
    for table in ["sqs_vault", "sqs_vault_key"] {
        assert!(session.rows(&format!("TABLE {table}")).is_empty());
        session.run(&format!("DELETE FROM {table}"));
    }
    let error = session
        .error_of("INSERT INTO sqs_vault SELECT 'x', 'ip', gen_random_uuid(), '', now(), now()");
    assert_eq!(error.code().code(), "42501", "{error:?}");
    admin.expect_vault_agrees(&scene.pair);
    drop_role(&mut admin, &role);
}

#[test]
fn a_role_without_any_right_on_the_vault_seals() {
    let scene = scene();
    let mut admin = scene.connect();
    let role = role_of(&scene, &mut admin);
    admin.run(&format!(
        "GRANT EXECUTE ON FUNCTION sqs_ingest TO {role}; GRANT INSERT ON user_logins TO {role}"
    ));
    let mut session = scene.database.connect_as(&role);
    scene.ingest(&mut session, &["a"]);
    for denied in [
        "TABLE sqs_vault",
        "TABLE sqs_vault_key",
        "SELECT sqs_forget('x')",
    ] {
        let error = session.error_of(denied);
        assert_eq!(error.code().code(), "42501", "{denied}: {error:?}");
    }
    admin.expect_vault_agrees(&scene.pair);
    drop_role(&mut admin, &role);
}

#[test]
fn the_setting_is_for_superusers_only() {
    let scene = scene();
    let mut admin = scene.connect();
    let role = role_of(&scene, &mut admin);
    let mut session = scene.database.connect_as(&role);
    for statement in [
        "LOAD 'user_logins_sqs'; SET user_logins_sqs.vault_recipients_file = 'x'",
        "SELECT sqs_check_user_logins(); SHOW user_logins_sqs.vault_recipients_file",
    ] {
        let error = session.error_of(statement);
        assert_eq!(error.code().code(), "42501", "{statement}: {error:?}");
    }
    drop_role(&mut admin, &role);
}

#[test]
fn code_of_others_on_the_vault_stops_every_call_before_it_receives() {
    let attached = [
        (
            "CREATE TRIGGER mischief BEFORE INSERT ON sqs_vault FOR EACH ROW EXECUTE FUNCTION evil()",
            "trigger mischief",
        ),
        (
            "CREATE TRIGGER mischief AFTER INSERT ON sqs_vault_key FOR EACH STATEMENT EXECUTE FUNCTION evil()",
            "trigger mischief",
        ),
        (
            "CREATE TRIGGER mischief BEFORE INSERT ON sqs_vault_key
               FOR EACH ROW EXECUTE FUNCTION sqs_vault_deleted()",
            "trigger mischief",
        ),
        (
            "CREATE RULE mischief AS ON INSERT TO sqs_vault DO ALSO SELECT 1",
            "rule",
        ),
        (
            "ALTER TABLE sqs_vault_key ADD CHECK (evil(created))",
            "function evil",
        ),
    ];
    for (ddl, culprit) in attached {
        let scene = scene();
        let mut session = scene.connect();
        session.run(
            "CREATE FUNCTION evil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'it ran'; END $$;
             CREATE FUNCTION evil(timestamptz) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
               $$ BEGIN RAISE 'it ran'; END $$",
        );
        session.run(ddl);
        scene.send(&["a"]);

        let error = session.ingest_error(&scene.queue, 1);

        assert_eq!(error.code().code(), "55000", "{error:?}");
        assert!(error.message().contains(culprit), "{error:?}");
        assert!(scene.server.calls().is_empty());
        // Without a vault it does not matter.
        session.set("user_logins_sqs.vault_recipients_file", "");
        assert_eq!(session.ingest(&scene.queue, 1), 1);
    }
}

#[test]
fn a_trigger_of_the_vault_that_does_not_fire_stops_every_call_before_it_receives() {
    for (ddl, problem, repair) in [
        (
            "ALTER TABLE sqs_vault DISABLE TRIGGER deleted",
            "is not enabled",
            "ALTER TABLE public.sqs_vault ENABLE ALWAYS TRIGGER deleted",
        ),
        (
            "ALTER TABLE sqs_vault DISABLE TRIGGER ALL; ALTER TABLE sqs_vault ENABLE TRIGGER ALL",
            "is not enabled ALWAYS, so it does not fire for replicated changes",
            "ALTER TABLE public.sqs_vault ENABLE ALWAYS TRIGGER deleted",
        ),
        (
            "ALTER TABLE sqs_vault ENABLE REPLICA TRIGGER deleted",
            "is not enabled",
            "ALTER TABLE public.sqs_vault ENABLE ALWAYS TRIGGER deleted",
        ),
        (
            "DROP TRIGGER deleted ON sqs_vault",
            "does not exist",
            "Create it",
        ),
        (
            "ALTER TABLE sqs_vault ENABLE TRIGGER deleted_by_replication",
            "is not enabled REPLICA, so it does not fire for replicated changes",
            "ALTER TABLE public.sqs_vault ENABLE REPLICA TRIGGER deleted_by_replication",
        ),
        (
            "ALTER TABLE sqs_vault DISABLE TRIGGER deleted_by_replication",
            "is not enabled",
            "ALTER TABLE public.sqs_vault ENABLE REPLICA TRIGGER deleted_by_replication",
        ),
        (
            "DROP TRIGGER deleted_by_replication ON sqs_vault",
            "does not exist",
            "Create it",
        ),
    ] {
        let trigger = match ddl.contains("deleted_by_replication") {
            true => "deleted_by_replication",
            false => "deleted",
        };
        let scene = scene();
        let mut session = scene.connect();
        let definition = session
            .text(&format!(
                "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = '{trigger}'"
            ))
            .unwrap();
        session.run(ddl);
        scene.send(&["a"]);

        let ingest = session.ingest_error(&scene.queue, 1);
        let drain = session.error_of(&format!("CALL sqs_drain('{}')", scene.queue.url()));

        for error in [ingest, drain] {
            assert_eq!(error.code().code(), "55000", "{error:?}");
            assert_eq!(
                error.message(),
                format!("trigger {trigger} on table public.sqs_vault {problem}")
            );
            assert!(error.detail().is_some(), "{error:?}");
            assert!(error.hint().unwrap().contains(repair), "{error:?}");
        }
        assert!(scene.server.calls().is_empty());

        if problem == "does not exist" {
            session.run(&definition);
        }
        session.run(
            "ALTER TABLE public.sqs_vault ENABLE ALWAYS TRIGGER deleted;
             ALTER TABLE public.sqs_vault ENABLE REPLICA TRIGGER deleted_by_replication",
        );
        assert_eq!(session.ingest(&scene.queue, 1), 1);
        session.expect_vault_agrees(&scene.pair);
    }
}

#[test]
fn a_trigger_that_comes_in_the_middle_of_a_transaction_does_not_run() {
    let scene = scene();
    let mut session = scene.connect();
    session.run("BEGIN");
    scene.ingest(&mut session, &["a"]);
    session.run(
        "CREATE FUNCTION evil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'it ran'; END $$;
         CREATE TRIGGER mischief BEFORE INSERT ON sqs_vault FOR EACH ROW EXECUTE FUNCTION evil()",
    );

    let error = session.error_of("COMMIT");

    assert_eq!(error.code().code(), "55000", "{error:?}");
    assert!(error.message().contains("trigger mischief"), "{error:?}");
    assert_eq!(session.logins(), 0);
    scene.queue.expect_released(1);
}

#[test]
fn a_role_with_row_security_off_seals() {
    let scene = scene();
    let mut admin = scene.connect();
    let role = role_of(&scene, &mut admin);
    admin.run(&format!(
        "GRANT EXECUTE ON FUNCTION sqs_ingest TO {role}; GRANT INSERT ON user_logins TO {role}"
    ));
    let mut session = scene.database.connect_as(&role);
    session.set("row_security", "off");
    scene.ingest(&mut session, &["a"]);
    session.set("row_security", "on");
    scene.ingest(&mut session, &["b"]);
    admin.expect_vault_agrees(&scene.pair);
    drop_role(&mut admin, &role);
}

#[test]
fn row_level_security_of_the_ledger_does_not_concern_a_role_with_row_security_off() {
    let scene = scene();
    let mut admin = scene.connect();
    let role = role_of(&scene, &mut admin);
    admin.run(&format!(
        "GRANT EXECUTE ON FUNCTION sqs_ingest, sqs_peek TO {role}; GRANT INSERT ON user_logins TO {role};
         ALTER TABLE sqs_ledger ENABLE ROW LEVEL SECURITY; ALTER TABLE sqs_rejected ENABLE ROW LEVEL SECURITY;
         ALTER TABLE sqs_queue ENABLE ROW LEVEL SECURITY"
    ));
    let mut session = scene.database.connect_as(&role);
    session.set("row_security", "off");
    scene.queue.send(&["not a login".to_owned()]);
    scene.send(&["a"]);
    assert_eq!(session.ingest(&scene.queue, 2), 1);
    session.run(&format!(
        "SELECT * FROM sqs_peek('{}', 1)",
        scene.queue.url()
    ));
    admin.expect_vault_agrees(&scene.pair);
    drop_role(&mut admin, &role);
}

#[test]
fn policies_of_user_logins_and_row_security_off_are_an_error_before_anything_is_received() {
    let scene = scene();
    let mut admin = scene.connect();
    let role = role_of(&scene, &mut admin);
    admin.run(&format!(
        "GRANT EXECUTE ON FUNCTION sqs_ingest TO {role}; GRANT INSERT ON user_logins TO {role};
         ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY;
         CREATE POLICY anything ON user_logins FOR INSERT WITH CHECK (true)"
    ));
    let mut session = scene.database.connect_as(&role);
    session.set("row_security", "off");
    scene.send(&["a"]);
    let error = session.ingest_error(&scene.queue, 1);
    assert_eq!(error.code().code(), "42501", "{error:?}");
    assert!(scene.server.calls().is_empty());
    drop_role(&mut admin, &role);
}
