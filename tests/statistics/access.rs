//! Who can read the statistics, and who can reset them.

use tests::database::db_error;

use super::{Counted, scene};

const ALL: [&str; 8] = [
    "SELECT * FROM sqs_stat",
    "SELECT * FROM sqs_stat_lag",
    "SELECT * FROM sqs_progress",
    "SELECT * FROM sqs_stat_get_queues()",
    "SELECT * FROM sqs_stat_get_lags()",
    "SELECT * FROM sqs_stat_get_calls()",
    "SELECT sqs_stat_reset()",
    "SELECT sqs_stat_reset('http://localhost/1/queue')",
];

#[test]
fn statistics_are_for_pg_monitor_and_resets_are_for_superusers() {
    let mut scene = scene();
    scene.ingest(1);
    let role = |kind: &str| format!("{kind}_{}", scene.database.name());
    let (anybody, watcher) = (role("anybody"), role("watcher"));
    scene.session.run(&format!(
        "CREATE ROLE {anybody} LOGIN; CREATE ROLE {watcher} LOGIN; GRANT pg_monitor TO {watcher}"
    ));
    let refused = |role: &str| {
        let mut session = scene.database.connect_as(role);
        let mut refused = ALL.to_vec();
        refused.retain(|sql| match session.try_run(sql) {
            Ok(()) => false,
            Err(error) => db_error(&error).code().code() == "42501",
        });
        refused
    };

    assert_eq!(refused(&anybody), ALL);
    assert_eq!(refused(&watcher), ALL[6..]);
    assert_eq!(refused("postgres"), [""; 0]);
}
