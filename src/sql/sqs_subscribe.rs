//! `sqs_subscribe` and `sqs_unsubscribe`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use queue::QueueUrl;

use crate::argument::in_range;
use crate::board;
use crate::errors::Failure;
use crate::ingest::{Source, Target};
use crate::own_tables::{OwnTable, SUBSCRIPTION};
use crate::pg::identity::{can_login, current_role, may_act_for, role_name};
use crate::pg::or_raise::OrRaise;
use crate::pg::{database, query};
use crate::settings;
use crate::worker::subscription;

/// The most workers that one subscription may ask for.
const MOST_WORKERS: i64 = 32;

/// Has background workers ingest from the queue from now on, as the current role. Called again, it changes the
/// number of workers and enables the subscription.
#[pg_extern(volatile, parallel_unsafe)]
fn sqs_subscribe(
    queue_url: Option<&str>,
    workers: default!(Option<i32>, 1),
) -> Result<(), ErrorReport> {
    let workers = workers.ok_or(Failure::NullArgument("workers"))?;
    let workers = in_range("workers", workers, 1..=MOST_WORKERS, "from 1 to 32")?;
    let queue_url = normal_url(queue_url)?;
    check_workers_possible()?;
    let source = Source::new(&queue_url)?;
    Target::check(source.keeps_originals())?;
    let known = Known::find(&queue_url)?;
    known.may_change(&queue_url)?;
    source.stat().begin();
    let subscriptions = OwnTable::find(SUBSCRIPTION)?;
    let table = subscriptions.name();
    let role = current_role();
    // Another role may be subscribing at this moment: its row is seen here first.
    let insert = format!(
        "INSERT INTO {table} AS known (queue_url, role, workers) \
         VALUES ($1, $2::pg_catalog.regrole, $3) \
         ON CONFLICT (queue_url) DO UPDATE SET workers = EXCLUDED.workers, enabled = true \
         WHERE $4 OR known.role OPERATOR(pg_catalog.=) EXCLUDED.role \
         RETURNING true"
    );
    let arguments = [
        queue_url.as_str().into(),
        role.into(),
        workers.into(),
        known.role.is_some().into(),
    ];
    let written = subscription::write_for(role, || {
        subscriptions.write(|| {
            Spi::connect_mut(|client| {
                client
                    .update(insert.as_str(), None, &arguments)
                    .map(|rows| rows.len())
            })
        })
    })
    .or_raise();
    if written == 0 {
        return Err(Failure::NotSubscriber { queue: queue_url }.into());
    }
    Ok(())
}

/// Ends the subscription of the queue; its workers finish within a moment.
#[pg_extern(volatile, parallel_unsafe)]
fn sqs_unsubscribe(queue_url: Option<&str>) -> Result<(), ErrorReport> {
    let queue_url = normal_url(queue_url)?;
    let known = Known::find(&queue_url)?;
    let Some(role) = known.role else {
        return Err(Failure::NotSubscribed { queue: queue_url }.into());
    };
    known.may_change(&queue_url)?;
    let subscriptions = OwnTable::find(SUBSCRIPTION)?;
    let table = subscriptions.name();
    subscriptions
        .write(|| {
            let delete = format!(
                "DELETE FROM {table} WHERE queue_url OPERATOR(pg_catalog.=) $1 \
                 AND role::pg_catalog.oid OPERATOR(pg_catalog.=) $2"
            );
            Spi::run_with_args(&delete, &[queue_url.as_str().into(), role.into()])
        })
        .or_raise();
    Ok(())
}

/// One queue has one subscription, however its URL is spelt.
fn normal_url(queue_url: Option<&str>) -> Result<String, Failure> {
    let queue_url = queue_url.ok_or(Failure::NullArgument("queue_url"))?;
    Ok(QueueUrl::parse(queue_url)?.as_str().to_owned())
}

fn check_workers_possible() -> Result<(), Failure> {
    if !board::is_there() {
        return Err(Failure::NotPreloaded);
    }
    let database = settings::database();
    if database::name() != database {
        return Err(Failure::WrongDatabase { database });
    }
    let role = current_role();
    if !can_login(role) {
        return Err(Failure::CannotLogin {
            role: role_name(role),
        });
    }
    Ok(())
}

/// What is known of a queue's subscription.
struct Known {
    /// The role that subscribed, if one did.
    role: Option<pg_sys::Oid>,
}

impl Known {
    fn find(queue_url: &str) -> Result<Known, Failure> {
        let subscriptions = OwnTable::find(SUBSCRIPTION)?;
        let sql = format!(
            "SELECT role::pg_catalog.oid FROM {} WHERE queue_url OPERATOR(pg_catalog.=) $1",
            subscriptions.name()
        );
        let role = subscriptions.read(|| query::one(&sql, &[queue_url.into()]));
        Ok(Known {
            role: role.or_raise(),
        })
    }

    fn may_change(&self, queue_url: &str) -> Result<(), Failure> {
        match self.role {
            Some(role) if !may_act_for(current_role(), role) => Err(Failure::NotSubscriber {
                queue: queue_url.to_owned(),
            }),
            _ => Ok(()),
        }
    }
}
