//! The launcher: one process that makes the subscriptions of `user_logins_sqs.database` true.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use pgrx::{pg_guard, pg_sys};

use super::board::{self, Assignment};
use super::prune::Pruning;
use super::subscription::{self, Subscription};
use super::{LAUNCHER, WORKER};
use crate::pg::worker::{self, Registration};
use crate::pg::{latch, transaction};
use crate::report;
use crate::settings;

/// How often the launcher looks without being woken: nothing tells it of DROP EXTENSION.
const LOOKS_EVERY: Duration = Duration::from_secs(5);

/// A worker that ends is started anew no sooner than this after its last start, and ever later, up to the longest
/// pause, while its kind cannot even connect. One that lived for the longest pause had nothing wrong with it.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Started by the postmaster once the server can be written to.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sqs_launcher_main(_arg: pg_sys::Datum) {
    worker::take_signals();
    worker::connect(&settings::database());
    worker::set_application_name(LAUNCHER);
    board::become_launcher();
    let mut launcher = Launcher::default();
    let mut pruning = Pruning::default();
    loop {
        worker::reload_if_asked();
        let next = launcher.reconcile();
        let next = next.min(pruning.step());
        worker::report_statistics();
        latch::wait(next);
    }
}

#[derive(Default)]
struct Launcher {
    /// The last start of a worker for each queue.
    starts: HashMap<String, Start>,
    /// Whether the log has it that workers are missing.
    complained: bool,
}

struct Start {
    at: Instant,
    pause: Duration,
}

impl Start {
    /// The start that follows `last`, now.
    fn after(last: Option<&Start>) -> Start {
        let pause = match last {
            Some(last) if last.at.elapsed() < LONGEST_PAUSE => (last.pause * 2).min(LONGEST_PAUSE),
            _ => SHORTEST_PAUSE,
        };
        Start {
            at: Instant::now(),
            pause,
        }
    }

    fn pause_left(&self) -> Duration {
        self.pause.saturating_sub(self.at.elapsed())
    }
}

impl Launcher {
    /// Starts what is missing and ends what is not wished for; says when to look again.
    fn reconcile(&mut self) -> Duration {
        let wishes = match transaction::run(|| Ok::<_, Infallible>(subscription::enabled())) {
            Ok(Ok(wishes)) => wishes,
            Err(error) => {
                report::warn("the launcher cannot read the subscriptions", &error);
                return LOOKS_EVERY;
            }
        };
        let missing = end_the_unwished(&wishes);
        self.starts
            .retain(|queue, _| wishes.iter().any(|wish| wish.queue_url == *queue));
        self.start(missing)
    }

    /// Starts workers; says when those that must wait are to be looked at.
    fn start(&mut self, missing: Vec<(Assignment, usize)>) -> Duration {
        let mut next = LOOKS_EVERY;
        let mut all_started = true;
        for (assignment, count) in missing {
            let queue_url = assignment.queue_url().to_owned();
            let last = self.starts.get(&queue_url);
            let pause = last.map_or(Duration::ZERO, Start::pause_left);
            if !pause.is_zero() {
                next = next.min(pause);
                continue;
            }
            let start = Start::after(last);
            self.starts.insert(queue_url, start);
            all_started &= (0..count).all(|_| start_worker(assignment));
        }
        if !all_started && !self.complained {
            report::hint(
                "not all workers of the subscriptions could be started",
                "You might need to increase max_worker_processes.",
            );
        }
        self.complained = !all_started;
        next
    }
}

/// Ends surplus workers and returns how many are missing for each wish.
fn end_the_unwished(wishes: &[Subscription]) -> Vec<(Assignment, usize)> {
    // SAFETY: reads a static.
    let database = unsafe { pg_sys::MyDatabaseId };
    let mut missing: Vec<(Assignment, usize)> = wishes
        .iter()
        .filter_map(|wish| {
            Some((
                Assignment::new(database, wish.role, &wish.queue_url)?,
                wish.workers,
            ))
        })
        .collect();
    for entry in board::entries() {
        let wish = missing
            .iter_mut()
            .find(|(assignment, _)| *assignment == entry.assignment);
        match wish {
            Some((_, count)) if *count > 0 => *count -= 1,
            _ => board::end(entry.slot, &entry.assignment),
        }
    }
    missing.retain(|(_, count)| *count > 0);
    missing
}

fn start_worker(assignment: Assignment) -> bool {
    let Some(slot) = board::claim(assignment) else {
        return false;
    };
    let started = Registration {
        name: &format!("{WORKER} for {}", assignment.queue_name()),
        kind: WORKER,
        function: c"sqs_worker_main",
        // Fewer than SLOTS.
        argument: slot as i32,
        restart_seconds: None,
    }
    .start();
    if !started {
        board::give_back(slot);
    }
    started
}
