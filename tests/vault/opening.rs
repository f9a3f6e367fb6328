//! What is sealed opens with the identity, and with nothing else.

use std::process::Stdio;

use tests::check_report::Report;
use tests::cluster::Cluster;
use tests::database::Database;
use tests::logins;
use tests::run;
use tests::vault::{KeyPair, recipients_file};

use super::{logins_of, originals_of, scene};

#[test]
fn each_mask_opens_to_the_value_that_was_sent_with_the_identity_and_to_nothing_without() {
    let scene = scene();
    scene.queue.send(&logins_of(1..51));
    let mut session = scene.connect();
    assert_eq!(session.ingest(&scene.queue, 50), 50);

    let opened = session.expect_vault_agrees(&scene.pair);

    for user in ["user-1", "user-50"] {
        for original in originals_of(user) {
            assert!(opened.originals.values().any(|known| *known == original));
        }
    }
    let without = KeyPair::generate().open(&mut session);
    assert!(without.originals.is_empty(), "{without:?}");
    assert_eq!(without.status, 2, "{without:?}");
}

#[test]
fn values_are_sealed_as_they_were_sent_and_nulls_are_not() {
    let scene = scene();
    scene.queue.send(&[
        logins::login_with("v6", "ip", "2001:DB8:0::1"),
        logins::login_with("none", "device_id", serde_json::Value::Null),
        logins::login_with("odd", "device_id", " \u{fe0f}'\\ \t😀"),
    ]);
    let mut session = scene.connect();
    session.ingest(&scene.queue, 3);

    let masks = session.masks();
    assert_eq!(masks.len(), 5);
    assert_eq!(session.vault_masks(), masks);
    let opened = scene.pair.open(&mut session);
    assert_eq!(opened.status, 0, "{opened:?}");
    let of_canonical = session
        .text("SELECT encode(sha256('2001:db8::1'), 'hex')")
        .unwrap();
    assert_eq!(opened.originals[&of_canonical], "2001:DB8:0::1");
    assert_eq!(
        session.rows("SELECT kind, count(*) FROM sqs_vault GROUP BY 1 ORDER BY 1"),
        [
            [Some("device_id".to_owned()), Some("2".to_owned())],
            [Some("ip".to_owned()), Some("3".to_owned())],
        ]
    );
}

#[test]
fn masks_made_with_a_key_open_as_well() {
    let scene = scene();
    let mut session = scene.connect();
    let key = recipients_file(&"k".repeat(32));
    session.set("user_logins_sqs.mask_key_file", key);
    scene.ingest(&mut session, &["a", "b"]);

    assert_eq!(session.vault_masks(), session.masks());
    let mut opened: Vec<String> = scene
        .pair
        .open(&mut session)
        .originals
        .into_values()
        .collect();
    let mut sent = [originals_of("a"), originals_of("b")].concat();
    opened.sort();
    sent.sort();
    assert_eq!(opened, sent);
}

#[test]
fn a_value_has_one_entry_however_many_logins_have_it() {
    let scene = scene();
    let mut session = scene.connect();
    scene.ingest(&mut session, &["a", "b", "a", "a"]);
    scene.ingest(&mut session, &["b", "a"]);
    scene.ingest(&mut scene.connect(), &["b", "c"]);

    assert_eq!(session.logins(), 8);
    assert_eq!(session.vault_masks().len(), 6);
    session.expect_vault_agrees(&scene.pair);
    // One of each session.
    assert_eq!(session.number("SELECT count(*) FROM sqs_vault_key"), 2);
}

#[test]
fn other_recipients_open_what_is_sealed_from_then_on_and_nothing_before() {
    let scene = scene();
    let mut session = scene.connect();
    scene.ingest(&mut session, &["early"]);
    let (late, both) = (KeyPair::generate(), KeyPair::generate());
    session.seal_for(&late);
    scene.ingest(&mut session, &["late", "early"]);
    let two = format!("{}\n{}\n", late.recipient(), both.recipient());
    session.set(
        "user_logins_sqs.vault_recipients_file",
        recipients_file(&two),
    );
    scene.ingest(&mut session, &["two"]);

    let mut opened_by = |pair: &KeyPair| {
        let opened = pair.open(&mut session);
        let mut originals: Vec<String> = opened.originals.into_values().collect();
        originals.sort();
        originals
    };
    let sorted = |users: &[&str]| {
        let mut originals: Vec<String> = users.iter().flat_map(|user| originals_of(user)).collect();
        originals.sort();
        originals
    };
    assert_eq!(opened_by(&scene.pair), sorted(&["early"]));
    assert_eq!(opened_by(&late), sorted(&["late", "two"]));
    assert_eq!(opened_by(&both), sorted(&["two"]));
    assert_eq!(
        session.number("SELECT count(*) FROM sqs_vault_key WHERE cardinality(recipients) = 2"),
        1
    );
}

#[test]
fn what_a_removed_recipient_could_open_is_not_written_for_the_next() {
    let scene = scene();
    let mut session = scene.connect();
    // Sealed, and rolled back: it is not in the vault.
    scene.send(&["a"]);
    session.run("BEGIN");
    session.ingest(&scene.queue, 1);
    session.run("ROLLBACK");
    let next = KeyPair::generate();
    session.seal_for(&next);
    scene.queue.expect_released(1);
    session.ingest(&scene.queue, 1);

    assert!(scene.pair.open(&mut session).originals.is_empty());
    session.expect_vault_agrees(&next);
}

#[test]
fn hostile_entries_are_refused_and_the_rest_opens() {
    let scene = scene();
    let mut session = scene.connect();
    let users = ["swapped", "other", "cut", "flipped", "moved", "good"];
    scene.ingest(&mut session, &users);
    scene.ingest(&mut scene.connect(), &["of another session"]);
    let ip = |user: &str| {
        let [ip, _] = originals_of(user);
        format!("encode(sha256('{ip}'), 'hex')")
    };
    session.run(&format!(
        "CREATE TEMPORARY TABLE original AS SELECT * FROM sqs_vault;
         UPDATE sqs_vault SET sealed = (SELECT sealed FROM original WHERE mask = {other}) WHERE mask = {swapped};
         UPDATE sqs_vault SET sealed = substr(sealed, 1, 60) WHERE mask = {cut};
         UPDATE sqs_vault SET sealed = set_bit(sealed, 300, 1 - get_bit(sealed, 300)) WHERE mask = {flipped};
         UPDATE sqs_vault SET key_id = (SELECT key_id FROM original WHERE mask = {theirs}) WHERE mask = {moved}",
        swapped = ip("swapped"),
        other = ip("other"),
        cut = ip("cut"),
        flipped = ip("flipped"),
        moved = ip("moved"),
        theirs = ip("of another session"),
    ));

    let opened = scene.pair.open(&mut session);

    assert_eq!(opened.status, 1, "{opened:?}");
    assert_eq!(opened.originals.len(), 14 - 4, "{opened:?}");
    for (user, reason) in [
        ("swapped", "altered, or sealed for another mask"),
        ("cut", "cut, or not a sealed value"),
        ("flipped", "altered"),
        ("moved", "altered"),
    ] {
        let mask = session.text(&format!("SELECT {}", ip(user))).unwrap();
        let line = opened.refused.iter().find(|line| line.contains(&mask));
        assert!(
            line.is_some_and(|line| line.contains(reason)),
            "{user}: {opened:?}"
        );
    }
}

#[test]
fn a_restored_dump_opens() {
    let scene = scene();
    let mut session = scene.connect();
    scene.ingest(&mut session, &["a", "b"]);
    let role = run::unique_name("reader");
    session.run(&format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT ON sqs_vault, sqs_vault_key TO {role}"
    ));
    let cluster = Cluster::shared();
    let mut dump = cluster
        .client_program("pg_dump")
        .arg(scene.database.name())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let restored = Database::bare(cluster);
    let output = cluster
        .client_program("psql")
        .args([
            "--no-psqlrc",
            "--set=ON_ERROR_STOP=1",
            "--dbname",
            restored.name(),
        ])
        .stdin(dump.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(dump.wait().unwrap().success());
    assert!(output.status.success(), "{output:?}");

    let mut session = restored.connect();
    session.expect_vault_agrees(&scene.pair);
    // A dump brings the rights that were granted, and not what closed the tables to them.
    let mut reader = restored.connect_as(&role);
    let entries = "SELECT count(*) FROM sqs_vault";
    assert_eq!(reader.number(entries), 4);
    let is_open = "row-level security is not enabled for table public.sqs_vault";
    Report::here(&mut session).expect("tables of the vault", "warning", is_open);
    session.set("user_logins_sqs.vault_recipients_file", scene.pair.file());
    Report::here(&mut session).expect("tables of the vault", "error", is_open);
    scene.send(&["a", "c"]);
    let calls = scene.server.calls().len();
    let error = session.ingest_error(&scene.queue, 2);
    assert_eq!(error.code().code(), "55000", "{error:?}");
    assert_eq!(scene.server.calls().len(), calls);
    // The documentation says to do this at once.
    session.run(
        "ALTER TABLE sqs_vault ENABLE ROW LEVEL SECURITY; ALTER TABLE sqs_vault_key ENABLE ROW LEVEL SECURITY",
    );
    assert_eq!(reader.number(entries), 0);
    // And it goes on from there.
    assert_eq!(session.ingest(&scene.queue, 2), 2);
    session.expect_vault_agrees(&scene.pair);
    assert_eq!(session.vault_masks().len(), 6);
    for database in [&restored, &scene.database] {
        database.connect().run(&format!("DROP OWNED BY {role}"));
    }
    session.run(&format!("DROP ROLE {role}"));
}
