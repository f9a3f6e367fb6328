//! `sqs_stat_reset` starts the counters over.

use tests::database::literal;
use tests::logins;

use super::{Counted, Counts, DENIED, expect, scene, stat};

#[test]
fn a_reset_of_one_queue_leaves_the_others() {
    let mut scene = scene();
    let other = scene.sqs.queue();
    other.send(&logins::good(2));
    scene.session.ingest(&other, 2);
    scene.ingest(3);
    scene.sqs.always("ReceiveMessage", DENIED);
    scene.session.ingest_error(&scene.queue, 1);
    scene.expect(Counts {
        errors: 1,
        ..Counts::ingested(3)
    });
    expect(&mut scene.session, &other, Counts::ingested(2));
    let before = scene.session.text("SELECT clock_timestamp()").unwrap();

    let url = literal(scene.queue.url());
    scene.session.run(&format!("SELECT sqs_stat_reset({url})"));

    scene.expect(Counts::default());
    let nothing = "concat(last_error, last_error_at, last_commit, lag_p50, lag_p99)";
    assert_eq!(scene.stat(nothing).as_deref(), Some(""));
    let since = format!("stats_reset >= {}", literal(&before));
    assert_eq!(scene.stat(&since).as_deref(), Some("t"));
    let lags = scene.session.rows(&format!(
        "SELECT le, count, sum FROM sqs_stat_lag WHERE queue_url = {url}"
    ));
    assert_eq!(
        lags,
        [["Infinity", "0", "0"].map(|text| Some(text.to_owned()))]
    );
    expect(&mut scene.session, &other, Counts::ingested(2));
    let untouched = stat(&mut scene.session, &other, &since);
    assert_eq!(untouched.as_deref(), Some("f"));
}

#[test]
fn a_reset_of_all_queues_leaves_other_databases() {
    let (mut one, mut other) = (scene(), scene());
    one.ingest(2);
    let second = one.sqs.queue();
    second.send(&logins::good(1));
    one.session.ingest(&second, 1);
    other.ingest(3);
    one.expect(Counts::ingested(2));
    expect(&mut one.session, &second, Counts::ingested(1));
    other.expect(Counts::ingested(3));

    one.session.run("SELECT sqs_stat_reset()");

    one.expect(Counts::default());
    expect(&mut one.session, &second, Counts::default());
    other.expect(Counts::ingested(3));
}

#[test]
fn counting_goes_on_after_a_reset() {
    let mut scene = scene();
    scene.ingest(2);
    scene.expect(Counts::ingested(2));
    scene.session.run("SELECT sqs_stat_reset()");

    scene.ingest(3);

    scene.expect(Counts::ingested(3));
}

#[test]
fn a_reset_of_no_queue_is_an_error() {
    let mut scene = scene();
    let error = scene.session.error_of("SELECT sqs_stat_reset(NULL)");
    assert_eq!(error.code().code(), "22004", "{error:?}");
    let error = scene.session.error_of("SELECT sqs_stat_reset('no url')");
    assert_eq!(error.code().code(), "22023", "{error:?}");
}
