//! Memory that every process of the server shares, and a lock for what single atomics cannot protect.

use std::ffi::CStr;
use std::mem::size_of;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::{pg_guard, pg_sys};

/// What may lie in shared memory.
///
/// # Safety
/// All bytes zero must be a valid value, and a shared reference must be enough for everything that is done with it,
/// by several processes and threads at once: atomics and arrays of them.
pub unsafe trait Shareable: Sync + 'static {}

/// A `T` in shared memory, all zero whenever the server starts, including a restart after a crash.
pub struct SharedMemory<T> {
    name: &'static CStr,
    content: AtomicPtr<T>,
    lock: AtomicPtr<pg_sys::LWLock>,
}

impl<T: Shareable> SharedMemory<T> {
    /// Memory that has not been allocated yet. Its name must be unique in the server.
    pub const fn new(name: &'static CStr) -> SharedMemory<T> {
        SharedMemory {
            name,
            content: AtomicPtr::new(ptr::null_mut()),
            lock: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Asks the postmaster for it. Only while preloaded libraries are loaded.
    pub fn request(&'static self) {
        hook();
        with_regions(|regions| regions.push(self));
    }

    /// The memory, if the library was preloaded.
    pub fn get(&self) -> Option<&'static T> {
        // SAFETY: null, or what `attach` put there, which stays mapped for as long as the process lives.
        unsafe { self.content.load(Ordering::Relaxed).as_ref() }
    }

    /// Runs `work` under the lock. `work` must not wait or raise an error.
    pub fn locked<R>(&self, work: impl FnOnce(&'static T) -> R) -> Option<R> {
        let content = self.get()?;
        let lock = self.lock.load(Ordering::Relaxed);
        // SAFETY: `attach` set the lock together with the content. Main thread only.
        unsafe { pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE) };
        let result = work(content);
        // SAFETY: acquired above.
        unsafe { pg_sys::LWLockRelease(lock) };
        Some(result)
    }
}

/// A [`SharedMemory`] of any type.
trait Region: Sync {
    /// Within Postgres' `shmem_request_hook`.
    fn reserve(&self);
    /// Within Postgres' `shmem_startup_hook`.
    fn attach(&self);
}

impl<T: Shareable> Region for SharedMemory<T> {
    fn reserve(&self) {
        // SAFETY: this is the hook in which both may be called.
        unsafe {
            pg_sys::RequestAddinShmemSpace(size_of::<T>());
            pg_sys::RequestNamedLWLockTranche(self.name.as_ptr(), 1);
        }
    }

    fn attach(&self) {
        let mut found = false;
        // SAFETY: the size is the one that was reserved; Postgres aligns to a cache line. Only the postmaster gets
        // here, while it has no children that could look at the memory, so that AddinShmemInitLock is not needed.
        unsafe {
            let content =
                pg_sys::ShmemInitStruct(self.name.as_ptr(), size_of::<T>(), &mut found).cast::<T>();
            if !found {
                ptr::write_bytes(content, 0, 1);
            }
            let lock = &raw mut (*pg_sys::GetNamedLWLockTranche(self.name.as_ptr())).lock;
            self.lock.store(lock, Ordering::Relaxed);
            self.content.store(content, Ordering::Relaxed);
        }
    }
}

static REGIONS: Mutex<Vec<&'static dyn Region>> = Mutex::new(Vec::new());
static mut NEXT_REQUEST_HOOK: pg_sys::shmem_request_hook_type = None;
static mut NEXT_STARTUP_HOOK: pg_sys::shmem_startup_hook_type = None;

fn with_regions<R>(work: impl FnOnce(&mut Vec<&'static dyn Region>) -> R) -> R {
    work(
        &mut REGIONS
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()),
    )
}

/// Stands in Postgres' two hooks, once.
fn hook() {
    if with_regions(|regions| !regions.is_empty()) {
        return;
    }
    // SAFETY: the postmaster has one thread, and calls the hooks after it has loaded the libraries.
    unsafe {
        NEXT_REQUEST_HOOK = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(reserve_all);
        NEXT_STARTUP_HOOK = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(attach_all);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn reserve_all() {
    // SAFETY: the hook of a library that was loaded earlier, called as Postgres would.
    unsafe {
        if let Some(next) = NEXT_REQUEST_HOOK {
            pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| next());
        }
    }
    with_regions(|regions| regions.iter().for_each(|region| region.reserve()));
}

#[pg_guard]
unsafe extern "C-unwind" fn attach_all() {
    // SAFETY: as in `reserve_all`.
    unsafe {
        if let Some(next) = NEXT_STARTUP_HOOK {
            pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| next());
        }
    }
    with_regions(|regions| regions.iter().for_each(|region| region.attach()));
}
