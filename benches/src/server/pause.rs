//! A wait of exactly as long as asked for.
//!
//! tokio's own timer counts whole milliseconds and rounds up, which turns a latency of 10 ms into 11; the kernel's
//! timers count nanoseconds.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// A timer that is made when it is first needed, and used again for each wait.
#[derive(Default)]
pub struct Pause {
    timer: Option<AsyncFd<OwnedFd>>,
}

impl Pause {
    /// Waits `duration`; not at all when it is zero.
    pub async fn pause(&mut self, duration: Duration) -> io::Result<()> {
        if duration.is_zero() {
            return Ok(());
        }
        let timer = match &mut self.timer {
            Some(timer) => timer,
            None => self.timer.insert(new_timer()?),
        };
        timerfd_settime(
            timer.get_ref(),
            TimerfdTimerFlags::empty(),
            &once_after(duration),
        )?;
        let mut guard = timer.readable().await?;
        let mut expirations = [0; 8];
        rustix::io::read(timer.get_ref(), &mut expirations)?;
        guard.clear_ready();
        Ok(())
    }
}

fn new_timer() -> io::Result<AsyncFd<OwnedFd>> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    // SAFETY: an OwnedFd is open as long as it lives, always the same descriptor, and the AsyncFd owns it.
    Ok(unsafe { AsyncFd::register(timer) }?)
}

fn once_after(duration: Duration) -> Itimerspec {
    Itimerspec {
        it_interval: Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: Timespec {
            tv_sec: duration.as_secs().cast_signed(),
            tv_nsec: duration.subsec_nanos().into(),
        },
    }
}
