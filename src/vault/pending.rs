//! Entries of the current transaction, by subtransaction: a rollback discards those of the subtransaction, and
//! the rest is written when the transaction commits.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map;

use pgrx::PgLogLevel;
use pgrx::pg_sys::panic::ErrorReport;
use vault::{Entry, Mask};

use super::dictionary::Dictionary;
use super::{Day, known};
use crate::errors::Failure;
use crate::pg::subtransaction::ByLevel;
use crate::pg::transaction::{self, Listener, with_snapshot};

/// Entries that share a fate, each value once.
#[derive(Default)]
struct Entries {
    all: Vec<(Entry, Days)>,
    places: HashMap<Mask, usize>,
}

/// The days on which there were logins with a value.
#[derive(Clone, Copy)]
pub struct Days {
    /// The first one.
    pub first: Day,
    /// The last one.
    pub last: Day,
}

impl Days {
    fn extend(&mut self, other: Days) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

/// A row to write to the vault.
pub struct Row<'e> {
    /// The mask of the value, which is the entry's, where it is quickly found.
    pub mask: Mask,
    /// When the value was seen in this transaction.
    pub days: Days,
    /// What is sealed.
    pub entry: &'e Entry,
}

/// What a transaction that is about to commit has written.
struct WrittenMasks {
    state: u64,
    masks: Vec<(Mask, Day)>,
}

static LISTENER: Listener = Listener {
    committing,
    committed,
    aborted,
    subtransaction_committed,
    subtransaction_aborted,
    ..Listener::NOOP
};

thread_local! {
    static PENDING: RefCell<ByLevel<Entries>> = const { RefCell::new(ByLevel::new()) };
    static WRITTEN: Cell<Option<WrittenMasks>> = const { Cell::new(None) };
}

/// Writes these entries to the vault, each with the day of its login, once the current (sub)transaction and all above
/// it commit.
pub fn write_at_commit<'a>(entries: impl Iterator<Item = (&'a Entry, Day)>) {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return;
    }
    transaction::listen(&LISTENER);
    PENDING.with_borrow_mut(|pending| {
        if pending.last_of_current_level().is_none() {
            pending.push(Entries::default());
        }
        if let Some(level) = pending.last_of_current_level() {
            for (entry, day) in entries {
                level.add(entry, day);
            }
        }
    });
}

impl Entries {
    fn add(&mut self, entry: &Entry, day: Day) {
        let days = Days {
            first: day,
            last: day,
        };
        match self.places.entry(entry.mask()) {
            hash_map::Entry::Occupied(place) => self.all[*place.get()].1.extend(days),
            hash_map::Entry::Vacant(place) => {
                place.insert(self.all.len());
                self.all.push((entry.clone(), days));
            }
        }
    }
}

/// Raises an error if the entries cannot be written, so that there are no rows without them.
fn committing() {
    let levels = PENDING.take().take();
    if levels.is_empty() {
        return;
    }
    let mut rows = in_order(&levels);
    let written = with_snapshot(|| {
        let dictionary = Dictionary::prepared()?;
        let state = known::take_out_known(dictionary.oid(), &mut rows);
        dictionary.write(&rows)?;
        Ok::<_, Failure>(state)
    });
    match written {
        Ok(state) => WRITTEN.set(Some(WrittenMasks {
            state,
            masks: rows.iter().map(|row| (row.mask, row.days.last)).collect(),
        })),
        Err(failure) => ErrorReport::from(failure).report(PgLogLevel::ERROR),
    }
}

/// The entries of all levels in the order of their masks, each mask once.
fn in_order(levels: &[Entries]) -> Vec<Row<'_>> {
    let entries = levels.iter().flat_map(|level| &level.all);
    let mut rows: Vec<Row<'_>> = entries
        .map(|(entry, days)| Row {
            mask: entry.mask(),
            days: *days,
            entry,
        })
        .collect();
    rows.sort_unstable_by_key(|row| row.mask);
    rows.dedup_by(|again, first| {
        let is_same = again.mask == first.mask;
        if is_same {
            first.days.extend(again.days);
        }
        is_same
    });
    rows
}

fn committed() {
    if let Some(WrittenMasks { state, masks }) = WRITTEN.take() {
        known::committed(state, masks.into_iter());
    }
}

fn aborted() {
    drop(PENDING.take());
    WRITTEN.set(None);
}

fn subtransaction_committed(level: i32) {
    PENDING.with_borrow_mut(|pending| pending.committed(level));
}

fn subtransaction_aborted(level: i32) {
    PENDING.with_borrow_mut(|pending| drop(pending.aborted(level)));
}
