//! Where rows go: `user_logins` and our own tables, found and checked before anything is received.

use pgrx::pg_sys::{self, Oid};

use crate::errors::Failure;
use crate::own_tables::{EXTENSION, LEDGER, OwnTable, REJECTED};
use crate::pg::relation::{self, Column};
use crate::pg::{database, policy};
use crate::vault;

/// The tables of one ingest, as our statements name them: with their schema, quoted.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Where rows go, with the rights of the caller.
    pub user_logins: String,
    /// The ids of messages that are rows already.
    pub ledger: OwnTable,
    /// The messages that cannot become rows.
    pub rejected: OwnTable,
}

impl Target {
    /// Finds the tables and checks that the current user may insert and that `user_logins` can take our rows, and the
    /// vault theirs, if originals are kept.
    ///
    /// # Errors
    /// Whatever would make a later INSERT fail for every row alike. A read-only transaction or a standby is an error
    /// of Postgres' own.
    pub fn check(keeps_originals: bool) -> Result<Target, Failure> {
        refuse_read_only();
        check_encoding()?;
        let schema = relation::extension_schema(EXTENSION).ok_or(Failure::NotInstalled)?;
        let ledger = OwnTable::find_in(schema, LEDGER)?;
        let rejected = OwnTable::find_in(schema, REJECTED)?;
        check_user_logins(schema)?;
        ledger.check()?;
        rejected.check()?;
        if keeps_originals {
            vault::check()?;
        }
        Ok(Target {
            user_logins: relation::qualified_name(schema, c"user_logins"),
            ledger,
            rejected,
        })
    }
}

fn refuse_read_only() {
    // SAFETY: raise an error or do nothing.
    unsafe {
        pg_sys::PreventCommandDuringRecovery(c"sqs_ingest()".as_ptr());
        pg_sys::PreventCommandIfReadOnly(c"sqs_ingest()".as_ptr());
    }
}

/// Checks that this database, and `user_logins` beside the extension, can take our rows from the current user.
///
/// # Errors
/// [`Failure::NotUtf8`], [`Failure::NoTable`], [`Failure::Misshapen`], [`Failure::NoInsertRight`].
pub fn check_current() -> Result<(), Failure> {
    check_encoding()?;
    check_user_logins(relation::extension_schema(EXTENSION).ok_or(Failure::NotInstalled)?)
}

/// The text of a message is UTF-8, and goes into rows as it is. Most other encodings could not hold all of it.
fn check_encoding() -> Result<(), Failure> {
    if database::is_utf8() {
        return Ok(());
    }
    Err(Failure::NotUtf8 {
        encoding: relation::database_encoding(),
    })
}

/// Checks that the `user_logins` in `schema` can take our rows from the current user.
fn check_user_logins(schema: Oid) -> Result<(), Failure> {
    let table = relation::qualified_name(schema, c"user_logins");
    let Some(user_logins) = relation::find(schema, c"user_logins") else {
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
fn create_table(table: &str) -> String {
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
