//! LocalStack: one server for all tests of a process, one queue for each test.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::queue::Queue;
use crate::run;

/// A new standard queue on LocalStack.
pub fn queue() -> Queue {
    Queue::create(endpoint(), &run::unique_name("logins"), &[])
}

/// A new FIFO queue on LocalStack.
pub fn fifo_queue() -> Queue {
    Queue::create(
        endpoint(),
        &format!("{}.fifo", run::unique_name("logins")),
        &[("FifoQueue", "true")],
    )
}

/// A new standard queue on LocalStack with a dead-letter queue, which takes a message after `max_receives` receives.
pub fn queue_with_dead_letters(max_receives: u32) -> (Queue, Queue) {
    with_dead_letters(max_receives, "", &[])
}

/// The same, FIFO.
pub fn fifo_queue_with_dead_letters(max_receives: u32) -> (Queue, Queue) {
    with_dead_letters(max_receives, ".fifo", &[("FifoQueue", "true")])
}

fn with_dead_letters(
    max_receives: u32,
    suffix: &str,
    attributes: &[(&str, &str)],
) -> (Queue, Queue) {
    let name = format!("{}{suffix}", run::unique_name("dead"));
    let dead = Queue::create(endpoint(), &name, attributes);
    let policy = serde_json::json!({
        "deadLetterTargetArn": format!("arn:aws:sqs:us-east-1:000000000000:{name}"),
        "maxReceiveCount": max_receives,
    })
    .to_string();
    let mut attributes = attributes.to_vec();
    attributes.push(("RedrivePolicy", &policy));
    let queue = Queue::create(
        endpoint(),
        &format!("{}{suffix}", run::unique_name("logins")),
        &attributes,
    );
    (queue, dead)
}

/// Where LocalStack listens: `LOCALSTACK_URL` if that is set, else one that is started for this process.
pub fn endpoint() -> &'static str {
    static LOCALSTACK: OnceLock<Shared> = OnceLock::new();
    let localstack = LOCALSTACK.get_or_init(|| match given() {
        Some(url) => Shared::Given(url),
        None => Shared::Started(LocalStack::start("localstack", None)),
    });
    match localstack {
        Shared::Given(url) => url,
        Shared::Started(localstack) => localstack.url(),
    }
}

fn given() -> Option<String> {
    let url = std::env::var("LOCALSTACK_URL").ok()?;
    Some(url.trim_end_matches('/').to_owned())
}

enum Shared {
    Given(String),
    Started(LocalStack),
}

/// A LocalStack that ends with this process, or when it is killed.
pub struct LocalStack {
    url: String,
    /// Its standard input stays open as long as this process lives.
    script: Child,
}

impl LocalStack {
    /// One for a single test; `None` where tests are given theirs, since then LocalStack need not be installed here.
    pub fn private() -> Option<LocalStack> {
        given()
            .is_none()
            .then(|| LocalStack::start(&run::unique_name("localstack"), None))
    }

    /// Runs `tests/localstack/start`, which ends LocalStack when its standard input closes: when this process ends.
    fn start(name: &str, port: Option<&str>) -> LocalStack {
        // The reaper looks here too.
        let directory = run::directory().join(name);
        std::fs::create_dir(&directory).unwrap();
        let log = directory.join("log");
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("localstack/start");
        let mut script = Command::new(&program)
            .arg("--until-eof")
            .args(port)
            .current_dir(&directory)
            .env("TMPDIR", &directory)
            .env("LOCALSTACK_LOG", &log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {program:?}: {error}"));
        let mut url = String::new();
        BufReader::new(script.stdout.take().unwrap())
            .read_line(&mut url)
            .unwrap();
        if url.is_empty() {
            let status = script.wait().unwrap();
            panic!(
                "LocalStack did not start ({status}):\n{}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
        }
        LocalStack {
            url: url.trim().to_owned(),
            script,
        }
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends it with SIGKILL, which its script is given, and the kernel then gives to LocalStack itself.
    pub fn kill(&mut self) {
        self.script.kill().unwrap();
        self.script.wait().unwrap();
    }

    /// Another one where this one was, with none of its queues.
    pub fn start_again(&mut self) {
        let (_, port) = self.url.rsplit_once(':').expect("a port");
        *self = LocalStack::start(&run::unique_name("localstack"), Some(port));
    }
}

impl Drop for LocalStack {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}
