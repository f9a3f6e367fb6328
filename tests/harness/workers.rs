//! A server on which background workers ingest by themselves.

use std::time::Duration;

use crate::cluster::{Cluster, Plan};
use crate::database::{Database, Session, literal};
use crate::queue::Queue;
use crate::wait::{eventually, throughout};

/// A change of subscriptions takes effect within this time; the launcher would not look by itself that soon.
pub const PROMPTLY: Duration = Duration::from_secs(2);

/// How long rows may take to arrive in tests that are not about time.
pub const ARRIVE_WITHIN: Duration = Duration::from_secs(30);

/// The database in which the launcher of a [`site`] looks for subscriptions.
pub const DATABASE: &str = "postgres";

/// A server that preloads the extension, before it is started.
pub fn preloading() -> Plan {
    Plan::default().setting("shared_preload_libraries", "user_logins_sqs")
}

/// A private server with the extension preloaded, and created in the database of subscriptions.
pub fn site() -> Cluster {
    site_of(preloading())
}

/// The same, of a server that differs from the default one.
pub fn site_of(plan: Plan) -> Cluster {
    let cluster = plan.start();
    admin(&cluster).run("CREATE EXTENSION user_logins_sqs");
    cluster
}

/// A session of the superuser in the database of subscriptions.
pub fn admin(cluster: &Cluster) -> Session {
    Database::existing(cluster, DATABASE).connect()
}

impl Session {
    /// Calls `sqs_subscribe`, which must succeed.
    #[track_caller]
    pub fn subscribe(&mut self, queue: &Queue) {
        self.run(&format!(
            "SELECT public.sqs_subscribe({})",
            literal(queue.url())
        ));
    }

    /// Calls `sqs_unsubscribe`, which must succeed.
    #[track_caller]
    pub fn unsubscribe(&mut self, queue: &Queue) {
        self.run(&format!(
            "SELECT public.sqs_unsubscribe({})",
            literal(queue.url())
        ));
    }

    /// The process ids of all workers.
    #[track_caller]
    pub fn workers(&mut self) -> Vec<i32> {
        self.processes("user_logins_sqs worker")
    }

    /// The process id of the launcher, if there is one.
    #[track_caller]
    pub fn launcher(&mut self) -> Option<i32> {
        self.processes("user_logins_sqs launcher").first().copied()
    }

    #[track_caller]
    fn processes(&mut self, backend_type: &str) -> Vec<i32> {
        let rows = self.rows(&format!(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = {} ORDER BY pid",
            literal(backend_type)
        ));
        let pids = rows.into_iter().flatten().flatten();
        pids.map(|pid| pid.parse().unwrap()).collect()
    }

    /// Waits until exactly `count` workers run, and returns their process ids.
    #[track_caller]
    pub fn expect_workers_within(&mut self, within: Duration, count: usize) -> Vec<i32> {
        eventually(
            &format!("{count} workers run"),
            within,
            || self.workers(),
            |pids| pids.len() == count,
        )
    }

    /// Waits until exactly one worker runs, and it is not `old`.
    #[track_caller]
    pub fn expect_successor_within(&mut self, within: Duration, old: i32) -> i32 {
        let pids = eventually(
            "another worker runs",
            within,
            || self.workers(),
            |pids| pids.len() == 1 && pids[0] != old,
        );
        pids[0]
    }

    /// Waits until `user_logins` has exactly `count` rows.
    #[track_caller]
    pub fn expect_logins(&mut self, count: i64) {
        self.expect_logins_within(ARRIVE_WITHIN, count);
    }

    /// Waits until `user_logins` has exactly `count` rows.
    #[track_caller]
    pub fn expect_logins_within(&mut self, within: Duration, count: i64) {
        eventually(
            &format!("user_logins has {count} rows"),
            within,
            || self.logins(),
            |rows| *rows == count,
        );
    }
}

/// What a server has logged since this was made.
pub struct LogSince<'c> {
    cluster: &'c Cluster,
    from: usize,
}

impl<'c> LogSince<'c> {
    /// From now on.
    pub fn now(cluster: &'c Cluster) -> LogSince<'c> {
        LogSince {
            cluster,
            from: cluster.log().len(),
        }
    }

    /// The lines that begin an entry of one of these severities (`WARNING`, `FATAL`, …).
    pub fn lines(&self, severities: &[&str]) -> Vec<String> {
        let log = self.cluster.log();
        let is_of = |line: &str| {
            severities
                .iter()
                .any(|severity| line.contains(&format!("] {severity}:  ")))
        };
        let new = log.get(self.from..).unwrap_or_default();
        new.lines()
            .filter(|line| is_of(line))
            .map(str::to_owned)
            .collect()
    }

    /// Waits for the first complaint.
    #[track_caller]
    pub fn expect_complaint_within(&self, within: Duration) -> String {
        let complaints = eventually(
            "the log has a complaint",
            within,
            || self.complaints(),
            |lines| !lines.is_empty(),
        );
        complaints[0].clone()
    }

    /// Watches for a while that there is one complaint and no second.
    #[track_caller]
    pub fn expect_no_second_complaint(&self, during: Duration) {
        throughout(
            "the log has one complaint",
            during,
            || self.complaints(),
            |lines| lines.len() == 1,
        );
    }

    /// Warnings and everything worse. Leaves out that a worker was told to end and that the server is not ready yet.
    pub fn complaints(&self) -> Vec<String> {
        let mut lines = self.lines(&["WARNING", "ERROR", "FATAL", "PANIC"]);
        let is_normal = |line: &str| {
            line.contains("terminating background worker")
                || line.contains("the database system is starting up")
        };
        lines.retain(|line| !is_normal(line));
        lines
    }
}
