//! A person is found by any value that was masked, under whatever key.

use std::fs;

use tests::cluster::Cluster;
use tests::database::{Database, Session, literal};
use tests::scripted::ScriptedSqs;
use tests::{logins, run};

const OLD: &str = "old: 0123456789abcdef0123456789abcdef";
const NEW: &str = "new: fedcba9876543210fedcba9876543210";

/// A server with a session in which each call reads the mask keys again.
struct Scene {
    session: Session,
    file: std::path::PathBuf,
    sqs: ScriptedSqs,
    _cluster: Cluster,
}

fn scene() -> Scene {
    let cluster = Cluster::private();
    let file = cluster.data_directory().join("mask-keys");
    let mut session = Database::with_extension(&cluster).connect();
    session.set("user_logins_sqs.mask_key_file", file.display());
    Scene {
        session,
        file,
        sqs: ScriptedSqs::start(),
        _cluster: cluster,
    }
}

impl Scene {
    fn write_keys(&self, content: &str) {
        fs::write(&self.file, content).unwrap();
    }

    fn ingest(&mut self, bodies: &[String]) {
        let queue = self.sqs.queue();
        queue.send(bodies);
        let expected = i64::try_from(bodies.len()).unwrap();
        assert_eq!(self.session.ingest(&queue, 100), expected);
    }

    fn found(&mut self, column: &str, value: &str) -> i64 {
        self.session.number(&format!(
            "SELECT count(*) FROM user_logins WHERE {column} = ANY (sqs_masks({}))",
            literal(value)
        ))
    }
}

#[test]
fn rows_of_every_key_are_found_by_their_value() {
    let mut scene = scene();
    let person = [logins::login_with("x", "ip", "199.172.111.135")];
    let with_address = |ip: &str| [logins::login_with("x", "ip", ip)];
    scene.session.run("RESET user_logins_sqs.mask_key_file");
    scene.ingest(&person);
    let file = scene.file.display().to_string();
    scene.session.set("user_logins_sqs.mask_key_file", file);
    scene.write_keys(OLD);
    scene.ingest(&person);
    scene.ingest(&with_address("2001:DB8::1"));
    scene.write_keys(&format!("{NEW}\n{OLD}\n"));
    scene.ingest(&person);
    scene.ingest(&with_address("2001:db8:0::1"));

    assert_eq!(scene.found("masked_ip", "199.172.111.135"), 3);
    assert_eq!(scene.found("masked_ip", "199.172.111.136"), 0);
    for spelling in ["2001:db8::1", "2001:DB8:0:0::1"] {
        assert_eq!(scene.found("masked_ip", spelling), 2);
    }
    assert_eq!(
        scene
            .session
            .number("SELECT count(DISTINCT masked_ip) FROM user_logins"),
        5
    );

    scene.write_keys(NEW);
    assert_eq!(
        scene.found("masked_ip", "199.172.111.135"),
        2,
        "not under the key that is gone"
    );
}

#[test]
fn a_bare_key_masks_as_it_does_with_a_name() {
    let mut scene = scene();
    let masks = "SELECT sqs_masks('199.172.111.135')";
    scene.write_keys("0123456789abcdef0123456789abcdef\n");
    let bare = scene.session.text(masks);
    scene.write_keys(OLD);
    assert_eq!(scene.session.text(masks), bare);
}

#[test]
fn a_file_that_is_half_right_is_an_error_and_nothing_is_received() {
    let mut scene = scene();
    let queue = scene.sqs.queue();
    queue.send(&logins::good(1));
    for (content, names) in [
        (format!("{NEW}\nno name before it\n"), "line 2"),
        (format!("{NEW}\nshort: key\n"), "too short"),
    ] {
        scene.write_keys(&content);

        let error = scene.session.ingest_error(&queue, 1);
        assert_eq!(error.code().code(), "22023", "{error:?}");
        assert!(error.message().contains(names), "{error:?}");
        assert!(!format!("{error:?}").contains("fedcba"), "{error:?}");
        let same = scene.session.error_of("SELECT sqs_masks('x')");
        assert_eq!(same.message(), error.message());
    }
    assert!(scene.sqs.calls().is_empty());
}

#[test]
fn nobody_may_ask_for_masks_at_first() {
    let database = Database::shared();
    let role = run::unique_name("role");
    let mut admin = database.connect();
    admin.run(&format!("CREATE ROLE {role} LOGIN"));

    let error = database.connect_as(&role).error_of("SELECT sqs_masks('x')");
    assert_eq!(error.code().code(), "42501", "{error:?}");

    admin.run(&format!("GRANT EXECUTE ON FUNCTION sqs_masks TO {role}"));
    database.connect_as(&role).run("SELECT sqs_masks('x')");
    admin.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}
