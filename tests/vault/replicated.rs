//! What logical replication deletes from a vault is gone for the sessions that ingest beside it.

use std::time::Duration;

use tests::cluster::{Cluster, Plan};
use tests::database::Database;
use tests::run;
use tests::scripted::ScriptedSqs;
use tests::vault::KeyPair;
use tests::wait::eventually;

use super::login;

const REPLICATED_WITHIN: Duration = Duration::from_secs(30);

fn server() -> Cluster {
    plan().start()
}

fn plan() -> Plan {
    Plan::default().setting("wal_level", "logical")
}

#[test]
fn entries_whose_deletion_is_replicated_are_written_again() {
    let (publisher, subscriber) = (server(), server());
    let (host, port) = publisher.address();
    let sqs = ScriptedSqs::start();
    for deletion in [
        "DELETE FROM sqs_vault",
        "UPDATE sqs_vault SET mask = mask || ' of old'",
        "TRUNCATE sqs_vault",
    ] {
        let (there, here) = (sqs.queue(), sqs.queue());
        let pair = KeyPair::generate();
        let original = Database::with_extension(&publisher);
        let replica = Database::with_extension(&subscriber);
        let (mut original_session, mut session) = (original.connect(), replica.connect());
        for (session, queue) in [(&mut original_session, &there), (&mut session, &here)] {
            session.seal_for(&pair);
            queue.send(&[login("a")]);
        }
        original_session.ingest(&there, 1);
        original_session.run("CREATE PUBLICATION vault FOR TABLE sqs_vault, sqs_vault_key");
        session.run(&format!(
            "CREATE SUBSCRIPTION {} CONNECTION 'host={} port={port} user=postgres dbname={}' PUBLICATION vault",
            run::unique_name("vault"),
            host.display(),
            original.name(),
        ));
        let mut observer = replica.connect();
        let unready = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'";
        eventually(
            "the initial copy is done",
            REPLICATED_WITHIN,
            || observer.number(unready),
            |relations| *relations == 0,
        );
        assert_eq!(session.ingest(&here, 1), 1);
        let masks = session.masks();
        assert_eq!(session.vault_masks(), masks);

        original_session.run(deletion);
        let entries = "SELECT count(*) FROM sqs_vault WHERE mask NOT LIKE '% of old'";
        eventually(
            "the deletion is replicated",
            REPLICATED_WITHIN,
            || observer.number(entries),
            |entries| *entries == 0,
        );
        here.send(&[login("a")]);
        assert_eq!(session.ingest(&here, 1), 1);

        let mut found = session.vault_masks();
        found.retain(|mask| !mask.ends_with("of old"));
        assert_eq!(found, masks, "{deletion}");
    }
}

#[test]
fn what_is_replicated_is_pruned_where_it_comes_from_and_nowhere_else() {
    let (publisher, subscriber) = (
        server(),
        plan()
            .setting("user_logins_sqs.vault_retention", "1d")
            .start(),
    );
    let (host, port) = publisher.address();
    let original = Database::with_extension(&publisher);
    let replica = Database::with_extension(&subscriber);
    let (mut original_session, mut session) = (original.connect(), replica.connect());
    let sqs = ScriptedSqs::start();
    let queue = sqs.queue();
    let pair = KeyPair::generate();
    queue.send(&[login("a")]);
    original_session.seal_for(&pair).ingest(&queue, 1);
    session.seal_for(&pair);
    // The initial copy may bring a data key long before what it seals, or bring that never, where a row is in its way.
    session.run("ALTER TABLE sqs_vault ADD CONSTRAINT late CHECK (kind IS NULL)");
    original_session.run("CREATE PUBLICATION vault FOR TABLE sqs_vault, sqs_vault_key");
    session.run(&format!(
        "CREATE SUBSCRIPTION {} CONNECTION 'host={} port={port} user=postgres dbname={}' PUBLICATION vault",
        run::unique_name("vault"),
        host.display(),
        original.name(),
    ));
    eventually(
        "the data key is there",
        REPLICATED_WITHIN,
        || session.number("SELECT count(*) FROM sqs_vault_key"),
        |keys| *keys == 1,
    );

    session.run("SELECT sqs_prune()");
    session.run("ALTER TABLE sqs_vault DROP CONSTRAINT late");
    eventually(
        "the entries are there",
        REPLICATED_WITHIN,
        || session.number("SELECT count(*) FROM sqs_vault"),
        |entries| *entries == 2,
    );
    assert_eq!(pair.open(&mut session).originals.len(), 2);

    original_session.run("UPDATE sqs_vault SET last_seen = '2000-01-01'");
    let seen = "SELECT count(*) FROM sqs_vault WHERE last_seen > '2000-01-01'";
    eventually(
        "the change is replicated",
        REPLICATED_WITHIN,
        || session.number(seen),
        |entries| *entries == 0,
    );
    session.run("SELECT sqs_prune()");
    assert_eq!(session.vault_masks().len(), 2);
    original_session.run("UPDATE sqs_vault SET last_seen = now()");
    eventually(
        "the change is replicated",
        REPLICATED_WITHIN,
        || session.number(seen),
        |entries| *entries == 2,
    );
}
