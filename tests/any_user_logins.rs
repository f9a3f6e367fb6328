//! `user_logins` may be more than a plain table: it only has to take an INSERT of the seven columns.

use tests::cluster::Cluster;
use tests::database::Database;
use tests::logins;
use tests::scene::Scene;
use tests::scripted::ScriptedSqs;

const COLUMNS: &str = "user_id varchar(128), device_type varchar(32), masked_ip varchar(256), \
     masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date";

fn scene(ddl: &str) -> Scene<'static> {
    let mut scene = Scene::shared();
    scene.queue.send(&logins::good(50));
    scene.session.run(&ddl.replace("COLUMNS", COLUMNS));
    scene
}

#[track_caller]
fn expect_filled(scene: &mut Scene) {
    assert_eq!(scene.session.ingest(&scene.queue, 50), 50);
    assert_eq!(
        scene
            .session
            .number("SELECT count(DISTINCT user_id) FROM user_logins"),
        50
    );
    assert_eq!(scene.session.logins(), 50);
    scene.queue.expect_drained();
}

#[test]
fn a_table_with_more_columns_with_defaults_is_filled() {
    let mut scene = scene(
        "ALTER TABLE user_logins
         ADD id bigserial PRIMARY KEY, ADD loaded timestamptz NOT NULL DEFAULT now(), ADD note text",
    );
    expect_filled(&mut scene);
    assert_eq!(
        scene
            .session
            .number("SELECT count(DISTINCT id) FROM user_logins"),
        50
    );
}

#[test]
fn a_table_with_columns_in_another_order_is_filled() {
    expect_filled(&mut scene(
        "DROP TABLE user_logins;
         CREATE TABLE user_logins (create_date date, app_version integer, locale varchar(32), extra text,
           masked_device_id varchar(256), masked_ip varchar(256), device_type varchar(32), user_id varchar(128))",
    ));
}

#[test]
fn a_table_with_columns_of_type_text_is_filled() {
    expect_filled(&mut scene(
        "DROP TABLE user_logins;
         CREATE TABLE user_logins (user_id text, device_type text, masked_ip text, masked_device_id text,
           locale text, app_version integer, create_date date)",
    ));
}

#[test]
fn a_partitioned_table_is_filled() {
    expect_filled(&mut scene(
        "DROP TABLE user_logins; CREATE TABLE user_logins (COLUMNS) PARTITION BY HASH (user_id);
         CREATE TABLE part_0 PARTITION OF user_logins FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE part_1 PARTITION OF user_logins FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    ));
}

#[test]
fn a_view_with_a_trigger_is_filled() {
    let mut scene = scene(
        "ALTER TABLE user_logins RENAME TO behind; CREATE VIEW user_logins AS SELECT * FROM behind;
         CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN INSERT INTO behind SELECT NEW.*; RETURN NEW; END $$;
         CREATE TRIGGER put INSTEAD OF INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION put()",
    );
    expect_filled(&mut scene);
    assert_eq!(scene.session.number("SELECT count(*) FROM behind"), 50);
}

#[test]
fn a_simple_view_is_filled() {
    expect_filled(&mut scene(
        "ALTER TABLE user_logins RENAME TO behind; CREATE VIEW user_logins AS SELECT * FROM behind",
    ));
}

#[test]
fn a_foreign_table_is_filled() {
    let mut scene =
        scene("ALTER TABLE user_logins RENAME TO far_away; CREATE EXTENSION postgres_fdw");
    let (directory, port) = scene.database.cluster().address();
    scene.session.run(&format!(
        "CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', port '{port}', dbname '{}');
         CREATE USER MAPPING FOR CURRENT_USER SERVER far;
         CREATE FOREIGN TABLE user_logins ({COLUMNS}) SERVER far OPTIONS (table_name 'far_away')",
        directory.display(),
        scene.database.name(),
    ));
    scene
        .session
        .set("user_logins_sqs.allow_foreign_table", "on");
    expect_filled(&mut scene);
}

#[test]
fn a_trigger_may_keep_some_rows_out() {
    let mut scene = scene(
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF right(NEW.user_id, 1) = '1' THEN RETURN NULL; END IF; RETURN NEW; END $$;
         CREATE TRIGGER skip BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION skip()",
    );

    scene.session.ingest(&scene.queue, 50);

    assert_eq!(scene.session.logins(), 45);
    assert_eq!(scene.session.rejections(), []);
    scene.queue.expect_drained();
}

#[test]
fn a_table_with_a_row_policy_is_filled() {
    let mut scene = scene(
        "ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
         CREATE POLICY all_in ON user_logins FOR INSERT WITH CHECK (true)",
    );
    expect_filled(&mut scene);
}

/// Citus' catalog, as far as it is looked at.
#[test]
fn a_distributed_table_gets_more_rows_a_statement() {
    let cluster = Cluster::private();
    let database = Database::with_extension(&cluster);
    let sqs = ScriptedSqs::start();
    let queue = sqs.queue();
    queue.send(&logins::good(4_000));
    let mut session = database.connect();
    session.run(
        "SET allow_system_table_mods = on;
         CREATE TABLE pg_catalog.pg_dist_shard (logicalrelid regclass, shardid bigint);
         INSERT INTO pg_dist_shard SELECT 'user_logins', n FROM generate_series(1, 8) n;
         CREATE TABLE statements (rows bigint);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           INSERT INTO statements SELECT count(*) FROM added; RETURN NULL;
         END $$;
         CREATE TRIGGER note AFTER INSERT ON user_logins REFERENCING NEW TABLE AS added
           FOR EACH STATEMENT EXECUTE FUNCTION note()",
    );

    assert_eq!(session.ingest(&queue, 4_000), 4_000);

    assert_eq!(session.number("SELECT max(rows) FROM statements"), 2_000);
    assert_eq!(session.number("SELECT count(*) FROM statements"), 2);
}
