//! A transaction may hold more receipt handles than belong in memory: they lie in a temporary file, which makes no
//! difference to what becomes of the messages.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tests::cluster::Cluster;
use tests::database::{Database, Session};
use tests::logins;
use tests::queue::Queue;
use tests::scripted::ScriptedSqs;
use tests::wait::eventually;

/// The handles of this many messages take 1.3 MB; 512 KiB stay in memory.
const MESSAGES: usize = 4_000;

fn full_queue(server: &ScriptedSqs) -> Queue {
    let queue = server.queue();
    queue.send(&logins::good(MESSAGES));
    queue
}

/// Begins a transaction that ingests all of `queue`.
fn ingest_all(session: &mut Session, queue: &Queue) {
    session.set("user_logins_sqs.visibility_timeout", 600);
    session.run("BEGIN");
    assert_eq!(session.ingest(queue, MESSAGES as i32), MESSAGES as i64);
}

/// What the temporary files that a process has open hold, all together.
fn content_of_temporary_files(pid: i32) -> Vec<u8> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    descriptors
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            fs::read_link(path).is_ok_and(|target| {
                target
                    .to_string_lossy()
                    .contains("/base/pgsql_tmp/pgsql_tmp")
            })
        })
        .flat_map(|path| fs::read(path).unwrap())
        .collect()
}

/// The temporary files that a process has open, as /proc shows them.
fn temporary_files(pid: i32) -> Vec<String> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|target| target.display().to_string())
        .filter(|target| target.contains("/base/pgsql_tmp/pgsql_tmp"))
        .collect()
}

#[test]
fn the_handles_lie_in_a_file_without_a_name_until_they_are_deleted() {
    let cluster = Cluster::private();
    let database = Database::with_extension(&cluster);
    let server = ScriptedSqs::start();
    let queue = full_queue(&server);
    let mut session = database.connect();

    ingest_all(&mut session, &queue);
    let files = temporary_files(session.pid());
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(files[0].ends_with("(deleted)"), "{files:?}");
    let folder = cluster.data_directory().join("base/pgsql_tmp");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    let mode_of = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(
        mode_of(&folder),
        mode_of(&cluster.data_directory().join("base"))
    );
    session.run("COMMIT");

    queue.expect_drained();
    assert_eq!(session.logins(), MESSAGES as i64);
    // The server knows of the last delete before its answer is read.
    eventually(
        "the file is closed",
        Duration::from_secs(10),
        || temporary_files(session.pid()),
        Vec::is_empty,
    );
}

#[test]
fn the_file_holds_handles_and_nothing_of_a_login() {
    let cluster = Cluster::private();
    let database = Database::with_extension(&cluster);
    let server = ScriptedSqs::start();
    let queue = full_queue(&server);
    let mut session = database.connect();

    ingest_all(&mut session, &queue);

    let content = content_of_temporary_files(session.pid());
    let content = String::from_utf8_lossy(&content);
    assert!(content.contains("AAAAAAAA"), "the handles' filler");
    for number in (1..=MESSAGES).step_by(40) {
        let login = logins::login(&format!("user-{number}"));
        for key in ["ip", "device_id"] {
            let raw = login[key].as_str().unwrap();
            assert!(!content.contains(raw), "{key} of user-{number}");
        }
    }
}

#[test]
fn a_rollback_releases_them_all() {
    let database = Database::shared();
    let server = ScriptedSqs::start();
    let queue = full_queue(&server);
    let mut session = database.connect();

    ingest_all(&mut session, &queue);
    session.run("ROLLBACK");

    queue.expect_released(MESSAGES as u64);
    assert_eq!(session.logins(), 0);
}

#[test]
fn where_no_file_can_be_made_they_stay_in_memory() {
    let cluster = Cluster::private();
    let database = Database::with_extension(&cluster);
    let server = ScriptedSqs::start();
    let queue = full_queue(&server);
    let mut session = database.connect();
    fs::write(cluster.data_directory().join("base/pgsql_tmp"), "no folder").unwrap();

    ingest_all(&mut session, &queue);
    assert_eq!(temporary_files(session.pid()), Vec::<String>::new());
    session.run("COMMIT");

    queue.expect_drained();
    assert_eq!(session.logins(), MESSAGES as i64);
}
