//! A worker runs with the rights that its role has now, under the name that the role has now.

use tests::database::Database;
use tests::workers::{ARRIVE_WITHIN, DATABASE, LogSince, PROMPTLY};

use super::{SEVERAL_TRIES, Scene, scene};

fn subscribed_as(scene: &mut Scene, role: &str) -> i32 {
    scene.admin.run(&format!(
        "CREATE ROLE {role} LOGIN; GRANT INSERT ON user_logins TO {role};
         GRANT EXECUTE ON FUNCTION sqs_subscribe TO {role}"
    ));
    Database::existing(&scene.cluster, DATABASE)
        .connect_as(role)
        .subscribe(&scene.queue);
    scene.admin.expect_workers_within(PROMPTLY, 1)[0]
}

#[test]
fn a_renamed_role_goes_on() {
    let mut scene = scene(&[]);
    let worker = subscribed_as(&mut scene, "before");
    // While it starts, a process looks its role up by name.
    scene.send_good(1);
    scene.admin.expect_logins(1);

    scene.admin.run("ALTER ROLE before RENAME TO after");
    scene.send_good(3);

    scene.admin.expect_logins(4);
    assert_eq!(scene.admin.workers(), [worker]);
    assert_eq!(
        scene.admin.text("SELECT role FROM sqs_subscription"),
        Some("after".to_owned())
    );
    scene
        .admin
        .run(&format!("SELECT pg_terminate_backend({worker})"));
    scene.admin.expect_successor_within(ARRIVE_WITHIN, worker);
}

#[test]
fn a_role_that_loses_its_rights_loses_no_message() {
    let mut scene = scene(&[("visibility_timeout", "2s")]);
    subscribed_as(&mut scene, "ingester");
    scene
        .admin
        .run("REVOKE INSERT ON user_logins FROM ingester");
    let log = LogSince::now(&scene.cluster);

    scene.send_good(5);
    log.expect_complaint_within(ARRIVE_WITHIN);
    log.expect_no_second_complaint(SEVERAL_TRIES);

    scene.admin.run("GRANT INSERT ON user_logins TO ingester");
    scene.admin.expect_logins(5);
    scene.expect_handed_out_once(5);
}
