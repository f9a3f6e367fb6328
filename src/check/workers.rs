//! Auto-ingest: whether the library is preloaded, the launcher lives, and every subscription has its workers.

use super::{Finding, text};
use crate::board::{self, LauncherState};
use crate::errors::Failure;
use crate::pg::{database, setting};
use crate::settings;
use crate::stat::State;
use crate::stat::rows::{self, QueueRow};
use crate::worker::subscription::{self, Reading, Subscription};

/// Whether the library was loaded when the server started.
pub fn preloaded() -> Finding {
    if board::is_there() {
        return Finding::ok("user_logins_sqs is preloaded");
    }
    Finding::warning(
        "user_logins_sqs is not preloaded: there are no subscriptions and no statistics",
        "Add user_logins_sqs to shared_preload_libraries in postgresql.conf and restart the server. \
         sqs_ingest and sqs_drain work without it.",
    )
}

/// Whether the launcher lives.
pub fn launcher() -> Finding {
    let state = match board::launcher_state() {
        None => return not_preloaded(),
        Some(LauncherState::Running) => return Finding::ok("running"),
        Some(_) if database::is_in_recovery() => {
            return Finding::ok("not running: it starts when the server is promoted");
        }
        Some(state) => state,
    };
    let name = settings::database();
    match (database::accepts_connections(&name), state) {
        (None, _) => Finding::error(
            format!("it waits for database \"{name}\", which does not exist"),
            "Create it, or change user_logins_sqs.database.",
        ),
        (Some(false), _) => Finding::error(
            format!(
                "it waits for database \"{name}\", which is not currently accepting connections"
            ),
            "Use ALTER DATABASE ... ALLOW_CONNECTIONS true, or change user_logins_sqs.database.",
        ),
        (Some(true), LauncherState::Connecting) => {
            Finding::warning("it is starting", "Look again in a moment.")
        }
        (Some(true), _) => Finding::error(
            "it is not running, so no worker is started",
            "It starts again within a second or two; if it does not, the server's log says why.",
        ),
    }
}

/// Whether subscriptions live here.
pub fn database() -> Finding {
    let name = settings::database();
    if database::name() == name {
        return Finding::ok("subscriptions live in this database");
    }
    let detail = format!("subscriptions live in database \"{name}\"");
    match subscriptions() {
        Ok(subscriptions) if subscriptions.is_empty() => Finding::ok(detail),
        Ok(_) => Finding::warning(
            format!("{detail}, and those of this one have no workers"),
            "Subscribe there, or set user_logins_sqs.database to this database.",
        ),
        Err(finding) => finding,
    }
}

/// Whether there is room for all workers that are asked for.
pub fn slots() -> Finding {
    if !board::is_there() {
        return not_preloaded();
    }
    let subscriptions = match subscriptions() {
        Ok(subscriptions) => subscriptions,
        Err(finding) => return finding,
    };
    let possible = subscriptions.iter().filter(|s| s.obstacle.is_none());
    let wanted: usize = possible.map(|subscription| subscription.workers).sum();
    let most = settings::max_workers();
    let processes = max_worker_processes();
    let detail = format!(
        "subscriptions ask for {}; user_logins_sqs.max_workers is {most}, max_worker_processes is {processes}",
        text::count(wanted as u64, "worker")
    );
    if wanted > most {
        Finding::warning(
            detail,
            "You might need to increase user_logins_sqs.max_workers.",
        )
    } else if wanted >= processes {
        Finding::warning(
            detail,
            "You might need to increase max_worker_processes: the launcher, parallel queries and other extensions take \
             some of them.",
        )
    } else {
        Finding::ok(detail)
    }
}

fn max_worker_processes() -> usize {
    setting::value(c"max_worker_processes").parse().unwrap_or(0)
}

/// Whether there are subscriptions that were made elsewhere, and rest here.
pub fn other_installations() -> Finding {
    let subscriptions = match subscriptions() {
        Ok(subscriptions) => subscriptions,
        Err(finding) => return finding,
    };
    let resting = subscriptions.iter().filter(|s| is_resting(s)).count();
    if resting == 0 {
        return Finding::ok("no subscription was made in another installation");
    }
    Finding::warning(
        format!(
            "{} from another installation, without workers here",
            text::count(resting as u64, "subscription")
        ),
        "They came with a dump or by replication. To ingest here, use UPDATE sqs_subscription SET enabled = true \
         WHERE queue_url = ...; otherwise delete them.",
    )
}

fn is_resting(subscription: &Subscription) -> bool {
    let obstacle = subscription.obstacle.as_ref();
    obstacle.is_some_and(|obstacle| obstacle.state == State::Resting)
}

/// The subscriptions of this database, or what keeps them from being read.
pub fn subscriptions() -> Result<Vec<Subscription>, Finding> {
    match subscription::read() {
        Reading::Complete(subscriptions) => Ok(subscriptions),
        Reading::Locked => Err(Finding::unknown(
            "another session holds a lock on sqs_subscription",
            "Try again; pg_locks shows who holds it.",
        )),
    }
}

/// Whether `subscription` has its workers, and why not.
pub fn of_subscription(subscription: &Subscription) -> Finding {
    if let Some(obstacle) = &subscription.obstacle {
        return match (&obstacle.reason, obstacle.state) {
            (Some((reason, hint)), State::Resting) => {
                Finding::warning(reason.clone(), hint.clone())
            }
            (Some((reason, hint)), _) => Finding::error(reason.clone(), hint.clone()),
            (None, _) => Finding::warning(
                "the subscription is disabled",
                "To resume, use UPDATE sqs_subscription SET enabled = true.",
            ),
        };
    }
    if !board::is_there() {
        return Failure::NotPreloaded.into();
    }
    let running = board::running(&subscription.queue_url) as usize;
    let counted = rows::queues().unwrap_or_default();
    let row = counted
        .into_iter()
        .find(|row| row.queue_url == subscription.queue_url);
    of_workers(running, subscription.workers, row)
}

fn of_workers(running: usize, wanted: usize, row: Option<QueueRow>) -> Finding {
    let detail = format!("{running} of {wanted} workers running");
    let state = row.as_ref().and_then(|row| row.state);
    let last_error = row.as_ref().and_then(|row| row.last_error.clone());
    if let (Some(state @ (State::Retrying | State::Paused)), Some(error)) = (state, last_error) {
        return Finding::error(
            format!("{detail}, {} after an error: {error}", state.name()),
            "The server's log has the error's DETAIL and HINT. Workers go on by themselves once its cause is gone.",
        );
    }
    match row.and_then(|row| row.reason) {
        Some(reason) => Finding::warning(
            reason,
            "You might need to increase user_logins_sqs.max_workers or max_worker_processes.",
        ),
        None if running < wanted => {
            Finding::warning(detail, "They may be starting. Look again in a moment.")
        }
        None => Finding::ok(detail),
    }
}

fn not_preloaded() -> Finding {
    Finding::ok("none: user_logins_sqs is not preloaded")
}
