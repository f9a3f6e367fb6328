//! Synchronous replication: whether a commit waits for a standby, and whether it waited long enough.

use std::ffi::CStr;

use pgrx::{Spi, pg_sys};

/// How far a standby must have come before a commit is confirmed: the order of Postgres' `SYNC_REP_WAIT_*`.
fn wait_mode() -> Option<usize> {
    use pg_sys::SyncCommitLevel::*;
    // SAFETY: reads of settings of this process.
    let (level, senders, names) = unsafe {
        (
            pg_sys::synchronous_commit as u32,
            pg_sys::max_wal_senders,
            pg_sys::SyncRepStandbyNames,
        )
    };
    // SAFETY: a setting of type string is null or nul-terminated.
    let has_standbys = !names.is_null() && !unsafe { CStr::from_ptr(names) }.is_empty();
    if senders == 0 || !has_standbys {
        return None;
    }
    match level {
        SYNCHRONOUS_COMMIT_REMOTE_WRITE => Some(0),
        SYNCHRONOUS_COMMIT_REMOTE_FLUSH => Some(1),
        SYNCHRONOUS_COMMIT_REMOTE_APPLY => Some(2),
        _ => None,
    }
}

/// Whether commits of this session wait for a synchronous standby.
pub fn is_synchronous() -> bool {
    wait_mode().is_some()
}

/// Right after a commit, in its callback: whether the standby that it was to wait for has confirmed it. The wait is cut
/// short by a cancel, by a termination, and by the death of the postmaster.
pub fn is_commit_confirmed() -> bool {
    let Some(mode) = wait_mode() else {
        return true;
    };
    // SAFETY: shared memory that every backend has mapped. A position is eight aligned bytes that only grow, so a read
    // without the lock may be a moment old, and then says "not yet".
    unsafe {
        let Some(control) = pg_sys::WalSndCtl.as_ref() else {
            return false;
        };
        let confirmed = (&raw const control.lsn[mode]).read_volatile();
        confirmed >= pg_sys::XactLastCommitEnd
    }
}

/// Has the current transaction write WAL, so that its commit waits for the standby even if it changes nothing: what it
/// has read was committed by others before, and is confirmed when it is.
pub fn write_a_record() {
    let written =
        Spi::run("SELECT pg_catalog.pg_logical_emit_message(true, 'user_logins_sqs', '')");
    if let Err(error) = written {
        pgrx::error!("{error}");
    }
}
