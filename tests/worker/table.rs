//! A `user_logins` that is missing, locked or refuses rows costs no message.

use std::time::Duration;

use tests::queue::Counts;
use tests::wait::{eventually, throughout};
use tests::workers::{ARRIVE_WITHIN, LogSince, PROMPTLY, admin};
use tests::{localstack, logins};

use super::{A_MOMENT, SEVERAL_TRIES, scene, site_with};

const MAKE: &str = "CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), \
    masked_ip varchar(256), masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)";

#[test]
fn a_table_dropped_and_recreated_costs_one_log_line_and_no_message() {
    let mut scene = scene(&[("visibility_timeout", "2s")]);
    scene.subscribe();
    scene.admin.expect_workers_within(PROMPTLY, 1);
    scene.expect_polling();
    let log = LogSince::now(&scene.cluster);
    scene.admin.run("DROP TABLE user_logins");

    scene.send_good(5);
    log.expect_complaint_within(ARRIVE_WITHIN);
    log.expect_no_second_complaint(SEVERAL_TRIES);
    scene.send_good(5);
    log.expect_no_second_complaint(SEVERAL_TRIES);

    scene.admin.run(MAKE);
    scene.admin.expect_logins(10);
    scene.expect_handed_out_once(10);
    scene.queue.expect_drained();
    assert_eq!(scene.admin.rejections(), []);
}

#[test]
fn a_table_dropped_and_recreated_sends_nothing_to_the_dead_letters() {
    let cluster = site_with(&[("visibility_timeout", "2s")]);
    let mut admin = admin(&cluster);
    let (queue, dead) = localstack::queue_with_dead_letters(2);
    admin.subscribe(&queue);
    admin.run("DROP TABLE user_logins");

    queue.send(&logins::good(20));
    // Time enough for a message that is received again and again to reach the dead letters.
    std::thread::sleep(SEVERAL_TRIES * 2);

    admin.run(MAKE);
    admin.expect_logins(20);
    queue.expect_drained();
    assert_eq!(dead.counts().visible, 0);
}

#[test]
fn a_new_worker_receives_nothing_while_the_table_is_missing() {
    let mut scene = scene(&[]);
    scene.send_good(5);
    scene.admin.subscribe(&scene.queue);
    scene.admin.expect_logins(5);
    let worker = scene.admin.workers()[0];
    scene.admin.run("DROP TABLE user_logins");
    scene
        .admin
        .run(&format!("SELECT pg_terminate_backend({worker})"));
    scene.admin.expect_successor_within(ARRIVE_WITHIN, worker);
    // Nothing shows that the new worker has looked for the table.
    std::thread::sleep(A_MOMENT);

    scene.send_good(5);

    scene.queue.expect_counts_stay(
        SEVERAL_TRIES,
        Counts {
            visible: 5,
            in_flight: 0,
        },
    );
    scene.admin.run(MAKE);
    scene.admin.expect_logins(5);
}

#[test]
fn a_table_that_refuses_everything_pauses_the_worker() {
    let cluster = site_with(&[("visibility_timeout", "2s")]);
    let mut admin = admin(&cluster);
    let (queue, dead) = localstack::queue_with_dead_letters(2);
    admin.subscribe(&queue);
    admin.run("ALTER TABLE user_logins ADD CONSTRAINT nothing CHECK (user_id IS NULL)");

    queue.send(&logins::good(50));
    // Time enough for a message that is received again and again to reach the dead letters.
    std::thread::sleep(SEVERAL_TRIES * 2);

    assert_eq!(admin.logins(), 0);
    assert_eq!(dead.counts().visible, 0);
    admin.run("ALTER TABLE user_logins DROP CONSTRAINT nothing");
    admin.expect_logins(50);
    queue.expect_drained();
    assert_eq!(dead.counts().visible, 0);
}

#[test]
fn a_table_that_refuses_messages_one_by_one_pauses_the_worker() {
    let mut scene = scene(&[("visibility_timeout", "3s")]);
    scene.subscribe();
    scene
        .admin
        .run("ALTER TABLE user_logins ADD CONSTRAINT nothing CHECK (user_id IS NULL)");

    for number in 1..=20 {
        scene
            .queue
            .send(&[logins::login(&format!("user-{number}")).to_string()]);
        // Long enough that each comes in a batch of its own.
        std::thread::sleep(Duration::from_millis(100));
    }

    throughout(
        "fewer than 10 of 20 are rejected",
        A_MOMENT,
        || scene.admin.rejections().len(),
        |refused| *refused < 10,
    );
    scene
        .admin
        .run("ALTER TABLE user_logins DROP CONSTRAINT nothing");
    scene.admin.expect_logins(20);
}

#[test]
fn a_table_that_keeps_refusing_costs_one_log_line() {
    let mut scene = scene(&[("visibility_timeout", "600s")]);
    scene.subscribe();
    scene
        .admin
        .run("ALTER TABLE user_logins ADD CONSTRAINT nothing CHECK (user_id IS NULL)");
    let log = LogSince::now(&scene.cluster);

    for _ in 0..3 {
        // One request, so that they come together: fewer would each be rejected.
        scene.send_good(10);
        // Time for the worker to try them more than once.
        std::thread::sleep(SEVERAL_TRIES / 2);
    }

    let complaints = log.complaints();
    assert_eq!(complaints.len(), 1, "{complaints:#?}");
    scene
        .admin
        .run("ALTER TABLE user_logins DROP CONSTRAINT nothing");
    scene.admin.expect_logins(30);
    scene.expect_handed_out_once(30);
    let told = |what: &str| scene.cluster.log().matches(what).count();
    eventually(
        "the end is told",
        PROMPTLY,
        || told("resumed"),
        |lines| *lines == 1,
    );
}

#[test]
fn a_worker_waits_for_a_locked_table() {
    let mut scene = scene(&[("visibility_timeout", "2s")]);
    scene.subscribe();
    let mut other = admin(&scene.cluster);
    other.run("BEGIN; LOCK TABLE user_logins");

    scene.send_good(5);
    // Longer than the visibility timeout.
    std::thread::sleep(SEVERAL_TRIES);
    other.run("COMMIT");

    scene.admin.expect_logins(5);
    scene.expect_handed_out_once(5);
}

#[test]
fn a_passing_fault_of_the_server_costs_no_message() {
    let mut scene = scene(&[("visibility_timeout", "2s")]);
    scene.admin.run(
        "CREATE TABLE fault AS SELECT true AS present;
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF (SELECT present FROM fault) THEN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END IF;
           RETURN NEW;
         END $$;
         CREATE TRIGGER fail BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION fail()",
    );
    scene.subscribe();
    let log = LogSince::now(&scene.cluster);

    scene.send_good(5);
    let complaint = log.expect_complaint_within(ARRIVE_WITHIN);
    log.expect_no_second_complaint(SEVERAL_TRIES);

    assert!(complaint.contains("no space left"), "{complaint}");
    scene.admin.run("UPDATE fault SET present = false");
    scene.admin.expect_logins(5);
    scene.expect_handed_out_once(5);
    assert_eq!(scene.admin.rejections(), []);
}
