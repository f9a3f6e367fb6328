//! Debian's exporter gives Prometheus what `sqs_stat` shows, and what the dashboard and the alerts ask for.

use std::collections::BTreeSet;
use std::fs;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tests::cluster::Cluster;
use tests::database::{Database, Session, literal};
use tests::exporter::{Exporter, Scrape, project};
use tests::logins;
use tests::queue::Queue;
use tests::scripted::{Answer, ScriptedSqs};
use tests::wait::eventually;
use tests::workers::{ARRIVE_WITHIN, DATABASE, PROMPTLY, admin, preloading, site_of};

const PREFIX: &str = "user_logins_sqs_";

/// A server whose queues have seen every kind of event, and an exporter with the rights of pg_monitor.
struct Scene {
    cluster: Cluster,
    sqs: ScriptedSqs,
    /// By calls, with rejections and failed deletes.
    called: Queue,
    /// By two workers.
    subscribed: Queue,
    exporter: Exporter,
}

fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| {
        let cluster = site_of(preloading());
        let mut admin = admin(&cluster);
        let sqs = ScriptedSqs::start();
        let (called, subscribed) = (sqs.queue(), sqs.queue());
        // Workers cannot reduce this number.
        sqs.set_attribute(&subscribed, "ApproximateNumberOfMessages", 17);
        ingest_by_calls(&mut admin, &sqs, &called);
        ingest_by_workers(&mut admin, &subscribed);
        admin.run("CREATE ROLE exporter LOGIN; GRANT pg_monitor TO exporter");
        let exporter = Exporter::start(&Database::existing(&cluster, DATABASE), "exporter");
        Scene {
            cluster,
            sqs,
            called,
            subscribed,
            exporter,
        }
    })
}

/// Five rows, of which four fail to be deleted, two rejections, three duplicates, and an error.
fn ingest_by_calls(admin: &mut Session, sqs: &ScriptedSqs, queue: &Queue) {
    let bad = vec!["not a login".to_owned(); 2];
    queue.send(&[logins::good(5), bad].concat());
    sqs.script(|call| match call.action.as_str() {
        "DeleteMessageBatch" => Answer::FailEntries {
            entries: vec![1, 2, 3, 4],
            code: "AccessDenied",
        },
        "ReceiveMessage" if call.earlier == 0 => Answer::ServeAndKeepVisible,
        _ => Answer::Serve,
    });
    admin.ingest(queue, 7);
    expect_stat(admin, queue, "delete_failures = 4 AND deleted = 1");
    sqs.behave();
    admin.ingest(queue, 3);
    expect_stat(
        admin,
        queue,
        "received = 10 AND inserted + duplicates = deleted + delete_failures",
    );
    sqs.always(
        "ReceiveMessage",
        Answer::Refuse {
            status: 403,
            code: "AccessDenied",
        },
    );
    admin.ingest_error(queue, 1);
    sqs.behave();
}

fn ingest_by_workers(admin: &mut Session, queue: &Queue) {
    queue.send(&logins::good(30));
    admin.run(&format!(
        "SELECT sqs_subscribe({}, 2)",
        literal(queue.url())
    ));
    expect_stat(
        admin,
        queue,
        "deleted = 30 AND workers = 2 AND state = 'idle' AND backlog = 17",
    );
}

#[track_caller]
fn expect_stat(admin: &mut Session, queue: &Queue, condition: &str) {
    let sql = format!(
        "SELECT {condition} AND queue_url = {}, stat::text FROM sqs_stat AS stat ORDER BY 1 DESC NULLS LAST LIMIT 1",
        literal(queue.url())
    );
    eventually(
        condition,
        ARRIVE_WITHIN,
        || admin.rows(&sql),
        |rows| rows[0][0].as_deref() == Some("t"),
    );
}

impl Scene {
    fn queues(&self) -> [&Queue; 2] {
        [&self.called, &self.subscribed]
    }

    fn admin(&self) -> Session {
        admin(&self.cluster)
    }

    fn value(&self, scrape: &Scrape, metric: &str, queue: &Queue) -> f64 {
        scrape.value(
            &format!("{PREFIX}{metric}"),
            &[("datname", DATABASE), ("queue_url", queue.url())],
        )
    }

    fn stat(&self, expression: &str, queue: &Queue) -> f64 {
        let sql = format!(
            "SELECT {expression} FROM sqs_stat WHERE queue_url = {}",
            literal(queue.url())
        );
        let text = self.admin().text(&sql);
        text.map_or(f64::NAN, |text| text.parse().unwrap())
    }
}

#[test]
fn values_are_those_of_sqs_stat() {
    let scene = scene();
    let scrape = scene.exporter.scrape();
    for (metric, expression) in [
        ("received_total", "received"),
        ("inserted_total", "inserted"),
        ("duplicates_total", "duplicates"),
        ("rejected_total", "rejected"),
        ("deleted_total", "deleted"),
        ("delete_failures_total", "delete_failures"),
        ("errors_total", "errors"),
        ("workers", "workers"),
        ("backlog", "backlog"),
        (
            "backlog_timestamp_seconds",
            "extract(epoch FROM backlog_at)",
        ),
        (
            "last_commit_timestamp_seconds",
            "extract(epoch FROM last_commit)",
        ),
        (
            "last_error_timestamp_seconds",
            "extract(epoch FROM last_error_at)",
        ),
    ] {
        for queue in scene.queues() {
            let (seen, expected) = (
                scene.value(&scrape, metric, queue),
                scene.stat(expression, queue),
            );
            // A metric's number has fewer digits than a time.
            let same = (seen - expected).abs() < 0.001 || seen.is_nan() && expected.is_nan();
            assert!(same, "{metric} of {queue:?}: {seen} instead of {expected}");
        }
        // Otherwise the test could compare zero with zero.
        assert!(
            scene
                .queues()
                .iter()
                .any(|queue| scene.stat(expression, queue) > 0.0),
            "{metric} has been counted"
        );
    }
}

#[test]
fn the_state_of_workers_is_one_of_seven() {
    let scene = scene();
    let scrape = scene.exporter.scrape();
    for (queue, idle) in [(&scene.called, 0.0), (&scene.subscribed, 1.0)] {
        for (state, expected) in [
            ("idle", idle),
            ("running", 0.0),
            ("retrying", 0.0),
            ("paused", 0.0),
            ("waiting", 0.0),
            ("disabled", 0.0),
            ("resting", 0.0),
        ] {
            let labels = [("queue_url", queue.url()), ("state", state)];
            let seen = scrape.value(&format!("{PREFIX}worker_status"), &labels);
            assert!(seen == expected, "{state} of {queue:?}: {seen}");
        }
    }
}

#[test]
fn lags_are_a_histogram_of_each_doubling() {
    let scene = scene();
    let queue = scene.sqs.queue();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    for (seconds, body) in [3, 100, 5_000, 1_000_000].into_iter().zip(logins::good(4)) {
        let sent_at = (now - Duration::from_secs(seconds)).as_millis();
        scene
            .sqs
            .put(&queue, &body, u64::try_from(sent_at).unwrap());
    }
    scene.admin().ingest(&queue, 4);

    let scrape = scene.exporter.scrape();

    let bucket = |le: &str| {
        let labels = [("queue_url", queue.url()), ("le", le)];
        scrape.value("user_logins_sqs_lag_seconds_bucket", &labels)
    };
    // The first took less than 8 s even on a busy machine.
    for (le, expected) in [
        ("0.001", 0.0),
        ("2.048", 0.0),
        ("8.192", 1.0),
        ("65.536", 1.0),
        ("131.072", 2.0),
        ("4194.304", 2.0),
        ("8388.608", 3.0),
        ("536870.912", 3.0),
        ("1.073741824e+06", 4.0),
        ("+Inf", 4.0),
    ] {
        assert!(bucket(le) == expected, "{le}: {}", bucket(le));
    }
    assert!(scene.value(&scrape, "lag_seconds_count", &queue) == 4.0);
    let sum = scene.value(&scrape, "lag_seconds_sum", &queue);
    assert!((1_005_103.0..1_005_130.0).contains(&sum), "{sum}");
    let buckets = scrape.named("user_logins_sqs_lag_seconds_bucket");
    let of_queue = buckets
        .iter()
        .filter(|sample| sample.labels["queue_url"] == queue.url());
    assert_eq!(of_queue.count(), 32);
}

#[test]
fn running_calls_are_counted_without_workers() {
    let scene = scene();
    let queue = scene.sqs.queue();
    let calls = |scrape: &Scrape| {
        let of = |queue| scene.value(scrape, "calls", queue);
        [of(&queue), of(&scene.subscribed)]
    };
    let mut session = scene.admin();
    let token = session.cancel_token();
    let polled = queue.clone();
    let call = thread::spawn(move || session.try_ingest(&polled, 1, 20).map(drop));
    eventually(
        "the call is shown",
        PROMPTLY,
        || {
            scene
                .admin()
                .number("SELECT count(*) FROM sqs_progress WHERE target = 1")
        },
        |count| *count == 1,
    );

    let scrape = scene.exporter.scrape();
    assert_eq!(calls(&scrape), [1.0, 0.0]);
    let longest = scene.value(&scrape, "longest_call_seconds", &queue);
    assert!(0.0 < longest && longest < 20.0, "{longest}");

    token.cancel_query(postgres::NoTls).unwrap();
    assert!(call.join().unwrap().is_err());
    let scrape = scene.exporter.scrape();
    assert_eq!(calls(&scrape), [0.0, 0.0]);
    assert!(scene.value(&scrape, "longest_call_seconds", &queue) == 0.0);
}

#[test]
fn pg_monitor_is_enough() {
    let scrape = scene().exporter.scrape();
    assert!(scrape.value("pg_exporter_last_scrape_error", &[]) == 0.0);
    let failed = scrape.named("pg_exporter_user_queries_load_error");
    assert!(
        failed.iter().all(|sample| sample.value == 0.0),
        "{failed:?}"
    );
}

#[test]
fn names_are_as_prometheus_wants_them() {
    let scrape = scene().exporter.scrape();
    let metrics = scrape.types(PREFIX);
    assert!(metrics.len() > 10, "{metrics:?}");
    for (name, kind) in metrics {
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        let in_seconds = kind == "histogram" || name.contains("timestamp");
        assert!(!in_seconds || name.ends_with("_seconds"), "{name}");
        let allowed = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(name.chars().all(allowed), "{name}");
    }
}

#[test]
fn what_the_dashboard_asks_for_is_there() {
    let scene = scene();
    let text = fs::read_to_string(project().join("monitoring/grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let queries: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    assert!(queries.len() >= panels.len());
    for query in queries {
        assert!(!metrics_in(query).is_empty(), "{query}");
    }
    expect_exported(scene, &text);
}

#[test]
fn what_the_alerts_and_the_docs_ask_for_is_there() {
    for file in ["monitoring/alerts.yaml", "docs/monitoring.md"] {
        let text = fs::read_to_string(project().join(file)).unwrap();
        assert!(!metrics_in(&text).is_empty(), "{file}");
        expect_exported(scene(), &text);
    }
}

#[track_caller]
fn expect_exported(scene: &Scene, text: &str) {
    let scrape = scene.exporter.scrape();
    let exported: BTreeSet<&str> = scrape
        .named("")
        .iter()
        .map(|sample| sample.name.as_str())
        .collect();
    let missing: Vec<String> = metrics_in(text)
        .into_iter()
        .filter(|name| !exported.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "asked for and not there: {missing:?}");
}

/// The names of the exporter's metrics in a text, ours and its own.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c: char| !is_part(c))
        .filter(|word| word.starts_with(PREFIX) || word.starts_with("pg_exporter_"))
        .map(str::to_owned)
        .collect()
}
