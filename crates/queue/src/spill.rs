//! Receipt handles on disk: a transaction of a hundred thousand messages holds 40 MB of them, which no compression
//! makes smaller, and needs none before its end. The first of them stay in memory, the rest go to files.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use crate::wire::Handles;

/// Bytes of handles that stay in memory: those of some thousand messages.
const MOST_IN_MEMORY: usize = 1 << 20;

/// A file takes no more once it is so long. It goes when nothing that it holds is needed any more, so it should not
/// be too long; it is an open descriptor, so it should not be too short.
const LONGEST_FILE: u64 = 64 << 20;

/// Opens an empty file, to be read and written, that goes when it is closed.
pub(crate) type OpenFile = Box<dyn FnMut() -> io::Result<File> + Send>;

/// Says where handles are kept. Where files cannot be had or written, that is in memory.
#[derive(Default)]
pub(crate) struct Spill {
    open: Option<OpenFile>,
    in_memory: Rc<Cell<usize>>,
    last_file: Option<Rc<Spilled>>,
}

/// A file of handles.
struct Spilled {
    file: File,
    length: Cell<u64>,
}

/// The handles of a response, as they are kept.
pub(crate) struct Kept(Place);

enum Place {
    Memory {
        handles: Handles,
        in_memory: Rc<Cell<usize>>,
    },
    File {
        file: Rc<Spilled>,
        offset: u64,
        shape: Shape,
    },
}
