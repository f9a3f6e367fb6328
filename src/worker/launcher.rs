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
use crate::pg::{database, latch, transaction};
use crate::report;
use crate::settings;

/// How often the launcher looks without being woken: nothing tells it of DROP EXTENSION.
const LOOKS_EVERY: Duration = Duration::from_secs(5);

/// A worker that ended is started anew no sooner than this after its last start, and ever later, up to the longest
/// pause, while none lives long enough to have connected.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const CONNECTED_AFTER: Duration = Duration::from_secs(5);

/// Started by the postmaster once the server can be written to.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sqs_launcher_main(_arg: pg_sys::Datum) {
    worker::take_signals();
    let the_last_one_could_not_connect = board::set_launcher_connects(true);
    if the_last_one_could_not_connect {
        board::set_launcher_connects(false);
        await_database(&settings::database());
        worker::restart();
    }
    worker::connect(&settings::database());
    board::set_launcher_connects(false);
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

/// Waits until there is such a database. A process that tried to connect to none would end, be started again and end
/// again, with two lines in the log each time.
fn await_database(name: &str) {
    worker::connect_to_none();
    worker::set_application_name(LAUNCHER);
    let mut complained = false;
    while let Ok(Ok(false)) = transaction::run(|| Ok::<_, Infallible>(database::is_named(name))) {
        if !complained {
            report::hint(
                &format!("database \"{name}\", where subscriptions live, does not exist"),
                "Create it, or change user_logins_sqs.database and restart the server.",
            );
            complained = true;
        }
        latch::wait(LOOKS_EVERY);
    }
}

#[derive(Default)]
struct Launcher {
    /// What was last done for each queue.
    queues: HashMap<String, Team>,
    /// Whether the log has it that workers are missing.
    complained: bool,
}

/// The workers of one queue, as the launcher left them.
struct Team {
    size: usize,
    started: Instant,
    pause: Duration,
}

impl Team {
    /// How long to wait before missing workers are started, now that `size` are there: only where some have ended.
    fn pause_left(&self, size: usize) -> Duration {
        if size < self.size {
            self.pause.saturating_sub(self.started.elapsed())
        } else {
            Duration::ZERO
        }
    }

    /// The pause before the start that would follow one now.
    fn next_pause(&self, size: usize) -> Duration {
        if size < self.size && self.started.elapsed() < self.pause + CONNECTED_AFTER {
            (self.pause * 2).min(LONGEST_PAUSE)
        } else {
            SHORTEST_PAUSE
        }
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
        self.queues
            .retain(|queue, _| wishes.iter().any(|wish| wish.queue_url == *queue));
        let wanted = end_the_unwished(&wishes);
        self.start(wanted)
    }

    /// Starts workers; says when those that must wait are to be looked at.
    fn start(&mut self, wanted: Vec<Wanted>) -> Duration {
        let mut next = LOOKS_EVERY;
        let mut all_started = true;
        let mut all_there = true;
        for Wanted {
            assignment,
            there,
            missing,
        } in wanted
        {
            if let Some(team) = self.queues.get_mut(assignment.queue_url()) {
                // Those that were ended because fewer are wished for now are not missing.
                team.size = team.size.min(there + missing);
            }
            let team = self.queues.get(assignment.queue_url());
            let pause_left = team.map_or(Duration::ZERO, |team| team.pause_left(there));
            all_there &= missing == 0;
            if missing == 0 || !pause_left.is_zero() {
                next = if missing == 0 {
                    next
                } else {
                    next.min(pause_left)
                };
                continue;
            }
            let pause = team.map_or(SHORTEST_PAUSE, |team| team.next_pause(there));
            let started = (0..missing)
                .take_while(|_| start_worker(assignment))
                .count();
            all_started &= started == missing;
            let team = Team {
                size: there + started,
                started: Instant::now(),
                pause,
            };
            self.queues.insert(assignment.queue_url().to_owned(), team);
        }
        if !all_started && !self.complained {
            report::hint(
                "not all workers of the subscriptions could be started",
                "You might need to increase max_worker_processes.",
            );
        }
        self.complained = !all_started || (self.complained && !all_there);
        next
    }
}

/// A subscription, and how many of its workers are there and are not.
struct Wanted {
    assignment: Assignment,
    there: usize,
    missing: usize,
}

/// Ends surplus workers and says how many are there, and missing, for each wish.
fn end_the_unwished(wishes: &[Subscription]) -> Vec<Wanted> {
    // SAFETY: reads a static.
    let database = unsafe { pg_sys::MyDatabaseId };
    let mut wanted: Vec<Wanted> = wishes
        .iter()
        .filter_map(|wish| {
            let assignment = Assignment::new(database, wish.role, &wish.queue_url)?;
            Some(Wanted {
                assignment,
                there: 0,
                missing: wish.workers,
            })
        })
        .collect();
    for entry in board::entries() {
        let wish = wanted
            .iter_mut()
            .find(|wish| wish.assignment == entry.assignment);
        match wish {
            Some(wish) if wish.missing > 0 => {
                wish.missing -= 1;
                wish.there += 1;
            }
            _ => board::end(entry.slot, &entry.assignment),
        }
    }
    wanted
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
