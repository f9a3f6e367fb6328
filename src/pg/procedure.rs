//! What a procedure may do that a function may not: end transactions.

use pgrx::pg_sys;

/// Whether the procedure was called where it may commit: directly by CALL, outside of a transaction block.
pub fn may_commit(call: pg_sys::FunctionCallInfo) -> bool {
    // SAFETY: `call` is the call information that Postgres passed; CALL puts a CallContext node there, and the
    // tag is looked at before the node is taken for one.
    unsafe {
        let context = (*call).context;
        !context.is_null()
            && (*context).type_ == pg_sys::NodeTag::T_CallContext
            && !(*context.cast::<pg_sys::CallContext>()).atomic
    }
}

/// A connection to SPI that may end transactions; made once, around everything else that a procedure does.
pub struct NonAtomic(());

impl NonAtomic {
    /// Connects. Only where [`may_commit`] returned true.
    pub fn connect() -> NonAtomic {
        // SAFETY: documented to raise an error rather than return a failure.
        unsafe { pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as i32) };
        NonAtomic(())
    }

    /// Commits what was done so far and begins the next transaction.
    pub fn commit(&self) {
        // SAFETY: connected, non-atomic, and no other SPI connection is open above this one: each of those lives
        // in a closure that has returned.
        unsafe { pg_sys::SPI_commit() };
    }

    /// Disconnects. Not a destructor, since Postgres disconnects by itself after an error.
    pub fn finish(self) {
        // SAFETY: connected.
        unsafe { pg_sys::SPI_finish() };
    }
}
