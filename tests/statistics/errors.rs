//! What `sqs_stat` says about the last error of a queue.

use tests::logins;
use tests::scripted::ScriptedSqs;
use tests::wait::eventually;
use tests::workers::{admin, site};

use super::{COUNTED_WITHIN, Counted, Counts, DENIED, disk_full, scene, stat};

#[test]
fn errors_of_sqs_and_postgres_are_counted_with_the_last_message() {
    let mut scene = scene();
    scene.queue.send(&logins::good(1));
    assert_eq!(scene.session.ingest(&scene.queue, 1), 1);
    assert_eq!(scene.stat("last_error"), None);
    assert_eq!(scene.stat("last_error_at"), None);

    scene.sqs.always("ReceiveMessage", DENIED);
    let error = scene.session.ingest_error(&scene.queue, 1);
    scene.expect(Counts {
        errors: 1,
        ..Counts::ingested(1)
    });
    let last = scene.stat("last_error").unwrap();
    assert!(last.starts_with(error.message()), "{last} of {error:?}");
    let just_now = "now() - last_error_at BETWEEN '0 s' AND '20 s'";
    assert_eq!(scene.stat(just_now).as_deref(), Some("t"));

    scene.sqs.behave();
    scene.session.run(&disk_full("repeat('äöü', 100)"));
    scene.queue.send(&logins::good(1));
    scene.session.ingest_error(&scene.queue, 1);
    scene.expect(Counts {
        received: 2,
        errors: 2,
        ..Counts::ingested(1)
    });
    let cut = "last_error = left(repeat('äöü', 100), 127) AND octet_length(last_error) <= 255";
    assert_eq!(scene.stat(cut).as_deref(), Some("t"));
}

#[test]
fn errors_of_a_workers_batch_are_counted() {
    let cluster = site();
    let mut admin = admin(&cluster);
    admin.run(&disk_full("'no space left'"));
    let sqs = ScriptedSqs::start();
    let queue = sqs.queue();
    queue.send(&logins::good(1));

    admin.subscribe(&queue);

    eventually(
        "the worker has tried twice",
        COUNTED_WITHIN,
        || admin.rows("SELECT errors >= 2, last_error, state, inserted FROM sqs_stat"),
        |rows| *rows == [["t", "no space left", "retrying", "0"].map(|text| Some(text.to_owned()))],
    );
}

#[test]
fn errors_show_no_raw_values() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let sqs = ScriptedSqs::start();
    let (called, subscribed) = (sqs.queue(), sqs.queue());
    let bodies: Vec<String> = (0..12)
        .map(|number| {
            let mut login = logins::login(&format!("user-{number}"));
            login["ip"] = "203.0.113.77".into();
            login["device_id"] = "raw-device-4711".into();
            login.to_string()
        })
        .collect();
    for queue in [&called, &subscribed] {
        queue.send(&bodies);
    }
    // The message of each holds the whole row.
    admin.run(&disk_full("NEW::text"));
    admin.ingest_error(&called, 12);
    admin.run(
        "DROP TRIGGER disk_full ON user_logins;
         ALTER TABLE user_logins ADD CONSTRAINT none CHECK (length(user_id) < 3)",
    );
    admin.subscribe(&subscribed);
    eventually(
        "the worker pauses",
        COUNTED_WITHIN,
        || stat(&mut admin, &subscribed, "state"),
        |state| state.as_deref() == Some("paused"),
    );

    let shown = admin.rows(
        "SELECT stat::text FROM sqs_stat AS stat
         UNION ALL SELECT call::text FROM sqs_progress AS call
         UNION ALL SELECT lag::text FROM sqs_stat_lag AS lag",
    );
    let shown = format!("{shown:?}");
    assert!(shown.contains("(user-"), "it shows the row: {shown}");
    assert!(shown.contains("refuses every row"), "{shown}");
    assert!(!shown.contains("203.0.113.77"), "{shown}");
    assert!(!shown.contains("raw-device"), "{shown}");
}
