//! Background workers: registering, signals, settings, and ending.

use std::ffi::{CStr, CString, c_char};

use pgrx::pg_sys;

unsafe extern "C-unwind" {
    // pgrx's own names for these are Rust wrappers, which cannot be signal handlers.
    fn die(signal: i32);
    fn SignalHandlerForConfigReload(signal: i32);
    // pgrx's binding for Postgres 18 does not know that it never returns.
    fn proc_exit(code: i32) -> !;
}

/// What a background worker is registered with.
pub struct Registration<'a> {
    /// The process title; `pg_stat_activity.backend_type` is `kind`.
    pub name: &'a str,
    /// Its type.
    pub kind: &'a str,
    /// The `extern "C-unwind"` function of this library that it runs.
    pub function: &'a CStr,
    /// The argument of that function.
    pub argument: i32,
    /// Seconds after which Postgres restarts it when it has died; `None`: never.
    pub restart_seconds: Option<i32>,
}

impl Registration<'_> {
    /// Registers it with the postmaster; only while preloaded libraries are loaded.
    pub fn at_server_start(&self) {
        let mut worker = self.describe();
        // SAFETY: the postmaster copies what it is given.
        unsafe { pg_sys::RegisterBackgroundWorker(&mut worker) };
    }

    /// Starts it now; this process' latch is set when it starts and when it ends. Returns false if all of
    /// `max_worker_processes` are in use.
    pub fn start(&self) -> bool {
        let mut worker = self.describe();
        // SAFETY: reads this process' id; Postgres copies what it is given and may be asked for no handle.
        unsafe {
            worker.bgw_notify_pid = pg_sys::MyProcPid;
            pg_sys::RegisterDynamicBackgroundWorker(&mut worker, std::ptr::null_mut())
        }
    }

    fn describe(&self) -> pg_sys::BackgroundWorker {
        let mut worker = pg_sys::BackgroundWorker {
            bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS
                | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32,
            // Not before: on a standby nothing can be inserted.
            bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
            bgw_restart_time: self.restart_seconds.unwrap_or(pg_sys::BGW_NEVER_RESTART),
            bgw_main_arg: pg_sys::Datum::from(self.argument),
            ..Default::default()
        };
        put(&mut worker.bgw_name, self.name.as_bytes());
        put(&mut worker.bgw_type, self.kind.as_bytes());
        put(&mut worker.bgw_library_name, b"user_logins_sqs");
        put(&mut worker.bgw_function_name, self.function.to_bytes());
        worker
    }
}

/// Puts as much of `text` into a zeroed field as fits with its nul.
fn put<const N: usize>(field: &mut [c_char; N], text: &[u8]) {
    for (to, from) in field[..N - 1].iter_mut().zip(text) {
        *to = *from as c_char;
    }
}

/// Handles SIGTERM and SIGHUP as a backend does: both take effect where interrupts are checked.
pub fn take_signals() {
    // SAFETY: both handlers are Postgres' own and only set flags and the latch.
    unsafe {
        set_handler(pg_sys::SIGTERM as i32, die);
        set_handler(pg_sys::SIGHUP as i32, SignalHandlerForConfigReload);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// # Safety
/// `handler` may call only what is safe in a signal handler.
pub(super) unsafe fn set_handler(signal: i32, handler: unsafe extern "C-unwind" fn(i32)) {
    #[cfg(not(feature = "pg18"))]
    use pg_sys::pqsignal;
    #[cfg(feature = "pg18")]
    use pg_sys::pqsignal_be as pqsignal;
    // SAFETY: the caller's promise.
    unsafe { pqsignal(signal, Some(handler)) };
}

/// Connects this worker to the database of that name, as the bootstrap superuser.
pub fn connect(database: &str) {
    let database = CString::new(database).unwrap_or_default();
    // SAFETY: a worker connects once, before anything else; a failure ends the process.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(database.as_ptr(), std::ptr::null(), 0) };
}

/// Connects this worker to no database: it sees the catalogs that all databases share.
pub fn connect_to_none() {
    // SAFETY: as in `connect`.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0);
    }
}

/// The id of this process.
pub fn process_id() -> i32 {
    std::process::id().cast_signed()
}

/// Sends SIGTERM to a process of this server.
pub fn terminate(pid: i32) {
    // 0 and negative numbers stand for groups of processes.
    if pid > 0 {
        // SAFETY: no memory is involved.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Ends this worker; Postgres restarts it after `restart_seconds`.
pub fn restart() -> ! {
    // SAFETY: outside of a transaction, at the top of the process.
    unsafe { proc_exit(1) }
}

/// Connects this worker to a database as a role.
pub fn connect_as(database: pg_sys::Oid, role: pg_sys::Oid) {
    // SAFETY: as in `connect`.
    unsafe { pg_sys::BackgroundWorkerInitializeConnectionByOid(database, role, 0) };
}

/// Whether SIGHUP was received and the configuration files have not been reread yet.
pub fn is_reload_asked() -> bool {
    // SAFETY: a `sig_atomic_t` that only this thread and its signal handler write: it is never half written.
    unsafe { pg_sys::ConfigReloadPending != 0 }
}

/// Rereads the configuration files if SIGHUP was received; returns whether it was.
pub fn reload_if_asked() -> bool {
    if !is_reload_asked() {
        return false;
    }
    // SAFETY: the flag belongs to the main thread and its signal handler; the files are read as in every backend.
    unsafe {
        pg_sys::ConfigReloadPending = 0;
        pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
    }
    true
}

/// Shows `activity` in `pg_stat_activity.query`, or that the process is idle.
pub fn show_activity(activity: Option<&CStr>) {
    let (state, text) = match activity {
        Some(text) => (pg_sys::BackendState::STATE_RUNNING, text.as_ptr()),
        // An empty text; without one the last activity would stay.
        None => (pg_sys::BackendState::STATE_IDLE, c"".as_ptr()),
    };
    // SAFETY: Postgres copies the text.
    unsafe { pg_sys::pgstat_report_activity(state, text) };
}

/// Hands the counters of the tables written to since the last time to Postgres' statistics, once a second at most: what
/// comes sooner waits for the next time.
pub fn report_statistics() {
    // SAFETY: outside of a transaction, as it demands.
    unsafe { pg_sys::pgstat_report_stat(false) };
}

/// Reports them at once, for a process that may not report again soon: autovacuum relies on these counters.
pub fn report_statistics_now() {
    // SAFETY: as in `report_statistics`.
    unsafe { pg_sys::pgstat_report_stat(true) };
}

/// Sets `application_name` for this process.
pub fn set_application_name(name: &str) {
    let name = CString::new(name).unwrap_or_default();
    set(c"application_name", &name, pg_sys::GucSource::PGC_S_SESSION);
}

/// The settings that end sessions, transactions or statements which take long, in any version of Postgres.
const TIMEOUTS: [&CStr; 5] = [
    c"statement_timeout",
    c"lock_timeout",
    c"idle_in_transaction_session_timeout",
    c"idle_session_timeout",
    c"transaction_timeout",
];

/// Disables every time-out that could end this process or its statements, whatever is configured for sessions, as
/// autovacuum does.
pub fn disable_timeouts() {
    for name in TIMEOUTS {
        if exists(name) {
            set(name, c"0", pg_sys::GucSource::PGC_S_OVERRIDE);
        }
    }
}

/// Limits how long this process waits for a lock.
pub fn set_lock_timeout(milliseconds: u32) {
    let value = CString::new(milliseconds.to_string()).unwrap_or_default();
    set(c"lock_timeout", &value, pg_sys::GucSource::PGC_S_OVERRIDE);
}

fn exists(setting: &CStr) -> bool {
    // SAFETY: a look-up by a nul-terminated name, which gives null where there is none.
    unsafe { !pg_sys::GetConfigOption(setting.as_ptr(), true, false).is_null() }
}

fn set(setting: &CStr, value: &CStr, source: pg_sys::GucSource::Type) {
    // SAFETY: nul-terminated strings, which Postgres copies; a value that it does not take is an error of its own.
    unsafe {
        pg_sys::SetConfigOption(
            setting.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            source,
        );
    }
}

/// Whether the library is being loaded by the postmaster, which alone can be asked for shared memory and workers.
pub fn is_being_preloaded() -> bool {
    // SAFETY: only this process' main thread, which runs this, writes the flag.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Whether pg_upgrade started this server.
pub fn is_binary_upgrade() -> bool {
    // SAFETY: `IsBinaryUpgrade` is set before libraries are loaded and never written again.
    unsafe { pg_sys::IsBinaryUpgrade }
}
