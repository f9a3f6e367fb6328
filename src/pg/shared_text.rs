//! Text in shared memory, of a fixed size.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU32};

/// A text of at most `N` bytes. A read that overlaps a write sees a mixture of the old and the new text, nothing else.
pub struct SharedText<const N: usize> {
    length: AtomicU32,
    bytes: [AtomicU8; N],
}

impl<const N: usize> SharedText<N> {
    /// Stores `text`, cut to what fits.
    pub fn set(&self, text: &str) {
        let text = &text[..text.floor_char_boundary(N)];
        for (place, byte) in self.bytes.iter().zip(text.bytes()) {
            place.store(byte, Relaxed);
        }
        self.length.store(text.len() as u32, Relaxed);
    }

    /// The stored text.
    pub fn get(&self) -> String {
        let bytes: Vec<u8> = self.held().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether the stored text is `text`.
    pub fn is(&self, text: &str) -> bool {
        self.held().eq(text.bytes())
    }

    fn held(&self) -> impl Iterator<Item = u8> {
        let length = self.length.load(Relaxed) as usize;
        self.bytes
            .iter()
            .take(length)
            .map(|byte| byte.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<const N: usize>(content: &str) -> SharedText<N> {
        let text = SharedText {
            length: AtomicU32::new(0),
            bytes: [const { AtomicU8::new(0) }; N],
        };
        text.set(content);
        text
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(text::<4>("äöü").get(), "äö");
        assert_eq!(text::<5>("äöü").get(), "äö");
        assert_eq!(text::<6>("äöü").get(), "äöü");
        assert_eq!(text::<0>("x").get(), "");
    }

    #[test]
    fn a_shorter_text_leaves_nothing_of_the_longer_one() {
        let text = text::<8>("longer");
        text.set("ab");
        assert_eq!(text.get(), "ab");
        assert!(text.is("ab"));
        assert!(!text.is("abn"));
        assert!(!text.is("a"));
    }
}
