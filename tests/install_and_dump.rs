//! The extension comes, goes, moves and is restored without touching anything that does not belong to it.

use std::process::Stdio;

use tests::cluster::Cluster;
use tests::database::{Database, Session, TextRow, literal};
use tests::scripted::{Answer, ScriptedSqs};
use tests::{localstack, logins, run};

const USER_LOGINS: &str = "CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), \
     masked_ip varchar(256), masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)";

fn columns_of(session: &mut Session, table: &str) -> Vec<TextRow> {
    session.rows(&format!(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
         WHERE attrelid = {}::regclass AND attnum > 0 ORDER BY attnum",
        literal(table)
    ))
}

fn is_member(session: &mut Session, table: &str) -> bool {
    session.number(&format!(
        "SELECT count(*) FROM pg_depend WHERE objid = {}::regclass AND deptype = 'e'",
        literal(table)
    )) > 0
}

#[test]
fn create_extension_makes_user_logins_but_does_not_own_it() {
    let database = Database::shared();
    let mut session = database.connect();

    let made = columns_of(&mut session, "user_logins");

    session.run(&format!(
        "ALTER TABLE user_logins RENAME TO made; {USER_LOGINS}"
    ));
    assert_eq!(made, columns_of(&mut session, "user_logins"));
    assert!(!is_member(&mut session, "made"));
    assert!(is_member(&mut session, "sqs_ledger"));
    assert!(is_member(&mut session, "sqs_rejected"));
}

#[test]
fn create_extension_adopts_what_is_there() {
    let database = Database::bare(Cluster::shared());
    let queue = localstack::queue();
    queue.send(&logins::good(3));
    let mut session = database.connect();
    session.run(&format!(
        "{USER_LOGINS}; INSERT INTO user_logins (user_id) VALUES ('from before')"
    ));

    session.run("CREATE EXTENSION user_logins_sqs");

    assert!(!is_member(&mut session, "user_logins"));
    assert_eq!(session.ingest(&queue, 3), 3);
    assert_eq!(session.logins(), 4);
}

#[test]
fn create_extension_refuses_a_misshapen_user_logins() {
    let database = Database::bare(Cluster::shared());
    let mut session = database.connect();
    session.run("CREATE TABLE user_logins (user_id text, masked_ip integer)");

    let error = session.error_of("CREATE EXTENSION user_logins_sqs");

    assert_eq!(error.code().code(), "42804", "{error:?}");
    let said = format!("{} {}", error.message(), error.detail().unwrap_or_default());
    assert!(said.contains("user_logins"), "{error:?}");
    assert!(error.hint().is_some(), "{error:?}");
    assert_eq!(
        session.number("SELECT count(*) FROM pg_extension WHERE extname = 'user_logins_sqs'"),
        0
    );
    assert_eq!(columns_of(&mut session, "user_logins").len(), 2);
}

#[test]
fn drop_extension_keeps_the_rows_and_a_new_one_adopts_them() {
    let database = Database::shared();
    let queue = localstack::queue();
    queue.send(&logins::good(4));
    let mut session = database.connect();
    session.ingest(&queue, 2);

    session.run("DROP EXTENSION user_logins_sqs");

    assert_eq!(session.logins(), 2);
    let left = session.rows(
        "SELECT relname FROM pg_class WHERE relname ~ '^sqs_'
         UNION SELECT proname FROM pg_proc WHERE proname ~ '^sqs_'",
    );
    assert_eq!(left, Vec::<TextRow>::new());

    session.run("CREATE EXTENSION user_logins_sqs");
    assert_eq!(session.ingest(&queue, 2), 2);
    assert_eq!(session.logins(), 4);
}

#[test]
fn drop_extension_in_a_session_that_has_ingested_and_again_after() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(30));
    let mut session = database.connect();
    for _ in 0..3 {
        assert_eq!(session.ingest(&queue, 10), 10);
        session.run("DROP EXTENSION user_logins_sqs; CREATE EXTENSION user_logins_sqs");
    }
    assert_eq!(session.logins(), 30);
}

#[test]
fn a_session_notices_that_user_logins_was_replaced() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(20));
    let mut session = database.connect();
    session.ingest(&queue, 10);

    session.run(&format!(
        "ALTER TABLE user_logins RENAME TO old; {USER_LOGINS}"
    ));

    assert_eq!(session.ingest(&queue, 10), 10);
    assert_eq!(session.logins(), 10);
    assert_eq!(session.number("SELECT count(*) FROM old"), 10);
}

#[test]
fn nobody_but_the_owner_may_call_a_function_at_first() {
    let database = Database::shared();
    let mut session = database.connect();

    let open_to_all = session.rows(
        "SELECT oid::regprocedure FROM pg_proc
         WHERE proname IN ('sqs_ingest', 'sqs_drain') AND has_function_privilege('public', oid, 'EXECUTE')",
    );

    assert_eq!(open_to_all, Vec::<TextRow>::new());
    assert_eq!(
        session.number("SELECT count(*) FROM pg_proc WHERE proname IN ('sqs_ingest', 'sqs_drain')"),
        2
    );
}

/// A database with rows, a ledger, a rejection and a subscription.
fn dumped() -> Database<'static> {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(20));
    queue.send(&["bad".to_owned()]);
    let mut session = database.connect();
    assert_eq!(session.ingest(&queue, 21), 20);
    session.run(
        "INSERT INTO sqs_subscription (queue_url, role, workers) \
         VALUES ('http://localhost/000000000000/q', 'postgres', 3)",
    );
    database
}

#[track_caller]
fn expect_restored(dumped: &Database, restored: &Database) {
    for table in ["user_logins", "sqs_ledger", "sqs_rejected"] {
        let content = format!("SELECT {table}::text FROM {table} ORDER BY 1");
        let original = dumped.connect().rows(&content);
        assert!(!original.is_empty(), "{table}");
        assert_eq!(original, restored.connect().rows(&content), "{table}");
    }
    assert!(!is_member(&mut restored.connect(), "user_logins"));
    let subscription =
        "SELECT queue_url, role, workers, enabled, created, installation FROM sqs_subscription";
    let original = dumped.connect().rows(subscription);
    assert_eq!(original, restored.connect().rows(subscription));
}

#[test]
fn a_plain_dump_is_restored_without_an_error() {
    let dumped = dumped();
    let restored = Database::bare(Cluster::shared());
    let cluster = Cluster::shared();

    let mut dump = cluster
        .client_program("pg_dump")
        .arg(dumped.name())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let restore = cluster
        .client_program("psql")
        .args([
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--dbname",
            restored.name(),
        ])
        .stdin(dump.stdout.take().unwrap())
        .stdout(Stdio::null())
        .output()
        .unwrap();

    assert!(dump.wait().unwrap().success());
    assert!(
        restore.status.success(),
        "{}",
        String::from_utf8_lossy(&restore.stderr)
    );
    expect_restored(&dumped, &restored);
}

/// Dumps in the custom format, then restores with these arguments, allowing no error.
#[track_caller]
fn dump_and_restore(
    dumped: &Database,
    restored: &Database,
    dump_arguments: &[&str],
    restore_arguments: &[&str],
) {
    let cluster = Cluster::shared();
    let file = run::directory().join(run::unique_name("dump"));
    let dump = cluster
        .client_program("pg_dump")
        .args(["--format=custom", "--file"])
        .arg(&file)
        .args(dump_arguments)
        .arg(dumped.name())
        .output()
        .unwrap();
    assert!(
        dump.status.success(),
        "{}",
        String::from_utf8_lossy(&dump.stderr)
    );
    let restore = cluster
        .client_program("pg_restore")
        .args(["--exit-on-error", "--dbname", restored.name()])
        .args(restore_arguments)
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        restore.status.success(),
        "{}",
        String::from_utf8_lossy(&restore.stderr)
    );
}

fn restore_of_a_custom_dump(dump_arguments: &[&str], restore_arguments: &[&str]) {
    let dumped = dumped();
    let restored = Database::bare(Cluster::shared());
    dump_and_restore(&dumped, &restored, dump_arguments, restore_arguments);
    expect_restored(&dumped, &restored);
}

#[test]
fn a_custom_dump_is_restored_without_an_error() {
    restore_of_a_custom_dump(&[], &[]);
}

#[test]
fn a_custom_dump_is_restored_in_parallel() {
    restore_of_a_custom_dump(&[], &["--jobs=4"]);
}

#[test]
fn a_custom_dump_is_restored_in_one_transaction() {
    restore_of_a_custom_dump(&[], &["--single-transaction"]);
}

#[test]
fn a_custom_dump_is_restored_with_row_security() {
    const ENABLED: &[&str] = &["--enable-row-security"];
    restore_of_a_custom_dump(ENABLED, ENABLED);
}

#[test]
fn a_custom_dump_is_restored_with_set_session_authorization() {
    restore_of_a_custom_dump(
        &["--use-set-session-authorization"],
        &["--use-set-session-authorization"],
    );
}

#[test]
fn a_custom_dump_replaces_what_was_restored_before() {
    let dumped = dumped();
    let restored = Database::bare(Cluster::shared());
    dump_and_restore(&dumped, &restored, &[], &[]);

    dump_and_restore(&dumped, &restored, &[], &["--clean", "--if-exists"]);

    expect_restored(&dumped, &restored);
}

#[test]
fn schema_and_data_are_restored_one_after_the_other() {
    let dumped = dumped();
    let restored = Database::bare(Cluster::shared());

    dump_and_restore(&dumped, &restored, &[], &["--schema-only"]);
    dump_and_restore(&dumped, &restored, &[], &["--data-only"]);

    expect_restored(&dumped, &restored);
}

#[test]
fn data_are_restored_beside_a_new_extension() {
    let dumped = dumped();
    let restored = Database::shared();

    dump_and_restore(&dumped, &restored, &[], &["--data-only"]);

    expect_restored(&dumped, &restored);
}

#[test]
fn a_dump_of_any_user_logins_is_restored() {
    let shapes = [
        "ALTER TABLE user_logins ADD note text DEFAULT 'x', ADD CHECK (user_id <> '');
         CREATE INDEX ON user_logins (user_id)",
        "DROP TABLE user_logins;
         CREATE TABLE user_logins (user_id text, device_type text, masked_ip text, masked_device_id text, locale text,
                                   app_version bigint, create_date date) PARTITION BY RANGE (create_date);
         CREATE TABLE all_days PARTITION OF user_logins DEFAULT",
        "ALTER TABLE user_logins RENAME TO logins; CREATE VIEW user_logins AS SELECT * FROM logins",
        "DROP TABLE user_logins;
         CREATE EXTENSION postgres_fdw; CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw;
         CREATE FOREIGN TABLE user_logins (user_id text, device_type text, masked_ip text, masked_device_id text,
                                           locale text, app_version integer, create_date date) SERVER elsewhere",
        "DROP TABLE user_logins",
    ];
    for shape in shapes {
        let dumped = Database::shared();
        let restored = Database::bare(Cluster::shared());
        dumped.connect().run(shape);

        dump_and_restore(&dumped, &restored, &[], &[]);

        if !shape.starts_with("DROP TABLE user_logins") || shape.len() > 30 {
            let mut sessions = [dumped.connect(), restored.connect()];
            let [was, is] = sessions
                .each_mut()
                .map(|session| columns_of(session, "user_logins"));
            assert_eq!(was, is, "{shape}");
        }
    }
}

#[test]
fn user_logins_makes_way_only_as_it_was_made_and_in_the_session_that_made_it() {
    let touches = [
        "INSERT INTO user_logins (user_id) VALUES ('kept')",
        "INSERT INTO user_logins (user_id) VALUES ('deleted'); DELETE FROM user_logins",
        "ALTER TABLE user_logins ADD note text",
        "GRANT SELECT ON user_logins TO PUBLIC",
        "CREATE INDEX ON user_logins (user_id)",
        "ALTER TABLE user_logins ALTER user_id SET DEFAULT 'x'",
        "ALTER TABLE user_logins ADD CHECK (user_id <> '')",
        "CREATE PUBLICATION published FOR TABLE user_logins",
        "CREATE VIEW seen AS SELECT user_id FROM user_logins",
    ];
    for touch in touches {
        let database = Database::bare(Cluster::shared());
        let mut session = database.connect();
        session.run("CREATE EXTENSION user_logins_sqs").run(touch);

        let error = session.error_of("CREATE TABLE user_logins (other integer)");

        assert_eq!(error.code().code(), "42P07", "{touch}: {error:?}");
    }

    let database = Database::shared();
    let mut other = database.connect();
    let error = other.error_of("CREATE TABLE user_logins (other integer)");
    assert_eq!(error.code().code(), "42P07", "{error:?}");

    let database = Database::bare(Cluster::shared());
    let mut session = database.connect();
    session.run("CREATE EXTENSION user_logins_sqs");
    session.run("CREATE TABLE IF NOT EXISTS user_logins (other integer)");
    session.run("CREATE TEMP TABLE user_logins (other integer)");
    session.error_of("CREATE TABLE public.user_logins (other nonsense)");
    assert_eq!(columns_of(&mut session, "public.user_logins").len(), 7);
    session.run("CREATE TABLE public.user_logins (other integer)");
    assert_eq!(columns_of(&mut session, "public.user_logins").len(), 1);
}

#[test]
fn create_extension_makes_user_logins_whatever_the_session_has_set() {
    let database = Database::bare(Cluster::shared());
    let mut session = database.connect();

    session.run("SET row_security = off; CREATE EXTENSION user_logins_sqs");

    assert_eq!(session.logins(), 0);
    let left = session.rows("SELECT proname FROM pg_proc WHERE proname = 'sqs_create_user_logins'");
    assert_eq!(left, Vec::<TextRow>::new());
}

#[test]
fn a_message_in_the_restored_ledger_is_a_duplicate() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(10));
    server.always("ReceiveMessage", Answer::ServeAndKeepVisible);
    database.connect().ingest(&queue, 10);
    let restored = Database::bare(Cluster::shared());
    let cluster = Cluster::shared();
    let dump = cluster
        .client_program("pg_dump")
        .arg(database.name())
        .output()
        .unwrap();
    let file = run::directory().join(run::unique_name("dump"));
    std::fs::write(&file, dump.stdout).unwrap();
    let restore = cluster
        .client_program("psql")
        .args(["-q", "-d", restored.name(), "-f"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(restore.status.success());
    server.behave();

    assert_eq!(restored.connect().ingest(&queue, 10), 0);

    assert_eq!(restored.connect().logins(), 10);
    queue.expect_drained();
}

#[test]
fn the_extension_works_in_another_schema() {
    let database = Database::bare(Cluster::shared());
    let queue = localstack::queue();
    queue.send(&logins::good(5));
    queue.send(&["bad".to_owned()]);
    let mut session = database.connect();

    session.run("CREATE SCHEMA logins; CREATE EXTENSION user_logins_sqs SCHEMA logins");

    let call = format!("SELECT logins.sqs_ingest({}, 6)", literal(queue.url()));
    assert_eq!(session.number(&call), 5);
    assert_eq!(session.number("SELECT count(*) FROM logins.user_logins"), 5);
    assert_eq!(session.number("SELECT count(*) FROM logins.sqs_ledger"), 5);
    assert_eq!(
        session.number("SELECT count(*) FROM logins.sqs_rejected"),
        1
    );
    assert_eq!(
        session.text("SELECT to_regclass('public.user_logins')"),
        None
    );
}

#[test]
fn the_extension_works_in_a_schema_whose_name_needs_quotes() {
    let database = Database::bare(Cluster::shared());
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(5));
    let mut session = database.connect();

    session.run(r#"CREATE SCHEMA "Odd-Name of logins"; CREATE EXTENSION user_logins_sqs SCHEMA "Odd-Name of logins""#);

    let call = format!(
        r#"SELECT "Odd-Name of logins".sqs_ingest({}, 5)"#,
        literal(queue.url())
    );
    assert_eq!(session.number(&call), 5);
}

/// Objects with the names of the extension's and Postgres' own, in a schema that comes first in the search path.
const HOSTILE: &str = "
    CREATE SCHEMA hostile;
    CREATE TABLE hostile.touched (by text);
    CREATE TABLE hostile.user_logins (LIKE public.user_logins);
    CREATE TABLE hostile.sqs_ledger (LIKE public.sqs_ledger);
    CREATE TABLE hostile.sqs_rejected (LIKE public.sqs_rejected);
    CREATE FUNCTION hostile.trap(what text) RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO hostile.touched VALUES (what); RETURN true; END $$;
    CREATE FUNCTION hostile.unnest(text[]) RETURNS SETOF text LANGUAGE sql AS
        $$ SELECT 'hostile' WHERE hostile.trap('unnest') $$;
    CREATE FUNCTION hostile.unnest(bigint[]) RETURNS SETOF bigint LANGUAGE sql AS
        $$ SELECT 0::bigint WHERE hostile.trap('unnest') $$;
    CREATE FUNCTION hostile.unnest(uuid[]) RETURNS SETOF uuid LANGUAGE sql AS
        $$ SELECT gen_random_uuid() WHERE hostile.trap('unnest') $$;
    CREATE FUNCTION hostile.now() RETURNS timestamptz LANGUAGE sql AS
        $$ SELECT 'epoch'::timestamptz WHERE hostile.trap('now') $$;
    CREATE FUNCTION hostile.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
        $$ SELECT 'epoch'::timestamptz WHERE hostile.trap('clock_timestamp') $$;
    CREATE FUNCTION hostile.to_timestamp(double precision) RETURNS timestamptz LANGUAGE sql AS
        $$ SELECT 'epoch'::timestamptz WHERE hostile.trap('to_timestamp') $$;
    CREATE FUNCTION hostile.equal_text(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT hostile.trap('= text') $$;
    CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.equal_text);
    CREATE FUNCTION hostile.equal_uuid(uuid, uuid) RETURNS boolean LANGUAGE sql AS $$ SELECT hostile.trap('= uuid') $$;
    CREATE OPERATOR hostile.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = hostile.equal_uuid);
    CREATE FUNCTION hostile.plus(bigint, bigint) RETURNS bigint LANGUAGE sql AS
        $$ SELECT 0::bigint WHERE hostile.trap('+') $$;
    CREATE OPERATOR hostile.+ (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = hostile.plus);
    CREATE DOMAIN hostile.text AS pg_catalog.int4;
    CREATE DOMAIN hostile.timestamptz AS pg_catalog.int4;
    CREATE DOMAIN hostile.uuid AS pg_catalog.int4;
    CREATE DOMAIN hostile.date AS pg_catalog.int4;";

#[test]
fn no_search_path_misleads_the_extension() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(20));
    queue.send(&["bad".to_owned(), logins::login("refused").to_string()]);
    let mut session = database.connect();
    session.run(HOSTILE);
    session.run("ALTER TABLE user_logins ADD CHECK (user_id OPERATOR(pg_catalog.<>) 'refused'::pg_catalog.text)");
    session.set("user_logins_sqs.visibility_timeout", 1);
    session.run("SET search_path = hostile, pg_catalog, public");

    for times_seen in 1..=2_u32 {
        assert_eq!(
            session.ingest(&queue, 100),
            if times_seen == 1 { 20 } else { 0 }
        );
        queue.expect_counts_within(
            std::time::Duration::from_secs(5),
            tests::queue::Counts {
                visible: 2,
                in_flight: 0,
            },
        );
        let mut other = database.connect();
        let seen: Vec<u32> = other
            .rejections()
            .iter()
            .map(|rejection| rejection.times_seen)
            .collect();
        assert_eq!(seen, [times_seen; 2]);
    }

    session.run(&format!(
        "CALL public.sqs_drain({}::pg_catalog.text)",
        literal(queue.url())
    ));
    let mut other = database.connect();
    assert_eq!(
        other.rows("SELECT DISTINCT by FROM hostile.touched"),
        Vec::<TextRow>::new()
    );
    for table in ["user_logins", "sqs_ledger", "sqs_rejected"] {
        assert_eq!(
            other.number(&format!("SELECT count(*) FROM hostile.{table}")),
            0,
            "{table}"
        );
    }
    assert_eq!(other.logins(), 20);
}

#[test]
fn temporary_tables_do_not_mislead_the_extension() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(5));
    let mut session = database.connect();
    session.run(
        "CREATE TEMP TABLE user_logins (LIKE public.user_logins);
         CREATE TEMP TABLE sqs_ledger (LIKE public.sqs_ledger)",
    );

    assert_eq!(session.ingest(&queue, 5), 5);

    assert_eq!(session.logins(), 5);
    assert_eq!(
        session.number("SELECT count(*) FROM pg_temp.user_logins"),
        0
    );
}

#[test]
fn an_empty_search_path_does_no_harm() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(5));
    let mut session = database.connect();
    session.run("SET search_path = ''");

    assert_eq!(session.ingest(&queue, 5), 5);
}

#[test]
fn loading_the_library_in_every_server_process_changes_nothing() {
    let cluster = tests::cluster::Plan::default()
        .setting("shared_preload_libraries", "user_logins_sqs")
        .start();
    let database = Database::with_extension(&cluster);
    let queue = localstack::queue();
    queue.send(&logins::good(5));

    assert_eq!(database.connect().ingest(&queue, 5), 5);

    queue.expect_drained();
}

#[test]
fn a_database_that_is_not_utf8_is_refused() {
    let cluster = Cluster::shared();
    let mut maintenance = Database::existing(cluster, "postgres").connect();
    for encoding in ["LATIN1", "EUC_JP", "SQL_ASCII"] {
        let name = format!("in_{}", encoding.to_lowercase());
        maintenance.run(&format!(
            "CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        ));
        let mut session = Database::existing(cluster, &name).connect();

        let error = session.error_of("CREATE EXTENSION user_logins_sqs");

        assert_eq!(error.code().code(), "0A000", "{error:?}");
        assert!(error.detail().unwrap().contains(encoding), "{error:?}");
        assert!(error.hint().unwrap().contains("ENCODING 'UTF8'"));
        drop(session);
        maintenance.run(&format!("DROP DATABASE {name} WITH (FORCE)"));
    }
}

#[test]
fn it_works_in_a_schema_whose_name_looks_like_a_format() {
    let database = Database::bare(Cluster::shared());
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(1));
    let mut session = database.connect();
    session.run(r#"CREATE SCHEMA "a%s%L%"; CREATE EXTENSION user_logins_sqs SCHEMA "a%s%L%""#);
    let rows = format!(r#"SELECT "a%s%L%".sqs_ingest('{}', 1)"#, queue.url());
    assert_eq!(session.number(&rows), 1);
}

#[test]
fn a_table_of_ones_own_takes_the_place_of_ours_whatever_types_there_are() {
    let database = Database::shared();
    let mut session = database.connect();
    session.run(
        "DROP EXTENSION user_logins_sqs; DROP TABLE user_logins; CREATE EXTENSION user_logins_sqs",
    );
    session.run("CREATE DOMAIN public.\"char\" AS integer; SET search_path = public, pg_catalog");

    session.run("CREATE TABLE user_logins (id integer)");
}
