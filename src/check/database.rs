//! This database: versions, encoding, whether it can be written to.

use pgrx::spi::SpiResult;

use super::Finding;
use crate::errors::Failure;
use crate::ingest::target;
use crate::pg::or_raise::OrRaise;
use crate::pg::{database, query};

/// The version of this library.
const LIBRARY: &str = env!("CARGO_PKG_VERSION");

/// Whether the library and the SQL objects are of one version.
pub fn extension() -> Finding {
    let installed: SpiResult<Option<String>> = query::one(
        "SELECT extversion FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'user_logins_sqs'",
        &[],
    );
    match installed.or_raise() {
        Some(version) if version == LIBRARY => {
            Finding::ok(format!("library and SQL objects have version {LIBRARY}"))
        }
        Some(version) => Finding::error(
            format!(
                "the library of this session has version {LIBRARY}, the SQL objects have version {version}"
            ),
            "Use ALTER EXTENSION user_logins_sqs UPDATE; where the library is the older one, restart the server.",
        ),
        None => Failure::NotInstalled.into(),
    }
}

/// Whether text here is UTF-8.
pub fn encoding() -> Finding {
    Finding::of_result(target::check_encoding(), || "UTF8".to_owned())
}

/// Whether rows can be inserted at all.
pub fn writable() -> Finding {
    if database::is_in_recovery() {
        return Finding::error(
            "this server is a standby",
            "Ingest on the primary. What the primary ingests is here, too.",
        );
    }
    if database::is_read_only() {
        return Finding::error(
            "this transaction is read-only",
            "Use SET TRANSACTION READ WRITE, or look at default_transaction_read_only.",
        );
    }
    Finding::ok("transactions can write")
}
