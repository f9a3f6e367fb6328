//! Subscriptions: which queues to ingest from, as which role, with how many workers.

use std::cell::Cell;

use pgrx::spi::{SpiHeapTupleData, SpiResult};
use pgrx::{Spi, pg_sys};

use crate::board::{self, LONGEST_URL};
use crate::errors::Failure;
use crate::installation;
use crate::own_tables::{EXTENSION, IdleTrigger, OwnTable, SUBSCRIPTION};
use crate::pg::or_raise::OrRaise;
use crate::pg::transaction::{self, Listener};
use crate::pg::{extension, identity, quote};
use crate::stat::State;

/// A row of `sqs_subscription`.
pub struct Subscription {
    /// The queue.
    pub queue_url: String,
    /// The role that subscribed.
    pub role: pg_sys::Oid,
    /// How many workers it asks for.
    pub workers: usize,
    /// Why it can have none.
    pub obstacle: Option<Obstacle>,
}

/// Why a subscription can have no workers now.
#[derive(Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// What `sqs_stat` shows as the state of the queue.
    pub state: State,
    /// What is wrong, in a clause, and what to do about it. None if it is intended.
    pub reason: Option<(String, String)>,
}

impl Obstacle {
    fn disabled() -> Obstacle {
        Obstacle {
            state: State::Disabled,
            reason: None,
        }
    }

    fn other_installation(table: &str, queue_url: &str) -> Obstacle {
        let hint = format!(
            "To ingest from it here, use UPDATE {table} SET enabled = true WHERE queue_url = {};",
            quote::literal(queue_url)
        );
        Obstacle {
            state: State::Resting,
            reason: Some((
                "the subscription was made in another installation".to_owned(),
                hint,
            )),
        }
    }

    fn waiting(reason: String, hint: &str) -> Obstacle {
        Obstacle {
            state: State::Waiting,
            reason: Some((reason, hint.to_owned())),
        }
    }
}

/// What the table says now.
pub enum Reading {
    /// These are all subscriptions; none where the extension is not installed. The oldest comes first.
    Complete(Vec<Subscription>),
    /// Another session holds a lock that keeps it from being read.
    Locked,
}

/// Reads the subscriptions of this database, without waiting for locks.
pub fn read() -> Reading {
    let Some(schema) = extension::schema(EXTENSION) else {
        return Reading::Complete(Vec::new());
    };
    let Ok(table) = OwnTable::find_in(schema, SUBSCRIPTION) else {
        return Reading::Complete(Vec::new());
    };
    if !table.try_lock_for_reading() {
        return Reading::Locked;
    }
    let untrusted = find_untrusted_code(&table);
    let number = installation::number_in(schema);
    let query = format!(
        "SELECT s.queue_url, s.role::pg_catalog.oid, s.workers, s.enabled, \
                COALESCE(r.rolname::pg_catalog.text, s.role::pg_catalog.text), \
                s.installation OPERATOR(pg_catalog.=) $1, r.rolcanlogin, d.datallowconn, \
                pg_catalog.has_database_privilege(r.oid, d.oid, 'CONNECT') \
         FROM ONLY {} AS s \
         JOIN pg_catalog.pg_database AS d ON d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() \
         LEFT JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) s.role::pg_catalog.oid \
         ORDER BY s.created, s.queue_url",
        table.name()
    );
    let subscriptions = table.read(|| {
        Spi::connect(|client| {
            let rows = client.select(query.as_str(), None, &[number.into()])?;
            rows.map(|row| Subscription::from_row(&row, table.name(), untrusted.as_ref()))
                .collect::<SpiResult<_>>()
        })
    });
    Reading::Complete(subscriptions.or_raise())
}

/// Why the table is ignored: code of others may have written it, or a check of ours did not see it.
fn find_untrusted_code(table: &OwnTable) -> Option<Obstacle> {
    if let Err(Failure::ForeignCode { what, remedy }) = table.check() {
        let reason = format!("{what} is not part of the extension");
        return Some(Obstacle::waiting(reason, &remedy));
    }
    if let Some(IdleTrigger { problem, remedy }) = table.idle_trigger() {
        return Some(Obstacle::waiting(
            problem,
            &format!(
                "Check the roles in the table first: rows written meanwhile were not checked. {remedy}"
            ),
        ));
    }
    None
}

impl Subscription {
    fn from_row(
        row: &SpiHeapTupleData<'_>,
        table: &str,
        untrusted: Option<&Obstacle>,
    ) -> SpiResult<Subscription> {
        let queue_url: String = row.get(1)?.unwrap_or_default();
        let workers: i32 = row.get(3)?.unwrap_or_default();
        let enabled = row.get(4)? == Some(true);
        let role: String = row.get(5)?.unwrap_or_default();
        let is_ours = row.get(6)? == Some(true);
        let can_login: Option<bool> = row.get(7)?;
        let is_open = row.get(8)? == Some(true);
        let may_connect = row.get(9)? == Some(true);
        let obstacle = if !is_ours {
            Some(Obstacle::other_installation(table, &queue_url))
        } else if !enabled {
            Some(Obstacle::disabled())
        } else if let Some(obstacle) = untrusted {
            Some(obstacle.clone())
        } else if queue_url.len() > LONGEST_URL {
            Some(Obstacle::waiting(
                format!("its URL is longer than {LONGEST_URL} bytes"),
                "Delete its row from sqs_subscription.",
            ))
        } else if can_login.is_none() {
            Some(Obstacle::waiting(
                format!("role \"{role}\" does not exist"),
                "Delete its row from sqs_subscription, and subscribe as another role.",
            ))
        } else if can_login == Some(false) {
            Some(Obstacle::waiting(
                format!("role \"{role}\" is not permitted to log in"),
                "Use ALTER ROLE ... LOGIN, or subscribe as another role.",
            ))
        } else if !is_open {
            Some(Obstacle::waiting(
                "its database is not currently accepting connections".to_owned(),
                "Use ALTER DATABASE ... ALLOW_CONNECTIONS true.",
            ))
        } else if !may_connect {
            Some(Obstacle::waiting(
                format!("role \"{role}\" does not have CONNECT privilege on its database"),
                "Use GRANT CONNECT ON DATABASE, or subscribe as another role.",
            ))
        } else {
            None
        };
        Ok(Subscription {
            queue_url,
            role: row.get(2)?.unwrap_or(pg_sys::InvalidOid),
            workers: usize::try_from(workers).unwrap_or_default(),
            obstacle,
        })
    }
}

static LISTENER: Listener = Listener {
    committed,
    aborted,
    ..Listener::NOOP
};

thread_local! {
    static CHANGED: Cell<bool> = const { Cell::new(false) };
    /// The role that the table's owner is writing for.
    static WRITER: Cell<Option<pg_sys::Oid>> = const { Cell::new(None) };
}

/// Runs `write`, which changes the table as its owner, so that the change counts as made by `role`.
pub fn write_for<R>(role: pg_sys::Oid, write: impl FnOnce() -> R) -> R {
    struct Restored(Option<pg_sys::Oid>);
    impl Drop for Restored {
        fn drop(&mut self) {
            WRITER.set(self.0);
        }
    }
    let _restored_at_end = Restored(WRITER.replace(Some(role)));
    write()
}

/// The role whose rights a row must not go beyond that is being written.
pub fn writer() -> pg_sys::Oid {
    WRITER.get().unwrap_or_else(identity::current_role)
}

/// The current transaction changes subscriptions: wakes the launcher when it commits.
pub fn changed() {
    transaction::listen(&LISTENER);
    CHANGED.set(true);
}

fn committed() {
    if CHANGED.take() {
        board::wake_launcher();
    }
}

fn aborted() {
    CHANGED.set(false);
}
