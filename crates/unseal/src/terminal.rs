//! A question on the terminal, wherever input and output go, whose answer is not shown.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};

use age::secrecy::SecretString;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Asks, and waits for a line.
pub fn ask(question: &str) -> io::Result<SecretString> {
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    let hidden = Hidden::new(&terminal)?;
    write!(&terminal, "{question}")?;
    let mut answer = String::new();
    BufReader::new(&terminal).read_line(&mut answer)?;
    drop(hidden);
    // The line's end was not shown either.
    writeln!(terminal)?;
    answer.truncate(answer.trim_end_matches(['\n', '\r']).len());
    Ok(SecretString::from(answer))
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl Hidden<'_> {
    /// Also drops what was typed before, and shown.
    fn new(terminal: &File) -> io::Result<Hidden<'_>> {
        let before = tcgetattr(terminal)?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &modes)?;
        Ok(Hidden { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing.
        let _ = tcsetattr(self.terminal, OptionalActions::Drain, &self.before);
    }
}
