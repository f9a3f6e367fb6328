//! The vault: whether originals are kept, for whom, and how many there are.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::spi::SpiResult;

use super::{Finding, found, ledger, text};
use crate::own_tables::{OwnTable, VAULT, VAULT_KEY};
use crate::pg::identity::{current_role, may_act_for};
use crate::pg::{clock, query};
use crate::{settings, vault};

/// Whether originals are kept, and for how many recipients.
pub fn recipients() -> Finding {
    match vault::recipients() {
        Ok(None) => off(),
        Ok(Some(recipients)) => Finding::ok(format!(
            "originals are sealed for {}",
            text::count(recipients.texts().len() as u64, "recipient")
        )),
        Err(failure) => failure.into(),
    }
}

/// Whether entries can be written, and whether sessions learn of those that are deleted.
pub fn tables() -> Finding {
    if settings::vault_recipients_file().is_none() {
        return off();
    }
    Finding::of_result(vault::check(), || {
        "row-level security is enabled, no code of others is attached, and its triggers fire"
            .to_owned()
    })
}

/// How large the vault is, and how old its newest data key.
pub fn size() -> Finding {
    let tables = OwnTable::find(VAULT).and_then(|vault| Ok((vault, OwnTable::find(VAULT_KEY)?)));
    found(tables, |(vault, keys)| {
        let (entries, size) = ledger::entries_and_size(vault)?;
        let newest = newest_key(keys)?;
        Ok(Finding::ok(format!(
            "about {entries} entries, {size}; {newest}"
        )))
    })
}

/// How long ago the newest data key was made. Who may not read the table, which row-level security keeps to its owner,
/// does not learn it.
fn newest_key(keys: &OwnTable) -> SpiResult<String> {
    if !may_act_for(current_role(), keys.owner()) {
        return Ok(format!(
            "only the owner of {} sees its data keys",
            keys.name()
        ));
    }
    if keys.is_elsewhere() {
        return Ok(format!("{} is on another server", keys.name()));
    }
    let sql = format!("SELECT pg_catalog.max(created) FROM {}", keys.name());
    let newest: Option<TimestampWithTimeZone> = keys.read(|| query::one(&sql, &[]))?;
    Ok(match newest {
        None => "there is no data key".to_owned(),
        Some(created) => format!(
            "the newest data key was made {} ago",
            text::duration(clock::since(created.into()))
        ),
    })
}

fn off() -> Finding {
    Finding::ok("off: user_logins_sqs.vault_recipients_file is empty")
}
