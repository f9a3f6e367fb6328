//! Replication: whether a commit waits for a standby, and whether it waited long enough; whether this session applies
//! changes that were made elsewhere.

use std::ffi::CStr;

use pgrx::spi::SpiResult;
use pgrx::{Spi, pg_sys};

use super::identity::as_role;
use super::or_raise::OrRaise;
use super::query;

/// Flags of `WalSndCtlData.sync_standbys_status`: the checkpointer has set it, and it found that there are standbys to
/// wait for.
const STATUS_IS_SET: u8 = 1 << 0;
const STANDBYS_ARE_DEFINED: u8 = 1 << 1;

/// Whether the server has standbys to wait for. The shared flag decides, as it does for Postgres itself: this session's
/// `synchronous_standby_names` may be out of date, since it reads the configuration between its statements only.
fn has_standbys() -> bool {
    // SAFETY: shared memory that every backend has mapped; a flag of one byte, read as Postgres reads it, without the
    // lock.
    let status = unsafe {
        if pg_sys::WalSndCtl.is_null() {
            return false;
        }
        (&raw const (*pg_sys::WalSndCtl).sync_standbys_status).read_volatile()
    };
    if status & STATUS_IS_SET != 0 {
        return status & STANDBYS_ARE_DEFINED != 0;
    }
    // SAFETY: a setting of type string is null or nul-terminated.
    unsafe {
        let names = pg_sys::SyncRepStandbyNames;
        !names.is_null() && !CStr::from_ptr(names).is_empty()
    }
}

/// How far a standby must have come before a commit is confirmed: the order of Postgres' `SYNC_REP_WAIT_*`.
fn wait_mode() -> Option<usize> {
    use pg_sys::SyncCommitLevel::*;
    // SAFETY: settings are plain integers, which only the main thread, which runs this, writes.
    let (level, senders) = unsafe { (pg_sys::synchronous_commit as u32, pg_sys::max_wal_senders) };
    if senders == 0 || !has_standbys() {
        return None;
    }
    match level {
        SYNCHRONOUS_COMMIT_REMOTE_WRITE => Some(0),
        SYNCHRONOUS_COMMIT_REMOTE_FLUSH => Some(1),
        SYNCHRONOUS_COMMIT_REMOTE_APPLY => Some(2),
        _ => None,
    }
}

/// Whether this session applies changes that were made elsewhere, as workers of logical replication do:
/// `session_replication_role` is `replica`.
pub fn is_replica() -> bool {
    // SAFETY: as in `wait_mode`.
    unsafe { pg_sys::SessionReplicationRole == pg_sys::SESSION_REPLICATION_ROLE_REPLICA as i32 }
}

/// Whether a subscription of logical replication brings rows of the relation here. Every role may read the catalog.
pub fn is_subscribed(relation: pg_sys::Oid) -> bool {
    let found: SpiResult<Option<bool>> = query::one(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_subscription_rel WHERE srrelid OPERATOR(pg_catalog.=) $1)",
        &[relation.into()],
    );
    found.or_raise() == Some(true)
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
    // SAFETY: shared memory that every backend has mapped, which is there since it says that there are standbys. A
    // position is eight aligned bytes that only grow, so a read without the lock may be a moment old, and then says
    // "not yet".
    unsafe {
        let confirmed = (&raw const (*pg_sys::WalSndCtl).lsn[mode]).read_volatile();
        confirmed >= pg_sys::XactLastCommitEnd
    }
}

/// Makes the current transaction write WAL, so that its commit waits for the standby even if it changes nothing: what
/// it has read was committed by others before, and is confirmed when it is.
pub fn emit_wal_record() {
    // Some servers do not let every role call the function.
    let superuser = pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID);
    as_role(superuser, || {
        Spi::run("SELECT pg_catalog.pg_logical_emit_message(true, 'user_logins_sqs', '')")
    })
    .or_raise();
}
