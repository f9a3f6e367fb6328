//! That sealing wipes memory before it frees it, wherever a data key or an original was in it.

#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Read;
use std::slice;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};

use age::x25519;
use vault::{Kind, Mask, Recipients, Sealer};

const MASK: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const ORIGINAL: &str = "199.172.111.135";

#[test]
fn sealing_frees_no_memory_that_holds_a_data_key_or_an_original() {
    let identity = x25519::Identity::generate();
    let recipients = Recipients::parse(identity.to_public().to_string().as_bytes()).unwrap();
    let mask: Mask = MASK.parse().unwrap();

    FREED.keep(true);
    let mut sealer = Sealer::new(recipients);
    let sealed = sealer.seal(Kind::Ip, mask, ORIGINAL).unwrap();
    drop(sealer);
    FREED.keep(false);

    let data_key = content(sealed.key().wrapped(), &identity);
    assert!(FREED.count() > 10, "nothing was freed");
    assert!(!FREED.hold(&data_key), "a data key was freed as it was");
    assert!(
        !FREED.hold(ORIGINAL.as_bytes()),
        "an original was freed as it was"
    );

    // What would be found, is found.
    FREED.keep(true);
    drop(data_key.clone());
    FREED.keep(false);
    assert!(FREED.hold(&data_key));
}

fn content(age_file: &[u8], identity: &x25519::Identity) -> Vec<u8> {
    let identities = [identity as &dyn age::Identity];
    let mut content = Vec::new();
    age::Decryptor::new(age_file)
        .unwrap()
        .decrypt(identities.into_iter())
        .unwrap()
        .read_to_end(&mut content)
        .unwrap();
    content
}

#[global_allocator]
static FREED: Freed = Freed {
    keeps: AtomicBool::new(false),
    count: AtomicUsize::new(0),
    blocks: [const { (AtomicPtr::new(std::ptr::null_mut()), AtomicUsize::new(0)) }; MOST_BLOCKS],
};

const MOST_BLOCKS: usize = 10_000;

/// The system's allocator, which can keep what it is asked to free, as it is.
struct Freed {
    keeps: AtomicBool,
    count: AtomicUsize,
    blocks: [(AtomicPtr<u8>, AtomicUsize); MOST_BLOCKS],
}

impl Freed {
    fn keep(&self, keeps: bool) {
        self.keeps.store(keeps, Relaxed);
    }

    fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    fn hold(&self, bytes: &[u8]) -> bool {
        assert!(
            self.count() <= MOST_BLOCKS,
            "more was freed than there is room for"
        );
        self.blocks[..self.count()].iter().any(|(start, length)| {
            let (start, length) = (start.load(Relaxed), length.load(Relaxed));
            // SAFETY: `dealloc` put it there: a block of that length, which nobody owns any more and which is never
            // freed..
            let block = unsafe { slice::from_raw_parts(start, length) };
            block.windows(bytes.len()).any(|window| window == bytes)
        })
    }
}

// SAFETY: everything is passed on to the system's allocator, except that some blocks are never freed. Zeroed memory and
// reallocation are the trait's own, made of these two.
unsafe impl GlobalAlloc for Freed {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Zeroed, so that each byte of a block may be read.
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.keeps.load(Relaxed) {
            let index = self.count.fetch_add(1, Relaxed);
            if let Some((start, length)) = self.blocks.get(index) {
                start.store(block, Relaxed);
                length.store(layout.size(), Relaxed);
            }
        } else {
            // SAFETY: the caller's promise is the one that is asked for.
            unsafe { System.dealloc(block, layout) }
        }
    }
}
