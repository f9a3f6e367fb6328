//! Nonces from the operating system's randomness.

use crate::cipher::NONCE;

/// Nonces to a system call, which takes longer than to seal a value.
const AT_ONCE: usize = 128;

/// Random nonces, fetched some at a time. Nothing about them is secret.
pub(crate) struct Nonces {
    fetched: Box<[[u8; NONCE]; AT_ONCE]>,
    /// How many of them are left, at the front.
    left: usize,
}

impl Nonces {
    /// A nonce that was never taken before.
    pub(crate) fn take(&mut self) -> Result<[u8; NONCE], getrandom::Error> {
        if self.left == 0 {
            getrandom::fill(self.fetched.as_flattened_mut())?;
            self.left = AT_ONCE;
        }
        self.left -= 1;
        Ok(self.fetched[self.left])
    }
}

impl Default for Nonces {
    fn default() -> Nonces {
        Nonces {
            fetched: Box::new([[0; NONCE]; AT_ONCE]),
            left: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{AT_ONCE, Nonces};

    #[test]
    fn no_nonce_is_taken_twice() {
        let mut nonces = Nonces::default();
        let taken: HashSet<_> = (0..3 * AT_ONCE).map(|_| nonces.take().unwrap()).collect();
        assert_eq!(taken.len(), 3 * AT_ONCE);
        assert!(!taken.contains(&[0; 24]));
    }
}
