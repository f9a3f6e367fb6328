//! Temporary files, where the server has its own, for the I/O thread: nothing of Postgres is called.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use tempfile::Builder;

/// In the data directory, which is every server process' current directory. The server makes the folder when it
/// first needs it, and when it starts removes what a crash left there: files whose names begin with `PREFIX`.
const FOLDER: &str = "base/pgsql_tmp";
const PREFIX: &str = "pgsql_tmp";

/// An empty file without a name, which is gone once it is closed.
///
/// # Errors
/// Those of the file system.
pub fn open() -> io::Result<File> {
    match open_in_folder() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make_folder()?;
            open_in_folder()
        }
        outcome => outcome,
    }
}

fn open_in_folder() -> io::Result<File> {
    let named = Builder::new().prefix(PREFIX).tempfile_in(FOLDER)?;
    Ok(named.into_file())
}

/// With the permissions of its parent, which say whether the server's group may read the data directory.
fn make_folder() -> io::Result<()> {
    let parent = Path::new(FOLDER).parent().unwrap_or(Path::new("."));
    let mode = fs::metadata(parent)?.permissions().mode();
    match DirBuilder::new().mode(mode).create(FOLDER) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    }
}
