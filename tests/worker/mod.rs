//! A worker keeps going through faults of the queue, of the table and of single messages, and through a DBA's actions.

use std::thread;
use std::time::Duration;

use tests::cluster::Cluster;
use tests::database::{Session, literal};
use tests::logins;
use tests::queue::{Counts, Queue};
use tests::scripted::ScriptedSqs;
use tests::wait::eventually;
use tests::workers::{ARRIVE_WITHIN, PROMPTLY, admin, preloading, site_of};

mod bad_messages;
mod ended_and_started;
mod ledger;
mod order;
mod queue_faults;
mod quiet;
mod roles;
mod table;
mod told_of_settings;

const A_MOMENT: Duration = Duration::from_millis(1500);

/// Several retries of a batch, and several visibility timeouts of those tests that set a short one.
const SEVERAL_TRIES: Duration = Duration::from_secs(5);

/// Pauses between calls that fail are random, up to a minute; after some seconds of them, 30 s may still lie ahead.
const RECOVERS_WITHIN: Duration = Duration::from_secs(70);

/// A Postgres server, and a queue on a scripted SQS.
struct Scene {
    admin: Session,
    queue: Queue,
    sqs: ScriptedSqs,
    cluster: Cluster,
}

/// `settings` are those of the extension, without their prefix.
fn scene(settings: &[(&str, &str)]) -> Scene {
    let cluster = site_with(settings);
    let sqs = ScriptedSqs::start();
    Scene {
        admin: admin(&cluster),
        queue: sqs.queue(),
        sqs,
        cluster,
    }
}

fn site_with(settings: &[(&str, &str)]) -> Cluster {
    let plan = settings.iter().fold(preloading(), |plan, (name, value)| {
        plan.setting(&format!("user_logins_sqs.{name}"), value)
    });
    site_of(plan)
}

impl Scene {
    fn subscribe(&mut self) -> i32 {
        self.admin.subscribe(&self.queue);
        self.admin.expect_workers_within(PROMPTLY, 1)[0]
    }

    fn send_good(&self, count: usize) {
        self.queue.send(&logins::good(count));
    }

    #[track_caller]
    fn expect_polling(&self) {
        eventually(
            "the worker polls",
            ARRIVE_WITHIN,
            || self.sqs.calls_of("ReceiveMessage").len(),
            |calls| *calls > 0,
        );
    }

    /// Every message was handed out once: nothing counts towards a redrive policy.
    #[track_caller]
    fn expect_handed_out_once(&self, messages: u64) {
        assert_eq!(self.sqs.handed_out(&self.queue), messages);
    }
}

fn reload(admin: &mut Session, name: &str, value: &str) {
    admin.run(&format!(
        "ALTER SYSTEM SET user_logins_sqs.{name} = {}",
        literal(value)
    ));
    admin.run("SELECT pg_reload_conf()");
}

/// Reloads, and gives the workers time to take up the setting: nothing shows that they have.
fn reload_and_settle(admin: &mut Session, name: &str, value: &str) {
    reload(admin, name, value);
    thread::sleep(A_MOMENT);
}

fn in_flight(messages: u64) -> Counts {
    Counts {
        visible: 0,
        in_flight: messages,
    }
}
