//! A reload of the settings counts for running workers, and costs no message.

use std::time::{Duration, Instant};

use tests::logins;
use tests::scripted::Answer;
use tests::wait::{eventually, throughout};
use tests::workers::{ARRIVE_WITHIN, LogSince, PROMPTLY};

use super::{A_MOMENT, SEVERAL_TRIES, in_flight, reload, reload_and_settle, scene};

#[test]
fn a_reload_counts_for_the_next_message_of_a_quiet_queue() {
    let mut scene = scene(&[("visibility_timeout", "600s")]);
    scene.subscribe();
    scene.expect_polling();

    reload_and_settle(&mut scene.admin, "rejected_messages", "delete");
    scene.queue.send(&["not a login".to_owned()]);

    scene.queue.expect_drained();
    assert_eq!(scene.admin.rejections().len(), 1);
    scene.expect_handed_out_once(1);
}

#[test]
fn linger_is_how_long_a_message_waits_for_others() {
    let mut scene = scene(&[("linger", "60s"), ("visibility_timeout", "600s")]);
    scene.send_good(5);
    scene.subscribe();
    scene
        .queue
        .expect_counts_within(ARRIVE_WITHIN, in_flight(5));
    throughout(
        "no rows",
        A_MOMENT,
        || scene.admin.logins(),
        |rows| *rows == 0,
    );

    reload(&mut scene.admin, "linger", "0");

    scene.admin.expect_logins_within(PROMPTLY, 5);
    let begun = Instant::now();
    scene.queue.send(&[logins::login("late").to_string()]);
    scene.admin.expect_logins_within(PROMPTLY, 6);
    println!("arrived after {:?}", begun.elapsed());
}

#[test]
fn batch_size_is_how_much_a_transaction_holds() {
    let mut scene = scene(&[("linger", "60s"), ("visibility_timeout", "600s")]);
    scene.subscribe();
    let transactions = "SELECT count(DISTINCT xmin::text) FROM user_logins";

    reload_and_settle(&mut scene.admin, "batch_size", "100");
    scene.send_good(100);
    scene.admin.expect_logins(100);
    assert_eq!(scene.admin.number(transactions), 1);

    scene.admin.run("TRUNCATE user_logins");
    reload_and_settle(&mut scene.admin, "batch_size", "10");
    scene.send_good(100);
    scene.admin.expect_logins(100);
    assert_eq!(scene.admin.number(transactions), 10);
}

const SLOWLY: &str = "
    CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$;
    CREATE TRIGGER slowly BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION slowly()";

#[test]
fn a_reload_gives_nothing_back_to_the_queue() {
    let mut scene = scene(&[("batch_size", "10"), ("visibility_timeout", "600s")]);
    scene.admin.run(SLOWLY);
    scene.send_good(400);
    scene.subscribe();

    for _ in 0..5 {
        // The reloads are spread over the time that the messages take.
        std::thread::sleep(Duration::from_millis(300));
        scene.admin.run("SELECT pg_reload_conf()");
    }

    scene.admin.expect_logins(400);
    scene.expect_handed_out_once(400);
}

#[test]
fn a_changed_setting_costs_no_receive() {
    let mut scene = scene(&[("batch_size", "10"), ("visibility_timeout", "600s")]);
    scene.admin.run(SLOWLY);
    // Polls are under way at each change, and answers that nobody has taken yet.
    scene.sqs.always(
        "ReceiveMessage",
        Answer::ServeAfter(Duration::from_millis(100)),
    );
    scene.send_good(1_000);
    let worker = scene.subscribe();

    for (name, value) in [
        ("visibility_timeout", "500s"),
        ("receive_concurrency", "3"),
        ("region", "eu-west-1"),
        ("endpoint_url", scene.sqs.endpoint()),
        ("app_version_encoding", "sortable"),
        ("receive_concurrency", "20"),
        ("endpoint_url", ""),
    ] {
        // The changes are spread over the time that the messages take.
        std::thread::sleep(Duration::from_millis(400));
        reload(&mut scene.admin, name, value);
    }

    scene.admin.expect_logins_within(ARRIVE_WITHIN * 2, 1_000);
    scene.queue.expect_drained();
    scene.expect_handed_out_once(1_000);
    assert_eq!(scene.admin.workers(), [worker]);
}

#[test]
fn what_is_received_after_a_reload_is_decoded_as_it_says() {
    let mut scene = scene(&[]);
    scene.subscribe();
    scene.expect_polling();

    // The poll that brings the message was sent before.
    reload_and_settle(&mut scene.admin, "app_version_encoding", "sortable");
    scene
        .queue
        .send(&[logins::login_with("user", "app_version", "2.3.0")]);

    scene.admin.expect_logins(1);
    assert_eq!(
        scene.admin.number("SELECT app_version FROM user_logins"),
        2_003_000
    );
}

#[test]
fn a_queue_that_is_no_longer_allowed_is_left_alone_until_it_is_again() {
    let mut scene = scene(&[("batch_size", "10"), ("visibility_timeout", "600s")]);
    scene.admin.run(SLOWLY);
    scene.send_good(200);
    let worker = scene.subscribe();
    scene.admin.expect_logins(10);
    let log = LogSince::now(&scene.cluster);

    reload(&mut scene.admin, "allowed_queues", "https://*");
    let complaint = log.expect_complaint_within(ARRIVE_WITHIN);
    assert!(complaint.contains("is not allowed"), "{complaint}");
    eventually(
        "what was received is written",
        ARRIVE_WITHIN,
        || {
            let counts = scene.queue.counts();
            (counts.in_flight, scene.sqs.handed_out(&scene.queue))
        },
        |(in_flight, _)| *in_flight == 0,
    );
    let polls = scene.sqs.calls_of("ReceiveMessage").len();
    scene.send_good(5);
    throughout(
        "there are no more polls",
        SEVERAL_TRIES,
        || scene.sqs.calls_of("ReceiveMessage").len(),
        |calls| *calls == polls,
    );
    assert_eq!(
        scene.admin.text("SELECT state FROM sqs_stat"),
        Some("retrying".to_owned())
    );

    reload(&mut scene.admin, "allowed_queues", "");

    scene.admin.expect_logins(205);
    scene.expect_handed_out_once(205);
    assert_eq!(scene.admin.workers(), [worker]);
    assert_eq!(log.complaints().len(), 1, "{:#?}", log.complaints());
}
