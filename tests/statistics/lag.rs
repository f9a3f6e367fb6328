//! `sqs_stat_lag` shows how long messages waited in the queue.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tests::database::TextRow;
use tests::logins;
use tests::scene::Scene;

use super::{Counted, scene};

/// The time of each row from being sent to its commit, in seconds, by the clock of Postgres.
const TRUTH: &str = "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin) - sent_at)::float8 AS lag \
    FROM sqs_ledger";

/// Between the time that Postgres gives to a commit, and that at which the commit is counted.
const BUSY: &str = "2.0";

/// 200 messages, from 10 seconds to 12 days old.
fn ingested() -> Scene<'static> {
    let mut scene = scene();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    for (number, body) in (0..).zip(logins::good(200)) {
        let age = Duration::from_secs_f64(10.0 * 1.06_f64.powi(number));
        let sent_at = (now - age).as_millis();
        scene
            .sqs
            .put(&scene.queue, &body, u64::try_from(sent_at).unwrap());
    }
    assert_eq!(scene.session.ingest(&scene.queue, 200), 200);
    scene
}

#[test]
fn percentiles_are_above_the_truth_by_one_part_in_16_at_most() {
    let mut scene = ingested();
    for (column, share) in [("lag_p50", "0.5"), ("lag_p99", "0.99")] {
        let rows = scene.session.rows(&format!(
            "SELECT extract(epoch FROM {column}) >= lag,
                    extract(epoch FROM {column}) <= (lag + {BUSY}) * 17 / 16, {column}, lag
             FROM sqs_stat, (SELECT percentile_disc({share}) WITHIN GROUP (ORDER BY lag) AS lag
                             FROM ({TRUTH}) AS each) AS all_of_them"
        ));
        let ok = |at: usize| rows[0][at].as_deref() == Some("t");
        assert!(ok(0) && ok(1), "{column}: {rows:?}");
    }
}

#[test]
fn buckets_count_what_took_no_longer() {
    let mut scene = ingested();
    let rows = scene.session.rows(&format!(
        "SELECT le, count,
                (SELECT count(*) FROM ({TRUTH}) AS each WHERE lag + {BUSY} <= le) AS least,
                (SELECT count(*) FROM ({TRUTH}) AS each WHERE lag <= le) AS most
         FROM sqs_stat_lag"
    ));
    let number = |row: &TextRow, at: usize| row[at].as_ref().unwrap().parse::<f64>().unwrap();
    for row in &rows {
        let [le, count, least, most] = [0, 1, 2, 3].map(|at| number(row, at));
        assert!(least <= count && count <= most, "{le}: {row:?}");
    }
    for pair in rows.windows(2) {
        assert!(number(&pair[0], 0) < number(&pair[1], 0), "{pair:?}");
        assert!(number(&pair[0], 1) < number(&pair[1], 1) || number(&pair[1], 0).is_infinite());
    }
    assert!(rows.len() > 100, "{} buckets", rows.len());
    let last = rows.last().unwrap();
    assert_eq!(last[0].as_deref(), Some("Infinity"));
    assert_eq!(last[1].as_deref(), Some("200"));
    let sum = scene.session.text(&format!(
        "SELECT min(sum) = max(sum) AND min(sum) BETWEEN sum(lag) - 1 AND sum(lag) + 200 * {BUSY}
         FROM (SELECT DISTINCT sum FROM sqs_stat_lag) AS stat,
              (SELECT sum(lag) AS lag FROM ({TRUTH}) AS each) AS truth GROUP BY lag"
    ));
    assert_eq!(sum.as_deref(), Some("t"));
}

#[test]
fn percentiles_are_bounds_of_buckets() {
    let mut scene = ingested();
    for (column, share) in [("lag_p50", 0.5), ("lag_p99", 0.99)] {
        // The query that the docs give for other percentiles.
        let of_buckets = scene.session.text(&format!(
            "SELECT min(le)
               FROM (SELECT *, max(count) OVER (PARTITION BY queue_url) AS total FROM sqs_stat_lag) AS lag
              WHERE total > 0 AND count >= {share} * total
              GROUP BY queue_url"
        ));
        let shown = scene.stat(&format!("extract(epoch FROM {column})::float8"));
        assert_eq!(shown, of_buckets, "{column}");
    }
}
