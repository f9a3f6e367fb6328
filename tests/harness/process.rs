//! Processes and files in the name of the user that Postgres runs as.

use std::ffi::CString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// A user that is not the one who runs the tests.
#[derive(Clone, Copy)]
struct OtherUser {
    uid: u32,
    gid: u32,
}

/// Postgres refuses to run as root, so root's tests run it as `postgres`; everybody else runs it themselves.
fn other_user() -> Option<OtherUser> {
    static FOUND: OnceLock<Option<OtherUser>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: geteuid has no preconditions and cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            return None;
        }
        // SAFETY: the name is a C string; the entry is read at once, inside the OnceLock, before any other look-up.
        let entry = unsafe { libc::getpwnam(c"postgres".as_ptr()).as_ref() };
        let entry = entry.expect("run as root, the tests need a user named postgres");
        Some(OtherUser {
            uid: entry.pw_uid,
            gid: entry.pw_gid,
        })
    })
}

/// Makes `command` run as the user that Postgres runs as.
pub(crate) fn as_postgres(command: &mut Command) -> &mut Command {
    match other_user() {
        Some(user) => command.uid(user.uid).gid(user.gid),
        None => command,
    }
}

/// Makes a directory that belongs to the user that Postgres runs as.
pub(crate) fn make_directory(path: &Path) {
    fs::create_dir(path).unwrap_or_else(|error| panic!("cannot make {path:?}: {error}"));
    give_to_postgres(path);
}

pub(crate) fn give_to_postgres(path: &Path) {
    if let Some(user) = other_user() {
        let name = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: `name` is a C string that lives through the call.
        let done = unsafe { libc::chown(name.as_ptr(), user.uid, user.gid) };
        assert_eq!(done, 0, "cannot give {path:?} to postgres");
    }
}

/// Runs a command to its end and returns what it wrote to its standard output.
///
/// # Panics
/// When it fails; the message shows what it wrote.
pub(crate) fn output_of(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

/// Sends a signal to a process; a process that is already gone is not an error.
pub(crate) fn send_signal(pid: i32, signal: i32) {
    assert!(pid > 1, "not a process of ours: {pid}");
    // SAFETY: kill has no memory preconditions; `pid` names one process, never a group or everybody.
    unsafe { libc::kill(pid, signal) };
}

/// The processes whose working directory is `directory` (a postmaster and its children: the data directory).
pub(crate) fn processes_in(directory: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == directory))
        .collect()
}

pub(crate) fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}
