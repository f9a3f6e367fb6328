//! Against an implementation in another language, made from `docs/vault.md` alone: `open_and_seal.py`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use age::secrecy::ExposeSecret;
use age::x25519;
use sha2::{Digest, Sha256};
use vault::{Keyring, Kind, Mask, Recipients, Sealed, Sealer};

const ORIGINALS: [(Kind, &str); 9] = [
    (Kind::Ip, "199.172.111.135"),
    (Kind::Ip, "2001:DB8:0::1"),
    (Kind::Ip, ""),
    (Kind::Ip, "fe80::1%a-zone-whose-name-makes-it-fill-one-blo"),
    (Kind::Ip, "fe80::1%a-zone-whose-name-makes-it-need-another"),
    (Kind::DeviceId, "593-47-5928"),
    (Kind::DeviceId, "424cdd21-063a-43a7-b91b-7ca1a833afae"),
    (Kind::DeviceId, "gerät №1\0\u{80}"),
    (
        Kind::DeviceId,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    ),
];

#[test]
fn python_opens_what_was_sealed_here_for_each_recipient() {
    let identities = [x25519::Identity::generate(), x25519::Identity::generate()];
    let sealed = seal_all(&identities);
    for identity in &identities {
        let opened = open_there(identity, sealed.iter().map(entry));
        for ((kind, original), line) in ORIGINALS.iter().zip(&opened) {
            assert_eq!(
                line.trim_end(),
                format!("{} {}", kind.as_str(), hex::encode(original)).trim_end()
            );
        }
        assert_eq!(opened.len(), ORIGINALS.len());
    }
}

#[test]
fn python_opens_nothing_with_another_identity() {
    let sealed = seal_all(&[x25519::Identity::generate()]);
    let opened = open_there(&x25519::Identity::generate(), sealed.iter().map(entry));
    assert_all_refused(&opened, "DecryptError");
}

#[test]
fn python_opens_nothing_that_is_not_as_it_was_sealed() {
    let identity = x25519::Identity::generate();
    let recipients = [identity.clone()];
    let (sealed, others) = (seal_all(&recipients), seal_all(&recipients));
    let one = &sealed[0];
    assert_eq!(
        open_there(&identity, [entry(one)]),
        ["ip 3139392e3137322e3131312e313335"]
    );

    let swapped_masks = Entry {
        mask: sealed[1].mask(),
        ..entry(one)
    };
    let other_key = Entry {
        sealed: one.bytes().to_vec(),
        mask: one.mask(),
        ..entry(&others[0])
    };
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut entry = entry(one);
        change(&mut entry.sealed);
        entry
    };
    let flipped = (2..one.bytes().len()).map(|index| changed(&|sealed| sealed[index] ^= 1));
    let cut = [89, 74, 42].map(|length| changed(&|sealed| sealed.truncate(length)));
    let hostile = [swapped_masks, other_key]
        .into_iter()
        .chain(flipped)
        .chain(cut);
    assert_all_refused(&open_there(&identity, hostile), "CryptoError");

    let other_kind = changed(&|sealed| sealed[1] = 2);
    assert_all_refused(&open_there(&identity, [other_kind]), "CryptoError");
    let other_version = changed(&|sealed| sealed[0] = 2);
    assert_all_refused(&open_there(&identity, [other_version]), "AssertionError");
    let other_id = Entry {
        id: others[0].key().id().to_string(),
        ..entry(one)
    };
    assert_all_refused(&open_there(&identity, [other_id]), "AssertionError");
}

#[test]
fn what_python_seals_opens_here() {
    let identity = x25519::Identity::generate();
    let input = ORIGINALS
        .map(|(kind, original)| {
            format!(
                "{} {} {}\n",
                kind.as_str(),
                mask(original),
                hex::encode(original)
            )
        })
        .concat();
    let lines = run(&["seal", &identity.to_public().to_string()], &input);
    assert_eq!(lines.len(), ORIGINALS.len());

    let mut keyring = Keyring::new(vec![Box::new(identity)]);
    for ((kind, original), line) in ORIGINALS.iter().zip(lines) {
        let [id, wrapped, sealed] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let id = id.parse().unwrap();
        keyring.add(id, &hex::decode(wrapped).unwrap()).unwrap();
        let opened = keyring
            .open(mask(original), id, &hex::decode(sealed).unwrap())
            .unwrap();
        assert_eq!((opened.kind(), opened.as_str()), (*kind, *original));
    }
}

fn mask(original: &str) -> Mask {
    hex::encode(Sha256::digest(original)).parse().unwrap()
}

fn seal_all(identities: &[x25519::Identity]) -> Vec<Sealed> {
    let file: Vec<String> = identities
        .iter()
        .map(|identity| identity.to_public().to_string())
        .collect();
    let mut sealer = Sealer::new(Recipients::parse(file.join("\n").as_bytes()).unwrap());
    ORIGINALS
        .iter()
        .map(|(kind, original)| sealer.seal(*kind, mask(original), original).unwrap())
        .collect()
}

/// What is in the two tables about one mask.
struct Entry<'a> {
    mask: Mask,
    id: String,
    key: &'a vault::WrappedKey,
    sealed: Vec<u8>,
}

fn entry(sealed: &Sealed) -> Entry<'_> {
    Entry {
        mask: sealed.mask(),
        id: sealed.key().id().to_string(),
        key: sealed.key(),
        sealed: sealed.bytes().to_vec(),
    }
}

fn open_there<'a>(
    identity: &x25519::Identity,
    entries: impl IntoIterator<Item = Entry<'a>>,
) -> Vec<String> {
    let input: String = entries
        .into_iter()
        .map(
            |Entry {
                 mask,
                 id,
                 key,
                 sealed,
             }| {
                format!(
                    "{mask} {id} {} {}\n",
                    hex::encode(key.wrapped()),
                    hex::encode(sealed)
                )
            },
        )
        .collect();
    run(&["open", identity.to_string().expose_secret()], &input)
}

fn assert_all_refused(lines: &[String], why: &str) {
    assert!(!lines.is_empty());
    for line in lines {
        assert!(line.starts_with(&format!("refused {why}")), "{line}");
    }
}

/// The lines that the other implementation writes.
fn run(arguments: &[&str], input: &str) -> Vec<String> {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = crate_root.join("../../.venv/bin/python");
    assert!(python.exists(), "no {}: run 'make setup'", python.display());
    let mut child = Command::new(python)
        .arg(crate_root.join("tests/independent/open_and_seal.py"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It writes as it reads, little enough for the pipe to hold.
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_string)
        .collect()
}
