//! Receipt handles, and where they are kept until they are used.
//!
//! A transaction of a hundred thousand messages holds 40 MB of them, which no compression makes smaller, and needs
//! none before its end. So the first stay in memory, and the rest go to files.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::{Rc, Weak};

use crate::entries::MOST_ENTRIES;

/// Bytes of handles that stay in memory: those of more than a thousand messages.
const MOST_IN_MEMORY: usize = 512 << 10;

/// A file takes no more once it is so long. It goes when nothing that it holds is needed any more, so it should not
/// be too long; it is an open descriptor, so it should not be too short.
const LONGEST_FILE: u64 = 64 << 20;

/// The handles of one response: how many, where each ends, then one after the other, in one allocation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Handles(Box<[u8]>);

impl Handles {
    const END: usize = size_of::<u16>();

    pub(crate) fn len(&self) -> usize {
        self.0.first().copied().map_or(0, usize::from)
    }

    pub(crate) fn get(&self, index: usize) -> Option<&str> {
        if index >= self.len() {
            return None;
        }
        let start = match index {
            0 => 0,
            _ => self.end(index - 1)?,
        };
        let text = self.0.get(1 + self.len() * Handles::END..)?;
        std::str::from_utf8(text.get(start..self.end(index)?)?).ok()
    }

    /// Where the handle `index` ends in the text.
    fn end(&self, index: usize) -> Option<usize> {
        let place = 1 + index * Handles::END;
        let end = self.0.get(place..place + Handles::END)?;
        Some(u16::from_ne_bytes(end.try_into().ok()?).into())
    }
}

/// Handles while a response is read.
#[derive(Default)]
pub(crate) struct HandlesBuilder {
    text: String,
    ends: Vec<u16>,
}

impl HandlesBuilder {
    /// `None` if it is the eleventh, or if together they are longer than 64 KiB (SQS' are under 1 KiB each).
    pub(crate) fn push(&mut self, handle: &str) -> Option<()> {
        if self.ends.is_empty() {
            // They are all of about the same length.
            self.text.reserve((handle.len() + 8) * MOST_ENTRIES);
            self.ends.reserve(MOST_ENTRIES);
        }
        self.text.push_str(handle);
        self.ends.push(u16::try_from(self.text.len()).ok()?);
        (self.ends.len() <= MOST_ENTRIES).then_some(())
    }

    pub(crate) fn build(self) -> Handles {
        let mut bytes = Vec::with_capacity(1 + self.ends.len() * Handles::END + self.text.len());
        bytes.push(self.ends.len() as u8);
        for end in self.ends {
            bytes.extend(end.to_ne_bytes());
        }
        bytes.extend_from_slice(self.text.as_bytes());
        Handles(bytes.into())
    }
}

/// Opens an empty file, to be read and written, that is gone once it is closed.
pub type OpenFile = Box<dyn FnMut() -> io::Result<File> + Send>;

/// Decides where handles are kept: in memory too where no file can be had or written.
#[derive(Default)]
pub(crate) struct Store {
    open_file: Option<OpenFile>,
    in_memory: usize,
    /// The file that is being filled.
    file: Weak<HandleFile>,
}

/// Handles, wherever they are.
pub(crate) enum Kept {
    InMemory(Handles),
    InFile(Place),
}

/// The part of a file that the handles of one response take. The file is closed with the last of these.
pub(crate) struct Place {
    file: Rc<HandleFile>,
    offset: u64,
    length: u32,
}

struct HandleFile {
    file: File,
    length: Cell<u64>,
}

impl Store {
    pub(crate) fn with_files(open_file: OpenFile) -> Store {
        Store {
            open_file: Some(open_file),
            ..Store::default()
        }
    }

    pub(crate) fn keep(&mut self, handles: Handles) -> Kept {
        let length = handles.0.len();
        if self.in_memory + length > MOST_IN_MEMORY
            && let Some(place) = self.write(&handles)
        {
            return Kept::InFile(place);
        }
        self.in_memory += length;
        Kept::InMemory(handles)
    }

    pub(crate) fn forget(&mut self, kept: Kept) {
        if let Kept::InMemory(handles) = kept {
            self.in_memory -= handles.0.len();
        }
    }

    fn write(&mut self, handles: &Handles) -> Option<Place> {
        let file = self.file()?;
        let offset = file.length.get();
        let length = u32::try_from(handles.0.len()).ok()?;
        file.file.write_all_at(&handles.0, offset).ok()?;
        file.length.set(offset + u64::from(length));
        Some(Place {
            file,
            offset,
            length,
        })
    }

    fn file(&mut self) -> Option<Rc<HandleFile>> {
        let current = self.file.upgrade();
        if let Some(file) = current.filter(|file| file.length.get() < LONGEST_FILE) {
            return Some(file);
        }
        let file = Rc::new(HandleFile {
            file: self.open_file.as_mut()?().ok()?,
            length: Cell::new(0),
        });
        self.file = Rc::downgrade(&file);
        Some(file)
    }
}

impl Place {
    /// What was written. If it cannot be read it is lost, as if the process had ended: the messages come back.
    pub(crate) fn read(&self) -> Option<Handles> {
        let mut bytes = vec![0; self.length as usize];
        self.file.file.read_exact_at(&mut bytes, self.offset).ok()?;
        Some(Handles(bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    fn handles(texts: &[&str]) -> Handles {
        let mut builder = HandlesBuilder::default();
        for text in texts {
            builder.push(text).unwrap();
        }
        builder.build()
    }

    /// A store, and how many files it has opened.
    fn store() -> (Store, Arc<AtomicUsize>) {
        let opened = Arc::new(AtomicUsize::new(0));
        let count = opened.clone();
        let open = move || {
            count.fetch_add(1, Relaxed);
            tempfile::tempfile()
        };
        (Store::with_files(Box::new(open)), opened)
    }

    fn fill_memory(store: &mut Store) -> Vec<Kept> {
        let long = "x".repeat(6_000);
        let mut kept = Vec::new();
        loop {
            match store.keep(handles(&[long.as_str(); 10])) {
                Kept::InFile(_) => return kept,
                in_memory => kept.push(in_memory),
            }
        }
    }

    #[test]
    fn handles_are_read_back_one_after_the_other() {
        let handles = handles(&["a", "", "long"]);
        let texts: Vec<_> = (0..4).map(|index| handles.get(index)).collect();
        assert_eq!(texts, [Some("a"), Some(""), Some("long"), None]);
        assert_eq!(HandlesBuilder::default().build().len(), 0);
    }

    #[test]
    fn eleven_or_too_long_handles_are_refused() {
        let mut builder = HandlesBuilder::default();
        assert_eq!((0..11).filter_map(|_| builder.push("h")).count(), 10);
        assert_eq!(HandlesBuilder::default().push(&"x".repeat(65_536)), None);
    }

    #[test]
    fn what_memory_does_not_take_is_read_back_from_a_file() {
        let (mut store, opened) = store();
        let first = fill_memory(&mut store);
        assert!(!first.is_empty());
        let mut places = Vec::new();
        for number in 0..100 {
            let text = format!("handle {number}");
            match store.keep(handles(&[text.as_str(), &"x".repeat(60_000)])) {
                Kept::InFile(place) => places.push((text, place)),
                Kept::InMemory(_) => panic!("{number} is in memory"),
            }
        }
        for (text, place) in &places {
            assert_eq!(place.read().unwrap().get(0), Some(text.as_str()));
        }
        assert_eq!(opened.load(Relaxed), 2, "one was given back");
        for kept in first {
            store.forget(kept);
        }
        assert!(matches!(store.keep(handles(&["h"])), Kept::InMemory(_)));
    }

    #[test]
    fn a_file_goes_with_the_last_that_it_holds_and_is_followed_once_it_is_long() {
        let (mut store, opened) = store();
        let _in_memory = fill_memory(&mut store);
        let long = "x".repeat(6_000);
        let mut places: Vec<Kept> = Vec::new();
        let before = opened.load(Relaxed);
        while opened.load(Relaxed) < before + 2 {
            places.push(store.keep(handles(&[long.as_str(); 10])));
        }
        let followed_by = places.pop();
        assert!(places.len() as u64 * 60_000 >= LONGEST_FILE);
        let file = match &places[0] {
            Kept::InFile(place) => Rc::downgrade(&place.file),
            Kept::InMemory(_) => panic!("memory was full"),
        };
        for kept in places {
            assert!(file.upgrade().is_some());
            store.forget(kept);
        }
        assert!(file.upgrade().is_none());
        assert!(matches!(followed_by, Some(Kept::InFile(_))));
    }

    #[test]
    fn without_files_all_of_it_is_in_memory() {
        let long = "x".repeat(6_000);
        let disk_full = || -> io::Result<File> { Err(io::Error::from(io::ErrorKind::StorageFull)) };
        for mut store in [Store::default(), Store::with_files(Box::new(disk_full))] {
            for _ in 0..50 {
                assert!(matches!(
                    store.keep(handles(&[long.as_str(); 10])),
                    Kept::InMemory(_)
                ));
            }
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_not_used() {
        let read_only = || File::open("/dev/null");
        let mut store = Store::with_files(Box::new(read_only));
        let long = "x".repeat(6_000);
        for _ in 0..50 {
            assert!(matches!(
                store.keep(handles(&[long.as_str(); 10])),
                Kept::InMemory(_)
            ));
        }
    }
}
