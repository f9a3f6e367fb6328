//! A bounded map that forgets what was not used for longest.

use std::collections::HashMap;
use std::mem;

use crate::Mask;

/// What is known of the masks that were put in or asked for last: of at least the last `capacity`, and of at most twice
/// as many.
///
/// Two maps, of which the older one is dropped as a whole: cheaper than an order of use, and as good here.
pub(crate) struct Recent<V> {
    /// The masks last put in or asked for, up to `capacity`.
    young: HashMap<Mask, V>,
    /// What `young` was before it was full. Forgotten when it is full again.
    old: HashMap<Mask, V>,
    capacity: usize,
}

impl<V> Recent<V> {
    pub(crate) fn new(capacity: usize) -> Recent<V> {
        Recent {
            young: HashMap::new(),
            old: HashMap::new(),
            capacity: capacity.max(1),
        }
    }

    /// What is known of `mask`, which counts as used.
    pub(crate) fn get(&mut self, mask: Mask) -> Option<&mut V> {
        if !self.young.contains_key(&mask) {
            let value = self.old.remove(&mask)?;
            self.put(mask, value);
        }
        self.young.get_mut(&mask)
    }

    /// Puts in what is known of `mask`, in place of what was.
    pub(crate) fn put(&mut self, mask: Mask, value: V) {
        if self.young.len() >= self.capacity && !self.young.contains_key(&mask) {
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(mask, value);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
