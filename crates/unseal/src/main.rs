//! `user-logins-unseal`: entries of `sqs_vault` in, masks with their originals out. It runs where the private key is,
//! which is not the server, and needs no Postgres.
//!
//! 1. `arguments`: what the command line asks for.
//! 2. `identities`: the private keys, from age's identity files; `terminal` asks for their passphrases.
//! 3. `table`: rows of a table as psql's `\copy` writes them, in CSV or text format; `bytea`: bytes in them.
//! 4. `unseal`: wrapped keys are unwrapped, then entries opened one by one. One that does not open is reported, and
//!    costs no other.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arguments;
mod bytea;
mod identities;
mod table;
mod terminal;
mod unseal;

use std::io::{self, Write};
use std::process::ExitCode;

use arguments::Command;
use unseal::Outcome;

/// Everything was opened.
const OPENED: u8 = 0;
/// Something was refused, and the rest opened.
const REFUSED: u8 = 1;
/// Nothing was opened, or not to the end.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let arguments = match Command::of_arguments() {
        Ok(Command::Unseal(arguments)) => arguments,
        Ok(Command::Print(text)) => return print(&text),
        Err(error) => {
            report(&format!("{error}\nTry 'user-logins-unseal --help'."));
            return ExitCode::from(FAILED);
        }
    };
    match unseal::unseal(&arguments, io::stdout().lock()) {
        Ok(outcome) => ExitCode::from(status_of(&outcome)),
        Err(error) => {
            report(&error.to_string());
            ExitCode::from(FAILED)
        }
    }
}

fn status_of(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome {
            refused: 0,
            refused_keys: 0,
            ..
        } => OPENED,
        Outcome {
            opened: 0,
            refused: 1..,
            ..
        } => FAILED,
        _ => REFUSED,
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}

/// A line on standard error. If that is closed, there is nowhere to report it.
fn report(line: &str) {
    let _ = writeln!(io::stderr(), "user-logins-unseal: {line}");
}
