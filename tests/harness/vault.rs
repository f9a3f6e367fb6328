//! Key pairs for the vault, the file that names recipients, and the program that opens what was sealed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use age::secrecy::ExposeSecret;
use age::x25519::Identity;

use crate::database::Session;
use crate::run;

/// A public key to seal for, and the private key that opens what was sealed for it.
pub struct KeyPair {
    identity: PathBuf,
    recipient: String,
}

/// What came of opening a vault.
#[derive(Debug)]
pub struct Opened {
    /// What opened: originals by their masks.
    pub originals: BTreeMap<String, String>,
    /// What the program said about the others, a line for each.
    pub refused: Vec<String>,
    /// The program's exit status.
    pub status: i32,
}

impl KeyPair {
    /// A new one.
    pub fn generate() -> KeyPair {
        let identity = Identity::generate();
        KeyPair {
            identity: file("identity", identity.to_string().expose_secret()),
            recipient: identity.to_public().to_string(),
        }
    }

    /// The public key.
    pub fn recipient(&self) -> &str {
        &self.recipient
    }

    /// Where the private key is. The server is never told.
    pub fn identity(&self) -> &Path {
        &self.identity
    }

    /// A file of recipients with this one alone.
    pub fn file(&self) -> String {
        recipients_file(&format!("# of a test\n{}\n", self.recipient))
    }

    /// The data key in a wrapped one, which is in hex digits.
    pub fn unwrap(&self, wrapped: &str) -> Vec<u8> {
        let digits = wrapped.as_bytes().chunks(2);
        let wrapped: Vec<u8> = digits
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let identity: Identity = fs::read_to_string(&self.identity)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let identities = [&identity as &dyn age::Identity];
        let mut data_key = Vec::new();
        age::Decryptor::new(&wrapped[..])
            .unwrap()
            .decrypt(identities.into_iter())
            .unwrap()
            .read_to_end(&mut data_key)
            .unwrap();
        data_key
    }

    /// Opens what the vault of the session's database holds, as its owner exports it.
    pub fn open(&self, session: &mut Session) -> Opened {
        let entries = csv(session, "SELECT mask, key_id, sealed FROM public.sqs_vault");
        let keys = csv(session, "SELECT key_id, wrapped FROM public.sqs_vault_key");
        let output = Command::new(program())
            .arg("--identity")
            .arg(&self.identity)
            .arg("--keys")
            .arg(file("keys.csv", &keys))
            .arg(file("entries.csv", &entries))
            .output()
            .unwrap();
        let originals = String::from_utf8(output.stdout).unwrap();
        let refused = String::from_utf8(output.stderr).unwrap();
        Opened {
            originals: originals
                .lines()
                .skip(1)
                .map(|line| {
                    let (mask, original) = line.split_once(',').unwrap();
                    (mask.to_owned(), original.to_owned())
                })
                .collect(),
            refused: refused.lines().map(str::to_owned).collect(),
            status: output.status.code().unwrap(),
        }
    }
}

/// A file of recipients with this content, which the server can read.
pub fn recipients_file(content: &str) -> String {
    file("recipients", content).to_str().unwrap().to_owned()
}

impl Session {
    /// Closes the tables of the vault to all but their owner, without which nothing is sealed.
    pub fn close_vault(&mut self) -> &mut Session {
        for table in ["sqs_vault", "sqs_vault_key"] {
            let is_open = format!(
                "SELECT count(*) FROM pg_class WHERE oid = 'public.{table}'::regclass AND NOT relrowsecurity"
            );
            if self.number(&is_open) > 0 {
                self.run(&format!(
                    "ALTER TABLE public.{table} ENABLE ROW LEVEL SECURITY"
                ));
            }
        }
        self
    }

    /// Has this session, one of the tables' owner, seal what it ingests.
    pub fn seal_for(&mut self, pair: &KeyPair) -> &mut Session {
        self.close_vault();
        self.set("user_logins_sqs.vault_recipients_file", pair.file())
    }

    /// The masks in `user_logins`, each once.
    #[track_caller]
    pub fn masks(&mut self) -> Vec<String> {
        self.column(
            "SELECT masked_ip FROM public.user_logins WHERE masked_ip IS NOT NULL
             UNION SELECT masked_device_id FROM public.user_logins WHERE masked_device_id IS NOT NULL ORDER BY 1",
        )
    }

    /// The masks in the vault.
    #[track_caller]
    pub fn vault_masks(&mut self) -> Vec<String> {
        self.column("SELECT mask FROM public.sqs_vault ORDER BY 1")
    }

    /// The vault holds the values of the rows, and nothing else; all of it opens with `pair`, each to the text whose
    /// mask it is.
    #[track_caller]
    pub fn expect_vault_agrees(&mut self, pair: &KeyPair) -> Opened {
        let masks = self.masks();
        assert_eq!(self.vault_masks(), masks);
        let opened = pair.open(self);
        assert_eq!(opened.refused, Vec::<String>::new());
        let opened_masks: Vec<&String> = opened.originals.keys().collect();
        assert_eq!(opened_masks, masks.iter().collect::<Vec<_>>());
        for (mask, original) in &opened.originals {
            let masked = format!(
                "SELECT encode(sha256(convert_to({}, 'UTF8')), 'hex')",
                crate::database::literal(original)
            );
            assert_eq!(self.text(&masked).as_ref(), Some(mask), "{original}");
        }
        let unused = "SELECT count(*) FROM public.sqs_vault_key k WHERE NOT EXISTS (
            SELECT FROM public.sqs_vault v WHERE v.key_id = k.key_id)";
        assert_eq!(self.number(unused), 0, "a key seals nothing");
        opened
    }

    #[track_caller]
    fn column(&mut self, sql: &str) -> Vec<String> {
        self.rows(sql).into_iter().flatten().flatten().collect()
    }
}

fn csv(session: &mut Session, query: &str) -> String {
    let lines = session.rows(query).into_iter().map(|row| {
        let fields: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
        fields.join(",") + "\n"
    });
    lines.collect()
}

fn file(name: &str, content: &str) -> PathBuf {
    let path = run::directory().join(run::unique_name(name));
    fs::write(&path, content).unwrap();
    path
}

/// The program, which is built beside the tests.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let built = tests.parent().and_then(Path::parent).unwrap();
    let program = built.join("user-logins-unseal");
    assert!(
        program.exists(),
        "cargo build --package unseal builds {program:?}"
    );
    program
}
