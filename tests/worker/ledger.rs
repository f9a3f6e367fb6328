//! Old entries of the ledger are pruned by the launcher, and by hand.

use std::time::Duration;

use tests::database::Database;
use tests::wait::eventually;
use tests::workers::{ARRIVE_WITHIN, admin};

use super::scene;

#[test]
fn ledger_entries_older_than_their_retention_are_pruned() {
    let mut scene = scene(&[("ledger_retention", "10d")]);
    scene.admin.run(
        "INSERT INTO sqs_ledger SELECT now() - days * interval '1 day', gen_random_uuid()
         FROM generate_series(1, 20) AS days, generate_series(1, 200);
         INSERT INTO sqs_rejected (queue_url, message_id, reason, sqlstate, times_seen, first_seen, last_seen)
         SELECT 'q', id, 'r', '22023', 1, seen, seen
         FROM (VALUES ('old', now() - interval '20 days'), ('new', now())) AS v (id, seen)",
    );

    // The launcher prunes when it starts.
    scene.cluster.restart();
    scene.admin = admin(&scene.cluster);

    eventually(
        "the old entries go",
        ARRIVE_WITHIN,
        || scene.admin.number("SELECT count(*) FROM sqs_ledger"),
        |count| *count <= 10 * 200,
    );
    let rows = scene
        .admin
        .rows("SELECT count(*), max(now() - sent_at) < interval '11 days' FROM sqs_ledger");
    assert_eq!(rows, [[Some("2000".to_owned()), Some("t".to_owned())]]);
    let left = scene.admin.rows("SELECT message_id FROM sqs_rejected");
    assert_eq!(left, [[Some("new".to_owned())]]);
}

#[test]
fn ledger_entries_can_be_pruned_by_hand() {
    let database = Database::shared();
    let mut session = database.connect();
    session.run(
        "INSERT INTO sqs_ledger SELECT now() - days * interval '1 day', gen_random_uuid()
         FROM generate_series(1, 30) AS days",
    );

    assert_eq!(session.number("SELECT sqs_prune()"), 15);
    assert_eq!(session.number("SELECT sqs_prune()"), 0);

    assert_eq!(session.number("SELECT count(*) FROM sqs_ledger"), 15);
    for (call, sqlstate) in [("sqs_prune(0)", "22023"), ("sqs_prune(NULL)", "22004")] {
        let error = session.error_of(&format!("SELECT {call}"));
        assert_eq!(error.code().code(), sqlstate, "{call}: {error:?}");
    }
}

#[test]
fn the_launcher_prunes_rejections_as_fast_as_the_ledger() {
    let mut scene = scene(&[]);
    scene.admin.run(
        "INSERT INTO sqs_rejected (queue_url, message_id, reason, sqlstate, times_seen, first_seen, last_seen)
         SELECT 'q', n, 'old', '22023', 1, now() - interval '20 days', now() - interval '20 days'
         FROM generate_series(1, 3500) AS n",
    );
    // A launcher prunes when it starts.
    let launcher = scene.admin.launcher().unwrap();
    scene
        .admin
        .run(&format!("SELECT pg_terminate_backend({launcher})"));

    eventually(
        "all rejections are gone",
        Duration::from_secs(20),
        || scene.admin.number("SELECT count(*) FROM sqs_rejected"),
        |left| *left == 0,
    );
}
