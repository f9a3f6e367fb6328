//! The tables of the vault, and the statements that write them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use pgrx::pg_sys::{BuiltinOid, Oid, PgOid};
use pgrx::spi::{OwnedPreparedStatement, SpiResult};
use pgrx::{Spi, Uuid};
use vault::{KeyId, Mask, Sealed, WrappedKey};

use super::pending::Entry;
use crate::errors::Failure;
use crate::own_tables::{OwnTable, VAULT, VAULT_KEY};
use crate::pg::array::{self, elements_of};
use crate::pg::clock;
use crate::pg::datum::timestamp;

/// Entries that one statement writes.
const CHUNK: usize = 1_000;

/// Checks that entries can be written, before anything is received.
///
/// # Errors
/// [`Failure::NotInstalled`], [`Failure::ForeignCode`].
pub fn check() -> Result<(), Failure> {
    OwnTable::find(VAULT)?.check()?;
    OwnTable::find(VAULT_KEY)?.check()
}

/// `sqs_vault` and `sqs_vault_key`, and what writes them, prepared once for the life of the backend.
pub struct Dictionary {
    vault: OwnTable,
    keys: OwnTable,
    write: OwnedPreparedStatement,
    write_key: OwnedPreparedStatement,
}

thread_local! {
    static PREPARED: RefCell<Option<Rc<Dictionary>>> = const { RefCell::new(None) };
}

impl Dictionary {
    /// That of this database.
    ///
    /// # Errors
    /// [`Failure::NotInstalled`].
    pub fn prepared() -> Result<Rc<Dictionary>, Failure> {
        let (vault, keys) = (OwnTable::find(VAULT)?, OwnTable::find(VAULT_KEY)?);
        let last = PREPARED.with_borrow(|prepared| prepared.clone());
        if let Some(last) = last.filter(|last| last.vault == vault && last.keys == keys) {
            return Ok(last);
        }
        let fresh =
            Dictionary::prepare(vault, keys).unwrap_or_else(|error| pgrx::error!("{error}"));
        let fresh = Rc::new(fresh);
        PREPARED.set(Some(Rc::clone(&fresh)));
        Ok(fresh)
    }

    fn prepare(vault: OwnTable, keys: OwnTable) -> SpiResult<Dictionary> {
        use BuiltinOid::*;
        // What is there keeps its sealed original, and is locked until the transaction ends: nobody deletes it before.
        let write = format!(
            "INSERT INTO {} AS known (mask, kind, key_id, sealed, first_seen, last_seen) \
             SELECT {} \
             ON CONFLICT (mask) DO UPDATE SET last_seen = EXCLUDED.last_seen \
             WHERE known.last_seen OPERATOR(pg_catalog.<) EXCLUDED.last_seen",
            vault.name(),
            elements_of(1..=6)
        );
        let types = [
            TEXTARRAYOID,
            TEXTARRAYOID,
            UUIDARRAYOID,
            BYTEAARRAYOID,
            DATEARRAYOID,
            DATEARRAYOID,
        ]
        .map(PgOid::BuiltIn);
        // DO UPDATE locks a key that is there, though it changes nothing: whoever would delete it, since it seals
        // nothing yet, either has or sees what it seals now.
        let write_key = format!(
            "INSERT INTO {} (key_id, wrapped, recipients, created) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (key_id) DO UPDATE SET wrapped = EXCLUDED.wrapped WHERE false",
            keys.name()
        );
        let key_types = [UUIDOID, BYTEAOID, TEXTARRAYOID, TIMESTAMPTZOID].map(PgOid::BuiltIn);
        Spi::connect(|client| {
            let write = client.prepare_mut(write.as_str(), &types)?.keep();
            let write_key = client.prepare_mut(write_key.as_str(), &key_types)?.keep();
            Ok(Dictionary {
                vault,
                keys,
                write,
                write_key,
            })
        })
    }

    /// What `sqs_vault` is to Postgres.
    pub fn oid(&self) -> Oid {
        self.vault.oid()
    }

    /// Writes `entries`, which are in the order of their masks, each once, and the data keys that they are sealed with.
    /// Of what is there already only `last_seen` moves, if it does.
    pub fn write(&self, entries: &[(Mask, Entry)]) {
        let mut keys: BTreeMap<KeyId, &WrappedKey> = BTreeMap::new();
        for chunk in entries.chunks(CHUNK) {
            if self.write_chunk(chunk) {
                let of_chunk = chunk.iter().map(|(_, entry)| entry.sealed.key());
                keys.extend(of_chunk.map(|key| (key.id(), &**key)));
            }
        }
        for key in keys.values() {
            self.write_key(key);
        }
    }

    /// Returns whether any was new, or moved.
    fn write_chunk(&self, entries: &[(Mask, Entry)]) -> bool {
        let masks: Vec<[u8; 64]> = entries.iter().map(|(mask, _)| mask.digits()).collect();
        let entries = || entries.iter().map(|(_, entry)| entry);
        let sealed = || entries().map(|entry| &*entry.sealed);
        let written: SpiResult<bool> = Spi::connect_mut(|client| {
            let arguments = [
                array::text(masks.iter().map(|digits| str::from_utf8(digits).ok())),
                array::text(sealed().map(|sealed| Some(sealed.kind().as_str()))),
                array::uuid(sealed().map(|sealed| *sealed.key().id().as_bytes())),
                array::bytea(sealed().map(Sealed::bytes)),
                array::date(entries().map(|entry| entry.first_seen)),
                array::date(entries().map(|entry| entry.last_seen)),
            ];
            let written = self
                .vault
                .write(|| client.update(&self.write, None, &arguments))?;
            Ok(!written.is_empty())
        });
        written.unwrap_or_else(|error| pgrx::error!("{error}"))
    }

    fn write_key(&self, key: &WrappedKey) {
        let written: SpiResult<()> = Spi::connect_mut(|client| {
            let arguments = [
                Uuid::from_bytes(*key.id().as_bytes()).into(),
                key.wrapped().to_vec().into(),
                key.recipients().to_vec().into(),
                timestamp(clock::at(key.created())).into(),
            ];
            self.keys
                .write(|| client.update(&self.write_key, None, &arguments))?;
            Ok(())
        });
        written.unwrap_or_else(|error| pgrx::error!("{error}"));
    }
}
