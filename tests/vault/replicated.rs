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
    Plan::default().setting("wal_level", "logical").start()
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
