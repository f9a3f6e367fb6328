//! From files to files: unwraps the keys, then opens entry by entry.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;
use vault::{KeyIdError, Keyring, Mask, MaskError, OpenError, Original, UnwrapError};

use crate::arguments::Arguments;
use crate::bytea::{self, NotHex};
use crate::identities::{self, IdentityError};
use crate::report;
use crate::table::{RowError, Table, TableError};

/// Why nothing more can be opened.
#[derive(Debug, Error)]
pub enum Failure {
    /// An identity file gives no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A table cannot be read.
    #[error("{file}: {error}")]
    Table {
        /// Its name, or what stands for standard input.
        file: String,
        /// What is wrong with it.
        error: TableError,
    },
    /// The files of wrapped keys hold none.
    #[error("no wrapped keys in the files given with --keys")]
    NoKeys,
    /// There are wrapped keys, and none is of any use.
    #[error("none of the {0} wrapped keys can be unwrapped with these identities")]
    NoUsableKey(usize),
    /// The output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
}

/// Why one row is refused, and the next one is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
enum Refusal {
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Mask(#[from] MaskError),
    #[error(transparent)]
    KeyId(#[from] KeyIdError),
    #[error(transparent)]
    Bytes(#[from] NotHex),
    #[error(transparent)]
    Key(#[from] UnwrapError),
    #[error("mask {mask}: {why}")]
    Open { mask: Mask, why: OpenError },
}

/// What became of the rows that could be read.
pub struct Outcome {
    /// Entries that opened.
    pub opened: usize,
    /// Entries that did not.
    pub refused: usize,
    /// Wrapped keys that are damaged.
    pub refused_keys: usize,
}

/// Writes what opens to `output`, and reports what does not.
pub fn unseal(arguments: &Arguments, output: impl Write) -> Result<Outcome, Failure> {
    let mut identities = Vec::new();
    for file in &arguments.identities {
        identities.extend(identities::read(file)?);
    }
    let mut keyring = Keyring::new(identities);
    let refused_keys = unwrap_keys(&arguments.keys, &mut keyring)?;
    let (opened, refused) = open_entries(arguments.input.as_deref(), &keyring, output)?;
    Ok(Outcome {
        opened,
        refused,
        refused_keys,
    })
}

/// Returns how many were refused. A key that is wrapped for others is not: only an entry that needs it is.
fn unwrap_keys(files: &[PathBuf], keyring: &mut Keyring) -> Result<usize, Failure> {
    let (mut all, mut unwrapped, mut refused) = (0, 0, 0);
    for file in files {
        let name = file.display().to_string();
        let in_table = |error| Failure::Table {
            file: name.clone(),
            error,
        };
        let mut table = Table::open(open_file(file).map_err(in_table)?, ["key_id", "wrapped"])
            .map_err(in_table)?;
        while let Some(row) = table.next().map_err(in_table)? {
            all += 1;
            let (line, fields) = (row.line, row.fields.map_err(Refusal::from));
            match fields.and_then(|fields| unwrap_key(&fields, keyring)) {
                Ok(()) => unwrapped += 1,
                Err(Refusal::Key(UnwrapError::NotForTheseIdentities)) => {}
                Err(refusal) => {
                    refused += 1;
                    report(&format!("{name}, line {line}: {refusal}"));
                }
            }
        }
    }
    match (all, unwrapped) {
        (0, _) => Err(Failure::NoKeys),
        (_, 0) => Err(Failure::NoUsableKey(all)),
        _ => Ok(refused),
    }
}

fn unwrap_key([id, wrapped]: &[Cow<str>; 2], keyring: &mut Keyring) -> Result<(), Refusal> {
    Ok(keyring.add(id.parse()?, &bytea::bytes(wrapped)?)?)
}

/// Returns how many were opened, and how many refused.
fn open_entries(
    input: Option<&Path>,
    keyring: &Keyring,
    output: impl Write,
) -> Result<(usize, usize), Failure> {
    let name = input.map_or("standard input".to_string(), |file| {
        file.display().to_string()
    });
    let in_table = |error| Failure::Table {
        file: name.clone(),
        error,
    };
    let not_written = |error: csv::Error| Failure::Output(error.into());

    let reader: Box<dyn BufRead> = match input {
        Some(file) => Box::new(open_file(file).map_err(in_table)?),
        None => Box::new(io::stdin().lock()),
    };
    let mut table = Table::open(reader, ["mask", "key_id", "sealed"]).map_err(in_table)?;
    let mut output = csv::Writer::from_writer(output);
    output
        .write_record(["mask", "original"])
        .map_err(not_written)?;
    let (mut opened, mut refused) = (0, 0);
    while let Some(row) = table.next().map_err(in_table)? {
        let (line, fields) = (row.line, row.fields.map_err(Refusal::from));
        match fields.and_then(|fields| open(&fields, keyring)) {
            Ok((mask, original)) => {
                opened += 1;
                output
                    .write_record([&mask.to_string(), original.as_str()])
                    .map_err(not_written)?;
            }
            Err(refusal) => {
                refused += 1;
                report(&format!("{name}, line {line}: {refusal}"));
            }
        }
    }
    output.flush().map_err(Failure::Output)?;
    if refused > 0 {
        report(&format!("{opened} opened, {refused} refused"));
    }
    Ok((opened, refused))
}

fn open(
    [mask, key, sealed]: &[Cow<str>; 3],
    keyring: &Keyring,
) -> Result<(Mask, Original), Refusal> {
    let mask = mask.parse()?;
    let original = keyring
        .open(mask, key.parse()?, &bytea::bytes(sealed)?)
        .map_err(|why| Refusal::Open { mask, why })?;
    Ok((mask, original))
}

fn open_file(file: &Path) -> Result<BufReader<File>, TableError> {
    Ok(BufReader::new(File::open(file)?))
}
