//! The recipe for pg_cron: one job per minute, and no second row when runs overlap.

use std::time::Duration;

use tests::cluster::{Cluster, Plan};
use tests::database::{Database, literal};
use tests::logins;
use tests::scripted::{Answer, ScriptedSqs};
use tests::wait::eventually;

const MESSAGES: usize = 2_000;

/// Runs begin with a minute of the clock.
const RUN_WITHIN: Duration = Duration::from_secs(75);

fn is_installed(cluster: &Cluster) -> bool {
    let found = "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_cron'";
    Database::existing(cluster, "postgres")
        .connect()
        .number(found)
        > 0
}

#[test]
fn overlapping_runs_make_no_second_row() {
    if !is_installed(Cluster::shared()) {
        println!("SKIPPED: pg_cron is not installed for this server (Debian: postgresql-15-cron)");
        return;
    }
    let cluster = Plan::default()
        .setting("shared_preload_libraries", "pg_cron,user_logins_sqs")
        .setting("cron.use_background_workers", "on")
        .start();
    let mut admin = Database::existing(&cluster, "postgres").connect();
    admin.run("CREATE EXTENSION pg_cron; CREATE EXTENSION user_logins_sqs");
    let sqs = ScriptedSqs::start();
    let queue = sqs.queue();
    queue.send(&logins::good(MESSAGES));
    // Slow enough that runs overlap; and for a while each run is given the messages of the other, too.
    sqs.script(|call| {
        if call.action == "ReceiveMessage" && call.earlier < 100 {
            std::thread::sleep(Duration::from_millis(20));
            return Answer::ServeAndKeepVisible;
        }
        Answer::Serve
    });

    let command = format!("SELECT sqs_ingest({}, {MESSAGES})", literal(queue.url()));
    for job in ["one", "two"] {
        admin.run(&format!(
            "SELECT cron.schedule('{job}', '* * * * *', {})",
            literal(&command)
        ));
    }

    let runs = "SELECT jobname, status, return_message, start_time, end_time
                FROM cron.job_run_details JOIN cron.job USING (jobid) ORDER BY start_time LIMIT 2";
    let ended = eventually(
        "both jobs have run",
        RUN_WITHIN,
        || admin.rows(runs),
        |rows| rows.len() == 2 && rows.iter().all(|row| row[4].is_some()),
    );
    for run in &ended {
        assert_eq!(run[1].as_deref(), Some("succeeded"), "{ended:#?}");
    }
    let overlap = admin.number(&format!(
        "SELECT count(*) FROM (SELECT max(start_time) AS began, min(end_time) AS ended FROM ({runs}) AS run) AS times
         WHERE began < ended"
    ));
    assert_eq!(overlap, 1, "the runs overlap: {ended:#?}");
    eventually(
        "every login is a row",
        RUN_WITHIN,
        || admin.number("SELECT count(DISTINCT user_id) FROM user_logins"),
        |users| *users == MESSAGES as i64,
    );
    assert_eq!(admin.logins(), MESSAGES as i64);
}
