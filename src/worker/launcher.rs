//! The launcher: one process that keeps the workers of the subscriptions in `user_logins_sqs.database` running.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use pgrx::{pg_guard, pg_sys};

use super::backlog::Backlogs;
use super::pruning::Pruning;
use super::shares::fair_shares;
use super::subscription::{self, Obstacle, Reading, Subscription};
use super::{LAUNCHER, WORKER};
use crate::board::{self, Assignment, Entry};
use crate::own_tables::EXTENSION;
use crate::pg::background_worker::{self, Registration};
use crate::pg::{database, extension, latch, transaction};
use crate::report::{self, LastReport};
use crate::settings;
use crate::stat::{self, QueueStat, State};

/// How often the launcher looks without being woken: DROP EXTENSION and DROP ROLE do not wake it.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// How soon it looks again when another session holds a lock on `sqs_subscription`.
const LOCKED_INTERVAL: Duration = Duration::from_secs(1);

/// How long it waits for any lock: it holds a snapshot meanwhile, behind which nothing can be vacuumed, and has
/// subscriptions to look after.
const LOCK_TIMEOUT_MS: u32 = 100;

/// A worker that ended is replaced no sooner than this after its start, and ever later, up to the longest pause, while
/// none lives long enough to have connected.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const CONNECTED_AFTER: Duration = Duration::from_secs(5);

/// Started by the postmaster once the server can be written to.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sqs_launcher_main(_arg: pg_sys::Datum) {
    background_worker::take_signals();
    background_worker::disable_timeouts();
    background_worker::set_lock_timeout(LOCK_TIMEOUT_MS);
    let database = settings::database();
    let last_one_could_not_connect = board::set_launcher_connects(true);
    if last_one_could_not_connect {
        board::set_launcher_connects(false);
        await_database();
        background_worker::restart();
    }
    background_worker::connect(&database);
    board::set_launcher_connects(false);
    background_worker::set_application_name(LAUNCHER);
    board::become_launcher();
    let mut launcher = Launcher::default();
    let mut pruning = Pruning::default();
    let mut backlogs = Backlogs::default();
    loop {
        if background_worker::reload_if_asked() && settings::database() != database {
            leave_database();
        }
        let next = launcher.reconcile();
        let next = next.min(pruning.step());
        let next = next.min(backlogs.step(&launcher.queues));
        background_worker::report_statistics();
        latch::wait(next);
    }
}

/// Waits until the database of the subscriptions can be connected to. A process that tried and could not would end, be
/// started again and end again, with two lines in the log each time.
fn await_database() {
    background_worker::connect_to_none();
    background_worker::set_application_name(LAUNCHER);
    let mut reported = LastReport::default();
    loop {
        background_worker::reload_if_asked();
        let name = settings::database();
        let found = transaction::run(|| Ok::<_, Infallible>(database::accepts_connections(&name)));
        let (problem, hint) = match found {
            Ok(Ok(None)) => (
                format!("database \"{name}\" for subscriptions does not exist"),
                "Create it, or change user_logins_sqs.database.",
            ),
            Ok(Ok(Some(false))) => (
                format!(
                    "database \"{name}\" for subscriptions is not currently accepting connections"
                ),
                "Use ALTER DATABASE ... ALLOW_CONNECTIONS true, or change user_logins_sqs.database.",
            ),
            Ok(Ok(Some(true))) | Err(_) => return,
        };
        if reported.is_news(&problem) {
            report::hint(&problem, hint);
        }
        latch::wait(POLL_INTERVAL);
    }
}

/// Subscriptions now live in another database. That may not exist yet: it may be the new name of this one,
/// which can be renamed once nobody is connected to it.
fn leave_database() -> ! {
    for Entry { assignment, slot } in board::entries() {
        board::stop(slot, &assignment);
    }
    // So that the next launcher looks before it connects.
    board::set_launcher_connects(true);
    background_worker::restart()
}

#[derive(Default)]
struct Launcher {
    /// The queues of subscriptions that can have workers.
    queues: Vec<String>,
    /// What was last done for each queue.
    groups: HashMap<String, WorkerGroup>,
    read_failure: LastReport,
    /// What has been logged about each queue.
    reported: HashMap<String, Obstacle>,
    /// What has been logged about workers that find no place.
    shortage: Option<Shortage>,
}

/// Why fewer workers run than could.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shortage {
    /// Subscriptions ask for more than `user_logins_sqs.max_workers`.
    MaxWorkers,
    /// All of `max_worker_processes` are in use, by this extension or others.
    WorkerProcesses,
}

impl Shortage {
    fn setting(self) -> &'static str {
        match self {
            Shortage::MaxWorkers => "user_logins_sqs.max_workers",
            Shortage::WorkerProcesses => "max_worker_processes",
        }
    }
}

/// The workers of one queue, as the launcher left them.
struct WorkerGroup {
    size: usize,
    started: Instant,
    pause: Duration,
}

impl WorkerGroup {
    /// How long to wait before missing workers are started, now that `running` are there: only where some have ended.
    fn pause_left(&self, running: usize) -> Duration {
        if running < self.size {
            self.pause.saturating_sub(self.started.elapsed())
        } else {
            Duration::ZERO
        }
    }

    /// The pause before the start that would follow one now.
    fn next_pause(&self, running: usize) -> Duration {
        if running < self.size && self.started.elapsed() < self.pause + CONNECTED_AFTER {
            (self.pause * 2).min(LONGEST_PAUSE)
        } else {
            SHORTEST_PAUSE
        }
    }

    /// Whether workers have ended again and again before they could have connected.
    fn keeps_failing(&self) -> bool {
        self.pause > SHORTEST_PAUSE
    }
}

/// A subscription that can have workers.
struct Demand {
    assignment: Assignment,
    /// How many workers it asks for.
    wanted: usize,
    /// How many of them it can have beside the others.
    share: usize,
    /// The workers that it has.
    running: Vec<Entry>,
}

impl Launcher {
    /// Starts missing workers and stops surplus ones; says when to look again.
    fn reconcile(&mut self) -> Duration {
        let read = || {
            let extension = extension::find(EXTENSION).unwrap_or(pg_sys::InvalidOid);
            Ok::<_, Infallible>((subscription::read(), extension))
        };
        let (subscriptions, extension) = match transaction::run(read) {
            Ok(Ok((Reading::Complete(subscriptions), extension))) => (subscriptions, extension),
            Ok(Ok((Reading::Locked, _))) => return LOCKED_INTERVAL,
            Err(error) => {
                if self.read_failure.is_news(error.message()) {
                    report::warn("could not read sqs_subscription", &error);
                }
                return POLL_INTERVAL;
            }
        };
        self.read_failure.forget();
        let mut demands = demands(&subscriptions, extension);
        let queues = demands.iter().map(|d| d.assignment.queue_url.clone());
        self.queues = queues.collect();
        stop_surplus_workers(&mut demands);
        let next = self.start_missing_workers(&mut demands);
        self.report_obstacles(&subscriptions);
        self.show(&subscriptions, &demands);
        next
    }

    /// Starts workers, the first of each queue before the second of any; says when those that must wait are due.
    fn start_missing_workers(&mut self, demands: &mut [Demand]) -> Duration {
        self.groups
            .retain(|queue, _| demands.iter().any(|d| d.assignment.queue_url == *queue));
        let mut next = POLL_INTERVAL;
        let mut due = Vec::new();
        for demand in demands.iter_mut().filter(|d| d.running.len() < d.share) {
            match self.pause_left(demand) {
                Duration::ZERO => due.push(demand),
                pause_left => next = next.min(pause_left),
            }
        }
        let before: Vec<usize> = due.iter().map(|demand| demand.running.len()).collect();
        let all_started = start_in_turns(&mut due);
        for (demand, before) in due.iter().zip(before) {
            self.note_start(demand, before);
        }
        // One that waits for its own pause would not use the place.
        let is_place_wanted = due.iter().any(|demand| demand.running.is_empty());
        if !all_started && is_place_wanted && !board::is_any_ending() {
            self.make_room(demands);
        }
        self.report_shortage(demands, all_started);
        next
    }

    fn pause_left(&mut self, demand: &Demand) -> Duration {
        match self.groups.get_mut(&demand.assignment.queue_url) {
            Some(group) => {
                // Those that were stopped because the share has become smaller are not missing.
                group.size = group.size.min(demand.share);
                group.pause_left(demand.running.len())
            }
            None => Duration::ZERO,
        }
    }

    /// Notes that workers were started for `demand`, which had `before` of them.
    fn note_start(&mut self, demand: &Demand, before: usize) {
        let group = self.groups.get(&demand.assignment.queue_url);
        let group = WorkerGroup {
            size: demand.running.len(),
            started: Instant::now(),
            pause: group.map_or(SHORTEST_PAUSE, |group| group.next_pause(before)),
        };
        self.groups
            .insert(demand.assignment.queue_url.clone(), group);
    }

    /// Where no place is left for a queue that has no worker at all, another one gives up one of several. Its place is
    /// free once it has ended, which wakes the launcher.
    fn make_room(&mut self, demands: &mut [Demand]) {
        let most = demands.iter_mut().max_by_key(|d| d.running.len());
        if let Some(demand) = most
            && demand.running.len() > 1
            && let Some(Entry { assignment, slot }) = demand.running.pop()
        {
            board::stop(slot, &assignment);
            if let Some(group) = self.groups.get_mut(&assignment.queue_url) {
                group.size = demand.running.len();
            }
        }
    }

    fn report_shortage(&mut self, demands: &[Demand], all_started: bool) {
        let shortage = if !all_started {
            Some(Shortage::WorkerProcesses)
        } else if demands.iter().any(|d| d.share < d.wanted) {
            Some(Shortage::MaxWorkers)
        } else {
            // Workers that wait to be started again may find no place either.
            self.shortage
                .filter(|_| demands.iter().any(|d| d.running.len() < d.share))
        };
        if shortage != self.shortage
            && let Some(shortage) = shortage
        {
            report::hint(
                "not all workers of the subscriptions could be started",
                &format!("You might need to increase {}.", shortage.setting()),
            );
        }
        self.shortage = shortage;
    }

    /// Logs each obstacle once.
    fn report_obstacles(&mut self, subscriptions: &[Subscription]) {
        let mut reported = HashMap::new();
        for subscription in subscriptions {
            let queue_url = &subscription.queue_url;
            let Some(obstacle) = &subscription.obstacle else {
                continue;
            };
            if let Some((reason, hint)) = &obstacle.reason
                && self.reported.get(queue_url) != Some(obstacle)
            {
                report::hint(
                    &format!("no worker ingests from queue \"{queue_url}\": {reason}"),
                    hint,
                );
            }
            reported.insert(queue_url.clone(), obstacle.clone());
        }
        self.reported = reported;
    }

    /// Shows in `sqs_stat` which subscriptions have fewer workers than they ask for, and why.
    fn show(&self, subscriptions: &[Subscription], demands: &[Demand]) {
        for Subscription {
            queue_url,
            obstacle,
            ..
        } in subscriptions
        {
            let demand = demands
                .iter()
                .find(|demand| demand.assignment.queue_url == *queue_url);
            let state = match obstacle {
                Some(obstacle) => Some(obstacle.state),
                None => demand
                    .filter(|demand| demand.running.is_empty())
                    .map(|_| State::Waiting),
            };
            let reason = match obstacle {
                Some(obstacle) => obstacle.reason.as_ref().map(|(reason, _)| reason.clone()),
                None => demand.and_then(|demand| self.why_too_few(demand)),
            };
            let stat = QueueStat::of(queue_url);
            stat.begin_if_there_is_room();
            if state.is_some() {
                stat.set_state(state);
            }
            stat.set_reason(&reason.unwrap_or_default());
        }
        stat::forget_reasons(|url| subscriptions.iter().any(|s| s.queue_url == url));
    }

    fn why_too_few(&self, demand: &Demand) -> Option<String> {
        let (running, wanted) = (demand.running.len(), demand.wanted);
        if running == wanted {
            return None;
        }
        let group = self.groups.get(&demand.assignment.queue_url);
        let why = match self.shortage {
            _ if running < demand.share && group.is_some_and(WorkerGroup::keeps_failing) => {
                "workers exit soon after they start; see the server log".to_owned()
            }
            Some(Shortage::MaxWorkers) if demand.share < wanted => {
                format!("user_logins_sqs.max_workers is {}", settings::max_workers())
            }
            Some(Shortage::WorkerProcesses) => "all of max_worker_processes are in use".to_owned(),
            _ => return None,
        };
        Some(format!("{running} of {wanted} workers running: {why}"))
    }
}

/// The subscriptions that can have workers, each with its share of them.
fn demands(subscriptions: &[Subscription], extension: pg_sys::Oid) -> Vec<Demand> {
    let possible = subscriptions.iter().filter(|s| s.obstacle.is_none());
    let wanted: Vec<usize> = possible.clone().map(|s| s.workers).collect();
    let shares = fair_shares(&wanted, settings::max_workers());
    let database = database::current().unwrap_or(pg_sys::InvalidOid);
    possible
        .zip(shares)
        .map(|(subscription, share)| Demand {
            assignment: Assignment {
                database,
                role: subscription.role,
                extension,
                queue_url: subscription.queue_url.clone(),
            },
            wanted: subscription.workers,
            share,
            running: Vec::new(),
        })
        .collect()
}

/// Gives each demand the workers that it has, up to its share, and stops all others.
fn stop_surplus_workers(demands: &mut [Demand]) {
    for entry in board::entries() {
        let demand = demands
            .iter_mut()
            .find(|d| d.assignment == entry.assignment && d.running.len() < d.share);
        match demand {
            Some(demand) => demand.running.push(entry),
            None => board::stop(entry.slot, &entry.assignment),
        }
    }
}

/// Starts a worker of each demand that has none, then of each that has one, and so on up to their shares. False: no
/// place was left.
fn start_in_turns(demands: &mut [&mut Demand]) -> bool {
    let most = demands.iter().map(|demand| demand.share).max().unwrap_or(0);
    for running in 0..most {
        for demand in demands.iter_mut() {
            if demand.running.len() != running || demand.running.len() >= demand.share {
                continue;
            }
            match start_worker(&demand.assignment) {
                Some(entry) => demand.running.push(entry),
                None => return false,
            }
        }
    }
    true
}

fn start_worker(assignment: &Assignment) -> Option<Entry> {
    let slot = board::reserve(assignment)?;
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
        return None;
    }
    Some(Entry {
        assignment: assignment.clone(),
        slot,
    })
}
