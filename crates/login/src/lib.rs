//! What a login message says: the text of a message in, a [`MaskedLogin`] or a [`Rejection`] out.
//!
//! # Vocabulary
//! - *login*: what a message's body says, raw. It lives only inside [`Decoder::decode`] and cannot be printed.
//! - *masked login*: a login ready to insert. Only masking constructs it, so what holds one holds no raw address or
//!   device id.
//! - *rejection*: why a body is not a login that can be stored. It names a field and a rule, never a value.
//!
//! # The way of a body
//! 1. `decode`: [`Decoder::decode`] takes the settings and the body.
//! 2. `envelope`: the body is read once, as JSON; texts stay slices of it wherever they hold no escape. What an
//!    envelope of SNS or EventBridge encloses is read the same way.
//! 3. `field`, `login`, `version`: each field is checked against its rule and its column, and `app_version` becomes an
//!    integer ([`VersionEncoding`]).
//! 4. `address`, `mask`: `ip` and `device_id` become a [`Mask`] each ([`Masker`]), an IPv6 address by its canonical
//!    text.
//! 5. `rejection`: what is said of a body that got stuck on the way.
//!
//! Nothing here knows of a queue or a database.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod address;
mod decode;
mod envelope;
mod field;
mod login;
mod mask;
mod rejection;
mod version;

pub use decode::Decoder;
pub use login::{Masked, MaskedLogin};
pub use mask::{Mask, Masker};
pub use rejection::{Rejection, Rule};
pub use version::VersionEncoding;
