//! Settings: the key of the masks, and which queues are allowed.

use super::{Finding, text};
use crate::mask_keys::MaskKeys;
use crate::settings;

/// Whether the masks have a key, and which: its fingerprint tells whether two servers have the same one.
pub fn mask_key() -> Finding {
    let keys = match MaskKeys::read() {
        Ok(keys) => keys,
        Err(failure) => return failure.into(),
    };
    let mut fingerprints = keys.fingerprints();
    match fingerprints.next() {
        None => Finding::warning(
            "masks are plain SHA-256; the mask of an IPv4 address can be reversed by trying every address",
            "Put the output of \"openssl rand -hex 32\" into a file that only the server's operating-system user can \
             read, and name it in user_logins_sqs.mask_key_file.",
        ),
        Some(current) => {
            let older: Vec<String> = fingerprints.collect();
            Finding::ok(match older.as_slice() {
                [] => format!("the key has fingerprint {current}"),
                older => format!(
                    "the key has fingerprint {current}, {} {}",
                    text::count(older.len() as u64, "older key"),
                    older.join(", ")
                ),
            })
        }
    }
}

/// Which queues may be named.
pub fn allowed_queues() -> Finding {
    let patterns = settings::allowed_queues();
    Finding::ok(if patterns.is_empty() {
        "user_logins_sqs.allowed_queues is empty: roles with EXECUTE may name any queue".to_owned()
    } else {
        patterns.join(", ")
    })
}
