//! Where rows go: `user_logins` and our own tables, found and checked before anything is received.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Oid};

use super::ledger::check_key;
use super::statements::Statements;
use crate::errors::Failure;
use crate::own_tables::{EXTENSION, LEDGER, OwnTable, QUEUE, REJECTED};
use crate::pg::identity::current_role;
use crate::pg::relation::{self, Column};
use crate::pg::{database, extension, policy};
use crate::settings;
use crate::vault;

/// The table that rows go to, in the schema of the extension.
pub const USER_LOGINS: &CStr = c"user_logins";

/// The tables of one ingest, as our statements name them: with their schema, quoted.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Where rows go, with the rights of the caller.
    pub user_logins: String,
    /// The ids of messages that are rows already.
    pub ledger: OwnTable,
    /// The messages that cannot become rows.
    pub rejected: OwnTable,
    /// The queues that feed the ledger.
    pub queues: OwnTable,
    /// How many rows a statement is to write.
    pub chunk: usize,
}

impl Target {
    /// Finds the tables and checks that the current user may insert and that `user_logins` can take our rows, and the
    /// vault theirs, if originals are kept.
    ///
    /// # Errors
    /// Whatever would make a later INSERT fail for every row alike. A read-only transaction or a standby is an error
    /// of Postgres' own.
    pub fn check(keeps_originals: bool) -> Result<Target, Failure> {
        let target = Target::check_for(c"sqs_ingest()")?;
        if keeps_originals {
            check_vault()?;
        }
        Ok(target)
    }

    /// The same for a call of another name, which keeps no originals.
    ///
    /// # Errors
    /// As [`check`](Target::check).
    pub fn check_for(call: &CStr) -> Result<Target, Failure> {
        refuse_read_only(call);
        check_encoding()?;
        let schema = extension::schema(EXTENSION).ok_or(Failure::NotInstalled)?;
        let ledger = OwnTable::find_in(schema, LEDGER)?;
        let rejected = OwnTable::find_in(schema, REJECTED)?;
        let queues = OwnTable::find_in(schema, QUEUE)?;
        check_user_logins(schema)?;
        ledger.check()?;
        rejected.check()?;
        queues.check()?;
        check_key(&ledger)?;
        let target = Target {
            user_logins: relation::qualified_name(schema, USER_LOGINS),
            ledger,
            rejected,
            queues,
            chunk: chunk_of(relation::find(schema, USER_LOGINS).map_or(0, relation::shards)),
        };
        target.check_servers(schema)?;
        Ok(target)
    }
}

impl Target {
    /// No transaction spans two servers. Rows and ledger must be on one, and reached over one connection.
    fn check_servers(&self, schema: Oid) -> Result<(), Failure> {
        let Some(user_logins) = relation::find(schema, USER_LOGINS) else {
            return Ok(());
        };
        let of_rows = foreign_servers(user_logins);
        let of_ledger = foreign_servers(self.ledger.oid());
        if of_rows.is_empty() && of_ledger.is_empty() {
            return Ok(());
        }
        let (table, ledger) = (&self.user_logins, self.ledger.name());
        match (of_rows.as_slice(), of_ledger.as_slice()) {
            (_, []) if settings::allow_foreign_table() => {}
            (_, []) => {
                let table = table.clone();
                return Err(Failure::ForeignTable { table });
            }
            ([Some(of_rows)], [Some(of_ledger)])
                if of_rows == of_ledger
                    && relation::user_mapping(current_role(), *of_rows)
                        == relation::user_mapping(self.ledger.owner(), *of_ledger) => {}
            _ => {
                let (ledger, table) = (ledger.to_owned(), table.clone());
                return Err(Failure::ForeignLedger { ledger, table });
            }
        }
        Statements::prepared(self).touch();
        Ok(())
    }
}

/// Checks that the vault takes the originals of rows, in their transaction: a foreign table's rows are committed before
/// those of the vault, which is always here.
///
/// # Errors
/// Those of [`vault::check`], and [`Failure::ForeignRows`].
pub fn check_vault() -> Result<(), Failure> {
    vault::check()?;
    let schema = extension::schema(EXTENSION).ok_or(Failure::NotInstalled)?;
    match relation::find(schema, USER_LOGINS) {
        Some(user_logins) if !foreign_servers(user_logins).is_empty() => {
            let table = relation::qualified_name(schema, USER_LOGINS);
            Err(Failure::ForeignRows { table })
        }
        _ => Ok(()),
    }
}

/// Inserting is fastest around a thousand rows a statement. A distributed table splits each statement among its shards,
/// of which each wants its share.
fn chunk_of(shards: usize) -> usize {
    const CHUNK: usize = 1_000;
    const SHARDS_OF_ONE_CHUNK: usize = 4;
    const LARGEST: usize = 10_000;
    (CHUNK * shards.div_ceil(SHARDS_OF_ONE_CHUNK)).clamp(CHUNK, LARGEST)
}

/// The foreign servers that the relation, or its partitions, are on, each once; `None` among them stands for this
/// server. Nothing where all of it is here.
fn foreign_servers(relation: Oid) -> Vec<Option<Oid>> {
    let mut servers = Vec::new();
    let mut relations = vec![relation];
    while let Some(relation) = relations.pop() {
        let partitions = relation::partitions(relation);
        if partitions.is_empty() {
            let server = relation::foreign_server(relation);
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        relations.extend(partitions);
    }
    if servers == [None] {
        servers.clear();
    }
    servers
}

fn refuse_read_only(call: &CStr) {
    // SAFETY: read a nul-terminated name, and raise an error or do nothing.
    unsafe {
        pg_sys::PreventCommandDuringRecovery(call.as_ptr());
        pg_sys::PreventCommandIfReadOnly(call.as_ptr());
    }
}

/// Checks that this database, and `user_logins` beside the extension, can take our rows from the current user.
///
/// # Errors
/// [`Failure::NotUtf8`], [`Failure::NoTable`], [`Failure::Misshapen`], [`Failure::NoInsertRight`].
pub fn check_current() -> Result<(), Failure> {
    check_encoding()?;
    check_user_logins(extension::schema(EXTENSION).ok_or(Failure::NotInstalled)?)
}

/// Checks that text here is UTF-8: that of a message is, and goes into rows as it is. Most other encodings could not
/// hold all of it.
///
/// # Errors
/// [`Failure::NotUtf8`].
pub fn check_encoding() -> Result<(), Failure> {
    if database::is_utf8() {
        return Ok(());
    }
    Err(Failure::NotUtf8 {
        encoding: database::encoding(),
    })
}

/// Checks that the `user_logins` in `schema` can take our rows from the current user.
fn check_user_logins(schema: Oid) -> Result<(), Failure> {
    let table = relation::qualified_name(schema, USER_LOGINS);
    let Some(user_logins) = relation::find(schema, USER_LOGINS) else {
        let create = create_table(&table);
        return Err(Failure::NoTable { table, create });
    };
    let columns = relation::columns(user_logins);
    let ours = match our_columns(&columns) {
        Ok(ours) => ours,
        Err(problem) => return Err(misshapen(table, problem)),
    };
    if !relation::may_insert(user_logins, &ours) {
        return Err(Failure::NoInsertRight { table });
    }
    if !policy::lets_insert(user_logins) {
        return Err(Failure::NoPolicy { table });
    }
    if !relation::takes_insert(user_logins) {
        let problem = "Rows cannot be inserted into it.".to_owned();
        return Err(misshapen(table, problem));
    }
    Ok(())
}

fn misshapen(table: String, problem: String) -> Failure {
    let create = create_table(&table);
    Failure::Misshapen {
        table,
        problem,
        create,
    }
}

/// The statement that makes `table` as we want it.
pub fn create_table(table: &str) -> String {
    let columns: Vec<String> = COLUMNS
        .iter()
        .map(|(name, wanted)| format!("{name} {}", wanted.sql()))
        .collect();
    format!("CREATE TABLE {table} ({});", columns.join(", "))
}

/// The columns that we insert into, in the order of our statements.
const COLUMNS: [(&str, Wanted); 7] = [
    ("user_id", Wanted::Text(128)),
    ("device_type", Wanted::Text(32)),
    ("masked_ip", Wanted::Text(256)),
    ("masked_device_id", Wanted::Text(256)),
    ("locale", Wanted::Text(32)),
    ("app_version", Wanted::Integer),
    ("create_date", Wanted::Date),
];

/// Masks are 64 characters: a column that holds them is wide enough, whatever the table's first design said.
const MASK_LENGTH: i32 = 64;

enum Wanted {
    Text(i32),
    Integer,
    Date,
}

impl Wanted {
    fn sql(&self) -> String {
        match self {
            Wanted::Text(length) => format!("varchar({length})"),
            Wanted::Integer => "integer".to_owned(),
            Wanted::Date => "date".to_owned(),
        }
    }

    fn is_met_by(&self, column: &Column) -> bool {
        match self {
            Wanted::Text(length) => {
                let least = if column.name.starts_with("masked_") {
                    MASK_LENGTH
                } else {
                    *length
                };
                let is_text =
                    column.base_type == pg_sys::TEXTOID || column.base_type == pg_sys::VARCHAROID;
                is_text && column.length.is_none_or(|length| length >= least)
            }
            Wanted::Integer => {
                [pg_sys::INT4OID, pg_sys::INT8OID, pg_sys::NUMERICOID].contains(&column.base_type)
            }
            Wanted::Date => column.base_type == pg_sys::DATEOID,
        }
    }
}

/// Picks our columns, or says in a sentence what is wrong with the first that is.
fn our_columns(columns: &[Column]) -> Result<Vec<&Column>, String> {
    if let Some(column) = columns
        .iter()
        .find(|column| column.required && !is_ours(column))
    {
        return Err(format!(
            "Column \"{}\" is NOT NULL and has no default.",
            column.name
        ));
    }
    COLUMNS
        .iter()
        .map(|(name, wanted)| our_column(columns, name, wanted))
        .collect()
}

fn is_ours(column: &Column) -> bool {
    COLUMNS.iter().any(|(name, _)| *name == column.name)
}

fn our_column<'a>(
    columns: &'a [Column],
    name: &str,
    wanted: &Wanted,
) -> Result<&'a Column, String> {
    match columns.iter().find(|column| column.name == name) {
        None => Err(format!("Column \"{name}\" is missing.")),
        Some(column) if column.generated => Err(format!("Column \"{name}\" is generated.")),
        Some(column) if !wanted.is_met_by(column) => Err(format!(
            "Column \"{name}\" is not of a type that holds every {}.",
            wanted.sql()
        )),
        Some(column) => Ok(column),
    }
}
