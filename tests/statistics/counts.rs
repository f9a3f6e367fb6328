//! What `sqs_stat` counts, by whichever way the messages came, and what it survives.

use tests::cluster::Cluster;
use tests::database::{Session, TextRow, literal};
use tests::logins;
use tests::queue::Queue;
use tests::scene::Scene;
use tests::scripted::{Answer, ScriptedSqs};
use tests::wait::eventually;
use tests::workers::{self, PROMPTLY, admin, site};

use super::{COUNTED_WITHIN, Counted, Counts, DENIED, expect, scene, server, stat};

#[test]
fn counts_tell_rows_from_rejections() {
    let mut scene = scene();
    let bad = ["not a login".to_owned(), logins::login_without("x", "ip")];
    scene.queue.send(&[logins::good(5), bad.into()].concat());

    assert_eq!(scene.session.ingest(&scene.queue, 7), 5);

    scene.expect(Counts {
        received: 7,
        inserted: 5,
        rejected: 2,
        deleted: 5,
        ..Counts::default()
    });
}

#[test]
fn counts_include_failed_deletes_and_the_duplicates_they_cause() {
    let mut scene = scene();
    scene.sqs.script(|call| match call.action.as_str() {
        "ReceiveMessage" if call.earlier == 0 => Answer::ServeAndKeepVisible,
        "DeleteMessageBatch" => DENIED,
        _ => Answer::Serve,
    });
    scene.ingest(3);
    let failed = Counts {
        received: 3,
        inserted: 3,
        delete_failures: 3,
        ..Counts::default()
    };
    scene.expect(failed);

    scene.sqs.behave();
    assert_eq!(scene.session.ingest(&scene.queue, 3), 0);

    scene.expect(Counts {
        received: 6,
        inserted: 3,
        duplicates: 3,
        deleted: 3,
        delete_failures: 3,
        ..Counts::default()
    });
    let lags = "SELECT max(count) FROM sqs_stat_lag";
    assert_eq!(scene.session.number(lags), 3, "no lag of a duplicate");
}

#[test]
fn counts_have_rolled_back_messages_as_received_only() {
    let mut scene = scene();
    scene
        .queue
        .send(&[logins::good(4), vec!["not a login".to_owned()]].concat());
    let call = scene.call(5);
    let in_vain = [
        format!("BEGIN; SELECT {call}; ROLLBACK"),
        format!("BEGIN; SAVEPOINT a; SELECT {call}; ROLLBACK TO a; COMMIT"),
        format!("BEGIN; SAVEPOINT a; SAVEPOINT b; SELECT {call}; RELEASE b; ROLLBACK TO a; COMMIT"),
        format!(
            "DO $$ BEGIN PERFORM {call}; RAISE 'in vain'; EXCEPTION WHEN raise_exception THEN NULL; END $$"
        ),
    ];
    for (time, sql) in (1..).zip(&in_vain) {
        scene.session.run(sql);
        scene.queue.expect_released(5);
        scene.expect(Counts {
            received: 5 * time,
            ..Counts::default()
        });
        assert_eq!(scene.stat("last_commit"), None, "{sql}");
    }

    let kept = format!("BEGIN; SAVEPOINT a; SELECT {call}; RELEASE a");
    scene.session.run(&kept);
    let mut other = scene.database.connect();
    expect(
        &mut other,
        &scene.queue,
        Counts {
            received: 25,
            ..Counts::default()
        },
    );
    scene.session.run("COMMIT");

    scene.expect(Counts {
        received: 25,
        inserted: 4,
        rejected: 1,
        deleted: 4,
        ..Counts::default()
    });
    let just_now = "now() - last_commit BETWEEN '0 s' AND '20 s'";
    assert_eq!(scene.stat(just_now).as_deref(), Some("t"));
}

#[test]
fn counts_add_up_workers_and_calls() {
    let mut admin = admin(server());
    let sqs = ScriptedSqs::start();
    let queue = sqs.queue();
    queue.send(&logins::good(3));
    admin.ingest(&queue, 3);
    queue.send(&logins::good(4));
    admin.run(&format!("CALL sqs_drain({})", literal(queue.url())));
    expect(&mut admin, &queue, Counts::ingested(7));
    assert_eq!(stat(&mut admin, &queue, "workers").as_deref(), Some("0"));
    assert_eq!(stat(&mut admin, &queue, "state"), None);

    queue.send(&logins::good(5));
    admin.run(&format!(
        "SELECT sqs_subscribe({}, 2)",
        literal(queue.url())
    ));

    expect(&mut admin, &queue, Counts::ingested(12));
    let mut workers_and_state = |expected: TextRow| {
        let sql = format!(
            "SELECT workers, state FROM sqs_stat WHERE queue_url = {}",
            literal(queue.url())
        );
        eventually(
            &format!("{expected:?}"),
            PROMPTLY,
            || admin.rows(&sql).remove(0),
            |seen| *seen == expected,
        );
    };
    workers_and_state(vec![Some("2".to_owned()), Some("idle".to_owned())]);
    let mut other = workers::admin(server());
    other.unsubscribe(&queue);
    workers_and_state(vec![Some("0".to_owned()), None]);
    expect(&mut other, &queue, Counts::ingested(12));
}

#[test]
fn counts_are_kept_per_database() {
    let (mut one, mut other) = (scene(), scene());
    one.ingest(2);
    let rows = "SELECT count(*) FROM sqs_stat";
    assert_eq!(other.session.number(rows), 0);
    assert_eq!(other.session.number("SELECT count(*) FROM sqs_stat_lag"), 0);

    one.queue.send(&logins::good(3));
    assert_eq!(other.session.ingest(&one.queue, 3), 3);

    one.expect(Counts::ingested(2));
    expect(&mut other.session, &one.queue, Counts::ingested(3));
    assert_eq!(one.session.number(rows), 1);
}

#[test]
fn counts_outlive_a_terminated_session() {
    let mut scene = scene();
    scene.ingest(3);
    scene.expect(Counts::ingested(3));
    let before = scene.stat("stats_reset");
    let mut other = scene.database.connect();

    other.run(&format!(
        "SELECT pg_terminate_backend({}, 10000)",
        scene.session.pid()
    ));

    expect(&mut other, &scene.queue, Counts::ingested(3));
    assert_eq!(stat(&mut other, &scene.queue, "stats_reset"), before);
}

#[test]
fn counts_start_over_after_a_crash_and_after_a_restart() {
    let cluster = site();
    let mut scene = Scene::on(&cluster);
    let rows = "SELECT (SELECT count(*) FROM sqs_stat) + (SELECT count(*) FROM sqs_stat_lag)";
    let ends: [fn(&Cluster, i32); 2] = [
        |cluster, pid| cluster.kill_backend(pid),
        |cluster, _| cluster.restart(),
    ];
    for end in ends {
        scene.ingest(3);
        scene.expect(Counts::ingested(3));
        assert!(scene.session.number(rows) > 0);

        end(&cluster, scene.session.pid());

        scene.session = scene.database.connect();
        assert_eq!(scene.session.number(rows), 0);
    }
}

/// Queues that are counted, in all databases together.
const ROOM: usize = 128;

fn ingest_one(session: &mut Session, queue: &Queue) {
    queue.send(&logins::good(1));
    assert_eq!(session.ingest(queue, 1), 1);
}

#[test]
fn a_role_that_may_not_ingest_starts_no_counts() {
    let mut scene = scene();
    let role = format!("caller_{}", scene.database.name());
    scene.session.run(&format!(
        "CREATE ROLE {role} LOGIN; GRANT EXECUTE ON FUNCTION sqs_ingest TO {role};
         GRANT EXECUTE ON PROCEDURE sqs_drain TO {role}"
    ));
    let mut caller = scene.database.connect_as(&role);
    let refused = [
        format!("SELECT {}", scene.call(1)),
        format!("CALL sqs_drain({})", literal(scene.queue.url())),
    ];
    for call in refused {
        let error = caller.error_of(&call);
        assert_eq!(error.code().code(), "42501", "{error:?}");
    }
    assert_eq!(scene.session.number("SELECT count(*) FROM sqs_stat"), 0);

    scene
        .session
        .run(&format!("GRANT INSERT ON user_logins TO {role}"));
    scene.sqs.always("ReceiveMessage", DENIED);
    caller.ingest_error(&scene.queue, 1);

    scene.expect(Counts {
        errors: 1,
        ..Counts::default()
    });
}

#[test]
fn counts_are_kept_for_the_128_queues_used_last_and_for_those_with_workers() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let mut scene = Scene::on(&cluster);
    let subscribed = scene.sqs.queue();
    admin.subscribe(&subscribed);
    admin.expect_workers_within(PROMPTLY, 1);
    eventually(
        "the worker counts",
        COUNTED_WITHIN,
        || admin.number("SELECT count(*) FROM sqs_stat"),
        |rows| *rows == 1,
    );
    let queues: Vec<Queue> = (0..ROOM - 1).map(|_| scene.sqs.queue()).collect();
    for queue in &queues {
        ingest_one(&mut scene.session, queue);
    }
    ingest_one(&mut scene.session, &queues[0]);
    let newest = scene.sqs.queue();

    ingest_one(&mut scene.session, &newest);

    let rows = "SELECT count(*) FROM sqs_stat";
    assert_eq!(scene.session.number(rows), ROOM as i64 - 1);
    assert_eq!(admin.number(rows), 1);
    let mut has_row = |queue: &Queue| {
        let url = literal(queue.url());
        let rows = format!("SELECT count(*) FROM sqs_stat WHERE queue_url = {url}");
        scene.session.number(&rows) == 1
    };
    assert!(has_row(&newest));
    assert!(!has_row(&queues[1]), "unused for longest");
    let others = queues[2..].iter().chain(&queues[..1]);
    assert!(others.into_iter().all(has_row));
}

#[test]
fn counts_of_an_evicted_queue_are_not_added_to_another() {
    let cluster = site();
    let mut scene = Scene::on(&cluster);
    scene.queue.send(&logins::good(7));
    scene
        .session
        .run(&format!("BEGIN; SELECT {}", scene.call(7)));
    let mut other = scene.database.connect();
    let queues: Vec<Queue> = (0..ROOM).map(|_| scene.sqs.queue()).collect();
    for queue in &queues {
        ingest_one(&mut other, queue);
    }

    scene.session.run("COMMIT");

    scene.queue.expect_drained();
    for queue in &queues {
        expect(&mut other, queue, Counts::ingested(1));
    }
    scene.ingest(2);
    scene.expect(Counts::ingested(2));
}

#[test]
fn counts_of_a_dropped_database_are_evicted_first() {
    let cluster = site();
    let mut oldest = Scene::on(&cluster);
    oldest.ingest(1);
    let full = Scene::on(&cluster);
    let mut session = full.database.connect();
    for _ in 0..ROOM - 1 {
        ingest_one(&mut session, &full.sqs.queue());
    }
    let full = full.database.name();
    oldest
        .session
        .run(&format!("DROP DATABASE {full} WITH (FORCE)"));

    let mut newest = Scene::on(&cluster);
    newest.ingest(1);

    newest.expect(Counts::ingested(1));
    oldest.expect(Counts::ingested(1));
}
