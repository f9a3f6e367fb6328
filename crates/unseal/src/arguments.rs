//! The command line.

use std::path::PathBuf;

use lexopt::Arg::{Long, Short, Value};
use lexopt::{Error, Parser};

const HELP: &str = r#"Opens values that the Postgres extension user_logins_sqs has sealed. It needs the
private key, so run it where that is, never on the database server.

Usage: user-logins-unseal --identity FILE --keys FILE [INPUT]

  INPUT                What to open: rows of the table sqs_vault, with the columns
                       mask, key_id, sealed. Standard input when left out, or -

  -i, --identity FILE  The private key: an age identity file, as age-keygen makes it.
                       If it is protected with a passphrase, you are asked for it.
                       Can be given several times.
  -k, --keys FILE      The wrapped keys: rows of the table sqs_vault_key, with the
                       columns key_id, wrapped. Can be given several times.
  -h, --help           Show this text.
  -V, --version        Show the version.

Tables are read as psql's \copy writes them, as CSV or as text. Under a header line
columns may be in any order, with others between them; without one, there must be
these columns and no others, in this order.

Each line of the output is a mask and its original, as CSV, under the header
mask,original. What cannot be opened is named on standard error, with the reason,
and the rest is opened.

Exit status: 0 if everything was opened, 1 if something was refused, 2 if nothing
could be opened, or not to the end.

Example. Export, from any machine that may read the tables:

  psql -c "\copy (SELECT mask, key_id, sealed FROM sqs_vault) TO vault.csv CSV HEADER"
  psql -c "\copy (SELECT key_id, wrapped FROM sqs_vault_key) TO keys.csv CSV HEADER"

Open, where the private key is:

  user-logins-unseal --identity key.txt --keys keys.csv vault.csv >originals.csv
"#;

/// What the command line asks for.
pub enum Command {
    /// To open entries.
    Unseal(Arguments),
    /// To print a text.
    Print(String),
}

/// What to open, and what with.
pub struct Arguments {
    /// Files with private keys; at least one.
    pub identities: Vec<PathBuf>,
    /// Files with wrapped keys; at least one.
    pub keys: Vec<PathBuf>,
    /// The file with entries; `None` is standard input.
    pub input: Option<PathBuf>,
}

impl Command {
    /// Reads the arguments that the program was started with.
    pub fn of_arguments() -> Result<Command, Error> {
        parse(Parser::from_env())
    }
}

fn parse(mut parser: Parser) -> Result<Command, Error> {
    let mut identities = Vec::new();
    let mut keys = Vec::new();
    let mut input = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('i') | Long("identity") => identities.push(parser.value()?.into()),
            Short('k') | Long("keys") => keys.push(parser.value()?.into()),
            Short('h') | Long("help") => return Ok(Command::Print(HELP.to_string())),
            Short('V') | Long("version") => {
                return Ok(Command::Print(
                    concat!("user-logins-unseal ", env!("CARGO_PKG_VERSION"), "\n").to_string(),
                ));
            }
            Value(value) if input.is_none() => input = Some(value),
            _ => return Err(argument.unexpected()),
        }
    }
    if identities.is_empty() {
        return Err("missing option --identity".into());
    }
    if keys.is_empty() {
        return Err("missing option --keys".into());
    }
    let input = input.filter(|input| input != "-").map(PathBuf::from);
    Ok(Command::Unseal(Arguments {
        identities,
        keys,
        input,
    }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn unseal(arguments: &[&str]) -> Arguments {
        match parse(Parser::from_args(arguments)) {
            Ok(Command::Unseal(arguments)) => arguments,
            _ => unreachable!("{arguments:?} ask for something else"),
        }
    }

    fn error(arguments: &[&str]) -> String {
        parse(Parser::from_args(arguments))
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn options_may_be_repeated_and_the_input_left_out() {
        let arguments = unseal(&["-i", "one", "--identity=two", "-k", "keys"]);
        assert_eq!(arguments.identities, [Path::new("one"), Path::new("two")]);
        assert_eq!(arguments.keys, [Path::new("keys")]);
        assert_eq!(arguments.input, None);
        assert_eq!(unseal(&["-i", "one", "-k", "keys", "-"]).input, None);
        assert_eq!(
            unseal(&["vault.csv", "-i", "one", "-k", "keys"])
                .input
                .as_deref(),
            Some(Path::new("vault.csv"))
        );
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        assert!(error(&["-k", "keys"]).contains("--identity"));
        assert!(error(&["-i", "one"]).contains("--keys"));
        assert!(error(&["-i", "one", "-k", "keys", "a", "b"]).contains('b'));
        assert!(error(&["--key", "keys"]).contains("--key"));
    }
}
