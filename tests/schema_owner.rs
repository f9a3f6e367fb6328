//! Who owns the schema of the extension, as the owner of a database owns `public`, can rename it at any time and put
//! another one in its place. No code of theirs runs with the rights of the owner of the extension's tables.

use std::thread;
use std::time::Duration;

use postgres::NoTls;
use tests::check_report::Report;
use tests::cluster::Cluster;
use tests::database::{Database, Session, db_error, literal};
use tests::queue::Queue;
use tests::scripted::{Answer, ScriptedSqs};
use tests::wait::{eventually, throughout};
use tests::workers::{self, ARRIVE_WITHIN};
use tests::{logins, run};

/// The launcher looks at subscriptions every five seconds.
const SEVERAL_LOOKS: Duration = Duration::from_secs(11);

/// A database of a role that is no superuser, and a schema of that role with tables of the same names as ours.
struct Scene {
    sqs: ScriptedSqs,
    queue: Queue,
    admin: Session,
    bob: String,
    database: Database<'static>,
}

fn scene() -> Scene {
    let database = Database::shared();
    let mut admin = database.connect();
    let bob = run::unique_name("bob");
    admin.run(&format!(
        "CREATE ROLE {bob} LOGIN; ALTER DATABASE {} OWNER TO {bob};
         GRANT EXECUTE ON FUNCTION sqs_ingest TO {bob};
         GRANT EXECUTE ON PROCEDURE sqs_drain TO {bob};
         GRANT INSERT ON user_logins TO {bob}",
        database.name()
    ));
    make_decoys(&mut database.connect_as(&bob), &bob);
    let sqs = ScriptedSqs::start();
    Scene {
        queue: sqs.queue(),
        sqs,
        admin,
        bob,
        database,
    }
}

/// Whatever of the schema `evil` is written or read as a superuser makes the role one.
fn make_decoys(session: &mut Session, role: &str) {
    session.run(&format!(
        "CREATE SCHEMA evil;
         CREATE TABLE evil.user_logins (user_id text, device_type text, masked_ip text, masked_device_id text,
           locale text, app_version integer, create_date date);
         CREATE TABLE evil.sqs_queue (queue_url text, recorded timestamptz DEFAULT now(), message_retention interval);
         CREATE TABLE evil.sqs_ledger (sent_at timestamptz, message_id uuid, UNIQUE (sent_at, message_id));
         CREATE FUNCTION evil.promote() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
           ALTER ROLE {role} SUPERUSER; RETURN true;
         END $$;
         CREATE FUNCTION evil.promote_first() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           ALTER ROLE {role} SUPERUSER; RETURN NEW;
         END $$;
         CREATE TRIGGER mischief BEFORE INSERT ON evil.sqs_ledger
           FOR EACH ROW EXECUTE FUNCTION evil.promote_first();
         CREATE VIEW evil.sqs_rejected AS
           SELECT NULL::text AS queue_url, NULL::text AS message_id, NULL::text AS message_group,
                  now() AS visible_at, now() AS last_seen
           WHERE evil.promote()"
    ));
}

const SWAP: &str =
    "BEGIN; ALTER SCHEMA public RENAME TO kept; ALTER SCHEMA evil RENAME TO public; COMMIT";

impl Scene {
    fn swap(&self) {
        self.database.connect_as(&self.bob).run(SWAP);
    }

    /// Runs `sql` as the role. Once `sqs` has been asked for messages `receives` times, the schemas are swapped, if
    /// that need not wait for the call; then a message arrives.
    fn swap_during_a_poll(&mut self, sql: &str, receives: usize) -> Result<(), postgres::Error> {
        let mut config = self.database.config();
        let config = config.user(&self.bob).clone();
        let sql = sql.to_owned();
        let call = thread::spawn(move || config.connect(NoTls).unwrap().batch_execute(&sql));
        eventually(
            "the call polls",
            Duration::from_secs(10),
            || self.sqs.calls_of("ReceiveMessage").len(),
            |calls| *calls >= receives,
        );
        let mut swapper = self.database.connect_as(&self.bob);
        let swapper_pid = swapper.pid();
        let swap = thread::spawn(move || {
            swapper.run(SWAP);
        });
        let waits =
            format!("SELECT count(*) FROM pg_locks WHERE pid = {swapper_pid} AND NOT granted");
        eventually(
            "the schemas are swapped, or that waits",
            Duration::from_secs(10),
            || swap.is_finished() || self.admin.number(&waits) > 0,
            |is_decided| *is_decided,
        );
        self.queue.send(&logins::good(1));
        let result = call.join().unwrap();
        swap.join().unwrap();
        result
    }

    #[track_caller]
    fn expect_no_superuser(&mut self) {
        let is_superuser = format!(
            "SELECT rolsuper FROM pg_roles WHERE rolname = '{}'",
            self.bob
        );
        assert_eq!(self.admin.text(&is_superuser).as_deref(), Some("f"));
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.admin.try_run(&format!(
            "REASSIGN OWNED BY {bob} TO postgres; DROP OWNED BY {bob}; DROP ROLE {bob}",
            bob = self.bob
        ));
    }
}

#[test]
fn a_schema_that_is_swapped_while_sqs_ingest_polls_gives_its_owner_no_rights() {
    let mut scene = scene();
    let ingest = format!("SELECT sqs_ingest({}, 1, 20)", literal(scene.queue.url()));

    // Its statements are prepared, and the name of the schema kept, before it polls.
    scene.swap_during_a_poll(&ingest, 1).unwrap();

    scene.expect_no_superuser();
    assert_eq!(
        scene.admin.number("SELECT count(*) FROM kept.user_logins"),
        1
    );
}

#[test]
fn a_schema_that_is_swapped_between_the_batches_of_sqs_drain_gives_its_owner_no_rights() {
    let mut scene = scene();
    scene.queue.send(&logins::good(1));
    scene.sqs.script(|call| {
        if call.action == "ReceiveMessage" && call.earlier > 0 {
            Answer::ServeAfter(Duration::from_secs(3))
        } else {
            Answer::Serve
        }
    });
    let drain = format!("CALL sqs_drain({}, 1)", literal(scene.queue.url()));

    let error = db_error(&scene.swap_during_a_poll(&drain, 2).unwrap_err());

    assert_eq!(error.code().code(), "55000", "{error:?}");
    scene.expect_no_superuser();
    assert_eq!(
        scene.admin.number("SELECT count(*) FROM kept.user_logins"),
        1
    );
    scene.queue.expect_released(1);
}

#[test]
fn a_schema_that_is_swapped_before_a_table_is_read_gives_its_owner_no_rights() {
    let mut scene = scene();
    let queue = scene.sqs.fifo_queue();
    // The last of the tables that are looked at before sqs_rejected is read.
    let mut lock = scene.database.connect();
    lock.run("BEGIN; LOCK TABLE sqs_queue IN ACCESS EXCLUSIVE MODE");
    let mut session = scene.database.connect_as(&scene.bob);
    let pid = session.pid();
    let ingest = format!("SELECT sqs_ingest({}, 1)", literal(queue.url()));
    let call = thread::spawn(move || session.error_of(&ingest));
    scene.admin.expect_waiting(pid);

    scene.swap();
    lock.run("COMMIT");

    let error = call.join().unwrap();
    assert_eq!(error.code().code(), "55000", "{error:?}");
    scene.expect_no_superuser();
}

#[test]
fn a_schema_that_is_swapped_under_a_worker_gives_its_owner_no_rights() {
    let cluster = workers::site();
    let mut admin = workers::admin(&cluster);
    admin.run("CREATE ROLE bob LOGIN; ALTER DATABASE postgres OWNER TO bob");
    let mut bob = Database::existing(&cluster, workers::DATABASE).connect_as("bob");
    make_decoys(&mut bob, "bob");
    let sqs = ScriptedSqs::start();
    let queue = sqs.queue();
    admin.subscribe(&queue);
    let worker = admin.expect_workers_within(ARRIVE_WITHIN, 1)[0];
    queue.send(&logins::good(1));
    admin.expect_logins(1);
    // The last of the tables that a worker looks at before it writes.
    let mut lock = workers::admin(&cluster);
    lock.run("BEGIN; LOCK TABLE sqs_queue IN ACCESS EXCLUSIVE MODE");
    queue.send(&logins::good(1));
    admin.expect_waiting(worker);

    bob.run(SWAP);
    lock.run("COMMIT");

    eventually(
        "the row is in the table that belongs to the extension",
        ARRIVE_WITHIN,
        || admin.number("SELECT count(*) FROM kept.user_logins"),
        |rows| *rows == 2,
    );
    let is_superuser = "SELECT rolsuper FROM pg_roles WHERE rolname = 'bob'";
    assert_eq!(admin.text(is_superuser).as_deref(), Some("f"));
}

#[test]
fn a_schema_of_somebody_elses_cannot_be_renamed_while_a_transaction_writes_into_it() {
    let mut scene = scene();
    scene.queue.send(&logins::good(1));
    let mut session = scene.database.connect_as(&scene.bob);
    session.run("BEGIN");
    assert_eq!(session.ingest(&scene.queue, 1), 1);
    let mut renaming = scene.database.connect_as(&scene.bob);
    let pid = renaming.pid();
    let rename = thread::spawn(move || renaming.try_run(SWAP));
    scene.admin.expect_waiting(pid);

    session.run("COMMIT");

    rename.join().unwrap().unwrap();
    assert_eq!(
        scene.admin.number("SELECT count(*) FROM kept.user_logins"),
        1
    );
    scene.expect_no_superuser();
}

#[test]
fn a_call_that_receives_nothing_prunes_in_a_schema_of_somebody_elses_as_well() {
    let mut scene = scene();
    scene
        .admin
        .run("INSERT INTO sqs_ledger VALUES (now() - interval '20 days', gen_random_uuid())");
    let mut session = scene.database.connect_as(&scene.bob);

    assert_eq!(session.ingest(&scene.queue, 1), 0);

    assert_eq!(session.take_notices().len(), 0);
    assert_eq!(scene.admin.number("SELECT count(*) FROM sqs_ledger"), 0);
}

#[test]
fn a_schema_that_is_being_renamed_does_not_hold_up_the_launcher() {
    let cluster = workers::site();
    let mut admin = workers::admin(&cluster);
    admin.run("CREATE ROLE bob LOGIN; ALTER DATABASE postgres OWNER TO bob");
    let launcher = admin.launcher().unwrap();
    let mut bob = Database::existing(&cluster, workers::DATABASE).connect_as("bob");
    bob.run("BEGIN; ALTER SCHEMA public RENAME TO kept");
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
    bob.run("ROLLBACK");
}

#[test]
fn the_tables_in_a_schema_of_somebody_elses_can_be_looked_at_where_nothing_can_be_locked() {
    let cluster = Cluster::private();
    let database = Database::with_extension(&cluster);
    let mut admin = database.connect();
    admin.run(&format!(
        "CREATE ROLE bob LOGIN; ALTER DATABASE {} OWNER TO bob",
        database.name()
    ));
    let standby = cluster.standby();
    let mut on_standby = database.on(&standby).connect();
    admin.run("SET default_transaction_read_only = on");
    for session in [&mut admin, &mut on_standby] {
        let report = Report::here(session);
        assert_eq!(report.with_status("error"), ["writable"], "{report:#?}");
    }
}
