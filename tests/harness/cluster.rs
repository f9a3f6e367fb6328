//! A private Postgres server: its own data directory, socket, port and log.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::process::{self, as_postgres, output_of};
use crate::run;
use crate::wait::eventually;

const START_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// How `pg_ctl stop` calls the ways to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Transactions are rolled back, sessions are ended.
    Fast,
    /// As a crash: recovery follows at the next start.
    Immediate,
}

/// A Postgres server; stopped and its directory removed when dropped.
pub struct Cluster {
    directory: PathBuf,
    port: u16,
    postmaster: Mutex<Option<Child>>,
    environment: Vec<(String, String)>,
}

static SHARED: OnceLock<Cluster> = OnceLock::new();

/// What a cluster differs in from the default one.
#[derive(Default)]
pub struct Plan {
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
}

impl Plan {
    /// A line of `postgresql.conf`.
    pub fn setting(mut self, name: &str, value: &str) -> Plan {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// An environment variable of the server.
    pub fn environment(mut self, name: &str, value: &str) -> Plan {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts a server of this kind.
    pub fn start(self) -> Cluster {
        let cluster = Cluster::at_new_directory(self.environment);
        output_of(
            Command::new("cp")
                .arg("-a")
                .arg(template())
                .arg(cluster.data_directory()),
        );
        cluster.configure(&self.settings);
        cluster.start();
        cluster
    }
}

impl Cluster {
    /// The server shared by all tests that neither stop it nor crash it.
    pub fn shared() -> &'static Cluster {
        SHARED.get_or_init(|| {
            Plan::default()
                .setting("max_connections", "200")
                .setting("max_prepared_transactions", "10")
                .setting("track_commit_timestamp", "on")
                .setting("shared_buffers", "256MB")
                .start()
        })
    }

    /// Whether it is the server that tests share.
    pub(crate) fn is_shared(&self) -> bool {
        SHARED
            .get()
            .is_some_and(|shared| std::ptr::eq(shared, self))
    }

    /// A server for one test alone.
    pub fn private() -> Cluster {
        Plan::default().start()
    }

    /// A hot standby of this server, streaming.
    pub fn standby(&self) -> Cluster {
        let standby = Cluster::at_new_directory(self.environment.clone());
        output_of(
            as_postgres(&mut program("pg_basebackup"))
                .args([
                    "--checkpoint=fast",
                    "--no-sync",
                    "--write-recovery-conf",
                    "--username=postgres",
                ])
                .arg(format!("--dbname=host=127.0.0.1 port={}", self.port))
                .arg("--pgdata")
                .arg(standby.data_directory()),
        );
        standby.configure(&[]);
        standby.start();
        standby
    }

    fn at_new_directory(environment: Vec<(String, String)>) -> Cluster {
        let directory = run::directory().join(run::unique_name("pg"));
        process::make_directory(&directory);
        Cluster {
            directory,
            port: free_port(),
            postmaster: Mutex::new(None),
            environment,
        }
    }

    fn configure(&self, settings: &[(String, String)]) {
        let mut lines = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\n",
            self.port,
            self.directory.display()
        );
        for (name, value) in settings {
            lines += &format!("{name} = '{}'\n", value.replace('\'', "''"));
        }
        let path = self.data_directory().join("postgresql.auto.conf");
        let mut file = File::options().append(true).open(path).unwrap();
        file.write_all(lines.as_bytes()).unwrap();
    }

    /// Starts the server and waits until it takes connections.
    pub fn start(&self) {
        // A session whose postmaster was killed finishes what it has to tell the queue, and holds the shared memory
        // until then.
        let data = self.data_directory();
        eventually(
            "the last server's processes are gone",
            STOP_WITHIN,
            || process::processes_in(&data),
            Vec::is_empty,
        );
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let child = as_postgres(&mut program("postgres"))
            .arg("-D")
            .arg(self.data_directory())
            .env_clear()
            .env("HOME", &self.directory)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("postgres runs");
        *self.postmaster.lock().unwrap() = Some(child);
        self.wait_until_ready();
    }

    /// Waits until the server takes connections, after a start or a crash.
    pub fn wait_until_ready(&self) {
        eventually(
            &format!(
                "postgres takes connections; its log:\n{}",
                self.log_path().display()
            ),
            START_WITHIN,
            || {
                let mut postmaster = self.postmaster.lock().unwrap();
                let ended = postmaster
                    .as_mut()
                    .and_then(|child| child.try_wait().unwrap());
                drop(postmaster);
                if let Some(status) = ended {
                    panic!("postgres ended ({status}):\n{}", self.log());
                }
                self.config("postgres")
                    .connect(postgres::NoTls)
                    .map(drop)
                    .map_err(|error| error.to_string())
            },
            Result::is_ok,
        )
        .unwrap_or_default();
    }

    /// Stops the server and waits until it is gone. Returns how long that took.
    pub fn stop(&self, how: Stop) -> Duration {
        let begun = Instant::now();
        let signal = match how {
            Stop::Fast => libc::SIGINT,
            Stop::Immediate => libc::SIGQUIT,
        };
        let ended = || match self.postmaster.lock().unwrap().as_mut() {
            Some(child) => child.try_wait().unwrap().is_some(),
            None => true,
        };
        if !ended() {
            process::send_signal(self.postmaster_pid(), signal);
            eventually("postgres ends", STOP_WITHIN, ended, |ended| *ended);
        }
        *self.postmaster.lock().unwrap() = None;
        begun.elapsed()
    }

    /// Tells the server to stop fast, and returns at once.
    pub fn begin_fast_stop(&self) {
        process::send_signal(self.postmaster_pid(), libc::SIGINT);
    }

    /// Stops and starts the server.
    pub fn restart(&self) {
        self.stop(Stop::Fast);
        self.start();
    }

    /// Ends every process of the server with SIGKILL, as a power cut would (the kernel's page cache survives).
    pub fn crash(&self) {
        let Some(mut child) = self.postmaster.lock().unwrap().take() else {
            return;
        };
        let data = self.data_directory();
        // Stopped first, so that none of them can do anything on the news of another one's death.
        for signal in [libc::SIGSTOP, libc::SIGKILL] {
            for pid in process::processes_in(&data) {
                process::send_signal(pid, signal);
            }
        }
        child.wait().unwrap();
        eventually(
            "the server's processes end",
            STOP_WITHIN,
            || process::processes_in(&data),
            Vec::is_empty,
        );
    }

    /// Ends the postmaster alone with SIGKILL, and waits until its processes have noticed and are gone.
    pub fn kill_postmaster(&self) {
        let Some(mut child) = self.postmaster.lock().unwrap().take() else {
            return;
        };
        process::send_signal(child.id().cast_signed(), libc::SIGKILL);
        child.wait().unwrap();
        let data = self.data_directory();
        eventually(
            "the server's processes notice that the postmaster is gone",
            STOP_WITHIN,
            || process::processes_in(&data),
            Vec::is_empty,
        );
    }

    /// Ends one backend with SIGKILL, and waits until the postmaster has ended the others, recovered, and serves again.
    pub fn kill_backend(&self, pid: i32) {
        let recoveries = || {
            self.log()
                .matches("all server processes terminated; reinitializing")
                .count()
        };
        let before = recoveries();
        process::send_signal(pid, libc::SIGKILL);
        eventually("the server recovers", START_WITHIN, recoveries, |count| {
            *count > before
        });
        self.wait_until_ready();
    }

    /// Whether this process of the server is still there.
    pub fn has_process(&self, pid: i32) -> bool {
        process::is_alive(pid)
    }

    fn postmaster_pid(&self) -> i32 {
        let postmaster = self.postmaster.lock().unwrap();
        postmaster
            .as_ref()
            .expect("the server runs")
            .id()
            .cast_signed()
    }

    /// How to connect to `database` as the superuser.
    pub fn config(&self, database: &str) -> postgres::Config {
        let mut config = postgres::Config::new();
        config
            .host_path(&self.directory)
            .port(self.port)
            .user("postgres")
            .dbname(database);
        config.connect_timeout(Duration::from_secs(30));
        config
    }

    /// One of Postgres' programs, told how to connect to this server as the superuser.
    pub fn client_program(&self, name: &str) -> Command {
        let mut command = program(name);
        command
            .env("PGHOST", &self.directory)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGOPTIONS", "");
        command
    }

    /// Has pg_upgrade make `new`, a server that holds nothing yet, what this one is. Both are stopped.
    pub fn upgrade_to(&self, new: &Cluster) {
        let bin = PathBuf::from(program("postgres").get_program());
        let bin = bin.parent().expect("a directory of programs");
        output_of(
            as_postgres(&mut program("pg_upgrade"))
                .current_dir(&new.directory)
                .args(["--username=postgres", "--old-bindir"])
                .arg(bin)
                .arg("--new-bindir")
                .arg(bin)
                .arg("--old-datadir")
                .arg(self.data_directory())
                .arg("--new-datadir")
                .arg(new.data_directory())
                .arg(format!("--old-port={}", self.port))
                .arg(format!("--new-port={}", new.port)),
        );
    }

    /// The major version of the server.
    pub fn server_version(&self) -> u32 {
        let version = fs::read_to_string(self.data_directory().join("PG_VERSION")).unwrap();
        version.trim().parse().expect("a number")
    }

    /// Where the data is.
    pub fn data_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// All that the server has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// The socket's directory and the port, for a connection string.
    pub fn address(&self) -> (&Path, u16) {
        (&self.directory, self.port)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's log ends with:\n{}", tail(&self.log(), 30));
            self.crash();
        } else {
            self.stop(Stop::Immediate);
        }
        // The reaper removes what cannot be removed here.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A data directory as initdb leaves it, made once per run and copied for each server.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let directory = run::directory().join("template");
        process::make_directory(&directory);
        let data = directory.join("data");
        output_of(
            as_postgres(&mut program("initdb"))
                .args([
                    "--no-sync",
                    "--username=postgres",
                    "--auth=trust",
                    "--encoding=UTF8",
                ])
                .args(["--locale=C.UTF-8", "--pgdata"])
                .arg(&data)
                .current_dir(&directory),
        );
        // A time zone far from UTC, so that a day reckoned in the session's zone shows.
        let settings = "fsync = off\nTimeZone = 'Pacific/Kiritimati'\nlog_timezone = 'UTC'\n\
             shared_buffers = 32MB\nlog_line_prefix = '%m [%p] '\n";
        let mut file = File::options()
            .append(true)
            .open(data.join("postgresql.conf"))
            .unwrap();
        file.write_all(settings.as_bytes()).unwrap();
        data
    })
}

fn program(name: &str) -> Command {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let pg_config = std::env::var("PG_CONFIG")
            .unwrap_or_else(|_| "/usr/lib/postgresql/15/bin/pg_config".to_owned());
        PathBuf::from(output_of(Command::new(pg_config).arg("--bindir")).trim())
    });
    let mut command = Command::new(directory.join(name));
    // The tests' own directory may be closed to the user that Postgres runs as.
    command.current_dir(run::directory());
    command
}

/// A port that nobody listens on now. The kernel's own choice is never one of the well-known ports.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().unwrap().port()
}
