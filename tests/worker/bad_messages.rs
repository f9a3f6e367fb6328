//! A message that cannot become a row is rejected without holding up the others.

use std::time::Duration;

use tests::queue::Counts;
use tests::wait::eventually;
use tests::workers::{ARRIVE_WITHIN, admin};
use tests::{localstack, logins};

use super::{in_flight, scene, site_with};

#[test]
fn one_bad_message_among_good_ones_costs_one_message() {
    let mut scene = scene(&[("rejected_messages", "delete"), ("linger", "300ms")]);
    scene
        .admin
        .run("ALTER TABLE user_logins ADD CONSTRAINT not_this CHECK (user_id <> 'refused')");
    scene.subscribe();
    let mut bodies = logins::good(40);
    bodies.insert(7, "not a login".to_owned());
    bodies.insert(23, logins::login("refused").to_string());

    scene.queue.send(&bodies);

    scene.admin.expect_logins(40);
    // The message that is not a login is deleted; the login that the table refused stays.
    scene
        .queue
        .expect_counts_within(ARRIVE_WITHIN, in_flight(1));
    let mut states: Vec<String> = scene
        .admin
        .rejections()
        .into_iter()
        .map(|rejection| rejection.sqlstate)
        .collect();
    states.sort();
    assert_eq!(states, ["22032", "23514"]);
    scene.expect_handed_out_once(42);
}

#[test]
fn a_rejected_message_stays_hidden_for_its_visibility_timeout() {
    let mut scene = scene(&[("visibility_timeout", "20s")]);
    scene.subscribe();
    scene.expect_polling();

    scene.queue.send(&["not a login".to_owned()]);
    eventually(
        "it is rejected",
        ARRIVE_WITHIN,
        || scene.admin.rejections().len(),
        |count| *count == 1,
    );

    scene
        .queue
        .expect_counts_stay(Duration::from_secs(8), in_flight(1));
    scene.expect_handed_out_once(1);
}

#[test]
fn only_rejected_messages_reach_the_dead_letters() {
    let cluster = site_with(&[("visibility_timeout", "1s")]);
    let mut admin = admin(&cluster);
    let (queue, dead) = localstack::queue_with_dead_letters(2);
    let mut bodies = logins::good(10);
    bodies.push("not a login".to_owned());
    admin.subscribe(&queue);

    queue.send(&bodies);

    admin.expect_logins(10);
    dead.expect_counts_within(
        ARRIVE_WITHIN,
        Counts {
            visible: 1,
            in_flight: 0,
        },
    );
    queue.expect_drained();
    assert_eq!(admin.logins(), 10);
}

#[test]
fn many_bad_messages_do_not_hold_up_the_good_one_before_them() {
    let mut scene = scene(&[("rejected_messages", "delete")]);
    scene
        .admin
        .run("ALTER TABLE user_logins ADD CONSTRAINT good CHECK (user_id NOT LIKE 'bad%')");
    let good = [logins::login("good").to_string()];
    let bad = (0..15).map(|number| logins::login(&format!("bad-{number}")).to_string());
    let bodies: Vec<String> = good.into_iter().chain(bad).collect();
    for chunk in bodies.chunks(10) {
        scene.queue.send(chunk);
    }

    scene.subscribe();

    scene.admin.expect_logins_within(Duration::from_secs(5), 1);
}

#[test]
fn a_deferred_constraint_rejects_only_the_messages_that_break_it() {
    let mut scene = scene(&[("rejected_messages", "delete"), ("linger", "300ms")]);
    scene.admin.run(
        "ALTER TABLE user_logins ADD CONSTRAINT once UNIQUE (user_id) DEFERRABLE INITIALLY DEFERRED;
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.user_id = 'refused' THEN RAISE EXCEPTION 'too late'; END IF;
           RETURN NEW;
         END $$;
         CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON user_logins
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    scene.subscribe();
    let mut bodies = logins::good(10);
    bodies.insert(3, logins::login("refused").to_string());
    bodies.insert(5, logins::login("user-1").to_string());

    scene.queue.send(&bodies);

    scene.admin.expect_logins(10);
    scene
        .queue
        .expect_counts_within(ARRIVE_WITHIN, in_flight(2));
    let mut states: Vec<String> = scene
        .admin
        .rejections()
        .into_iter()
        .map(|rejection| rejection.sqlstate)
        .collect();
    states.sort();
    assert_eq!(states, ["23505", "P0001"]);
}
