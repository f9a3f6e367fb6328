//! Originals are in the vault, sealed, for exactly the rows that are there: recoverable with the private key, and with
//! nothing else.

use tests::database::{Database, Session};
use tests::logins;
use tests::queue::Queue;
use tests::scripted::ScriptedSqs;
use tests::vault::KeyPair;

mod agreement;
mod forgetting;
mod opening;
mod replicated;
mod rights;
mod settings;
mod workers;

/// A database, a queue, and a key pair to seal for.
struct Scene {
    server: ScriptedSqs,
    queue: Queue,
    database: Database<'static>,
    pair: KeyPair,
}

fn scene() -> Scene {
    let server = ScriptedSqs::start();
    Scene {
        queue: server.queue(),
        server,
        database: Database::shared(),
        pair: KeyPair::generate(),
    }
}

impl Scene {
    /// A session of the superuser that seals.
    fn connect(&self) -> Session {
        let mut session = self.database.connect();
        session.seal_for(&self.pair);
        session
    }

    /// Sends a login of each of these users.
    fn send(&self, users: &[&str]) {
        let bodies: Vec<String> = users.iter().map(|user| login(user)).collect();
        self.queue.send(&bodies);
    }

    /// Sends and ingests a login of each of these users.
    #[track_caller]
    fn ingest(&self, session: &mut Session, users: &[&str]) {
        self.send(users);
        assert_eq!(
            session.ingest(&self.queue, users.len() as i32),
            users.len() as i64
        );
    }
}

/// What a user's login has, as it is sent: the same in every login of a user, and in none of another.
fn originals_of(user: &str) -> [String; 2] {
    [format!("ip of {user}"), format!("device of {user}")]
}

fn login(user: &str) -> String {
    let [ip, device_id] = originals_of(user);
    let mut login = logins::login(user);
    login["ip"] = ip.into();
    login["device_id"] = device_id.into();
    login.to_string()
}

/// One login of each of these users.
fn logins_of(users: impl Iterator<Item = usize>) -> Vec<String> {
    users.map(|user| login(&format!("user-{user}"))).collect()
}
