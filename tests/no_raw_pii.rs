//! Raw `ip` and `device_id`, and bodies that could not be decoded, are found nowhere: neither in the data directory
//! (tables, WAL, temporary files, statistics) nor in the log at its most verbose level, nor in what the client is told.

use std::fs;
use std::path::Path;

use tests::cluster::{Cluster, Plan, Stop};
use tests::database::{Database, literal, show, show_db};
use tests::queue::Queue;
use tests::scripted::{Answer, ScriptedSqs};
use tests::vault::KeyPair;
use tests::{localstack, logins};

/// Every raw value that must not be found contains this; short enough that no encoding of an address hides it.
const RAW_IP: &str = "198.51.100.";
const RAW_IPV6: &str = "2001:db8:dead:beef";
const RAW_DEVICE: &str = "raw-device-7Qx";
const RAW_BODY: &str = "raw-body-9Zk";

/// A value that is allowed to be found, to show that the search finds what is there.
const ALLOWED: &str = "visible-user-5Wm";

fn talkative_server() -> Cluster {
    Plan::default()
        .setting("log_min_messages", "debug5")
        .setting("log_min_error_statement", "debug5")
        .setting("log_error_verbosity", "verbose")
        .setting("log_statement", "all")
        .setting("log_duration", "on")
        .setting("log_min_duration_statement", "0")
        .setting("log_parameter_max_length", "-1")
        .setting("log_parameter_max_length_on_error", "-1")
        .setting("log_temp_files", "0")
        .setting("log_parser_stats", "on")
        .setting("debug_print_parse", "on")
        .setting("debug_print_rewritten", "on")
        .setting("debug_print_plan", "on")
        .setting(
            "shared_preload_libraries",
            "auto_explain,pg_stat_statements",
        )
        .setting("auto_explain.log_min_duration", "0")
        .setting("auto_explain.log_nested_statements", "on")
        .setting("auto_explain.log_analyze", "on")
        .setting("auto_explain.log_verbose", "on")
        .setting("auto_explain.log_triggers", "on")
        .setting("pg_stat_statements.track", "all")
        .setting("wal_level", "logical")
        .setting("work_mem", "64kB")
        .start()
}

/// Logins that all hold raw values, in good places and in bad ones.
fn revealing_messages() -> Vec<String> {
    let mut bodies = Vec::new();
    for number in 1..=200 {
        let mut login = logins::login(&format!("{ALLOWED}-{number}"));
        login["ip"] = match number % 2 {
            0 => format!("{RAW_IP}{}", number % 250).into(),
            _ => format!("{RAW_IPV6}::{number:x}").into(),
        };
        login["device_id"] = format!("{RAW_DEVICE}-{number}").into();
        bodies.push(login.to_string());
    }
    let whole = bodies[0].clone();
    bodies.extend([
        // Not JSON, in several ways.
        RAW_BODY.to_owned(),
        format!("{{\"ip\": \"{RAW_IP}1\", \"device_id\": \"{RAW_DEVICE}\""),
        whole[..whole.len() - 1].to_owned(),
        format!("{whole}{RAW_BODY}"),
        format!("\"{RAW_BODY}\""),
        format!("{{\"{RAW_BODY}\": 1}}"),
        // Raw values in the wrong places, of the wrong types, and too long.
        logins::login_with("x", "ip", serde_json::json!([format!("{RAW_IP}2")])),
        logins::login_with("x", "ip", serde_json::json!({"v4": format!("{RAW_IP}3")})),
        logins::login_with("x", "device_id", serde_json::json!({ RAW_DEVICE: 1 })),
        logins::login_with("x", "app_version", format!("{RAW_IP}4.{RAW_BODY}")),
        logins::login_with("x", "locale", RAW_BODY.repeat(20)),
        logins::login_with("x", "device_type", RAW_DEVICE.repeat(20)),
        logins::login_with("x", "user_id", format!("{RAW_BODY}\0")),
        logins::login_with("x", "device_id", format!("{RAW_DEVICE}\0")),
        // An envelope whose inside is bad.
        serde_json::json!({"Type": "Notification", "Message": format!("{RAW_BODY} {{")})
            .to_string(),
    ]);
    bodies
}

/// What a client was told, to be searched as well.
#[derive(Default)]
struct Told(String);

impl Told {
    fn take(
        &mut self,
        session: &mut tests::database::Session,
        result: Result<i64, postgres::Error>,
    ) {
        if let Err(error) = result {
            self.0 += &format!("{}\n{error:?}\n", show(&error));
        }
        for notice in session.take_notices() {
            self.0 += &format!("{}\n{notice:?}\n", show_db(&notice));
        }
    }
}

/// What can be seen of messages without ingesting them.
fn look(database: &Database, queue: &Queue, told: &mut Told) {
    let mut session = database.connect();
    session.set("client_min_messages", "debug5");
    let url = literal(queue.url());
    for sql in [
        format!("SELECT * FROM sqs_peek({url}, 1000)"),
        format!("SELECT * FROM sqs_check({url})"),
    ] {
        told.0 += &format!("{:?}\n", session.rows(&sql));
        told.take(&mut session, Ok(0));
    }
}

/// Everything that can go wrong around messages that hold raw values.
fn ingest_with_every_trouble(database: &Database, told: &mut Told) {
    let mut session = database.connect();
    session.set("client_min_messages", "debug5");
    let mut ingest = |queue: &Queue, told: &mut Told, before: &str| {
        session.run(before);
        let result = session.try_ingest(queue, 1000, 1);
        told.take(&mut session, result);
        if before.starts_with("BEGIN") {
            session.run("ROLLBACK");
        }
    };

    let queue = localstack::queue();
    queue.send(&revealing_messages());
    look(database, &queue, told);
    ingest(
        &queue,
        told,
        "BEGIN; ALTER TABLE user_logins DROP device_type",
    );
    ingest(
        &queue,
        told,
        "BEGIN; ALTER TABLE user_logins ADD CHECK (user_id NOT LIKE '%-7%')",
    );
    ingest(
        &queue,
        told,
        "BEGIN;
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           RAISE EXCEPTION 'row: %', NEW USING ERRCODE = 'disk_full'; END $$;
         CREATE TRIGGER fail BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION fail()",
    );
    ingest(&queue, told, "SELECT 1");

    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&revealing_messages());
    server.script(|call| match (call.action.as_str(), call.earlier) {
        ("ReceiveMessage", 3) => Answer::Garbage {
            status: 200,
            body: "{\"Messages\": [{\"Body\": \"raw-body-9Zk\"",
        },
        ("ReceiveMessage", 4..) => Answer::Garbage {
            status: 500,
            body: "raw-body-9Zk",
        },
        _ => Answer::Serve,
    });
    ingest(&queue, told, "SELECT 1");
    server.always(
        "ReceiveMessage",
        Answer::Garbage {
            status: 400,
            body: "{\"__type\": \"raw-body-9Zk\", \"message\": 1",
        },
    );
    ingest(&queue, told, "SELECT 1");
    for action in [
        "GetQueueAttributes",
        "DeleteMessage",
        "ChangeMessageVisibility",
    ] {
        server.always(
            action,
            Answer::Garbage {
                status: 400,
                body: "raw-body-9Zk",
            },
        );
        look(database, &queue, told);
    }
    server.always(
        "DeleteMessageBatch",
        Answer::Garbage {
            status: 400,
            body: "raw-body-9Zk",
        },
    );
    ingest(&queue, told, "SELECT 1");
    server.behave();
    let drained = session.try_run(&format!("CALL sqs_drain({})", literal(queue.url())));
    told.take(&mut session, drained.map(|()| 0));
}

#[test]
fn raw_values_are_found_nowhere() {
    expect_raw_values_nowhere(None);
}

#[test]
fn raw_values_are_found_nowhere_with_the_vault_on() {
    expect_raw_values_nowhere(Some(KeyPair::generate()));
}

fn expect_raw_values_nowhere(vault: Option<KeyPair>) {
    let cluster = talkative_server();
    let database = Database::with_extension(&cluster);
    let mut told = Told::default();
    if let Some(pair) = &vault {
        database.connect().close_vault().run(&format!(
            "ALTER DATABASE {} SET user_logins_sqs.vault_recipients_file = {}",
            database.name(),
            literal(&pair.file())
        ));
    }
    database
        .connect()
        .run("CREATE EXTENSION pg_stat_statements");

    ingest_with_every_trouble(&database, &mut told);

    let mut session = database.connect();
    assert!(session.logins() >= 200);
    assert!(session.rejections().len() >= 15);
    if let Some(pair) = &vault {
        let opened = pair.open(&mut session).originals;
        assert!(opened.values().any(|original| original.starts_with(RAW_IP)));
        assert_eq!(
            opened.into_keys().collect::<Vec<_>>(),
            session.masks(),
            "the originals are there, sealed"
        );
    }
    told.0 += &format!("{:?}", session.rows("SELECT * FROM pg_stat_statements"));
    told.0 += &format!("{:?}", session.rows("SELECT * FROM pg_stat_activity"));
    session.run("CHECKPOINT");
    drop(session);
    cluster.stop(Stop::Fast);
    let mut places = vec![("what the client was told".to_owned(), told.0.into_bytes())];
    places.push(("the log".to_owned(), cluster.log().into_bytes()));
    read_files_under(&cluster.data_directory(), &mut places);

    assert!(
        found_in(&places, ALLOWED).len() >= 2,
        "the search finds what is there, in the table and in WAL"
    );
    let log = &places[1].1;
    assert!(contains(log, b"DEBUG"), "the log is talkative");
    for raw in [RAW_IP, RAW_IPV6, RAW_DEVICE, RAW_BODY] {
        assert_eq!(found_in(&places, raw), Vec::<String>::new(), "{raw}");
    }
}

fn read_files_under(directory: &Path, places: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_files_under(&path, places);
        } else if let Ok(content) = fs::read(&path) {
            places.push((path.display().to_string(), content));
        }
    }
}

fn found_in(places: &[(String, Vec<u8>)], wanted: &str) -> Vec<String> {
    let wanted = wanted.as_bytes();
    places
        .iter()
        .filter(|(_, content)| contains(content, wanted))
        .map(|(name, _)| name.clone())
        .collect()
}

fn contains(content: &[u8], wanted: &[u8]) -> bool {
    let mut rest = content;
    while let Some(at) = rest.iter().position(|byte| *byte == wanted[0]) {
        rest = &rest[at..];
        if rest.starts_with(wanted) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}
