//! Rows of a FIFO queue arrive in the order of their group, and no group is skipped after a failure.

use std::time::{Duration, Instant};

use tests::database::{Database, Session};
use tests::queue::{Counts, FifoMessage, Queue};
use tests::scripted::ScriptedSqs;
use tests::{localstack, logins};

struct Scene {
    queue: Queue,
    session: Session,
    database: Database<'static>,
}

/// A FIFO queue whose dead-letter queue takes messages received three times without a delete.
fn scene_with_dead_letters() -> (Scene, Queue) {
    let (queue, dead) = localstack::fifo_queue_with_dead_letters(3);
    (Scene { queue, ..scene() }, dead)
}

/// A FIFO queue, and a `user_logins` that shows the order of its rows.
fn scene() -> Scene {
    let database = Database::shared();
    let mut session = database.connect();
    session.run("ALTER TABLE user_logins ADD place bigserial");
    session.set("user_logins_sqs.visibility_timeout", 600);
    Scene {
        queue: localstack::fifo_queue(),
        session,
        database,
    }
}

impl Scene {
    /// The users of a group (`a-1` is of group `a`) in the order of their rows.
    fn arrived(&mut self, group: &str) -> Vec<String> {
        let rows = self.session.rows(&format!(
            "SELECT user_id FROM user_logins WHERE user_id LIKE '{group}-%' ORDER BY place"
        ));
        rows.into_iter().flatten().flatten().collect()
    }

    fn send(&self, users: &[&str]) {
        self.queue
            .send_in_order(&users.iter().map(|user| good(user)).collect::<Vec<_>>());
    }
}

/// A login of `a-1`, which belongs to group `a`.
fn good(user: &str) -> FifoMessage {
    message_of_group(user, logins::login(user).to_string())
}

/// A message in the place of `a-1` that is not a login.
fn bad(user: &str) -> FifoMessage {
    message_of_group(user, "not a login".to_owned())
}

fn message_of_group(user: &str, body: String) -> FifoMessage {
    FifoMessage {
        group: user.split('-').next().unwrap().to_owned(),
        body,
    }
}

#[test]
fn rows_arrive_in_the_order_of_their_group() {
    let mut scene = scene();
    let users = |group: &str| {
        (1..=60)
            .map(|number| format!("{group}-{number}"))
            .collect::<Vec<_>>()
    };
    let groups = ["a", "b", "c"].map(users);
    let messages: Vec<_> = (0..60)
        .flat_map(|at| groups.iter().map(move |users| good(&users[at])))
        .collect();
    scene.queue.send_in_order(&messages);

    let mut inserted = 0;
    // While a group is in flight a poll may come back empty, and end a call.
    for _ in 0..60 {
        inserted += scene.session.ingest(&scene.queue, 180);
        if inserted == 180 {
            break;
        }
    }

    for (group, users) in ["a", "b", "c"].iter().zip(&groups) {
        assert_eq!(scene.arrived(group), *users);
    }
    scene.queue.expect_drained();
}

#[test]
fn rows_of_one_group_arrive_in_order_however_many_are_taken_at_once() {
    let mut scene = scene();
    let users: Vec<String> = (1..=35).map(|number| format!("a-{number}")).collect();
    scene
        .queue
        .send_in_order(&users.iter().map(|user| good(user)).collect::<Vec<_>>());

    let mut inserted = 0;
    for n in [1, 7, 10, 3, 10, 10, 10, 10] {
        inserted += scene.session.ingest(&scene.queue, n);
        scene
            .queue
            .expect_left(35 - u64::try_from(inserted).unwrap());
    }

    assert_eq!(scene.arrived("a"), users);
}

#[test]
fn after_a_rollback_the_order_is_the_same() {
    let mut scene = scene();
    scene.send(&["a-1", "a-2", "a-3", "b-1", "b-2"]);
    scene.session.run("BEGIN");
    assert_eq!(scene.session.ingest(&scene.queue, 10), 5);
    scene.session.run("ROLLBACK");
    scene.queue.expect_released(5);

    assert_eq!(scene.session.ingest(&scene.queue, 10), 5);

    assert_eq!(scene.arrived("a"), ["a-1", "a-2", "a-3"]);
    assert_eq!(scene.arrived("b"), ["b-1", "b-2"]);
    scene.queue.expect_drained();
}

#[test]
fn after_a_rejected_message_the_rest_of_its_group_waits() {
    let mut scene = scene();
    scene.session.set("user_logins_sqs.visibility_timeout", 3);
    scene.queue.send_in_order(&[
        good("a-1"),
        bad("a-2"),
        good("a-3"),
        good("a-4"),
        good("b-1"),
        good("b-2"),
    ]);

    scene.session.ingest(&scene.queue, 6);

    assert_eq!(scene.arrived("a"), ["a-1"]);
    assert_eq!(scene.arrived("b"), ["b-1", "b-2"]);
    assert_eq!(scene.session.rejections().len(), 1);
    scene.queue.expect_counts_within(
        Duration::from_secs(8),
        Counts {
            visible: 3,
            in_flight: 0,
        },
    );

    // The rejected one is still first, and still holds the others up.
    scene.session.ingest(&scene.queue, 6);
    assert_eq!(scene.arrived("a"), ["a-1"]);
    assert!(scene.session.rejections()[0].times_seen >= 2);
}

#[test]
fn after_a_row_that_the_table_refuses_the_rest_of_its_group_waits() {
    let mut scene = scene();
    scene
        .session
        .run("ALTER TABLE user_logins ADD CONSTRAINT strict CHECK (user_id <> 'a-2')");
    scene.session.set("user_logins_sqs.visibility_timeout", 3);
    scene.send(&["a-1", "a-2", "a-3", "b-1", "b-2"]);

    scene.session.ingest(&scene.queue, 5);

    assert_eq!(scene.arrived("a"), ["a-1"]);
    assert_eq!(scene.arrived("b"), ["b-1", "b-2"]);
    scene
        .session
        .run("ALTER TABLE user_logins DROP CONSTRAINT strict");
    scene.queue.expect_counts_within(
        Duration::from_secs(8),
        Counts {
            visible: 2,
            in_flight: 0,
        },
    );
    // Until it is known that the group no longer waits, one message of it is received in a transaction.
    scene.session.ingest(&scene.queue, 5);
    scene.queue.expect_left(1);
    scene.session.ingest(&scene.queue, 5);
    assert_eq!(scene.arrived("a"), ["a-1", "a-2", "a-3"]);
    scene.queue.expect_drained();
}

/// Calls `ingest` until the row of `a-2` is there, which waits behind the bad `a-1`; that alone is dead-lettered.
fn only_the_bad_one_is_dead_lettered(
    scene: &mut Scene,
    dead: &Queue,
    mut ingest: impl FnMut(&Scene),
) {
    scene
        .queue
        .send_in_order(&[bad("a-1"), good("a-2"), good("b-1")]);

    let begun = Instant::now();
    while scene.arrived("a").is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "a-2 never comes");
        ingest(scene);
    }

    assert_eq!(scene.arrived("b"), ["b-1"]);
    assert_eq!(dead.counts().visible, 1);
    assert_eq!(dead.receive(Duration::from_secs(1))[0].body, "not a login");
    scene.queue.expect_drained();
    assert_eq!(
        scene
            .session
            .rows("SELECT times_seen, message_group FROM sqs_rejected"),
        [[Some("3".to_owned()), None]]
    );
}

#[test]
fn what_waits_behind_a_bad_message_is_not_dead_lettered_with_it() {
    let (mut scene, dead) = scene_with_dead_letters();
    // Each call has its own session, as under pg_cron.
    only_the_bad_one_is_dead_lettered(&mut scene, &dead, |scene| {
        let mut session = scene.database.connect();
        session.set("user_logins_sqs.visibility_timeout", 2);
        session.ingest(&scene.queue, 100);
    });
}

#[test]
fn what_waits_behind_a_bad_message_is_not_dead_lettered_by_a_drain() {
    let (mut scene, dead) = scene_with_dead_letters();
    only_the_bad_one_is_dead_lettered(&mut scene, &dead, |scene| {
        let mut session = scene.database.connect();
        session.set("user_logins_sqs.visibility_timeout", 2);
        session.run(&format!("CALL sqs_drain('{}')", scene.queue.url()));
    });
}

#[test]
fn many_groups_with_a_bad_head_do_not_keep_the_others_out() {
    let mut scene = scene();
    scene
        .session
        .run("ALTER TABLE user_logins ADD CHECK (user_id NOT LIKE 'bad%')");
    let messages: Vec<FifoMessage> = (0..15)
        .map(|number| good(&format!("bad{number}-1")))
        .chain((0..30).map(|number| good(&format!("g{number}-1"))))
        .collect();
    scene.queue.send_in_order(&messages);

    assert_eq!(scene.session.ingest(&scene.queue, 45), 30);

    assert_eq!(scene.session.rejections().len(), 15);
}

#[test]
fn a_group_whose_bad_message_is_gone_is_received_as_before() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = server.fifo_queue();
    let mut session = database.connect();
    session.run(&format!(
        "INSERT INTO sqs_rejected
         VALUES ('{}', 'gone', 'bad', '22023', 1, now(), now(), 'a', now() - interval '2 minutes')",
        queue.url()
    ));

    session.ingest(&queue, 10);
    session.ingest(&queue, 10);

    let asked =
        |call: &tests::scripted::Call| call.request["MaxNumberOfMessages"].as_u64().unwrap();
    let calls = server.calls_of("ReceiveMessage");
    assert_eq!(asked(&calls[0]), 1, "it may still be there");
    assert_eq!(
        asked(calls.last().unwrap()),
        10,
        "an empty answer told that it is not"
    );
    assert_eq!(
        session.rows("SELECT message_group FROM sqs_rejected"),
        [[None]]
    );
}

#[test]
fn what_waits_behind_a_row_that_the_table_refuses_is_not_dead_lettered_with_it() {
    let (mut scene, dead) = scene_with_dead_letters();
    scene
        .session
        .run("ALTER TABLE user_logins ADD CHECK (user_id <> 'a-0')");
    scene.send(&["a-0", "a-1"]);

    let begun = Instant::now();
    while scene.arrived("a").is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "a-1 never comes");
        let mut session = scene.database.connect();
        session.set("user_logins_sqs.visibility_timeout", 2);
        session.ingest(&scene.queue, 100);
    }

    assert_eq!(scene.arrived("a"), ["a-1"]);
    assert_eq!(dead.counts().visible, 1);
}

#[test]
fn where_rejected_messages_are_deleted_their_group_goes_on() {
    let mut scene = scene();
    scene
        .session
        .set("user_logins_sqs.rejected_messages", "delete");
    scene
        .queue
        .send_in_order(&[good("a-1"), bad("a-2"), good("a-3"), good("a-4")]);

    assert_eq!(scene.session.ingest(&scene.queue, 4), 3);

    assert_eq!(scene.arrived("a"), ["a-1", "a-3", "a-4"]);
    assert_eq!(scene.session.rejections().len(), 1);
    scene.queue.expect_drained();
}

#[test]
fn a_failed_call_releases_every_group_from_its_start() {
    let mut scene = scene();
    scene.session.run(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.user_id = 'a-3' THEN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END IF;
           RETURN NEW;
         END $$;
         CREATE TRIGGER fail BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION fail()",
    );
    scene.send(&["a-1", "a-2", "a-3", "b-1"]);
    scene.session.ingest_error(&scene.queue, 4);
    scene.queue.expect_released(4);
    scene.session.run("DROP TRIGGER fail ON user_logins");

    assert_eq!(scene.session.ingest(&scene.queue, 4), 4);

    assert_eq!(scene.arrived("a"), ["a-1", "a-2", "a-3"]);
}
