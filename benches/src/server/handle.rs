//! A receipt handle: the right to delete one message, as of one receive of it.

use std::io::Write;

/// Makes a handle 332 characters long; Amazon's have between 300 and 420, and a client pays for carrying them.
const FILLER: &str = "wbJnKyrHigUMZj6rYigCgxlaS3SLy0aQAEBzbVv0jKXDlmlpTfxqCGhRZ5nZqTOk7RTqhDk2xAmVYvZQ9Zk4tNOeHqjWbXo2\
    8vLZ1xFvYw3pS6dMcQeRtUiGhJkLzXnBmPoIuYtReWqAsDfGhJkLmNbVcXzQwErTyUiOpLkJhGfDsAzXcVbNmQaWsEdRfTgYhUjIkOlP\
    1q2w3e4r5t6y7u8i9o0pAzSxDcFvGbHnJmKlQwErTyUiOpZxCvBnMaSdFgHjKlPoIuYtReWqLkJhGfDsAmNbVcXz0918273645QpWoEi";
const PREFIX: &str = "AQEB";

/// Which message, received for the how-manieth time, of which filling of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handle {
    /// Counts how often the queue was emptied: a handle from before means nothing any more.
    pub epoch: u32,
    /// The message's place in the backlog.
    pub index: u32,
    /// How often the message had been received when the handle was given out.
    pub receive_count: u32,
}

impl Handle {
    /// Appends the handle's text.
    pub fn write(self, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _ = write!(
            out,
            "{PREFIX}{:08x}{:08x}{:08x}{FILLER}",
            self.epoch, self.index, self.receive_count
        );
    }

    /// The handle that `text` is; nothing if this server never wrote it.
    pub fn parse(text: &str) -> Option<Handle> {
        let digits = text.strip_prefix(PREFIX)?.strip_suffix(FILLER)?;
        if digits.len() != 24 || !digits.is_ascii() {
            return None;
        }
        let number = |from: usize| u32::from_str_radix(&digits[from..from + 8], 16).ok();
        Some(Handle {
            epoch: number(0)?,
            index: number(8)?,
            receive_count: number(16)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let handle = Handle {
            epoch: 3,
            index: 0xDEAD_BEEF,
            receive_count: 12,
        };
        let mut text = Vec::new();
        handle.write(&mut text);
        assert_eq!(
            Handle::parse(std::str::from_utf8(&text).unwrap()),
            Some(handle)
        );
    }

    #[test]
    fn other_texts_are_no_handles() {
        for text in [
            "",
            "AQEB",
            "made-up",
            &format!("{PREFIX}{}{FILLER}", "é".repeat(12)),
        ] {
            assert_eq!(Handle::parse(text), None, "{text}");
        }
    }
}
