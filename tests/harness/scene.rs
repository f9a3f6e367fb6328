//! What most tests of a call need: a database, a session in it, and a queue to ingest from.

use crate::cluster::Cluster;
use crate::database::{Database, Session};
use crate::queue::Queue;
use crate::scripted::ScriptedSqs;

/// A database with the extension, and an empty queue on a scripted SQS.
pub struct Scene<'c> {
    /// Serves the queue.
    pub sqs: ScriptedSqs,
    /// The queue.
    pub queue: Queue,
    /// A session of the superuser in the database.
    pub session: Session,
    /// The database. Declared last, so that it is dropped after the session in it.
    pub database: Database<'c>,
}

impl Scene<'static> {
    /// A scene on the shared server.
    pub fn shared() -> Scene<'static> {
        Scene::of(Database::shared())
    }
}

impl<'c> Scene<'c> {
    /// A scene on `cluster`.
    pub fn on(cluster: &'c Cluster) -> Scene<'c> {
        Scene::of(Database::with_extension(cluster))
    }

    fn of(database: Database<'c>) -> Scene<'c> {
        let sqs = ScriptedSqs::start();
        Scene {
            queue: sqs.queue(),
            sqs,
            session: database.connect(),
            database,
        }
    }
}
