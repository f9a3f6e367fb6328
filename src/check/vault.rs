//! The vault: whether originals are kept, for whom, and how many there are.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::spi::SpiResult;

use super::{Finding, found, ledger, text};
use crate::ingest::target::check_vault;
use crate::own_tables::{OwnTable, VAULT, VAULT_KEY};
use crate::pg::identity::{current_role, may_act_for};
use crate::pg::{clock, query, relation};
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

/// Whether entries can be written, whether sessions learn of those that are deleted, and whether anybody but the owner
/// gets at those that are there, which may have come with a dump.
pub fn tables() -> Finding {
    let is_on = settings::vault_recipients_file().is_some();
    if is_on && let Err(failure) = check_vault() {
        return failure.into();
    }
    let tables = OwnTable::find(VAULT).and_then(|vault| Ok([vault, OwnTable::find(VAULT_KEY)?]));
    found(tables, |tables| {
        for table in tables {
            if !is_on && !has_rows(table)? {
                continue;
            }
            let name = table.name();
            if !relation::has_row_level_security(table.oid()) {
                return Ok(Finding::warning(
                    format!("row-level security is not enabled for table {name}, which has rows"),
                    format!(
                        "Use ALTER TABLE {name} ENABLE ROW LEVEL SECURITY. A dump does not keep it."
                    ),
                ));
            }
            if let Some(Unrestricted { privileges, role }) = unrestricted(table)? {
                let (listed, grantee) = match &role {
                    None => (privileges.join(" and "), "PUBLIC".to_owned()),
                    Some(role) => (privileges.join(" and "), format!("role {role}")),
                };
                return Ok(Finding::warning(
                    format!(
                        "{grantee} has {listed} on table {name}, which row-level security does not restrict"
                    ),
                    format!(
                        "Use REVOKE {} ON {name} FROM {}.",
                        privileges.join(", "),
                        role.as_deref().unwrap_or("PUBLIC")
                    ),
                ));
            }
        }
        Ok(if is_on {
            Finding::ok(
                "row-level security is enabled, no code of others is attached, and its triggers fire",
            )
        } else {
            off()
        })
    })
}

fn has_rows(table: &OwnTable) -> SpiResult<bool> {
    if table.is_elsewhere() {
        return Ok(false);
    }
    let sql = format!("SELECT EXISTS (SELECT FROM {})", table.name());
    let found: Option<bool> = table.read(|| query::one(&sql, &[]))?;
    Ok(found == Some(true))
}

/// Privileges that row-level security does not restrict.
struct Unrestricted {
    privileges: Vec<String>,
    /// Who has them, quoted; none: PUBLIC.
    role: Option<String>,
}

/// Who may empty the table, or learn which masks are in it by a foreign key that refers to them, without being its
/// owner, or a role that may act for it.
fn unrestricted(table: &OwnTable) -> SpiResult<Option<Unrestricted>> {
    let sql = "SELECT pg_catalog.array_agg(DISTINCT privilege_type ORDER BY privilege_type), \
                 CASE WHEN grantee OPERATOR(pg_catalog.<>) 0 \
                   THEN pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(grantee)) END \
               FROM ( \
                 SELECT relowner, (pg_catalog.aclexplode(relacl)).* \
                 FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) $1 \
                 UNION ALL \
                 SELECT relowner, (pg_catalog.aclexplode(attacl)).* \
                 FROM pg_catalog.pg_class AS c \
                 JOIN pg_catalog.pg_attribute ON attrelid OPERATOR(pg_catalog.=) c.oid \
                 WHERE c.oid OPERATOR(pg_catalog.=) $1 AND NOT attisdropped \
               ) AS acl \
               WHERE privilege_type OPERATOR(pg_catalog.=) ANY (ARRAY['REFERENCES', 'TRUNCATE']) \
                 AND (grantee OPERATOR(pg_catalog.=) 0 OR NOT pg_catalog.pg_has_role(grantee, relowner, 'USAGE')) \
               GROUP BY grantee ORDER BY grantee LIMIT 1";
    let (privileges, role): (Option<Vec<String>>, Option<String>) =
        query::two(sql, &[table.oid().into()])?;
    Ok(privileges.map(|privileges| Unrestricted { privileges, role }))
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
