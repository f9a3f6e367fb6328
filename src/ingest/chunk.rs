//! A chunk of messages while it is written: which are to become rows, and what became of them.

use std::collections::HashSet;
use std::sync::Arc;

use queue::Receipt;

use super::message::{Message, Row};
use super::rejections::Rejections;

/// A message whose row is about to be tried.
pub struct Candidate<'m> {
    pub message: &'m Message,
    pub row: &'m Row,
    /// Receipts of the same message, which came more than once: they share its fate.
    pub again: Vec<Receipt>,
}

impl Candidate<'_> {
    /// The receipts of all times that it came.
    pub fn receipts(&self) -> impl Iterator<Item = Receipt> {
        std::iter::once(self.message.receipt).chain(self.again.iter().copied())
    }

    /// How many times it came.
    pub fn count(&self) -> usize {
        1 + self.again.len()
    }
}

/// What became of the messages of one chunk.
#[derive(Default)]
pub struct Chunk {
    /// When the messages of the new rows were sent.
    pub inserted: Vec<i64>,
    pub duplicates: usize,
    pub rejections: Rejections,
    pub done: Vec<Receipt>,
    pub rejected_to_delete: Vec<Receipt>,
    pub rejected_to_leave: Vec<Receipt>,
    pub held_back: Vec<Receipt>,
    pub left_to_others: Vec<Receipt>,
    /// Groups that no longer wait: a later message of theirs has become a row.
    pub free_groups: HashSet<Arc<str>>,
    /// Groups of which a message was refused, or left to another session. What comes after it has to wait, what came
    /// before does not.
    pub refused_groups: HashSet<Arc<str>>,
}

impl Chunk {
    /// Takes those out of `part` that are behind a message of their group which was refused.
    pub fn hold_back(&mut self, part: Vec<usize>, candidates: &[Candidate<'_>]) -> Vec<usize> {
        if self.refused_groups.is_empty() {
            return part;
        }
        let (waiting, part): (Vec<usize>, Vec<usize>) = part.into_iter().partition(|&place| {
            let group = &candidates[place].message.group;
            group
                .as_ref()
                .is_some_and(|group| self.refused_groups.contains(group))
        });
        for place in waiting {
            self.held_back.extend(candidates[place].receipts());
        }
        part
    }
}
