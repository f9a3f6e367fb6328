//! What the settings of the vault do when they are wrong.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};

use tests::logins;
use tests::vault::{KeyPair, recipients_file};

use super::scene;

#[test]
fn without_the_setting_nothing_is_kept() {
    let scene = scene();
    let mut session = scene.database.connect();
    scene.ingest(&mut session, &["a"]);
    assert!(session.vault_masks().is_empty());
}

#[test]
fn a_file_that_names_no_recipients_has_nothing_received() {
    let good = KeyPair::generate();
    let identity = std::fs::read_to_string(good.identity()).unwrap();
    let wrong_files = [
        (
            "/nonexistent/recipients".to_owned(),
            "58P01",
            "No such file",
        ),
        (recipients_file("# nobody yet\n"), "22023", "no recipient"),
        (
            recipients_file(&identity),
            "22023",
            "line 1 is a private key",
        ),
        (
            recipients_file(&format!("{}\nage1typo\n", good.recipient())),
            "22023",
            "line 2",
        ),
    ];
    for (file, code, reason) in wrong_files {
        let scene = scene();
        scene.send(&["a"]);
        let mut session = scene.database.connect();
        session.set("user_logins_sqs.vault_recipients_file", &file);
        let ingest = session.ingest_error(&scene.queue, 1);
        let drain = session.error_of(&format!("CALL sqs_drain('{}')", scene.queue.url()));
        for error in [ingest, drain] {
            assert_eq!(error.code().code(), code, "{error:?}");
            assert!(error.message().contains(reason), "{error:?}");
            assert!(error.message().contains(&file), "{error:?}");
            assert!(error.detail().is_some() && error.hint().is_some());
            assert!(!format!("{error:?}").contains(identity.trim()), "{error:?}");
        }
        assert!(scene.server.calls().is_empty());
        scene.queue.expect_released(1);
    }
}

#[test]
fn a_value_of_more_than_1024_characters_is_rejected_where_it_would_be_kept() {
    let scene = scene();
    let long = logins::login_with("long", "device_id", "é".repeat(1_025));
    let longest = logins::login_with("longest", "device_id", "é".repeat(1_024));
    let mut session = scene.connect();
    scene.queue.send(&[long.clone(), longest]);
    assert_eq!(session.ingest(&scene.queue, 2), 1);
    let rejections = session.rejections();
    assert_eq!(rejections.len(), 1);
    assert_eq!(
        rejections[0].reason,
        "device_id is longer than 1024 characters"
    );
    session.expect_vault_agrees(&scene.pair);

    session.set("user_logins_sqs.vault_recipients_file", "");
    scene.queue.send(&[long]);
    assert_eq!(session.ingest(&scene.queue, 1), 1);
}

#[test]
fn a_call_with_the_vault_off_wipes_the_data_key_of_its_process() {
    let scene = scene();
    let mut session = scene.connect();
    scene.ingest(&mut session, &["a"]);
    let wrapped = session.text("SELECT encode(wrapped, 'hex') FROM sqs_vault_key");
    let data_key = scene.pair.unwrap(&wrapped.unwrap());
    let pid = session.pid();
    // Where the kernel lets nobody look, there is nothing to see.
    let Some(copies) = copies_in_memory(pid, &data_key) else {
        return;
    };
    assert_eq!(copies, 1);

    session.set("user_logins_sqs.vault_recipients_file", "");
    scene.ingest(&mut session, &["b"]);

    assert_eq!(copies_in_memory(pid, &data_key), Some(0));
}

/// How often these bytes are in memory that the process has written.
fn copies_in_memory(pid: i32, wanted: &[u8]) -> Option<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let mut memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut copies = 0;
    for map in maps.lines().filter(|map| map.contains(" rw-p ")) {
        let (range, _) = map.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        let mut bytes = vec![0; usize::try_from(end - start).ok()?];
        memory.seek(SeekFrom::Start(start)).ok()?;
        if memory.read_exact(&mut bytes).is_ok() {
            let windows = bytes.windows(wanted.len());
            copies += windows.filter(|window| *window == wanted).count();
        }
    }
    Some(copies)
}
