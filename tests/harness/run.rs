//! The directory of this run, and the reaper that clears it away.

use std::ffi::CStr;
use std::fs::{self, Permissions};
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

struct Run {
    directory: PathBuf,
    reaper: Mutex<Child>,
}

static RUN: OnceLock<Run> = OnceLock::new();

/// The directory that holds everything this process starts and writes.
pub fn directory() -> &'static Path {
    &RUN.get_or_init(begin).directory
}

/// A name that is used once in this run and is fit for databases, queues, and directories.
pub fn unique_name(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!(
        "{stem}_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

fn begin() -> Run {
    // A short path: the name of a Unix socket has room for 107 bytes.
    let directory = tempfile::Builder::new()
        .prefix("logins-")
        .permissions(Permissions::from_mode(0o755))
        .tempdir_in(disk())
        .expect("a temporary directory")
        .keep();
    let directory = fs::canonicalize(directory).unwrap();
    let reaper = Command::new("sh")
        .args(["-c", include_str!("reaper.sh"), "reaper"])
        .arg(&directory)
        .stdin(Stdio::piped())
        // Of its own process group, so that Ctrl-C does not reach it.
        .process_group(0)
        .spawn()
        .expect("sh runs");
    // SAFETY: the function has the right signature, and only uses statics that live until the process ends.
    unsafe { libc::atexit(end) };
    Run {
        directory,
        reaper: Mutex::new(reaper),
    }
}

/// `TMPDIR` where it is set; else memory where there is enough of it, since data directories are many small files.
fn disk() -> PathBuf {
    const ENOUGH_BYTES: u64 = 2 << 30;
    let memory = PathBuf::from("/dev/shm");
    let in_memory = std::env::var_os("TMPDIR").is_none() && free_bytes(c"/dev/shm") >= ENOUGH_BYTES;
    if in_memory {
        memory
    } else {
        std::env::temp_dir()
    }
}

fn free_bytes(path: &CStr) -> u64 {
    let mut seen = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: both pointers are valid for the call; `seen` is read only if it was filled.
    unsafe {
        if libc::statvfs(path.as_ptr(), seen.as_mut_ptr()) != 0 {
            return 0;
        }
        let seen = seen.assume_init();
        seen.f_bavail.saturating_mul(seen.f_frsize)
    }
}

/// Lets the reaper go, and waits for it, so that a run that has ended has left nothing.
extern "C" fn end() {
    if let Some(run) = RUN.get()
        && let Ok(mut reaper) = run.reaper.lock()
    {
        drop(reaper.stdin.take());
        // Nobody is left to tell about a failure here.
        let _ = reaper.wait();
    }
}
