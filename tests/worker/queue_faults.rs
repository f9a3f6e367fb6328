//! Faults of SQS are retried with growing pauses and logged once.

use std::time::Duration;

use tests::gate::Gate;
use tests::queue::Queue;
use tests::scripted::{Answer, ScriptedSqs};
use tests::wait::{eventually, throughout};
use tests::workers::{ARRIVE_WITHIN, LogSince, PROMPTLY, admin, site};
use tests::{localstack, logins, run};

use super::{A_MOMENT, RECOVERS_WITHIN, SEVERAL_TRIES, scene, site_with};

#[test]
fn a_queue_that_is_created_later_is_found() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let name = run::unique_name("later");
    let queue = Queue::existing(localstack::endpoint(), &name);
    let log = LogSince::now(&cluster);

    admin.subscribe(&queue);
    let complaint = log.expect_complaint_within(ARRIVE_WITHIN);
    log.expect_no_second_complaint(SEVERAL_TRIES);

    assert!(complaint.contains("does not exist"), "{complaint}");
    let context = format!("CONTEXT:  ingesting from queue \"{}\"", queue.url());
    assert!(cluster.log().contains(&context), "{}", cluster.log());
    Queue::create(localstack::endpoint(), &name, &[]);
    queue.send(&logins::good(3));
    admin.expect_logins_within(RECOVERS_WITHIN, 3);
}

#[test]
fn a_worker_waits_for_a_server_that_is_not_there_yet() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let sqs = ScriptedSqs::start();
    let queue = sqs.queue();
    let gate = Gate::to(sqs.endpoint());
    gate.cut();
    let log = LogSince::now(&cluster);

    admin.subscribe(&gate.queue(&queue));
    let complaint = log.expect_complaint_within(ARRIVE_WITHIN);
    log.expect_no_second_complaint(SEVERAL_TRIES);

    assert!(complaint.contains("could not reach"), "{complaint}");
    gate.open();
    queue.send(&logins::good(3));
    admin.expect_logins_within(RECOVERS_WITHIN, 3);
    queue.expect_drained();
}

#[test]
fn each_outage_of_a_server_is_logged() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let sqs = ScriptedSqs::start();
    let queue = sqs.queue();
    let gate = Gate::to(sqs.endpoint());
    admin.subscribe(&gate.queue(&queue));
    admin.expect_workers_within(PROMPTLY, 1);

    for round in 1..=2 {
        let polls = || sqs.calls_of("ReceiveMessage").len();
        let before = polls();
        eventually("the worker polls", ARRIVE_WITHIN, polls, |count| {
            *count > before
        });
        let log = LogSince::now(&cluster);
        gate.cut();
        log.expect_complaint_within(ARRIVE_WITHIN);
        gate.open();
        eventually(
            "the log says that it works again",
            ARRIVE_WITHIN,
            || cluster.log().matches("resumed").count(),
            |count| *count == round,
        );
    }
    queue.send(&logins::good(3));
    admin.expect_logins(3);
}

#[test]
fn an_outage_is_not_over_because_what_came_before_it_is_written() {
    let cluster = site_with(&[("batch_size", "30"), ("visibility_timeout", "600s")]);
    let mut admin = admin(&cluster);
    admin.run(
        "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END $$;
         CREATE TRIGGER slowly BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION slowly()",
    );
    let sqs = ScriptedSqs::start();
    let queue = sqs.queue();
    let gate = Gate::to(sqs.endpoint());
    // The last batch is not full: the outage is noticed while it is gathered.
    queue.send(&logins::good(200));
    admin.subscribe(&gate.queue(&queue));
    eventually(
        "all are received",
        ARRIVE_WITHIN,
        || sqs.handed_out(&queue),
        |count| *count == 200,
    );
    // They are on their way through the gate, which does not show.
    std::thread::sleep(Duration::from_millis(500));
    let log = LogSince::now(&cluster);

    gate.cut();
    log.expect_complaint_within(ARRIVE_WITHIN);
    admin.expect_logins(200);

    // The connections that were open broke, new ones are refused.
    throughout(
        "two complaints at most, and ingestion has not resumed",
        A_MOMENT,
        || (log.complaints(), cluster.log().matches("resumed").count()),
        |(complaints, resumed)| complaints.len() <= 2 && *resumed == 0,
    );
    assert_eq!(
        admin.text("SELECT state FROM sqs_stat"),
        Some("retrying".to_owned())
    );
    gate.open();
    eventually(
        "the log says that it works again",
        RECOVERS_WITHIN,
        || cluster.log().matches("resumed").count(),
        |count| *count == 1,
    );
}

#[test]
fn a_failing_server_is_polled_less_and_less_often() {
    let mut scene = scene(&[]);
    let refusal = Answer::Refuse {
        status: 500,
        code: "InternalError",
    };
    scene.sqs.always("ReceiveMessage", refusal);
    let log = LogSince::now(&scene.cluster);
    scene.admin.subscribe(&scene.queue);

    // How many calls fit into this time is what the test is about.
    std::thread::sleep(Duration::from_secs(10));

    let calls = scene.sqs.calls_of("ReceiveMessage").len();
    assert!((3..=25).contains(&calls), "{calls} calls");
    assert_eq!(log.complaints().len(), 1, "{:#?}", log.complaints());
    scene.sqs.behave();
    scene.send_good(3);
    scene.admin.expect_logins_within(RECOVERS_WITHIN, 3);
}

#[test]
fn messages_whose_delete_failed_make_no_second_row() {
    let mut scene = scene(&[("visibility_timeout", "1s")]);
    let refusal = Answer::Refuse {
        status: 403,
        code: "AccessDenied",
    };
    scene.sqs.always("DeleteMessageBatch", refusal);
    scene.subscribe();
    scene.send_good(10);
    scene.admin.expect_logins(10);
    // The visibility timeout ends several times.
    std::thread::sleep(SEVERAL_TRIES);

    scene.sqs.behave();

    scene.queue.expect_drained();
    assert_eq!(scene.admin.logins(), 10);
}
