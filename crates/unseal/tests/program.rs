//! The program from outside: files in, output, messages and exit status out.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use age::secrecy::ExposeSecret;
use age::x25519;
use tempfile::TempDir;
use vault::{Kind, Mask, Recipients, Sealed, Sealer};

const PROGRAM: &str = env!("CARGO_BIN_EXE_user-logins-unseal");
const ORIGINALS: [(Kind, &str); 4] = [
    (Kind::Ip, "199.172.111.135"),
    (Kind::Ip, "2001:DB8::1"),
    (Kind::DeviceId, "593-47-5928"),
    (Kind::DeviceId, "a \"device\", of two\nlines"),
];

#[test]
fn what_was_sealed_opens_from_csv_and_from_text() {
    let vault = Vault::new();
    let expected = format!(
        "mask,original\n{},199.172.111.135\n{},2001:DB8::1\n{},593-47-5928\n{},\"a \"\"device\"\", of two\nlines\"\n",
        mask(0),
        mask(1),
        mask(2),
        mask(3)
    );
    for (header, separator, bytea) in [
        ("", ",", "\\x"),
        ("mask,key_id,sealed\n", ",", "\\x"),
        ("", "\t", "\\\\x"),
        ("mask\tkey_id\tsealed\n", "\t", "\\\\x"),
    ] {
        let rows = vault.sealed.iter().map(|sealed| {
            [
                sealed.mask().to_string(),
                sealed.key().id().to_string(),
                bytea.to_string() + &hex::encode(sealed.bytes()),
            ]
            .join(separator)
                + "\n"
        });
        let entries = header.to_string() + &rows.collect::<String>();
        let keys = vault.sealed[..1].iter().map(|sealed| {
            let key = sealed.key();
            format!(
                "{}{separator}{bytea}{}\n",
                key.id(),
                hex::encode(key.wrapped())
            )
        });
        vault.write("keys.csv", &keys.collect::<String>());
        vault.write("vault.csv", &entries);

        for output in [
            vault.unseal(&["vault.csv"], ""),
            vault.unseal(&[], &entries),
            vault.unseal(&["-"], &entries),
        ] {
            assert_eq!(text(&output.stderr), "");
            assert_eq!(text(&output.stdout), expected);
            assert_eq!(output.status.code(), Some(0));
        }
    }
}

#[test]
fn whole_tables_open_as_they_are_exported() {
    let vault = Vault::new();
    let one = &vault.sealed[0];
    let key = one.key();
    let recipients = format!("\"{{{}}}\"", key.recipients().join(","));
    let wrapped = hex::encode(key.wrapped());
    vault.write(
        "keys.csv",
        &format!("key_id,wrapped,recipients,created\n{},\\x{wrapped},{recipients},2026-05-01 00:00:00+00\n", key.id()),
    );
    let sealed = hex::encode(one.bytes());
    let entries = format!(
        "mask,kind,key_id,sealed,first_seen,last_seen\n{},ip,{},\\x{sealed},2026-05-01,2026-05-02\n",
        one.mask(),
        key.id()
    );
    let output = vault.unseal(&[], &entries);
    assert_eq!(
        text(&output.stdout),
        format!("mask,original\n{},199.172.111.135\n", mask(0))
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_hostile_entry_is_refused_with_a_clear_word_and_the_rest_opens() {
    let vault = Vault::new();
    let [one, other] = [&vault.sealed[0], &vault.sealed[1]];
    let stranger = seal_all(&x25519::Identity::generate());
    let another = seal_all(&vault.identity);
    vault.write_keys(&[one, &stranger[0], &another[0]]);

    let (mask, id, sealed) = (
        one.mask().to_string(),
        one.key().id().to_string(),
        one.bytes(),
    );
    let line =
        |mask: &str, id: &str, sealed: &[u8]| format!("{mask},{id},\\x{}\n", hex::encode(sealed));
    let changed = |place: usize, byte: u8| {
        let mut sealed = sealed.to_vec();
        sealed[place] ^= byte;
        line(&mask, &id, &sealed)
    };
    let hostile = [
        (
            line(&other.mask().to_string(), &id, sealed),
            "altered, or sealed for another mask",
        ),
        (changed(60, 1), "altered, or sealed for another mask"),
        (
            line(&mask, &another[0].key().id().to_string(), sealed),
            "or with another key",
        ),
        (
            line(
                &mask,
                &stranger[0].key().id().to_string(),
                stranger[0].bytes(),
            ),
            "wrapped key is for other recipients",
        ),
        (
            line(&mask, "00000000-0000-8000-8000-000000000000", sealed),
            "key is not among the wrapped keys",
        ),
        (
            line(&mask, &id, &sealed[..sealed.len() - 1]),
            "cut, or not a sealed value",
        ),
        (line(&mask, &id, &[]), "cut, or not a sealed value"),
        (changed(0, 8), "unknown format, version 9"),
        (changed(1, 8), "kind 9"),
        (line("somebody", &id, sealed), "not a mask"),
        (line(&mask, "1", sealed), "not the id of a key"),
        (format!("{mask},{id},\\001\n"), "not a bytea in hex format"),
        (format!("{mask},{id}\n"), "too few fields"),
        (format!("{mask},,\\x00\n"), "empty or NULL"),
    ];
    let rest = line(
        &other.mask().to_string(),
        &other.key().id().to_string(),
        other.bytes(),
    );
    let entries: String = hostile
        .iter()
        .map(|(entry, _)| entry.as_str())
        .chain([rest.as_str()])
        .collect();
    let output = vault.unseal(&[], &("mask,key_id,sealed\n".to_string() + &entries));

    assert_eq!(
        text(&output.stdout),
        format!("mask,original\n{},2001:DB8::1\n", other.mask())
    );
    assert_eq!(output.status.code(), Some(1));
    let messages = text(&output.stderr);
    let lines: Vec<&str> = messages.lines().collect();
    for (index, (_, why)) in hostile.iter().enumerate() {
        let line = lines[index];
        let place = format!("user-logins-unseal: standard input, line {}: ", index + 2);
        assert!(
            line.starts_with(&place) && line.contains(why),
            "{line:?} lacks {why:?}"
        );
    }
    assert_eq!(
        lines[hostile.len()..],
        ["user-logins-unseal: 1 opened, 14 refused"]
    );
}

#[test]
fn the_exit_status_tells_that_nothing_opened_though_keys_did() {
    let vault = Vault::new();
    let [one, other] = [&vault.sealed[0], &vault.sealed[1]];
    let swapped = format!(
        "{},{},\\x{}\n",
        one.mask(),
        one.key().id(),
        hex::encode(other.bytes())
    );
    let output = vault.unseal(&[], &swapped);
    assert_eq!(text(&output.stdout), "mask,original\n");
    assert!(text(&output.stderr).contains("0 opened, 1 refused"));
    assert_eq!(output.status.code(), Some(2));

    let nothing = vault.unseal(&[], "mask,key_id,sealed\n");
    assert_eq!(nothing.status.code(), Some(0), "there was nothing to open");
}

#[test]
fn a_tab_in_an_entry_costs_no_other() {
    let vault = Vault::new();
    let one = &vault.sealed[0];
    let hostile = format!("x\ty\tz,{},\\x01\n", one.key().id());
    let output = vault.unseal(&[], &(hostile + &line_of(one)));
    assert_eq!(
        text(&output.stdout),
        format!("mask,original\n{},199.172.111.135\n", mask(0))
    );
    assert!(text(&output.stderr).contains("line 1: not a mask"));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_bad_wrapped_key_costs_only_what_it_sealed() {
    let vault = Vault::new();
    let another = seal_all(&vault.identity);
    let (one, other) = (&vault.sealed[0], &another[1]);
    let keys = [
        (one.key().id(), one.key().wrapped()),
        (other.key().id(), one.key().wrapped()),
    ];
    let rows = keys.map(|(id, wrapped)| format!("{id},\\x{}\n", hex::encode(wrapped)));
    vault.write("keys.csv", &rows.concat());
    let output = vault.unseal(&[], &(line_of(other) + &line_of(one)));

    assert_eq!(
        text(&output.stdout),
        format!("mask,original\n{},199.172.111.135\n", mask(0))
    );
    assert_eq!(output.status.code(), Some(1));
    let messages = text(&output.stderr);
    assert!(
        messages.contains("keys.csv, line 2: the wrapped key has another id"),
        "{messages}"
    );
    assert!(
        messages.contains(&format!(
            "line 1: mask {}: the wrapped key has another id",
            mask(1)
        )),
        "{messages}"
    );
}

#[test]
fn nothing_opens_with_another_identity() {
    let vault = Vault::new();
    vault.write(
        "key.txt",
        x25519::Identity::generate().to_string().expose_secret(),
    );
    let output = vault.unseal(&["vault.csv"], "");
    assert_eq!(text(&output.stdout), "");
    assert!(
        text(&output.stderr)
            .contains("none of the 1 wrapped keys can be unwrapped with these identities")
    );
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_passphrase_is_asked_for_on_the_terminal() {
    let vault = Vault::new();
    let mut passphrase = age::scrypt::Recipient::new("correct horse".to_string().into());
    passphrase.set_work_factor(1);
    let secret = vault.identity.to_string();
    let protected = age::encrypt(&passphrase, secret.expose_secret().as_bytes()).unwrap();
    fs::write(vault.path("key.txt"), protected).unwrap();

    for (typed, code) in [("correct horse", 0), ("battery staple", 2)] {
        // script gives its command a terminal, and types what it reads.
        let command = format!("{PROGRAM} -i key.txt -k keys.csv vault.csv >out.csv");
        let arguments = ["--quiet", "--return", "--command", &command, "/dev/null"];
        let mut child = vault.start("script", &arguments);
        let mut shown = String::new();
        let mut screen = child.stdout.take().unwrap();
        // What is typed before the program asks would be shown by the terminal.
        while !shown.ends_with("Passphrase for key.txt: ") {
            let mut byte = [0];
            screen.read_exact(&mut byte).unwrap();
            shown.push(byte[0].into());
        }
        writeln!(child.stdin.as_ref().unwrap(), "{typed}").unwrap();
        screen.read_to_string(&mut shown).unwrap();
        let status = child.wait().unwrap();

        assert!(!shown.contains(typed), "{shown}");
        assert_eq!(shown.contains("wrong passphrase"), code == 2, "{shown}");
        assert_eq!(status.code(), Some(code));
        let opened = fs::read_to_string(vault.path("out.csv")).unwrap();
        assert_eq!(opened.contains("199.172.111.135"), code == 0);
    }
}

#[test]
fn what_cannot_be_read_is_named_and_nothing_is_written() {
    let vault = Vault::new();
    vault.write("empty", "");
    vault.write("other.csv", "user_id,locale,ip,app_version\n1,RU,,\n");
    for (arguments, expected) in [
        (
            &["-i", "none", "-k", "keys.csv"][..],
            "identity file none: cannot be read: No such file",
        ),
        (
            &["-i", "vault.csv", "-k", "keys.csv"],
            "identity file vault.csv: it holds no age identity",
        ),
        (
            &["-i", "key.txt", "-k", "none"],
            "none: cannot be read: No such file",
        ),
        (
            &["-i", "key.txt", "-k", "empty"],
            "no wrapped keys in the files",
        ),
        (
            &["-i", "key.txt", "-k", "other.csv"],
            "other.csv: does not have the columns key_id, wrapped",
        ),
        (
            &["-i", "key.txt", "-k", "keys.csv", "none"],
            "none: cannot be read: No such file",
        ),
        (
            &["-i", "key.txt", "-k", "keys.csv", "other.csv"],
            "other.csv: does not have the columns mask, key_id, sealed",
        ),
        (&["-k", "keys.csv"], "--identity"),
        (&["--unknown"], "--unknown"),
        (&[], "Try 'user-logins-unseal --help'"),
    ] {
        let output = vault.run(PROGRAM, arguments, "");
        let messages = text(&output.stderr);
        assert!(
            messages.contains(expected),
            "{messages:?} lacks {expected:?}"
        );
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let vault = Vault::new();
    let command = format!("{PROGRAM} -i key.txt -k keys.csv vault.csv >/dev/full");
    let output = vault.run("sh", &["-c", &command], "");
    assert!(text(&output.stderr).contains("the output cannot be written: No space left"));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn help_and_version_are_printed() {
    let vault = Vault::new();
    let help = vault.run(PROGRAM, &["--help"], "");
    assert!(
        text(&help.stdout)
            .contains("Usage: user-logins-unseal --identity FILE --keys FILE [INPUT]")
    );
    assert_eq!(help.status.code(), Some(0));
    let version = vault.run(PROGRAM, &["--version"], "");
    assert_eq!(
        text(&version.stdout),
        concat!("user-logins-unseal ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

/// A folder with an identity, the wrapped keys, and all [`ORIGINALS`] sealed.
struct Vault {
    folder: TempDir,
    identity: x25519::Identity,
    sealed: Vec<Sealed>,
}

impl Vault {
    fn new() -> Vault {
        let identity = x25519::Identity::generate();
        let vault = Vault {
            folder: TempDir::new().unwrap(),
            sealed: seal_all(&identity),
            identity,
        };
        vault.write("key.txt", vault.identity.to_string().expose_secret());
        vault.write_keys(&[&vault.sealed[0]]);
        vault.write(
            "vault.csv",
            &vault.sealed.iter().map(line_of).collect::<String>(),
        );
        vault
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    /// The keys that these values are sealed with.
    fn write_keys(&self, sealed: &[&Sealed]) {
        let lines = sealed.iter().map(|sealed| {
            let key = sealed.key();
            format!("{},\\x{}\n", key.id(), hex::encode(key.wrapped()))
        });
        self.write("keys.csv", &lines.collect::<String>());
    }

    fn unseal(&self, arguments: &[&str], input: &str) -> Output {
        self.run(
            PROGRAM,
            &[&["--identity", "key.txt", "--keys", "keys.csv"], arguments].concat(),
            input,
        )
    }

    fn run(&self, program: &str, arguments: &[&str], input: &str) -> Output {
        let mut child = self.start(program, arguments);
        // A program that reads no input may have ended.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn start(&self, program: &str, arguments: &[&str]) -> Child {
        Command::new(program)
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

fn seal_all(identity: &x25519::Identity) -> Vec<Sealed> {
    let recipients = Recipients::parse(identity.to_public().to_string().as_bytes()).unwrap();
    let mut sealer = Sealer::new(recipients);
    ORIGINALS
        .iter()
        .enumerate()
        .map(|(index, (kind, original))| sealer.seal(*kind, mask(index), original).unwrap())
        .collect()
}

/// The program cannot know what a mask is made of, so that any will do.
fn mask(index: usize) -> Mask {
    format!("{index:064x}").parse().unwrap()
}

fn line_of(sealed: &Sealed) -> String {
    format!(
        "{},{},\\x{}\n",
        sealed.mask(),
        sealed.key().id(),
        hex::encode(sealed.bytes())
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
