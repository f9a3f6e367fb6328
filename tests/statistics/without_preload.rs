//! Without `shared_preload_libraries` nothing is counted, and the views say so.

use tests::database::{Database, literal};
use tests::logins;
use tests::scripted::ScriptedSqs;

#[test]
fn the_views_name_the_line_to_add_and_ingest_works() {
    let database = Database::shared();
    let mut session = database.connect();
    let queue = ScriptedSqs::start();
    let queue = queue.queue();
    let url = literal(queue.url());

    for sql in [
        "SELECT * FROM sqs_stat",
        "SELECT * FROM sqs_stat_lag",
        "SELECT * FROM sqs_progress",
        "SELECT sqs_stat_reset()",
        &format!("SELECT sqs_stat_reset({url})"),
    ] {
        let error = session.error_of(sql);
        assert_eq!(error.code().code(), "55000", "{sql}: {error:?}");
        assert!(error.message().contains("shared_preload_libraries"));
        let line = "shared_preload_libraries = 'user_logins_sqs'";
        assert!(
            error.hint().is_some_and(|hint| hint.contains(line)),
            "{error:?}"
        );
    }
    queue.send(&logins::good(3));
    assert_eq!(session.ingest(&queue, 3), 3);
    queue.send(&logins::good(3));
    session.run(&format!("CALL sqs_drain({url})"));
    assert_eq!(session.logins(), 6);
    queue.expect_drained();
}
