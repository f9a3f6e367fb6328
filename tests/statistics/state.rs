//! The state that `sqs_stat` shows for a subscription.

use tests::database::Session;
use tests::logins;
use tests::scripted::ScriptedSqs;
use tests::wait::eventually;
use tests::workers::{self, PROMPTLY, admin, site};

use super::{COUNTED_WITHIN, DENIED};

#[track_caller]
fn expect_state(admin: &mut Session, expected: &str) {
    eventually(
        &format!("the state is {expected}"),
        COUNTED_WITHIN,
        || admin.text("SELECT state FROM sqs_stat"),
        |state| state.as_deref() == Some(expected),
    );
}

#[test]
fn the_state_says_what_a_worker_does() {
    let cluster = site();
    let mut admin = admin(&cluster);
    let sqs = ScriptedSqs::start();
    let queue = sqs.queue();
    admin.subscribe(&queue);
    admin.expect_workers_within(PROMPTLY, 1);
    expect_state(&mut admin, "idle");

    // Writers wait for this lock.
    let mut locker = workers::admin(&cluster);
    locker.run("BEGIN; LOCK TABLE sqs_ledger");
    queue.send(&logins::good(1));
    expect_state(&mut admin, "running");
    locker.run("COMMIT");
    expect_state(&mut admin, "idle");

    sqs.always("ReceiveMessage", DENIED);
    queue.send(&logins::good(1));
    expect_state(&mut admin, "retrying");
    sqs.behave();
    expect_state(&mut admin, "idle");

    admin.run("ALTER TABLE user_logins ADD CONSTRAINT none CHECK (user_id IS NULL) NOT VALID");
    queue.send(&logins::good(20));
    expect_state(&mut admin, "paused");
    admin.run("ALTER TABLE user_logins DROP CONSTRAINT none");
    expect_state(&mut admin, "idle");
}
