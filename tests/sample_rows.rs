//! Messages become the rows that they must become, and exactly as many as were asked for.

use tests::database::{Database, Session, literal};
use tests::scripted::ScriptedSqs;
use tests::{localstack, logins};

const COLUMNS: &str = "user_id, device_type, masked_ip, masked_device_id, locale, app_version";

/// 2024-02-29 in UTC; elsewhere its first and last moments are of other days.
const LEAP_DAY_BEGINS_MS: u64 = 1_709_164_800_000;
const LEAP_DAY_ENDS_MS: u64 = LEAP_DAY_BEGINS_MS + 86_400_000 - 1;

#[test]
fn the_sample_gives_its_99_expected_rows_and_one_rejection() {
    let database = Database::shared();
    let queue = localstack::queue();
    queue.send(&logins::sample());
    let mut session = database.connect();

    assert_eq!(session.ingest(&queue, 100), 99);

    let mut rows = session.rows(&format!("SELECT {COLUMNS} FROM user_logins"));
    let mut expected = logins::expected_rows_of_sample();
    rows.sort();
    expected.sort();
    assert_eq!(expected.len(), 99);
    assert_eq!(rows, expected);
    let rejections = session.rejections();
    assert_eq!(rejections.len(), 1, "{rejections:?}");
    assert_eq!(rejections[0].queue_url, queue.url());
}

#[test]
fn a_call_tells_once_what_it_did_not_insert() {
    let database = Database::shared();
    let queue = localstack::queue();
    queue.send(&logins::sample());
    let mut session = database.connect();

    session.ingest(&queue, 100);

    let notices = session.take_notices();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert_eq!(notices[0].severity(), "NOTICE");
    assert!(notices[0].message().contains('1'), "{notices:?}");
}

#[test]
fn a_call_that_inserts_everything_says_nothing() {
    let database = Database::shared();
    let queue = localstack::queue();
    queue.send(&logins::good(10));
    let mut session = database.connect();

    session.ingest(&queue, 100);

    assert_eq!(session.take_notices().len(), 0);
}

#[test]
fn an_empty_queue_gives_no_rows() {
    let database = Database::shared();
    let queue = localstack::queue();

    assert_eq!(database.connect().ingest(&queue, 100), 0);
}

#[test]
fn create_date_is_the_utc_day_of_sending() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    server.put(
        &queue,
        &logins::login("first-moment").to_string(),
        LEAP_DAY_BEGINS_MS,
    );
    server.put(
        &queue,
        &logins::login("last-moment").to_string(),
        LEAP_DAY_ENDS_MS,
    );
    server.put(
        &queue,
        &logins::login("moment-before").to_string(),
        LEAP_DAY_BEGINS_MS - 1,
    );
    server.put(
        &queue,
        &logins::login("moment-after").to_string(),
        LEAP_DAY_ENDS_MS + 1,
    );
    let mut session = database.connect();

    session
        .set("TimeZone", "America/Los_Angeles")
        .ingest(&queue, 2);
    session
        .set("TimeZone", "Pacific/Kiritimati")
        .ingest(&queue, 2);

    let days = session.rows("SELECT user_id, create_date::text FROM user_logins ORDER BY user_id");
    let day_of = |user: &str, day: &str| vec![Some(user.to_owned()), Some(day.to_owned())];
    assert_eq!(
        days,
        [
            day_of("first-moment", "2024-02-29"),
            day_of("last-moment", "2024-02-29"),
            day_of("moment-after", "2024-03-01"),
            day_of("moment-before", "2024-02-28"),
        ]
    );
}

#[test]
fn create_date_on_localstack_is_the_ledgers_day() {
    let database = Database::shared();
    let queue = localstack::queue();
    let mut session = database.connect();
    let today = "(now() AT TIME ZONE 'UTC')::date";
    let before = session.text(&format!("SELECT {today}"));
    queue.send(&logins::good(3));

    session.ingest(&queue, 3);

    let after = session.text(&format!("SELECT {today}"));
    let days = session.rows("SELECT DISTINCT create_date FROM user_logins");
    assert_eq!(days.len(), 1);
    assert!(days[0][0] == before || days[0][0] == after, "{days:?}");
    assert_eq!(
        session.number("SELECT count(DISTINCT (sent_at AT TIME ZONE 'UTC')::date) FROM sqs_ledger"),
        1
    );
}

/// Asks for `n` of `n + 15` messages.
fn exactly_n_are_taken(n: usize) {
    let database = Database::shared();
    let queue = localstack::queue();
    queue.send(&logins::good(n + 15));
    let mut session = database.connect();

    assert_eq!(session.ingest(&queue, i32::try_from(n).unwrap()), n as i64);

    assert_eq!(session.logins(), n as i64);
    queue.expect_left(15);
}

#[test]
fn exactly_1_is_taken() {
    exactly_n_are_taken(1);
}

#[test]
fn exactly_10_are_taken() {
    exactly_n_are_taken(10);
}

#[test]
fn exactly_11_are_taken() {
    exactly_n_are_taken(11);
}

#[test]
fn exactly_100_are_taken() {
    exactly_n_are_taken(100);
}

#[test]
fn exactly_25_000_are_taken() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(25_015));
    let mut session = database.connect();

    assert_eq!(session.ingest(&queue, 25_000), 25_000);

    assert_eq!(
        session.number("SELECT count(DISTINCT user_id) FROM user_logins"),
        25_000
    );
    queue.expect_left(15);
}

#[test]
fn no_more_is_ever_received_than_was_asked_for() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(500));
    let mut session = database.connect();

    for n in [1, 9, 10, 11, 37, 100] {
        let before = server.handed_out(&queue);
        assert_eq!(session.ingest(&queue, n), i64::from(n));
        assert_eq!(
            server.handed_out(&queue) - before,
            u64::try_from(n).unwrap()
        );
    }
}

#[test]
fn a_call_ends_when_a_poll_comes_back_empty() {
    let database = Database::shared();
    let queue = localstack::queue();
    queue.send(&logins::good(42));
    let mut session = database.connect();

    assert_eq!(session.ingest(&queue, 1000), 42);

    queue.expect_drained();
}

#[test]
fn one_poll_at_a_time_looks_at_an_idle_queue() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();

    database.connect().ingest(&queue, 10_000);

    assert_eq!(server.calls_of("ReceiveMessage").len(), 1);
}

/// Ingests one login with this `app_version` and returns the column's value.
fn version_of(session: &mut Session, server: &ScriptedSqs, version: &str) -> Option<String> {
    let queue = server.queue();
    queue.send(&[logins::login_with(version, "app_version", version)]);
    session.ingest(&queue, 1);
    session.text(&format!(
        "SELECT app_version FROM user_logins WHERE user_id = {}",
        literal(version)
    ))
}

#[test]
fn app_version_is_its_digits_or_sorts() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let mut session = database.connect();

    assert_eq!(
        version_of(&mut session, &server, "2.3.0").as_deref(),
        Some("230")
    );
    session.set("user_logins_sqs.app_version_encoding", "sortable");
    assert_eq!(
        version_of(&mut session, &server, "2.13.4").as_deref(),
        Some("2013004")
    );
}

#[test]
fn equal_addresses_have_equal_masks() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    let mut session = database.connect();
    queue.send(&[
        logins::login_with("long", "ip", "2001:0DB8:0000:0000:0000:0000:0000:0001"),
        logins::login_with("short", "ip", "2001:db8::1"),
    ]);

    session.ingest(&queue, 2);

    assert_eq!(
        session.rows("SELECT DISTINCT masked_ip FROM user_logins"),
        session.rows("SELECT encode(sha256('2001:db8::1'), 'hex')")
    );
}

#[test]
fn with_a_key_the_masks_are_keyed() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    let key = "0123456789abcdef0123456789abcdef";
    let path = database.cluster().data_directory().join("mask.key");
    std::fs::write(&path, key).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    queue.send(&[logins::login_with("keyed", "ip", "203.0.113.9")]);
    let mut session = database.connect();
    session.run("CREATE EXTENSION pgcrypto");
    session.set("user_logins_sqs.mask_key_file", path.to_str().unwrap());

    session.ingest(&queue, 1);

    assert_eq!(
        session.text("SELECT masked_ip FROM user_logins"),
        session.text(&format!(
            "SELECT encode(hmac('203.0.113.9', '{key}', 'sha256'), 'hex')"
        ))
    );
}

#[test]
fn an_envelope_of_sns_or_eventbridge_is_unwrapped() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    let sns =
        serde_json::json!({"Type": "Notification", "Message": logins::login("by-sns").to_string()});
    let event = serde_json::json!({
        "version": "0", "id": "1", "detail-type": "login", "source": "app", "detail": logins::login("by-eventbridge"),
    });
    queue.send(&[sns.to_string(), event.to_string()]);
    let mut session = database.connect();

    session.ingest(&queue, 2);

    let users = session.rows("SELECT user_id FROM user_logins ORDER BY user_id");
    assert_eq!(
        users,
        [
            [Some("by-eventbridge".to_owned())],
            [Some("by-sns".to_owned())]
        ]
    );
}
