//! Workers seal as sessions do, and take up a new setting without a row that lacks its entries.

use tests::database::{Database, Session};
use tests::scripted::ScriptedSqs;
use tests::vault::KeyPair;
use tests::workers;

use super::logins_of;

fn set_recipients(admin: &mut Session, file: &str) {
    admin.run(&format!(
        "ALTER SYSTEM SET user_logins_sqs.vault_recipients_file = '{file}'"
    ));
    admin.run("SELECT pg_reload_conf()");
}

#[test]
fn workers_that_share_values_seal_each_once() {
    let pair = KeyPair::generate();
    let cluster = workers::site_of(
        workers::preloading().setting("user_logins_sqs.vault_recipients_file", &pair.file()),
    );
    let mut admin = workers::admin(&cluster);
    admin.close_vault();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    admin.run(&format!("SELECT sqs_subscribe('{}', 4)", queue.url()));
    queue.send(&logins_of((0..4_000).map(|number| number % 40)));
    admin.expect_logins(4_000);
    admin.expect_vault_agrees(&pair);
    queue.expect_drained();
}

#[test]
fn what_a_worker_holds_when_the_vault_is_switched_on_comes_back_to_be_sealed() {
    let pair = KeyPair::generate();
    let cluster = workers::site();
    let mut admin = workers::admin(&cluster);
    admin.close_vault();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    admin.subscribe(&queue);
    queue.send(&logins_of(0..1));
    admin.expect_logins(1);
    // Received, but not written: the worker keeps it and tries again.
    let mut holder = Database::existing(&cluster, workers::DATABASE).connect();
    holder.run(
        "BEGIN; LOCK user_logins IN ACCESS EXCLUSIVE MODE; ALTER TABLE user_logins DROP locale",
    );
    queue.send(&logins_of(1..6));
    tests::wait::eventually(
        "the worker has received them",
        workers::ARRIVE_WITHIN,
        || queue.counts(),
        |counts| counts.visible == 0,
    );
    holder.run("COMMIT");
    tests::wait::eventually(
        "the worker cannot write them",
        workers::ARRIVE_WITHIN,
        || admin.text("SELECT state FROM sqs_stat"),
        |state| state.as_deref() == Some("retrying"),
    );

    set_recipients(&mut admin, &pair.file());
    admin.run("ALTER TABLE user_logins ADD locale varchar(32); DELETE FROM user_logins");
    admin.expect_logins(5);
    admin.expect_vault_agrees(&pair);

    // And other recipients take effect with the next reload.
    let next = KeyPair::generate();
    set_recipients(&mut admin, &next.file());
    admin.run("DELETE FROM user_logins; DELETE FROM sqs_vault; DELETE FROM sqs_vault_key");
    tests::wait::eventually(
        "new messages are sealed for the next recipient",
        workers::ARRIVE_WITHIN,
        || {
            queue.send(&logins_of(0..1));
            queue.expect_drained();
            let opened = !next.open(&mut admin).originals.is_empty();
            admin.run("DELETE FROM user_logins; DELETE FROM sqs_vault");
            opened
        },
        |opened| *opened,
    );
}

#[test]
fn a_worker_waits_for_a_file_of_recipients_that_it_can_use() {
    let pair = KeyPair::generate();
    let cluster = workers::site_of(
        workers::preloading().setting("user_logins_sqs.vault_recipients_file", "/nonexistent"),
    );
    let mut admin = workers::admin(&cluster);
    admin.close_vault();
    let server = ScriptedSqs::start();
    let queue = server.queue();
    let error = admin.error_of(&format!("SELECT sqs_subscribe('{}')", queue.url()));
    assert_eq!(error.code().code(), "58P01", "{error:?}");
    admin.set("user_logins_sqs.vault_recipients_file", "");
    let complaints = workers::LogSince::now(&cluster);
    admin.subscribe(&queue);
    queue.send(&logins_of(0..3));
    complaints.expect_complaint_within(workers::ARRIVE_WITHIN);
    assert!(server.calls_of("ReceiveMessage").is_empty());

    set_recipients(&mut admin, &pair.file());
    admin.expect_logins(3);
    admin.expect_vault_agrees(&pair);
}
