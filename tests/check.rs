//! `sqs_check` says what keeps messages from becoming rows, raises nothing, and changes nothing.

use std::fs;

use tests::check_report::Report;
use tests::cluster::Cluster;
use tests::database::{Database, Session};
use tests::run;
use tests::vault::{KeyPair, recipients_file};

#[test]
fn a_fresh_database_has_nothing_but_what_was_not_set_up() {
    let database = Database::shared();
    let report = Report::here(&mut database.connect());

    assert_eq!(
        report.with_status("error"),
        Vec::<&str>::new(),
        "{report:#?}"
    );
    assert_eq!(
        report.with_status("warning"),
        ["mask key", "shared_preload_libraries"],
        "{report:#?}"
    );
    report.expect("ledger", "ok", "it is empty");
    report.expect("rejections", "ok", "none");
    report.expect("vault", "ok", "off");
    report.expect("tables of the vault", "ok", "off");
    report.expect("vault entries", "ok", "about 0 entries");
    report.expect("vault entries", "ok", "no data key");
}

#[test]
fn user_logins_that_takes_no_rows_is_an_error() {
    let database = Database::shared();
    let mut session = database.connect();
    for (change, words) in [
        (
            "ALTER TABLE user_logins ALTER masked_ip TYPE varchar(10)",
            "\"masked_ip\"",
        ),
        ("DROP TABLE user_logins", "does not exist"),
    ] {
        session.run(change);
        Report::here(&mut session).expect("user_logins", "error", words);
    }
}

#[test]
fn a_role_learns_of_its_own_rights() {
    let database = Database::shared();
    let role = run::unique_name("role");
    let mut admin = database.connect();
    admin.run(&format!("CREATE ROLE {role} LOGIN"));
    let mut session = database.connect_as(&role);

    let error = session.error_of("SELECT * FROM sqs_check()");
    assert_eq!(error.code().code(), "42501", "{error:?}");

    admin.run(&format!("GRANT EXECUTE ON FUNCTION sqs_check TO {role}"));
    Report::here(&mut session).expect("user_logins", "error", "permission denied");

    admin.run(&format!("GRANT INSERT ON user_logins TO {role}"));
    Report::here(&mut session).expect("user_logins", "ok", &role);

    admin.run("ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY");
    Report::here(&mut session).expect("row-level security", "error", "none allows");

    admin.run(&format!(
        "CREATE POLICY p ON user_logins FOR INSERT TO {role} WITH CHECK (true)"
    ));
    Report::here(&mut session).expect("row-level security", "ok", "policies apply");
    admin.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn days_without_a_partition_are_found() {
    let database = Database::shared();
    let mut session = database.connect();
    session.run(
        "ALTER TABLE user_logins RENAME TO old;
         CREATE TABLE user_logins (LIKE old) PARTITION BY RANGE (create_date)",
    );
    let today = "(now() AT TIME ZONE 'UTC')::date";
    let partition = |session: &mut Session, name: &str, from: i32, to: i32| {
        let sql = format!(
            "SELECT format('CREATE TABLE {name} PARTITION OF user_logins FOR VALUES FROM (%L) TO (%L)',
                           {today} + {from}, {today} + {to})"
        );
        let ddl = session.text(&sql).unwrap();
        session.run(&ddl);
    };
    Report::here(&mut session).expect("partitions", "error", "today");

    partition(&mut session, "today", 0, 1);
    Report::here(&mut session).expect("partitions", "warning", "tomorrow");

    partition(&mut session, "tomorrow", 1, 2);
    Report::here(&mut session).expect("partitions", "warning", "14 days of the last 14");

    partition(&mut session, "past", -13, 0);
    Report::here(&mut session).expect("partitions", "warning", "1 day of the last 14");

    partition(&mut session, "distant_past", -1000, -13);
    Report::here(&mut session).expect("partitions", "ok", "no default partition");

    session.run("CREATE TABLE rest PARTITION OF user_logins DEFAULT");
    Report::here(&mut session).expect("partitions", "ok", "default partition");
}

#[test]
fn a_table_that_is_partitioned_by_something_else_cannot_be_judged() {
    let database = Database::shared();
    let mut session = database.connect();
    session.run(
        "DROP TABLE user_logins;
         CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
           masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)
         PARTITION BY LIST (locale)",
    );
    Report::here(&mut session).expect("partitions", "unknown", "LIST (locale)");
}

#[test]
fn code_of_others_on_tables_of_the_extension_is_an_error() {
    let database = Database::shared();
    let mut session = database.connect();
    session.run(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER mischief BEFORE INSERT ON sqs_rejected FOR EACH ROW EXECUTE FUNCTION f()",
    );
    Report::here(&mut session).expect("tables of the extension", "error", "mischief");
}

#[test]
fn a_ledger_that_nobody_prunes_is_told() {
    let database = Database::shared();
    let mut session = database.connect();
    session.run("INSERT INTO sqs_ledger VALUES (now() - interval '10 days', gen_random_uuid())");
    let report = Report::here(&mut session);
    report.expect("ledger", "ok", "10 days ago");
    report.expect("ledger pruning", "ok", "15 days");

    session.run("INSERT INTO sqs_ledger VALUES (now() - interval '20 days', gen_random_uuid())");
    Report::here(&mut session).expect("ledger pruning", "warning", "20 days");

    session.run("ALTER TABLE sqs_ledger_03 SET (autovacuum_enabled = false)");
    Report::here(&mut session).expect("autovacuum", "warning", "sqs_ledger_03");
}

#[test]
fn rejections_of_the_last_day_are_counted() {
    let database = Database::shared();
    let mut session = database.connect();
    session.run(
        "INSERT INTO sqs_rejected
         SELECT 'q', n::text, CASE WHEN n > 2 THEN 'not a login' ELSE 'not JSON' END, '22023', 1,
           now(), CASE WHEN n > 8 THEN now() - interval '2 days' ELSE now() END FROM generate_series(1, 10) AS n",
    );
    Report::here(&mut session).expect("rejections", "warning", "8 messages");
    Report::here(&mut session).expect("rejections", "warning", "not a login");
}

#[test]
fn rejections_are_counted_up_to_a_bound() {
    let database = Database::shared();
    let mut session = database.connect();
    session.run(
        "INSERT INTO sqs_rejected
         SELECT 'q', n::text, 'not JSON', '22023', 1, now(), now() FROM generate_series(1, 10002) AS n",
    );
    Report::here(&mut session).expect("rejections", "warning", "more than 10000 messages");
}

#[test]
fn a_lock_that_somebody_holds_is_not_waited_for() {
    let database = Database::shared();
    let mut other = database.connect();
    other.run(
        "BEGIN; LOCK TABLE sqs_ledger, sqs_rejected, sqs_subscription IN ACCESS EXCLUSIVE MODE",
    );

    let report = Report::here(&mut database.connect());

    for check in [
        "ledger",
        "ledger pruning",
        "rejections",
        "other installations",
    ] {
        report.expect(check, "unknown", "lock");
    }
}

#[test]
fn a_transaction_that_cannot_write_is_told_and_raises_nothing() {
    let database = Database::shared();
    let mut session = database.connect();
    session.run("BEGIN READ ONLY");
    Report::here(&mut session).expect("writable", "error", "read-only");
    session.run("COMMIT");
    Report::here(&mut session).expect("writable", "ok", "");
}

#[test]
fn a_standby_is_told_as_one() {
    let cluster = Cluster::private();
    let database = Database::with_extension(&cluster);
    let standby = cluster.standby();
    let mut session = database.on(&standby).connect();

    let report = Report::here(&mut session);

    report.expect("writable", "error", "standby");
    assert_eq!(report.with_status("error"), ["writable"], "{report:#?}");
}

#[test]
fn mask_keys_are_told_apart_by_their_fingerprints() {
    let cluster = Cluster::private();
    let mut session = Database::with_extension(&cluster).connect();
    let file = cluster.data_directory().join("mask-keys");
    session.set("user_logins_sqs.mask_key_file", file.display());
    Report::here(&mut session).expect("mask key", "error", "could not read");

    let mut fingerprint = |keys: &str| {
        fs::write(&file, keys).unwrap();
        let report = Report::here(&mut session);
        report.expect("mask key", "ok", "fingerprint");
        let detail = report.get("mask key").detail.clone();
        assert!(!detail.contains("0123456789"), "{detail}");
        detail
    };
    let first = fingerprint("0123456789abcdef0123456789abcdef\n");
    assert_eq!(
        first,
        fingerprint("named: 0123456789abcdef0123456789abcdef\n")
    );
    assert_ne!(first, fingerprint("0123456789abcdef0123456789abcdee\n"));
    let both = fingerprint(
        "new: fedcba9876543210fedcba9876543210\nold: 0123456789abcdef0123456789abcdef\n",
    );
    assert!(both.contains("1 older key"), "{both}");
    assert!(
        both.contains(first.rsplit(' ').next().unwrap()),
        "{both} {first}"
    );
}

#[test]
fn a_queue_that_may_not_be_named_is_an_error_of_its_url() {
    let database = Database::shared();
    let mut session = database.connect();
    Report::of(&mut session, "'nonsense'").expect("queue URL", "error", "not the URL");

    session.set("user_logins_sqs.allowed_queues", "*/allowed");
    Report::of(&mut session, "'http://127.0.0.1:1/000000000000/other'").expect(
        "queue URL",
        "error",
        "not allowed",
    );
    Report::here(&mut session).expect("allowed queues", "ok", "*/allowed");
}

#[test]
fn originals_that_cannot_be_kept_are_an_error_and_recipients_are_counted() {
    let database = Database::shared();
    let mut session = database.connect();
    let [one, other] = [KeyPair::generate(), KeyPair::generate()];
    for (file, status, words) in [
        (
            "/nonexistent/recipients".to_owned(),
            "error",
            "could not read",
        ),
        (
            recipients_file("# nobody yet\n"),
            "error",
            "holds no recipient",
        ),
        (recipients_file("age1typo\n"), "error", "line 1 is not"),
        (one.file(), "ok", "for 1 recipient"),
        (
            recipients_file(&format!("{}\n{}\n", one.recipient(), other.recipient())),
            "ok",
            "for 2 recipients",
        ),
    ] {
        session.set("user_logins_sqs.vault_recipients_file", &file);
        Report::here(&mut session).expect("vault", status, words);
    }
}

#[test]
fn a_vault_whose_tables_cannot_be_relied_on_is_an_error() {
    let database = Database::shared();
    let mut session = database.connect();
    session.seal_for(&KeyPair::generate());
    Report::here(&mut session).expect("tables of the vault", "ok", "its triggers fire");

    for (change, words) in [
        (
            "ALTER TABLE sqs_vault_key DISABLE ROW LEVEL SECURITY",
            "row-level security is not enabled",
        ),
        (
            "ALTER TABLE sqs_vault_key ENABLE ROW LEVEL SECURITY;
             ALTER TABLE sqs_vault ENABLE TRIGGER deleted",
            "is not enabled ALWAYS",
        ),
        (
            "ALTER TABLE sqs_vault DISABLE TRIGGER deleted",
            "is not enabled",
        ),
        ("DROP TRIGGER deleted ON sqs_vault", "does not exist"),
        (
            "CREATE RULE mischief AS ON INSERT TO sqs_vault_key DO ALSO SELECT 1",
            "a rule on table public.sqs_vault_key",
        ),
    ] {
        session.run(change);
        Report::here(&mut session).expect("tables of the vault", "error", words);
    }
}

#[test]
fn rights_on_the_vault_that_row_level_security_does_not_restrict_are_a_warning() {
    let database = Database::shared();
    let mut session = database.connect();
    let role = run::unique_name("role");
    session.seal_for(&KeyPair::generate()).run(&format!(
        "CREATE ROLE {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON sqs_vault, sqs_vault_key TO {role}"
    ));
    Report::here(&mut session).expect("tables of the vault", "ok", "");
    for (rights, table, grantee) in [
        (
            "REFERENCES and TRUNCATE",
            "sqs_vault",
            format!("role {role}"),
        ),
        ("TRUNCATE", "sqs_vault_key", format!("role {role}")),
        ("REFERENCES", "sqs_vault", "PUBLIC".to_owned()),
        ("REFERENCES (mask)", "sqs_vault", format!("role {role}")),
    ] {
        let privileges = rights.replace(" and ", ", ");
        let grantee_name = grantee.trim_start_matches("role ");
        session.run(&format!("GRANT {privileges} ON {table} TO {grantee_name}"));
        let report = Report::here(&mut session);
        let told = format!(
            "{grantee} has {} on table public.{table},",
            rights.trim_end_matches(" (mask)")
        );
        report.expect("tables of the vault", "warning", &told);
        let hint = report.get("tables of the vault").hint.clone().unwrap();
        session.run(hint.trim_start_matches("Use ").trim_end_matches('.'));
        Report::here(&mut session).expect("tables of the vault", "ok", "");
    }
    session.run(&format!("GRANT TRUNCATE ON sqs_vault TO {role}"));
    session.set("user_logins_sqs.vault_recipients_file", "");
    Report::here(&mut session).expect("tables of the vault", "ok", "off");
    session.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn only_who_may_read_data_keys_learns_the_age_of_the_newest() {
    let database = Database::shared();
    let role = run::unique_name("role");
    let mut admin = database.connect();
    admin.run(&format!(
        "INSERT INTO sqs_vault SELECT n::text, 'ip', gen_random_uuid(), '', now(), now() FROM generate_series(1, 7) n;
         ANALYZE sqs_vault;
         INSERT INTO sqs_vault_key SELECT gen_random_uuid(), '', '{{}}', now() - interval '5 days' * n
           FROM generate_series(1, 2) n;
         CREATE ROLE {role} LOGIN; GRANT EXECUTE ON FUNCTION sqs_check TO {role};
         GRANT SELECT ON sqs_vault, sqs_vault_key TO {role}"
    ));
    let report = Report::here(&mut admin);
    report.expect("vault entries", "ok", "about 7 entries");
    report.expect("vault entries", "ok", "made 5 days ago");

    let report = Report::here(&mut database.connect_as(&role));
    report.expect("vault entries", "ok", "about 7 entries");
    report.expect("vault entries", "ok", "only the owner");
    assert!(!report.get("vault entries").detail.contains("5 days"));
    admin.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}
