//! `sqs_check` says of a queue, and of the way to it, what keeps messages from being received, and receives none.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use tests::check_report::Report;
use tests::cluster::{Cluster, Plan};
use tests::database::{Database, db_error, literal};
use tests::localstack;
use tests::logins;
use tests::queue::{Counts, Queue};
use tests::run;
use tests::scene::Scene;
use tests::scripted::{Answer, ScriptedSqs};
use tests::tls::TlsFront;
use tests::wait::eventually;
use tests::workers::{ARRIVE_WITHIN, admin, preloading, site_of};

const DAY: Duration = Duration::from_secs(86_400);

/// What an identity may not do that a policy does not allow.
const DENIED: Answer = Answer::Refuse {
    status: 403,
    code: "com.amazon.coral.service#AccessDeniedException",
};

/// Checks of what only the queue can tell.
const OF_ATTRIBUTES: [&str; 5] = [
    "messages",
    "redrive policy",
    "dead-letter queue",
    "retention",
    "encryption",
];

const RIGHTS: [&str; 2] = ["right to delete", "right to change visibility"];

#[track_caller]
fn report_on(scene: &mut Scene) -> Report {
    Report::on(&mut scene.session, &scene.queue)
}

#[test]
fn a_queue_with_everything_it_needs_has_no_errors() {
    let (queue, dead_letters) = localstack::queue_with_dead_letters(10);
    let name = dead_letters.url().rsplit('/').next().unwrap();
    queue.send(&logins::good(3));
    let database = Database::shared();
    let report = Report::on(&mut database.connect(), &queue);

    assert!(report.with_status("error").is_empty(), "{report:#?}");
    assert_eq!(
        report.with_status("unknown"),
        ["right to receive"],
        "{report:#?}"
    );
    for right in RIGHTS {
        report.expect(right, "ok", "allowed");
    }
    report.expect("right to get attributes", "ok", "allowed");
    report.expect("credentials", "ok", "placeholder");
    report.expect("connection", "ok", "connected to");
    report.expect("answer", "ok", "ms");
    report.expect("clock", "ok", "agrees");
    report.expect("messages", "ok", "about 3 visible, 0 in flight");
    report.expect("redrive policy", "ok", name);
    report.expect("dead-letter queue", "ok", "empty");
    report.expect("retention", "ok", "4 days");
    report.expect("encryption", "ok", "SSE-SQS");
}

#[test]
fn nothing_is_received_and_nothing_changes() {
    let mut scene = Scene::shared();
    scene.queue.send(&logins::good(3));

    report_on(&mut scene);

    assert!(scene.sqs.calls_of("ReceiveMessage").is_empty());
    let counts = scene.queue.counts();
    assert_eq!((counts.visible, counts.in_flight), (3, 0));
    for table in [
        "user_logins",
        "sqs_ledger",
        "sqs_rejected",
        "sqs_subscription",
        "sqs_queue",
    ] {
        assert_eq!(
            scene
                .session
                .number(&format!("SELECT count(*) FROM {table}")),
            0
        );
    }
}

#[test]
fn a_right_that_is_denied_is_named_and_the_others_are_not() {
    for (action, check) in [
        ("DeleteMessage", RIGHTS[0]),
        ("ChangeMessageVisibility", RIGHTS[1]),
    ] {
        let mut scene = Scene::shared();
        scene.sqs.always(action, DENIED);
        let report = report_on(&mut scene);
        assert_eq!(report.with_status("error"), [check], "{report:#?}");
        report.expect(check, "error", &format!("sqs:{action} is denied"));
        report.expect("answer", "ok", "answers");
    }
}

#[test]
fn without_the_right_to_get_attributes_what_it_would_tell_is_unknown() {
    let mut scene = Scene::shared();
    scene.sqs.always("GetQueueAttributes", DENIED);
    let report = report_on(&mut scene);
    assert!(report.with_status("error").is_empty(), "{report:#?}");
    report.expect("right to get attributes", "unknown", "denied");
    for check in OF_ATTRIBUTES {
        report.expect(check, "unknown", "could not be asked");
    }
}

#[test]
fn a_queue_that_does_not_exist_is_an_error() {
    let mut scene = Scene::shared();
    let missing = Queue::existing(scene.sqs.endpoint(), "missing");
    let report = Report::on(&mut scene.session, &missing);
    report.expect("answer", "error", "does not exist");
    assert_eq!(report.with_status("error"), ["answer"], "{report:#?}");
}

#[test]
fn a_region_that_the_server_does_not_take_is_named() {
    let mut scene = Scene::shared();
    scene.sqs.script(|call| {
        if call.authorization.contains("/eu-west-1/") {
            Answer::Serve
        } else {
            Answer::Refuse {
                status: 403,
                code: "com.amazon.coral.service#SignatureDoesNotMatch",
            }
        }
    });
    scene.session.set("user_logins_sqs.region", "us-west-2");
    let report = report_on(&mut scene);
    report.expect("answer", "error", "credentials");
    let hint = report.get("answer").hint.clone().unwrap();
    assert!(hint.contains("us-west-2"), "{hint}");

    scene.session.set("user_logins_sqs.region", "eu-west-1");
    report_on(&mut scene).expect("answer", "ok", "answers");
}

#[test]
fn a_clock_that_is_an_hour_off_is_told() {
    for (ahead, words) in [(3_600, "behind"), (-3_600, "ahead of")] {
        let mut scene = Scene::shared();
        scene.sqs.set_clock_ahead(ahead);
        let report = report_on(&mut scene);
        report.expect("clock", "warning", words);
        report.expect("clock", "warning", "60 minutes");
    }
}

#[test]
fn no_credentials_is_an_error_that_says_where_they_are_looked_for() {
    let cluster = Plan::default()
        .environment("AWS_EC2_METADATA_DISABLED", "true")
        .start();
    let mut session = Database::with_extension(&cluster).connect();
    let begun = Instant::now();
    let report = Report::of(
        &mut session,
        "'https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue'",
    );
    assert!(begun.elapsed() < Duration::from_secs(15));
    report.expect("credentials", "error", "could not find AWS credentials");
    report.expect(RIGHTS[0], "unknown", "could not be found out");
}

#[test]
fn credentials_are_told_by_their_source_and_never_shown() {
    let cluster = Plan::default()
        .environment("AWS_ACCESS_KEY_ID", "AKIDOFTHETEST")
        .environment("AWS_SECRET_ACCESS_KEY", "secretofthetest")
        .environment("AWS_SESSION_TOKEN", "tokenofthetest")
        .start();
    let mut session = Database::with_extension(&cluster).connect();
    let sqs = ScriptedSqs::start();

    let report = Report::on(&mut session, &sqs.queue());

    report.expect("credentials", "ok", "environment");
    for secret in ["AKIDOFTHETEST", "secretofthetest", "tokenofthetest"] {
        assert!(!format!("{report:?}").contains(secret), "{report:#?}");
    }
}

#[test]
fn a_server_that_hangs_costs_less_than_15_seconds_and_no_other_check() {
    let mut scene = Scene::shared();
    scene.sqs.script(|_| Answer::Hang);
    let begun = Instant::now();
    let report = report_on(&mut scene);
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    report.expect("connection", "ok", "connected to");
    report.expect("answer", "error", "did not answer in time");
    report.expect("user_logins", "ok", "");
}

#[test]
fn a_cancel_ends_a_check_at_once() {
    let mut scene = Scene::shared();
    scene.sqs.script(|_| Answer::Hang);
    let token = scene.session.cancel_token();
    let (sqs_check, begun) = (
        format!("SELECT * FROM sqs_check({})", literal(scene.queue.url())),
        Instant::now(),
    );
    let canceller = thread::spawn(move || {
        // The check has sent its calls by then, and hears nothing.
        thread::sleep(Duration::from_millis(500));
        token.cancel_query(postgres::NoTls).unwrap();
    });
    let error = db_error(&scene.session.try_run(&sqs_check).unwrap_err());
    canceller.join().unwrap();
    assert_eq!(error.code().code(), "57014", "{error:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_server_that_is_not_there_is_an_error_of_the_connection() {
    let mut scene = Scene::shared();
    let nobody = Queue::existing("http://127.0.0.1:1", "q");
    let report = Report::on(&mut scene.session, &nobody);
    report.expect("connection", "error", "could not reach");
    let nameless = Queue::existing("http://no-such-host.invalid", "q");
    let report = Report::on(&mut scene.session, &nameless);
    report.expect("connection", "error", "could not reach");
    assert!(
        report
            .get("connection")
            .detail
            .contains("no-such-host.invalid")
    );
}

/// A server that trusts the certificate of `front`.
fn trusting(front: &TlsFront) -> Cluster {
    Plan::default()
        .environment("SSL_CERT_FILE", front.certificate().to_str().unwrap())
        .start()
}

#[test]
fn a_certificate_is_told_by_how_long_it_is_good() {
    let sqs = ScriptedSqs::start();
    let queue = sqs.queue();
    for (ends_in, status, words) in [
        (Ok(DAY * 100), "ok", "expires in"),
        (Ok(DAY * 5), "warning", "expires in 4 days"),
        (Err(DAY), "error", "TLS connection"),
    ] {
        let front = TlsFront::of(sqs.endpoint(), ends_in);
        let cluster = trusting(&front);
        let mut session = Database::with_extension(&cluster).connect();
        let report = Report::on(&mut session, &front.queue(&queue));
        report.expect("TLS", status, words);
        report.expect("connection", "ok", "connected to");
        if status == "error" {
            assert!(report.get("TLS").detail.contains("expired"), "{report:#?}");
            report.expect("answer", "error", "expired");
        } else {
            report.expect("TLS", status, "TLS 1.3");
            report.expect("answer", "ok", "answers");
        }
    }
}

#[test]
fn a_certificate_that_nobody_here_trusts_is_an_error() {
    let mut scene = Scene::shared();
    let front = TlsFront::of(scene.sqs.endpoint(), Ok(DAY * 100));
    let queue = front.queue(&scene.queue);
    Report::on(&mut scene.session, &queue).expect("TLS", "error", "TLS connection");
}

#[test]
fn a_proxy_is_named_and_so_is_its_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = String::new();
            let _ = BufReader::new(stream.try_clone().unwrap()).read_line(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let cluster = Plan::default()
        .environment("HTTPS_PROXY", &format!("http://{address}"))
        .environment("AWS_ACCESS_KEY_ID", "a")
        .environment("AWS_SECRET_ACCESS_KEY", "b")
        .start();
    let mut session = Database::with_extension(&cluster).connect();
    let report = Report::of(
        &mut session,
        "'https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue'",
    );
    report.expect("connection", "ok", &format!("through the proxy {address}"));
    report.expect("TLS", "unknown", "403");
}

#[test]
fn a_queue_without_a_redrive_policy_or_with_a_hasty_one_is_a_warning() {
    let mut scene = Scene::shared();
    let report = report_on(&mut scene);
    report.expect("redrive policy", "warning", "there is none");
    report.expect("dead-letter queue", "ok", "there is none");

    let dead_letters = scene.sqs.queue();
    scene.sqs.set_redrive(&scene.queue, &dead_letters, 4);
    let report = report_on(&mut scene);
    report.expect("redrive policy", "warning", "received 4 times");
    report.expect("dead-letter queue", "ok", "empty");

    scene.sqs.set_redrive(&scene.queue, &dead_letters, 5);
    dead_letters.send(&logins::good(7));
    let report = report_on(&mut scene);
    report.expect("redrive policy", "ok", "received 5 times");
    report.expect("dead-letter queue", "warning", "7 messages");
}

#[test]
fn a_fifo_queue_may_be_hastier() {
    let database = Database::shared();
    let mut session = database.connect();
    for (count, status) in [(3, "ok"), (2, "warning")] {
        let (queue, _) = localstack::fifo_queue_with_dead_letters(count);
        let report = Report::on(&mut session, &queue);
        report.expect("redrive policy", status, &format!("received {count} times"));
        report.expect("queue URL", "ok", "FIFO");
    }
}

#[test]
fn a_queue_that_remembers_for_longer_than_the_ledger_is_an_error() {
    let mut scene = Scene::shared();
    let days = |days: u64| days * 86_400;
    scene
        .sqs
        .set_attribute(&scene.queue, "MessageRetentionPeriod", days(14));
    report_on(&mut scene).expect("retention", "ok", "14 days");

    let dead_letters = scene.sqs.queue();
    scene.sqs.set_redrive(&scene.queue, &dead_letters, 10);
    scene
        .sqs
        .set_attribute(&dead_letters, "MessageRetentionPeriod", days(16));
    report_on(&mut scene).expect(
        "retention",
        "warning",
        "dead-letter queue keeps them for 16 days",
    );

    scene
        .sqs
        .set_attribute(&scene.queue, "MessageRetentionPeriod", days(16));
    report_on(&mut scene).expect("retention", "error", "16 days");
}

#[test]
fn the_retention_periods_are_remembered_for_the_ledger() {
    let mut scene = Scene::shared();
    let recorded = "SELECT max(message_retention), count(*) FROM sqs_queue";
    scene
        .sqs
        .set_attribute(&scene.queue, "MessageRetentionPeriod", 345_600);
    report_on(&mut scene);
    report_on(&mut scene);
    let expected =
        |retention: &str, count: &str| [[Some(retention.to_owned()), Some(count.to_owned())]];
    assert_eq!(scene.session.rows(recorded), expected("96:00:00", "1"));

    let dead_letters = scene.sqs.queue();
    scene.sqs.set_redrive(&scene.queue, &dead_letters, 10);
    scene
        .sqs
        .set_attribute(&dead_letters, "MessageRetentionPeriod", 1_209_600);
    report_on(&mut scene);
    assert_eq!(scene.session.rows(recorded), expected("336:00:00", "2"));

    scene.session.run("TRUNCATE sqs_queue; BEGIN READ ONLY");
    report_on(&mut scene);
    scene.session.run("COMMIT");
    assert_eq!(scene.session.number("SELECT count(*) FROM sqs_queue"), 0);
}

#[test]
fn a_dead_letter_queue_that_may_not_be_asked_leaves_the_retention_open() {
    let mut scene = Scene::shared();
    let dead_letters = scene.sqs.queue();
    scene
        .sqs
        .set_attribute(&scene.queue, "MessageRetentionPeriod", 345_600);
    scene.sqs.set_redrive(&scene.queue, &dead_letters, 10);
    let name = dead_letters.url().rsplit('/').next().unwrap().to_owned();
    scene.sqs.script(move |call| {
        let url = call.request["QueueUrl"].as_str().unwrap_or_default();
        if url.ends_with(&name) {
            DENIED
        } else {
            Answer::Serve
        }
    });
    report_on(&mut scene).expect("dead-letter queue", "unknown", "could not be asked");
    assert_eq!(scene.session.number("SELECT count(*) FROM sqs_queue"), 0);
}

#[test]
fn what_else_a_queue_says_is_judged() {
    let mut scene = Scene::shared();
    report_on(&mut scene).expect("encryption", "warning", "in plain text");
    scene
        .sqs
        .set_attribute(&scene.queue, "KmsMasterKeyId", "alias/logins");
    scene.sqs.set_attribute(
        &scene.queue,
        "ApproximateNumberOfMessagesNotVisible",
        100_000,
    );
    let report = report_on(&mut scene);
    report.expect("encryption", "ok", "alias/logins");
    report.expect("messages", "warning", "120000");
}

#[test]
fn without_a_queue_those_of_all_subscriptions_are_checked() {
    let cluster = site_of(preloading());
    let mut admin = admin(&cluster);
    let sqs = ScriptedSqs::start();
    let (good, bad) = (sqs.queue(), sqs.queue());
    admin.subscribe(&good);
    admin.subscribe(&bad);
    let bad_url = bad.url().to_owned();
    let denied = bad_url.clone();
    sqs.script(move |call| {
        if call.request["QueueUrl"] == *denied {
            DENIED
        } else {
            Answer::Serve
        }
    });
    let of = |queue: &Queue, check: &str| format!("{}: {check}", queue.url());

    let report = eventually(
        "the workers are seen",
        ARRIVE_WITHIN,
        || Report::here(&mut admin),
        |report| {
            report.get(&of(&good, "subscription")).status == "ok"
                && report.get(&of(&bad, "subscription")).status == "error"
        },
    );

    report.expect(&of(&good, "right to delete"), "ok", "allowed");
    report.expect(&of(&bad, "right to delete"), "error", "denied");
    report.expect(&of(&bad, "subscription"), "error", "retrying");
    report.expect("launcher", "ok", "running");
    report.expect("worker slots", "ok", "2 workers");

    admin.run(&format!(
        "UPDATE sqs_subscription SET enabled = false WHERE queue_url = {}",
        literal(bad.url())
    ));
    let report = Report::here(&mut admin);
    report.expect(&of(&bad, "subscription"), "warning", "disabled");
    let report = Report::on(&mut admin, &good);
    report.expect("subscription", "ok", "1 of 1 workers");

    admin.run("UPDATE sqs_subscription SET workers = 20");
    admin.run("UPDATE sqs_subscription SET enabled = true");
    Report::here(&mut admin).expect("worker slots", "warning", "40 workers");
}

#[test]
fn locks_are_not_waited_for_once_a_queue() {
    let cluster = site_of(preloading());
    let mut admin = admin(&cluster);
    let sqs = ScriptedSqs::start();
    let queues: Vec<Queue> = (0..40).map(|_| sqs.queue()).collect();
    for queue in &queues {
        sqs.set_attribute(queue, "MessageRetentionPeriod", 345_600);
        admin.run(&format!(
            "INSERT INTO sqs_subscription (queue_url, role, enabled) VALUES ({}, 'postgres', false)",
            literal(queue.url())
        ));
    }
    let mut other = Database::existing(&cluster, "postgres").connect();
    other.run("BEGIN; LOCK TABLE sqs_queue IN ACCESS EXCLUSIVE MODE");

    let begun = Instant::now();
    let report = Report::here(&mut admin);
    let elapsed = begun.elapsed();

    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    for queue in &queues {
        report.expect(&format!("{}: retention", queue.url()), "ok", "4 days");
    }
}

#[test]
fn subscriptions_that_cannot_be_read_are_an_error_of_theirs() {
    let mut scene = Scene::shared();
    let owner = run::unique_name("owner");
    scene.session.run(&format!(
        "CREATE ROLE {owner}; ALTER TABLE sqs_subscription OWNER TO {owner};
         REVOKE SELECT ON sqs_subscription FROM {owner}"
    ));

    let report = report_on(&mut scene);
    report.expect("subscription", "error", "permission denied");
    report.expect("answer", "ok", "");
    Report::here(&mut scene.session).expect("subscriptions", "error", "permission denied");

    scene.session.run(&format!(
        "REASSIGN OWNED BY {owner} TO postgres; DROP OWNED BY {owner}; DROP ROLE {owner}"
    ));
}

#[test]
fn the_backlog_of_subscribed_queues_is_shown_where_it_may_be_asked() {
    let cluster = site_of(preloading());
    let mut admin = admin(&cluster);
    let sqs = ScriptedSqs::start();
    let (open, closed) = (sqs.queue(), sqs.queue());
    sqs.set_attribute(&open, "ApproximateNumberOfMessages", 1_234);
    sqs.set_attribute(&open, "MessageRetentionPeriod", 345_600);
    let url = closed.url().to_owned();
    sqs.script(move |call| match call.action.as_str() {
        "GetQueueAttributes" if call.request["QueueUrl"] == *url => DENIED,
        _ => Answer::Serve,
    });
    admin.subscribe(&open);
    admin.subscribe(&closed);

    let of = |queue: &Queue| {
        format!(
            "SELECT backlog FROM sqs_stat WHERE queue_url = {} AND (backlog IS NULL) = (backlog_at IS NULL)",
            literal(queue.url())
        )
    };
    eventually(
        "the backlog is shown",
        ARRIVE_WITHIN,
        || admin.rows(&of(&open)),
        |rows| *rows == [[Some("1234".to_owned())]],
    );
    assert_eq!(admin.rows(&of(&closed)), [[None]]);
    let retention = "SELECT queue_url FROM sqs_queue WHERE message_retention = '4 days'";
    eventually(
        "its retention period is recorded",
        ARRIVE_WITHIN,
        || admin.rows(retention),
        |rows| *rows == [[Some(open.url().to_owned())]],
    );
    open.expect_counts_stay(
        Duration::from_millis(100),
        Counts {
            visible: 1_234,
            in_flight: 0,
        },
    );
}
