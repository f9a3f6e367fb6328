//! Each message becomes one row, whatever dies and whenever it does.

use std::time::{Duration, Instant};

use tests::cluster::Cluster;
use tests::database::Session;
use tests::gate::Gate;
use tests::localstack::LocalStack;
use tests::logins;
use tests::queue::{Counts, Queue};
use tests::scripted::{Answer, ScriptedSqs};
use tests::wait::eventually;
use tests::workers::{admin, preloading, site, site_of};

const MESSAGES: usize = 20_000;
const FAULTS: usize = 20;

/// What the faults leave undone takes some seconds; a machine that is busy with other tests takes more.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(120);

/// Messages sent between two faults.
const ROUND: usize = MESSAGES / FAULTS;

/// The faults are the same in each run, and come at the same times; what they meet is not. `FAULT_SEED` gives others.
const SEED: u64 = 20_251_122;

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// `kill -9` of a worker: the postmaster ends all its processes and recovers.
    Worker,
    /// `kill -9` of the postmaster: its processes notice and end.
    Postmaster,
    /// `kill -9` of all of them at once.
    Server,
    /// The queue server goes away, in the middle of whatever it does, and comes back with the queue as it was.
    QueueServer,
    /// `pg_terminate_backend` of a worker.
    Termination,
}

const KINDS: [Fault; 5] = [
    Fault::Worker,
    Fault::Postmaster,
    Fault::Server,
    Fault::QueueServer,
    Fault::Termination,
];

#[test]
fn none_of_20_000_messages_is_lost_or_doubled_whatever_dies() {
    // Without synchronous_commit a crash loses what was committed last, unless an ingest insists.
    let cluster = site_of(
        preloading()
            .setting("synchronous_commit", "off")
            .setting("wal_writer_delay", "10s")
            .setting("restart_after_crash", "on")
            .setting("user_logins_sqs.visibility_timeout", "2s")
            .setting("user_logins_sqs.batch_size", "50"),
    );
    let sqs = ScriptedSqs::start();
    // Rows are committed for a while before their messages are gone.
    sqs.always(
        "DeleteMessageBatch",
        Answer::ServeAfter(Duration::from_millis(50)),
    );
    let queue = sqs.queue();
    let gate = Gate::to(sqs.endpoint());
    let workers = format!("SELECT sqs_subscribe('{}', 2)", gate.queue(&queue).url());
    // Slow enough that whatever dies has something in hand.
    admin(&cluster)
        .run(
            "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN IF random() < 0.5 THEN PERFORM pg_sleep(0.001); END IF; RETURN NEW; END $$;
             CREATE TRIGGER slowly BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION slowly()",
        )
        .run(&workers);
    let bodies = logins::good(MESSAGES);
    let mut random = Random(match std::env::var("FAULT_SEED") {
        Ok(seed) => seed.parse().expect("FAULT_SEED is a number"),
        Err(_) => SEED,
    });

    for (round, bodies) in bodies.chunks(ROUND).enumerate() {
        let fault = KINDS[round % KINDS.len()];
        let after = random.below(Duration::from_millis(800));
        std::thread::scope(|scope| {
            scope.spawn(|| send_over(Duration::from_millis(500), &queue, bodies));
            // Faults come at random times.
            std::thread::sleep(after);
            let rows = admin(&cluster).logins();
            let begun = Instant::now();
            strike(fault, &cluster, &gate, &mut random);
            println!(
                "{fault:?} after {after:?}, at {rows} rows, over after {:?}",
                begun.elapsed()
            );
        });
    }

    expect_each_once(&mut admin(&cluster), &queue);
    println!("{} hand-outs", sqs.handed_out(&queue));
}

/// What a queue server loses when it dies is lost; what a worker had received is not, and it goes on by itself.
#[test]
fn workers_outlive_localstack() {
    let Some(mut localstack) = LocalStack::private() else {
        println!("LocalStack is not ours to kill");
        return;
    };
    let name = "logins";
    let queue = Queue::create(localstack.url(), name, &[]);
    let cluster = site();
    let mut admin = admin(&cluster);
    admin.subscribe(&queue);
    let bodies = logins::good(3_000);
    let (first, rest) = bodies.split_at(2_000);
    queue.send(first);
    eventually(
        "rows flow in",
        CAUGHT_UP_WITHIN,
        || admin.logins(),
        |rows| *rows > 100,
    );

    localstack.kill();

    let state = |admin: &mut Session| admin.text("SELECT state FROM sqs_stat");
    eventually(
        "the worker notices",
        CAUGHT_UP_WITHIN,
        || state(&mut admin),
        |state| state.as_deref() == Some("retrying"),
    );
    let [received, _] = eventually(
        "all that was received is written",
        CAUGHT_UP_WITHIN,
        || {
            [
                admin.number("SELECT received FROM sqs_stat"),
                admin.logins(),
            ]
        },
        |[received, rows]| received == rows,
    );
    localstack.start_again();
    Queue::create(localstack.url(), name, &[]);
    queue.send(rest);
    admin.expect_logins_within(CAUGHT_UP_WITHIN, received + 1_000);
    assert_eq!(
        admin.number("SELECT count(DISTINCT user_id) FROM user_logins"),
        received + 1_000
    );
    queue.expect_drained();
}

fn strike(fault: Fault, cluster: &Cluster, gate: &Gate, random: &mut Random) {
    match fault {
        Fault::Worker => cluster.kill_backend(a_worker(cluster)),
        Fault::Postmaster => {
            cluster.kill_postmaster();
            cluster.start();
        }
        Fault::Server => {
            cluster.crash();
            cluster.start();
        }
        Fault::QueueServer => {
            gate.cut();
            // An outage lasts for a random time.
            std::thread::sleep(random.below(Duration::from_secs(1)));
            gate.open();
        }
        Fault::Termination => {
            let worker = a_worker(cluster);
            admin(cluster).run(&format!("SELECT pg_terminate_backend({worker})"));
        }
    }
}

/// A worker, as soon as there is one.
fn a_worker(cluster: &Cluster) -> i32 {
    let mut admin = admin(cluster);
    let pids = eventually(
        "a worker runs",
        Duration::from_secs(20),
        || admin.workers(),
        |pids| !pids.is_empty(),
    );
    pids[0]
}

/// Sends at an even rate, so that the queue is never idle meanwhile.
fn send_over(time: Duration, queue: &Queue, bodies: &[String]) {
    let steps = 10;
    let begun = Instant::now();
    for (step, chunk) in (1..).zip(bodies.chunks(bodies.len().div_ceil(steps))) {
        queue.send(chunk);
        std::thread::sleep((time * step / steps as u32).saturating_sub(begun.elapsed()));
    }
}

#[track_caller]
fn expect_each_once(admin: &mut Session, queue: &Queue) {
    let all = i64::try_from(MESSAGES).unwrap();
    eventually(
        "every user has a row",
        CAUGHT_UP_WITHIN,
        || admin.number("SELECT count(DISTINCT user_id) FROM user_logins"),
        |users| *users == all,
    );
    // If there were duplicates, they would come until the last message is deleted.
    let nothing = Counts {
        visible: 0,
        in_flight: 0,
    };
    queue.expect_counts_within(CAUGHT_UP_WITHIN, nothing);
    assert_eq!(admin.logins(), all);
    assert_eq!(admin.number("SELECT count(*) FROM sqs_ledger"), all);
    assert_eq!(admin.rejections(), []);
}

/// Knuth's linear congruential generator.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: Duration) -> Duration {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let fraction = (self.0 >> 40) as f64 / (1_u64 << 24) as f64;
        bound.mul_f64(fraction)
    }
}
