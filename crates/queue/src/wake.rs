//! The eventfd by which the I/O thread wakes the other side.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Readable from the first [`raise`](Wake::raise) until the next [`acknowledge`](Wake::acknowledge);
/// further raises in between cost no system call.
pub(crate) struct Wake {
    fd: OwnedFd,
    raised: AtomicBool,
}

impl Wake {
    pub(crate) fn new() -> io::Result<Wake> {
        // SAFETY: no memory is passed; the result is checked before use.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Wake {
            // SAFETY: `fd` was just opened and nobody else owns it.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            raised: AtomicBool::new(false),
        })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Makes the eventfd readable. What the reader is to find must have been put there before.
    pub(crate) fn raise(&self) {
        if self.raised.swap(true, Ordering::AcqRel) {
            return;
        }
        let one = 1u64.to_ne_bytes();
        // SAFETY: `one` is eight readable bytes, which is what an eventfd takes. It cannot fail: the
        // counter is far from its maximum, and the descriptor is open as long as `self` lives.
        unsafe { libc::write(self.fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Makes the eventfd unreadable. The reader looks after this, never before.
    ///
    /// The order loses no wake-up: a raise before `raised` is cleared has published its news before the
    /// reader looks, and a raise after that writes again. Cleared first, a raise in between would have
    /// its write read away while `raised` stays set, and every later raise would be silent.
    pub(crate) fn acknowledge(&self) {
        let mut count = [0u8; 8];
        // SAFETY: `count` is eight writable bytes, which is what an eventfd gives. Where nothing is to be
        // read it fails with EAGAIN, which is as good.
        unsafe { libc::read(self.fd(), count.as_mut_ptr().cast(), count.len()) };
        self.raised.swap(false, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::thread;

    fn readable(wake: &Wake, timeout_ms: i32) -> bool {
        let mut poll = libc::pollfd {
            fd: wake.fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd, as said.
        unsafe { libc::poll(&mut poll, 1, timeout_ms) == 1 }
    }

    #[test]
    fn a_descriptor_is_readable_until_it_is_acknowledged() {
        let wake = Wake::new().unwrap();
        assert!(!readable(&wake, 0));
        wake.raise();
        wake.raise();
        assert!(readable(&wake, 0));
        wake.acknowledge();
        assert!(!readable(&wake, 0));
        wake.raise();
        assert!(readable(&wake, 0));
    }

    #[test]
    fn no_wake_up_is_lost() {
        const NEWS: u64 = 300_000;
        let wake = Arc::new(Wake::new().unwrap());
        let told = Arc::new(AtomicU64::new(0));
        let teller = {
            let (wake, told) = (wake.clone(), told.clone());
            thread::spawn(move || {
                for news in 1..=NEWS {
                    told.store(news, Ordering::Release);
                    wake.raise();
                }
            })
        };
        while told.load(Ordering::Acquire) < NEWS {
            assert!(readable(&wake, 5_000), "asleep although there is news");
            wake.acknowledge();
        }
        teller.join().unwrap();
    }
}
