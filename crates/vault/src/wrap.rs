//! Data keys as age files (<https://c2sp.org/age>), which hold their 32 bytes and nothing else.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::Read;

use age::{DecryptError, Decryptor, EncryptError, Encryptor, Identity, Recipient};
use age_core::format::{FileKey, Stanza};
use age_core::primitives::hkdf;
use age_core::secrecy::ExposeSecret;
use chacha20poly1305::aead::Aead;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use zeroize::Zeroizing;

use crate::key::Secret;
use crate::{Recipients, SealError, UnwrapError};

/// Bytes of the random nonce between an age file's header and its payload.
const NONCE: usize = 16;

/// An age file that holds `secret`, for all recipients.
///
/// age writes the header, which wraps the file's own key for each recipient. The payload, one chunk, is written here:
/// age's writer would leave a copy of the secret in a buffer that it frees without wiping.
pub(crate) fn wrap(secret: &Secret, recipients: &Recipients) -> Result<Vec<u8>, SealError> {
    let file_key = RefCell::default();
    let witnesses: Vec<Witness> = recipients
        .keys()
        .map(|recipient| Witness {
            recipient,
            file_key: &file_key,
        })
        .collect();
    let encryptor =
        Encryptor::with_recipients(witnesses.iter().map(|witness| witness as &dyn Recipient))
            .map_err(|_| SealError::Wrap)?;

    let mut file = Vec::new();
    // Writes the header and the nonce; the writer that it returns would write the payload.
    encryptor
        .wrap_output(&mut file)
        .map_err(|_| SealError::Wrap)?;
    let nonce = file.last_chunk::<NONCE>().ok_or(SealError::Wrap)?;

    let payload_key = Zeroizing::new(hkdf(nonce, b"payload", &**file_key.borrow()));
    let payload = ChaCha20Poly1305::new((&*payload_key).into())
        .encrypt(&ONLY_CHUNK.into(), secret.bytes().as_slice())
        .map_err(|_| SealError::Wrap)?;
    file.extend(payload);
    Ok(file)
}

/// The nonce of a payload that is one chunk: number 0 in 11 bytes, and a byte that says it is the last.
const ONLY_CHUNK: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// A recipient that keeps the file key that age has it wrap, the same for all recipients of a file.
struct Witness<'a> {
    recipient: &'a age::x25519::Recipient,
    file_key: &'a RefCell<Zeroizing<[u8; 16]>>,
}

impl Recipient for Witness<'_> {
    fn wrap_file_key(
        &self,
        file_key: &FileKey,
    ) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        self.file_key
            .borrow_mut()
            .copy_from_slice(file_key.expose_secret());
        self.recipient.wrap_file_key(file_key)
    }
}

/// The data key that an age file holds, if one of the identities opens it.
pub(crate) fn unwrap(file: &[u8], identities: &[Box<dyn Identity>]) -> Result<Secret, UnwrapError> {
    let identities = identities.iter().map(AsRef::as_ref);
    let content = Decryptor::new(file)
        .and_then(|decryptor| decryptor.decrypt(identities))
        .map_err(|error| match error {
            DecryptError::NoMatchingKeys => UnwrapError::NotForTheseIdentities,
            _ => UnwrapError::Damaged,
        })?;
    let secret = Secret::fill(|bytes| {
        let mut content = content;
        content
            .read_exact(bytes)
            .map_err(|_| UnwrapError::Damaged)?;
        match content.read(&mut [0]) {
            Ok(0) => Ok(()),
            _ => Err(UnwrapError::Damaged),
        }
    })?;
    Ok(secret)
}
