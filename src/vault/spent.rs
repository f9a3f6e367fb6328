//! Data keys that have served their time, in processes that are idle.

use std::cell::Cell;
use std::time::Duration;

use vault::Recipients;

use super::OriginalsSealer;
use crate::io_thread;

/// How much longer than its time a data key may be in the memory of an idle process.
const PAUSE: Duration = Duration::from_secs(10 * 60);

thread_local! {
    static IS_WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// A sealer for `recipients`, whose data keys are wiped in time even if nothing comes to be sealed any more.
pub fn sealer(recipients: &Recipients) -> OriginalsSealer {
    let sealer = OriginalsSealer::new(recipients);
    if !IS_WATCHED.get() {
        let watched = OriginalsSealer::new(recipients);
        // Where the thread cannot be started, nothing is received, so nothing is sealed.
        let asked = io_thread::with(|io| io.repeat(PAUSE, move || watched.wipe_if_spent()));
        IS_WATCHED.set(asked.is_ok());
    }
    sealer
}
