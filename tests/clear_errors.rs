//! A call that cannot work says what is wrong, where, and what to do: SQLSTATE, message, DETAIL, HINT.

use std::thread;
use std::time::{Duration, Instant};

use postgres::error::DbError;
use tests::cluster::{Cluster, Plan};
use tests::database::{Database, db_error, literal};
use tests::queue::{Counts, Queue};
use tests::scripted::{Answer, ScriptedSqs};
use tests::{localstack, logins};

/// Longer than any call with a poll of 1 s may take to give up.
const BOUND: Duration = Duration::from_secs(45);

/// The error has this SQLSTATE and says enough.
#[track_caller]
fn expect_clear(error: &DbError, sqlstate: &str, hint_names: &str) {
    assert_eq!(error.code().code(), sqlstate, "{error:?}");
    assert_eq!(error.severity(), "ERROR");
    assert!(error.message().len() > 10, "{error:?}");
    let hint = error.hint().unwrap_or_else(|| panic!("no HINT: {error:?}"));
    assert!(
        hint.contains(hint_names),
        "the hint names {hint_names:?}: {error:?}"
    );
}

/// The error of this SQL, which must be clear.
fn bad_call(sql: &str, sqlstate: &str, hint_names: &str) {
    let error = Database::shared().connect().error_of(sql);
    expect_clear(&error, sqlstate, hint_names);
}

#[test]
fn an_n_of_zero_is_out_of_range() {
    bad_call(
        "SELECT sqs_ingest('http://127.0.0.1:9/000000000000/q', 0)",
        "22023",
        "1",
    );
}

#[test]
fn a_negative_n_is_out_of_range() {
    bad_call(
        "SELECT sqs_ingest('http://127.0.0.1:9/000000000000/q', -1)",
        "22023",
        "1",
    );
}

#[test]
fn a_wait_of_less_than_0_or_more_than_20_s_is_out_of_range() {
    bad_call(
        "SELECT sqs_ingest('http://127.0.0.1:9/000000000000/q', 1, 21)",
        "22023",
        "20",
    );
    bad_call(
        "SELECT sqs_ingest('http://127.0.0.1:9/000000000000/q', 1, -1)",
        "22023",
        "20",
    );
}

#[test]
fn an_argument_that_is_null_is_an_error() {
    bad_call("SELECT sqs_ingest(NULL, 1)", "22004", "");
    bad_call(
        "SELECT sqs_ingest('http://127.0.0.1:9/000000000000/q', NULL)",
        "22004",
        "",
    );
    bad_call(
        "SELECT sqs_ingest('http://127.0.0.1:9/000000000000/q', 1, NULL)",
        "22004",
        "",
    );
    bad_call("CALL sqs_drain(NULL)", "22004", "");
    bad_call(
        "CALL sqs_drain('http://127.0.0.1:9/000000000000/q', NULL)",
        "22004",
        "",
    );
}

#[test]
fn arguments_of_sqs_drain_have_a_range() {
    bad_call(
        "CALL sqs_drain('http://127.0.0.1:9/000000000000/q', 0)",
        "22023",
        "1",
    );
    bad_call(
        "CALL sqs_drain('http://127.0.0.1:9/000000000000/q', 10, 0)",
        "22023",
        "1",
    );
}

#[test]
fn a_text_that_is_not_a_url_is_an_error() {
    for text in [
        "",
        "login-queue",
        "arn:aws:sqs:us-east-1:000000000000:login-queue",
        "http://",
        "://x/1/q",
        "\u{1F980}",
    ] {
        bad_call(
            &format!("SELECT sqs_ingest({}, 1)", literal(text)),
            "22023",
            "https://sqs.",
        );
    }
}

#[test]
fn a_url_that_is_not_a_queues_is_an_error() {
    for url in [
        "https://example.com/",
        "https://example.com/some/deep/page/of/text",
        "ftp://127.0.0.1/000000000000/q",
    ] {
        bad_call(
            &format!("SELECT sqs_ingest({}, 1)", literal(url)),
            "22023",
            "https://sqs.",
        );
    }
}

#[test]
fn a_queue_that_is_not_allowed_is_an_error() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    let mut session = database.connect();
    session.set(
        "user_logins_sqs.allowed_queues",
        format!("{}/000000000000/other-*", server.endpoint()),
    );

    let error = session.ingest_error(&queue, 1);

    expect_clear(&error, "42501", "allowed_queues");
    assert!(server.calls().is_empty());
    session.set(
        "user_logins_sqs.allowed_queues",
        format!("{}/000000000000/logins*", server.endpoint()),
    );
    assert_eq!(session.ingest(&queue, 1), 0);
}

#[test]
fn an_ordinary_role_cannot_allow_itself_a_queue() {
    let database = Database::shared();
    let role = tests::run::unique_name("role");
    database.connect().run(&format!("CREATE ROLE {role} LOGIN"));
    let mut session = database.connect_as(&role);

    for setting in ["allowed_queues", "endpoint_url", "mask_key_file"] {
        // Before the library is loaded by the role's session, and after.
        let error = session.error_of(&format!(
            "LOAD 'user_logins_sqs'; SET user_logins_sqs.{setting} = 'x'"
        ));
        assert_eq!(error.code().code(), "42501", "{setting}: {error:?}");
    }
}

#[test]
fn a_port_where_nobody_listens_is_an_error() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let queue = Queue::existing(&format!("http://127.0.0.1:{port}"), "q");
    let begun = Instant::now();

    let error = Database::shared().connect().ingest_error(&queue, 1);

    expect_clear(&error, "08001", "");
    assert!(error.message().contains("127.0.0.1"), "{error:?}");
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
}

#[test]
fn a_host_without_an_address_is_an_error() {
    let queue = Queue::existing("http://no-such-host.invalid", "q");

    let error = Database::shared().connect().ingest_error(&queue, 1);

    expect_clear(&error, "08001", "");
    assert!(
        error.message().contains("no-such-host.invalid"),
        "{error:?}"
    );
}

#[test]
fn a_server_that_does_not_speak_tls_is_an_error() {
    let server = ScriptedSqs::start();
    let queue = Queue::existing(&server.endpoint().replace("http:", "https:"), "q");

    let error = Database::shared().connect().ingest_error(&queue, 1);

    expect_clear(&error, "08001", "");
}

#[test]
fn a_missing_queue_on_localstack_is_an_error() {
    let queue = Queue::existing(localstack::endpoint(), "never-created");

    let error = Database::shared().connect().ingest_error(&queue, 1);

    expect_clear(&error, "42704", "name");
    assert!(error.message().contains("never-created"), "{error:?}");
}

/// What the caller sees when every ReceiveMessage is answered like this; and how often it was tried.
struct Seen {
    error: DbError,
    took: Duration,
    tries: Vec<Instant>,
}

fn when_every_receive_is(answer: Answer) -> Seen {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(5));
    server.always("ReceiveMessage", answer);
    let begun = Instant::now();

    let error = database.connect().ingest_error(&queue, 5);

    let took = begun.elapsed();
    println!("{took:?}: {error:?}");
    assert!(took < BOUND, "{took:?}");
    let tries = server
        .calls_of("ReceiveMessage")
        .iter()
        .map(|call| call.at)
        .collect();
    Seen { error, took, tries }
}

#[track_caller]
fn expect_tried_once(seen: &Seen) {
    assert_eq!(seen.tries.len(), 1, "trying again cannot help");
    assert!(seen.took < Duration::from_secs(3), "{:?}", seen.took);
}

/// Between the tries there were pauses, on the whole growing.
#[track_caller]
fn expect_tried_with_backoff(seen: &Seen) {
    let pauses = pauses_between(&seen.tries);
    println!("pauses: {pauses:?}");
    assert!(
        (2..=60).contains(&seen.tries.len()),
        "{} tries",
        seen.tries.len()
    );
    let total: Duration = pauses.iter().sum();
    assert!(total > Duration::from_millis(100), "{pauses:?}");
    assert!(
        pauses.iter().all(|pause| *pause > Duration::from_millis(1)),
        "{pauses:?}"
    );
}

fn pauses_between(tries: &[Instant]) -> Vec<Duration> {
    tries.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn a_missing_queue_is_an_error() {
    let seen = when_every_receive_is(Answer::Refuse {
        status: 400,
        code: "com.amazonaws.sqs#QueueDoesNotExist",
    });
    expect_clear(&seen.error, "42704", "name");
    expect_tried_once(&seen);
}

#[test]
fn a_missing_queue_is_known_by_its_older_code() {
    let seen = when_every_receive_is(Answer::Refuse {
        status: 400,
        code: "AWS.SimpleQueueService.NonExistentQueue",
    });
    expect_clear(&seen.error, "42704", "name");
}

#[test]
fn denied_access_is_an_error() {
    for code in [
        "AccessDenied",
        "com.amazon.coral.service#AccessDeniedException",
    ] {
        let seen = when_every_receive_is(Answer::Refuse { status: 403, code });
        expect_clear(&seen.error, "42501", "sqs:ReceiveMessage");
        expect_tried_once(&seen);
    }
}

#[test]
fn bad_credentials_are_an_error() {
    for code in [
        "InvalidClientTokenId",
        "com.amazon.coral.service#UnrecognizedClientException",
        "SignatureDoesNotMatch",
    ] {
        let seen = when_every_receive_is(Answer::Refuse { status: 403, code });
        expect_clear(&seen.error, "28000", "");
        expect_tried_once(&seen);
    }
}

#[test]
fn expired_credentials_are_an_error() {
    let seen = when_every_receive_is(Answer::Refuse {
        status: 403,
        code: "com.amazon.coral.service#ExpiredTokenException",
    });
    expect_clear(&seen.error, "28000", "");
    assert!(
        seen.tries.len() <= 2,
        "once more with fresh credentials, if at all: {:?}",
        seen.tries
    );
}

#[test]
fn throttling_is_tried_again_and_then_an_error() {
    let seen = when_every_receive_is(Answer::Refuse {
        status: 400,
        code: "com.amazon.coral.availability#ThrottlingException",
    });
    expect_clear(&seen.error, "53400", "");
    expect_tried_with_backoff(&seen);
}

#[test]
fn sqs_own_throttling_is_tried_again_and_then_an_error() {
    let seen = when_every_receive_is(Answer::Refuse {
        status: 403,
        code: "com.amazonaws.sqs#RequestThrottled",
    });
    expect_clear(&seen.error, "53400", "");
    expect_tried_with_backoff(&seen);
}

#[test]
fn a_bare_429_is_tried_again_and_then_an_error() {
    let seen = when_every_receive_is(Answer::Garbage {
        status: 429,
        body: "",
    });
    expect_clear(&seen.error, "53400", "");
    expect_tried_with_backoff(&seen);
}

#[test]
fn too_many_messages_in_flight_are_an_error() {
    let seen = when_every_receive_is(Answer::Refuse {
        status: 403,
        code: "com.amazonaws.sqs#OverLimit",
    });
    expect_clear(&seen.error, "53400", "");
}

#[test]
fn a_503_is_tried_again_and_then_an_error() {
    let seen = when_every_receive_is(Answer::Garbage {
        status: 503,
        body: "<html>Service Unavailable</html>",
    });
    expect_clear(&seen.error, "58000", "");
    expect_tried_with_backoff(&seen);
}

#[test]
fn an_internal_error_of_sqs_is_tried_again_and_then_an_error() {
    let seen = when_every_receive_is(Answer::Refuse {
        status: 500,
        code: "InternalFailure",
    });
    expect_clear(&seen.error, "58000", "");
    expect_tried_with_backoff(&seen);
}

#[test]
fn the_pauses_between_tries_are_not_always_the_same() {
    let pauses_of_a_call = || {
        let seen = when_every_receive_is(Answer::Garbage {
            status: 503,
            body: "",
        });
        pauses_between(&seen.tries)
    };
    let calls = thread::scope(|scope| {
        let calls = [(); 6].map(|()| scope.spawn(pauses_of_a_call));
        calls.map(|call| call.join().unwrap())
    });

    // The same pause of every call: without jitter they differ by what a busy machine adds.
    let pauses = calls.iter().map(Vec::len).min().unwrap();
    let spread = |at: usize| {
        let of_calls = || calls.iter().map(|pauses| pauses[at]);
        of_calls().max().unwrap() - of_calls().min().unwrap()
    };
    let widest = (0..pauses).map(spread).max().unwrap();
    assert!(widest > Duration::from_millis(250), "no jitter: {calls:?}");
}

#[test]
fn a_server_that_hangs_is_given_up() {
    let seen = when_every_receive_is(Answer::Hang);
    expect_clear(&seen.error, "08006", "");
}

#[test]
fn a_connection_that_is_reset_is_tried_again() {
    let seen = when_every_receive_is(Answer::Reset);
    expect_clear(&seen.error, "08006", "");
    expect_tried_with_backoff(&seen);
}

#[test]
fn an_answer_that_is_not_of_sqs_is_an_error() {
    let seen = when_every_receive_is(Answer::Garbage {
        status: 200,
        body: "<html>Welcome to the proxy</html>",
    });
    expect_clear(&seen.error, "08P01", "");
}

#[test]
fn a_404_that_is_not_of_sqs_is_an_error() {
    let seen = when_every_receive_is(Answer::Garbage {
        status: 404,
        body: "<html>Not here</html>",
    });
    expect_clear(&seen.error, "08P01", "");
    assert!(!seen.error.message().contains("<html>"));
}

#[test]
fn an_error_of_sqs_that_nobody_knows_is_reported() {
    let seen = when_every_receive_is(Answer::Refuse {
        status: 400,
        code: "com.amazonaws.sqs#SomethingNew",
    });
    let detail = seen.error.detail().unwrap_or_default();
    assert!(detail.contains("SomethingNew"), "{:?}", seen.error);
    assert!(seen.error.hint().is_some(), "{:?}", seen.error);
}

#[test]
fn an_error_after_some_messages_releases_them() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(200));
    server.script(|call| match (call.action.as_str(), call.earlier) {
        ("ReceiveMessage", 5..) => Answer::Refuse {
            status: 403,
            code: "AccessDenied",
        },
        _ => Answer::Serve,
    });
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", 600);

    let error = session.ingest_error(&queue, 200);

    expect_clear(&error, "42501", "");
    assert!(server.handed_out(&queue) > 0);
    queue.expect_released(200);
    assert_eq!(session.logins(), 0);
}

/// A passing error of the whole server keeps the messages received before it.
#[test]
fn an_outage_after_some_messages_keeps_them() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(200));
    server.script(|call| match (call.action.as_str(), call.earlier) {
        ("ReceiveMessage", 5..) => Answer::Garbage {
            status: 503,
            body: "",
        },
        _ => Answer::Serve,
    });
    let mut session = database.connect();

    let rows = session.ingest(&queue, 200);

    assert!((10..200).contains(&rows), "{rows}");
    assert_eq!(session.logins(), rows);
    let notices = session.take_notices();
    assert_eq!(notices.len(), 1);
    assert_eq!(notices[0].severity(), "WARNING");
    assert!(
        notices[0]
            .message()
            .starts_with("stopped receiving early: "),
        "{}",
        notices[0].message()
    );
}

#[test]
fn what_passes_is_not_even_mentioned() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(50));
    server.script(|call| match (call.action.as_str(), call.earlier) {
        ("ReceiveMessage", 0) => Answer::Garbage {
            status: 503,
            body: "",
        },
        ("ReceiveMessage", 1) => Answer::Refuse {
            status: 400,
            code: "ThrottlingException",
        },
        _ => Answer::Serve,
    });
    let mut session = database.connect();

    assert_eq!(session.ingest(&queue, 50), 50);

    assert_eq!(session.take_notices().len(), 0);
    queue.expect_drained();
}

#[test]
fn messages_whose_answer_got_lost_come_back_after_their_visibility_timeout() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(20));
    server.script(|call| match (call.action.as_str(), call.earlier) {
        ("ReceiveMessage", 0) => Answer::ServeAndReset,
        _ => Answer::Serve,
    });
    let mut session = database.connect();
    session.set("user_logins_sqs.visibility_timeout", 2);

    let first = session
        .try_ingest(&queue, 100, 0)
        .unwrap_or_else(|error| panic!("{:?}", db_error(&error)));
    queue.expect_counts_within(
        Duration::from_secs(10),
        Counts {
            visible: 20 - first as u64,
            in_flight: 0,
        },
    );
    let second = session.ingest(&queue, 100);

    assert_eq!(first + second, 20);
    assert_eq!(
        session.number("SELECT count(DISTINCT user_id) FROM user_logins"),
        20
    );
    queue.expect_drained();
}

/// A server with exactly this environment.
fn server_with_environment(environment: &[(&str, &str)]) -> Cluster {
    environment
        .iter()
        .fold(Plan::default(), |plan, (name, value)| {
            plan.environment(name, value)
        })
        .start()
}

#[test]
fn errors_of_the_queue_name_the_function_that_tells_more() {
    bad_call(
        "SELECT sqs_ingest('http://127.0.0.1:9/000000000000/q', 1)",
        "08001",
        "sqs_check(queue_url)",
    );
}

#[test]
fn missing_credentials_are_an_error() {
    let cluster = server_with_environment(&[("AWS_EC2_METADATA_DISABLED", "true")]);
    let database = Database::with_extension(&cluster);
    let aws = Queue::existing("https://sqs.eu-west-1.amazonaws.com", "login-queue");
    let begun = Instant::now();

    let error = database.connect().ingest_error(&aws, 1);

    expect_clear(&error, "28000", "AWS_ACCESS_KEY_ID");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_queue_of_aws_is_asked_at_the_endpoint_that_is_set() {
    let cluster = server_with_environment(&[
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ]);
    let database = Database::with_extension(&cluster);
    let server = ScriptedSqs::start();
    let queue = server.queue();
    queue.send(&logins::good(3));
    let name = queue.url().rsplit('/').next().unwrap();
    let aws = queue.under_url(&format!(
        "https://sqs.eu-west-1.amazonaws.com/000000000000/{name}"
    ));
    let mut session = database.connect();
    session.set("user_logins_sqs.endpoint_url", server.endpoint());

    assert_eq!(session.ingest(&aws, 3), 3);

    queue.expect_drained();
    let authorization = &server.calls_of("ReceiveMessage")[0].authorization;
    assert!(
        authorization.contains("AKIDEXAMPLE") && authorization.contains("/eu-west-1/sqs/"),
        "{authorization}"
    );
}

#[test]
fn no_error_carries_a_backtrace_whatever_the_environment_says() {
    let cluster = Plan::default()
        .environment("RUST_BACKTRACE", "full")
        .environment("RUST_LIB_BACKTRACE", "1")
        .start();
    let database = Database::with_extension(&cluster);
    let mut session = database.connect();
    session.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full', DETAIL = 'Bought too small.'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let sqs = ScriptedSqs::start();
    let queue = sqs.queue();
    queue.send(&logins::good(1));

    let error = session.ingest_error(&queue, 1);
    assert_eq!(error.detail(), Some("Bought too small."), "{error:?}");

    let error = session.error_of("SELECT sqs_ingest('login-queue', 1)");
    assert!(error.detail().unwrap().lines().count() == 1, "{error:?}");
}
