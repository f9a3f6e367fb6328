//! The sealed vault: what lets the right people, and nobody on the server, get from a mask back to its original.
//!
//! # Vocabulary
//! - *original*: an `ip` or `device_id` as the message has it.
//! - *mask*: what the tables hold instead of it ([`Mask`]).
//! - *kind*: which of the two an original is ([`Kind`]).
//! - *recipient*: a public key, `age1…`. Its *identity* is the private key, which is never on the server.
//! - *data key*: a random 256-bit key that originals are sealed with. It exists in the memory of the process that made
//!   it, and *wrapped*: as an age file that the recipients' identities open ([`WrappedKey`]).
//! - *sealed*: an original, encrypted with a data key and bound to its kind and mask ([`Sealed`]).
//!
//! # The way of an original
//! 1. `recipients`: [`Recipients::parse`] reads the file that names the recipients.
//! 2. `caching_sealer`: an original that was sealed a moment ago is not sealed again ([`CachingSealer`]). What it gives
//!    out is an [`Entry`].
//! 3. `sealer`: a [`Sealer`] makes data keys and replaces them in time; `key` wraps them, by way of `wrap`;
//!    `nonces` has the randomness of each value.
//! 4. `format`: the original is padded and encrypted, by way of `cipher`. `docs/vault.md` has the format to the byte.
//! 5. `cache`: what this process has sealed and committed lately ([`Cache`]) is not written again.
//! 6. `keyring`: where the identities are, a [`Keyring`] unwraps data keys and opens what they sealed.
//!
//! Nothing here knows of a queue or a database. Types that hold an original or a key have no `Debug` and no `Display`,
//! and wipe it when they are dropped.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod cache;
mod caching_sealer;
mod cipher;
mod entry;
mod format;
mod key;
mod keyring;
mod kind;
mod mask;
mod nonces;
mod recent;
mod recipients;
mod sealer;
mod wrap;

pub use cache::Cache;
pub use caching_sealer::CachingSealer;
pub use entry::Entry;
pub use key::{KeyId, KeyIdError, WrappedKey};
pub use keyring::{Keyring, OpenError, Original, UnwrapError};
pub use kind::Kind;
pub use mask::{Mask, MaskError};
pub use recipients::{Problem, Recipients, RecipientsError};
pub use sealer::{SealError, Sealed, Sealer};
