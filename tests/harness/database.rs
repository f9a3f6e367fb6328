//! A database with the extension in it, and sessions that keep their notices.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use postgres::error::DbError;
use postgres::{CancelToken, Client, Config, NoTls, SimpleQueryMessage};

use crate::cluster::Cluster;
use crate::queue::Queue;
use crate::run;
use crate::wait::eventually;

const WAITING_WITHIN: Duration = Duration::from_secs(20);

/// A row as text; `None` is NULL.
pub type TextRow = Vec<Option<String>>;

/// A database on a server, used by one test.
pub struct Database<'c> {
    cluster: &'c Cluster,
    name: String,
    /// On a server that lives on, a database is dropped with its test: hundreds of them would fill a memory disk.
    drop_at_end: bool,
}

impl Database<'static> {
    /// A new database on the shared server, the extension created.
    pub fn shared() -> Database<'static> {
        Database::with_extension(Cluster::shared())
    }
}

impl<'c> Database<'c> {
    /// A new database on `cluster`, the extension created.
    pub fn with_extension(cluster: &'c Cluster) -> Database<'c> {
        let database = Database::bare(cluster);
        database.connect().run("CREATE EXTENSION user_logins_sqs");
        database
    }

    /// A new database on `cluster`, nothing in it.
    pub fn bare(cluster: &'c Cluster) -> Database<'c> {
        let name = run::unique_name("db");
        let mut maintenance = Session::open(cluster.config("postgres"));
        maintenance.run(&format!("CREATE DATABASE {name}"));
        Database {
            cluster,
            name,
            drop_at_end: cluster.is_shared(),
        }
    }

    /// A database that is there already.
    pub fn existing(cluster: &'c Cluster, name: &str) -> Database<'c> {
        Database {
            cluster,
            name: name.to_owned(),
            drop_at_end: false,
        }
    }

    /// The same database on another server: a standby.
    pub fn on<'d>(&self, cluster: &'d Cluster) -> Database<'d> {
        Database {
            cluster,
            name: self.name.clone(),
            drop_at_end: false,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server it is on.
    pub fn cluster(&self) -> &'c Cluster {
        self.cluster
    }

    /// How to connect to it as the superuser.
    pub fn config(&self) -> Config {
        self.cluster.config(&self.name)
    }

    /// A session of the superuser.
    pub fn connect(&self) -> Session {
        Session::open(self.config())
    }

    /// A session of `role`.
    pub fn connect_as(&self, role: &str) -> Session {
        let mut config = self.config();
        Session::open(config.user(role).clone())
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        if self.drop_at_end
            && let Ok(mut client) = self.cluster.config("postgres").connect(NoTls)
        {
            // Prepared transactions may keep it; the reaper removes it all the same.
            let _ = client.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

/// A connection that keeps the notices it is sent.
pub struct Session {
    client: Client,
    notices: Arc<Mutex<Vec<DbError>>>,
    pid: i32,
}

impl Session {
    /// Connects.
    pub fn open(mut config: Config) -> Session {
        let notices = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&notices);
        config.notice_callback(move |notice| sink.lock().unwrap().push(notice));
        let mut client = config
            .connect(NoTls)
            .unwrap_or_else(|error| panic!("cannot connect: {error:?}"));
        let pid = client
            .query_one("SELECT pg_backend_pid()", &[])
            .unwrap()
            .get(0);
        Session {
            client,
            notices,
            pid,
        }
    }

    /// The backend's process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The right to cancel what this session runs, for another thread.
    pub fn cancel_token(&self) -> CancelToken {
        self.client.cancel_token()
    }

    /// Sets a setting for this session.
    pub fn set(&mut self, name: &str, value: impl ToString) -> &mut Session {
        let value = value.to_string().replace('\'', "''");
        self.run(&format!("SET {name} = '{value}'"));
        self
    }

    /// Runs statements that must succeed.
    #[track_caller]
    pub fn run(&mut self, sql: &str) -> &mut Session {
        if let Err(error) = self.try_run(sql) {
            panic!("{sql}: {}", show(&error));
        }
        self
    }

    /// Runs statements.
    pub fn try_run(&mut self, sql: &str) -> Result<(), postgres::Error> {
        self.client.batch_execute(sql)
    }

    /// Runs statements that must fail, and returns the server's error.
    #[track_caller]
    pub fn error_of(&mut self, sql: &str) -> DbError {
        match self.try_run(sql) {
            Ok(()) => panic!("succeeded, but should have failed: {sql}"),
            Err(error) => db_error(&error),
        }
    }

    /// The rows of a query, as text.
    #[track_caller]
    pub fn rows(&mut self, sql: &str) -> Vec<TextRow> {
        let messages = self
            .client
            .simple_query(sql)
            .unwrap_or_else(|error| panic!("{sql}: {}", show(&error)));
        messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(
                    (0..row.len())
                        .map(|column| row.get(column).map(str::to_owned))
                        .collect(),
                ),
                _ => None,
            })
            .collect()
    }

    /// The one value of a query, as text; `None` is NULL.
    #[track_caller]
    pub fn text(&mut self, sql: &str) -> Option<String> {
        let mut rows = self.rows(sql);
        assert_eq!(rows.len(), 1, "one row expected of {sql}");
        rows.remove(0).remove(0)
    }

    /// The one number of a query.
    #[track_caller]
    pub fn number(&mut self, sql: &str) -> i64 {
        let text = self.text(sql).unwrap_or_else(|| panic!("NULL from {sql}"));
        text.parse().unwrap_or_else(|_| panic!("{text} from {sql}"))
    }

    /// Waits until the session of this process waits for a lock.
    #[track_caller]
    pub fn expect_waiting(&mut self, pid: i32) {
        eventually(
            "the session waits for a lock",
            WAITING_WITHIN,
            || {
                self.number(&format!(
                    "SELECT count(*) FROM pg_locks WHERE pid = {pid} AND NOT granted"
                ))
            },
            |waits| *waits > 0,
        );
    }

    /// How many rows `user_logins` has, as this session sees it.
    #[track_caller]
    pub fn logins(&mut self) -> i64 {
        self.number("SELECT count(*) FROM public.user_logins")
    }

    /// Calls `sqs_ingest(queue, n)`, which must succeed, and returns the number of rows inserted.
    #[track_caller]
    pub fn ingest(&mut self, queue: &Queue, n: i32) -> i64 {
        self.try_ingest(queue, n, 1)
            .unwrap_or_else(|error| panic!("sqs_ingest: {}", show(&error)))
    }

    /// Calls `sqs_ingest(queue, n, wait_seconds)`.
    pub fn try_ingest(
        &mut self,
        queue: &Queue,
        n: i32,
        wait_seconds: i32,
    ) -> Result<i64, postgres::Error> {
        self.client
            .query_one(
                "SELECT public.sqs_ingest($1, $2, $3)",
                &[&queue.url(), &n, &wait_seconds],
            )
            .map(|row| row.get(0))
    }

    /// Calls `sqs_ingest(queue, n)`, which must fail, and returns the server's error.
    #[track_caller]
    pub fn ingest_error(&mut self, queue: &Queue, n: i32) -> DbError {
        match self.try_ingest(queue, n, 1) {
            Ok(rows) => panic!("sqs_ingest inserted {rows} rows, but should have failed"),
            Err(error) => db_error(&error),
        }
    }

    /// What `sqs_rejected` holds, by the order of message ids.
    #[track_caller]
    pub fn rejections(&mut self) -> Vec<Rejection> {
        let rows = self.rows(
            "SELECT message_id, queue_url, reason, sqlstate, times_seen FROM public.sqs_rejected ORDER BY message_id",
        );
        rows.into_iter()
            .map(|row| {
                let mut fields = row.into_iter().map(Option::unwrap_or_default);
                let mut next = || fields.next().unwrap();
                Rejection {
                    message_id: next(),
                    queue_url: next(),
                    reason: next(),
                    sqlstate: next(),
                    times_seen: next().parse().unwrap(),
                }
            })
            .collect()
    }

    /// The notices since the last time this was asked.
    pub fn take_notices(&mut self) -> Vec<DbError> {
        std::mem::take(&mut self.notices.lock().unwrap())
    }

    /// How long `sql` takes, whether it succeeds or not.
    pub fn time(&mut self, sql: &str) -> (Duration, Result<(), postgres::Error>) {
        let begun = Instant::now();
        let result = self.try_run(sql);
        (begun.elapsed(), result)
    }
}

/// A row of `sqs_rejected`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The message's id.
    pub message_id: String,
    /// Where it came from.
    pub queue_url: String,
    /// The field and the rule.
    pub reason: String,
    /// The SQLSTATE of the rule.
    pub sqlstate: String,
    /// How often it was received and rejected.
    pub times_seen: u32,
}

/// The server's error behind a client's error.
#[track_caller]
pub fn db_error(error: &postgres::Error) -> DbError {
    match error.as_db_error() {
        Some(error) => error.clone(),
        None => panic!("not an error that the server reported: {error:?}"),
    }
}

/// Everything that an error says to its reader.
pub fn show(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => show_db(error),
        None => format!("{error:?}"),
    }
}

/// Everything that a server's error or notice says to its reader.
pub fn show_db(error: &DbError) -> String {
    let mut text = format!(
        "{} {}: {}",
        error.severity(),
        error.code().code(),
        error.message()
    );
    for (name, part) in [
        ("DETAIL", error.detail()),
        ("HINT", error.hint()),
        ("CONTEXT", error.where_()),
    ] {
        if let Some(part) = part {
            text += &format!("\n{name}: {part}");
        }
    }
    text
}

/// A text as an SQL literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
