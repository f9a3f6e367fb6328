//! The vault in the database: originals, sealed with public keys, by mask. `crates/vault` seals.
//!
//! # Vocabulary
//!
//! - *original*, *mask*, *recipient*, *data key*, *sealed*: as in `crates/vault`.
//! - *entry*: a row of `sqs_vault`, a sealed original. The vault is a dictionary: one entry a value, however many
//!   logins have it.
//!
//! # The way of an original
//!
//! 1. [`recipients`]: the file that names the recipients is read with the other settings of a call.
//! 2. [`originals`]: on the I/O thread each original is sealed, or what was sealed lately is taken; it travels with
//!    its masked login.
//! 3. [`pending`]: rows that went into `user_logins` have their entries kept until the transaction commits; a
//!    subtransaction that is rolled back takes its own along.
//! 4. [`known`]: when the transaction commits, what the vault has already is left out,
//! 5. [`dictionary`]: and the rest is written.
//!
//! [`spent`] wipes the data keys of processes that are idle. [`prune`] deletes what was not seen for long, and what is
//! to be forgotten.
//!
//! # Why at commit
//!
//! Values are shared, as messages are not: two sessions that see a new value at the same time both want to write its
//! entry, and one has to wait for the other's transaction. At commit that takes a moment. Entries written with each
//! chunk would have a session wait until another one's user gets round to COMMIT, and two that write several chunks,
//! each in its own order, wait for each other. Here all entries of a transaction are written at once, in the order of
//! their masks, when it holds no lock that a writer of entries could be waiting for.

mod dictionary;
mod known;
mod originals;
mod pending;
mod prune;
mod recipients;
mod spent;

pub use dictionary::check;
pub use originals::{Originals, OriginalsSealer, check_length, vault_mask, wipe_data_key};
pub use pending::write_at_commit;
pub use prune::{forget, prune};
pub use recipients::recipients;
pub use spent::sealer;

/// Days since 2000-01-01 UTC, as a `date` has them.
type Day = i32;
