//! Messages of a FIFO group become rows in their order.

use std::time::Duration;

use tests::cluster::Cluster;
use tests::database::{Session, literal};
use tests::queue::{FifoMessage, Queue};
use tests::wait::{eventually, throughout};
use tests::workers::{ARRIVE_WITHIN, PROMPTLY, admin};
use tests::{localstack, logins};

use super::site_with;

/// A FIFO queue, and a `user_logins` that shows the order of its rows.
fn fifo_scene(settings: &[(&str, &str)]) -> (Cluster, Session, Queue) {
    let cluster = site_with(settings);
    let mut admin = admin(&cluster);
    admin.run("ALTER TABLE user_logins ADD place bigserial");
    (cluster, admin, localstack::fifo_queue())
}

fn message(user: &str, body: String) -> FifoMessage {
    FifoMessage {
        group: user.split('-').next().unwrap().to_owned(),
        body,
    }
}

fn good(user: &str) -> FifoMessage {
    message(user, logins::login(user).to_string())
}

fn arrived(admin: &mut Session, group: &str) -> Vec<String> {
    let rows = admin.rows(&format!(
        "SELECT user_id FROM user_logins WHERE user_id LIKE '{group}-%' ORDER BY place"
    ));
    rows.into_iter().flatten().flatten().collect()
}

#[test]
fn the_order_of_a_group_is_kept_across_batches_and_workers() {
    let (_cluster, mut admin, queue) = fifo_scene(&[("batch_size", "3")]);
    let users = |group: &str| -> Vec<String> {
        (1..=40).map(|number| format!("{group}-{number}")).collect()
    };
    let groups = ["a", "b"].map(users);
    let messages: Vec<_> = (0..40)
        .flat_map(|at| groups.iter().map(move |users| good(&users[at])))
        .collect();
    queue.send_in_order(&messages);

    admin.run(&format!(
        "SELECT sqs_subscribe({}, 2)",
        literal(queue.url())
    ));

    admin.expect_logins_within(ARRIVE_WITHIN * 2, 80);
    for (group, users) in ["a", "b"].iter().zip(&groups) {
        assert_eq!(arrived(&mut admin, group), *users);
    }
    queue.expect_drained();
}

#[test]
fn a_group_waits_for_its_bad_message_through_a_failed_batch() {
    let (_cluster, mut admin, queue) =
        fifo_scene(&[("batch_size", "2"), ("visibility_timeout", "20s")]);
    admin.run(
        "CREATE TABLE fault AS SELECT true AS present;
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.user_id = 'b-1' AND (SELECT present FROM fault)
           THEN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END IF;
           RETURN NEW;
         END $$;
         CREATE TRIGGER fail BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION fail()",
    );
    // The first batch blocks group a, the second holds what has to wait for that, and fails.
    queue.send_in_order(&[
        good("a-1"),
        message("a-2", "not a login".to_owned()),
        good("a-3"),
        good("b-1"),
    ]);
    admin.subscribe(&queue);
    admin.expect_logins(1);
    eventually(
        "the second batch fails",
        ARRIVE_WITHIN,
        || admin.number("SELECT count(*) FROM sqs_stat WHERE errors > 0"),
        |queues| *queues == 1,
    );
    admin.run("UPDATE fault SET present = false");

    eventually(
        "the second batch is written",
        ARRIVE_WITHIN,
        || arrived(&mut admin, "b"),
        |users| users.len() == 1,
    );
    assert_eq!(arrived(&mut admin, "a"), ["a-1"]);
}

#[test]
fn the_bad_message_of_a_group_is_not_received_over_and_over() {
    let (_cluster, mut admin, queue) = fifo_scene(&[("visibility_timeout", "30s")]);
    admin.subscribe(&queue);
    admin.expect_workers_within(PROMPTLY, 1);
    eventually(
        "the worker is idle",
        ARRIVE_WITHIN,
        || admin.number("SELECT count(*) FROM sqs_stat WHERE state = 'idle'"),
        |queues| *queues == 1,
    );

    queue.send_in_order(&[message("a-1", "not a login".to_owned()), good("a-2")]);
    throughout(
        "no more is received than the two messages sent",
        Duration::from_secs(8),
        || admin.number("SELECT received FROM sqs_stat"),
        |received| *received <= 2,
    );
}
