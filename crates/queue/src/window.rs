//! How many calls of a kind to have in flight: more, as long as more calls bring more.
//!
//! Nobody knows beforehand what a queue and a machine give. At AWS a call takes milliseconds whatever else is under
//! way, and a hundred calls bring a hundred times as much as one; an emulator on the same machine does one thing at a
//! time, and more calls only wait for each other. So the window doubles for as long as that brings more, round by
//! round, and looks again now and then whether it would. It does not while this thread is busy all the time: calls of
//! one kind then take time from those of another, so that each seems to gain by having more of them. Where calls bring
//! little each, it looks whether half as many bring as much: after a burst, a trickle of messages would keep as many
//! calls waiting.

use std::time::{Duration, Instant};

use crate::cpu;
use crate::entries::MOST_ENTRIES;

/// How much more twice as many calls must bring to be worth it. They would bring twice as much, if the first round
/// did not begin with the answers to the calls before.
const WORTH_IT: f64 = 1.3;

/// Rounds that are shorter do not tell how busy the thread is.
const SHORTEST_MEASURED: Duration = Duration::from_millis(2);

/// The share of the time that a thread which has no time left is on the processor: the rest is for the other end, and
/// for other processes.
const BUSY: f64 = 0.7;

/// Half as many calls bring half as much, if each brings what it can, and as much, if they wait for messages: which of
/// the two is told by this.
const STILL_ENOUGH: f64 = 0.75;

/// How soon to look again whether a thread that had no time left has some: new connections keep it busy for a moment.
const RETRY_GROWTH_WHEN_BUSY_AFTER: Duration = Duration::from_millis(50);
/// How soon to look again whether more calls bring more, and how soon after being told to slow down.
const RETRY_GROWTH_AFTER: Duration = Duration::from_millis(250);
const LOOK_AGAIN_AFTER_THROTTLING: Duration = Duration::from_secs(5);
/// How soon to look again whether half as many are enough.
const LOOK_AGAIN_AFTER_SHRINKING: Duration = Duration::from_secs(5);

/// The number of calls that may be in flight.
#[derive(Debug)]
pub(crate) struct Window {
    first: usize,
    most: usize,
    size: usize,
    phase: Phase,
    round: Round,
    /// When it was last halved because of throttling.
    halved: Option<Instant>,
    /// Half as many turned out to be too few, which is not tried again before.
    no_fewer_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// It has just doubled; before, this many messages arrived a second.
    Growing { rate_before: f64 },
    /// It has just been halved, as calls brought little each; before, this many messages arrived a second.
    Shrinking { rate_before: f64 },
    /// More calls did not bring more, or are not wanted, until then.
    Settled { look_again: Instant },
}

/// One answer for each call in the window.
#[derive(Clone, Copy, Debug)]
struct Round {
    began: Option<Instant>,
    /// The processor time of the thread at that time.
    cpu_before: Duration,
    calls: usize,
    /// Calls that brought all they could.
    full: usize,
    messages: usize,
}

impl Round {
    const NEW: Round = Round {
        began: None,
        cpu_before: Duration::ZERO,
        calls: 0,
        full: 0,
        messages: 0,
    };

    fn is_sparse(&self) -> bool {
        self.full == 0 && self.messages < self.calls * MOST_ENTRIES / 2
    }
}

impl Window {
    /// A window of `first` calls that grows up to `most`.
    pub(crate) fn new(first: usize, most: usize) -> Window {
        let most = most.max(1);
        Window {
            first: first.clamp(1, most),
            most,
            size: first.clamp(1, most),
            phase: Phase::Growing { rate_before: 0.0 },
            round: Round::NEW,
            halved: None,
            no_fewer_until: None,
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// A call has ended that was sent at `sent`, while there is work for all that the window allows, and dealt with so
    /// many messages, which may be all that it could.
    pub(crate) fn answered(&mut self, messages: usize, is_full: bool, sent: Instant, now: Instant) {
        let began = *self.round.began.get_or_insert_with(|| {
            self.round.cpu_before = cpu::thread_time();
            sent
        });
        self.round.calls += 1;
        self.round.full += usize::from(is_full);
        self.round.messages += messages;
        let lasted = now.saturating_duration_since(began);
        if self.round.calls < self.size {
            return;
        }
        let rate = self.round.messages as f64 / lasted.as_secs_f64().max(1e-6);
        let cpu_time = cpu::thread_time();
        let on_cpu = cpu_time.saturating_sub(self.round.cpu_before);
        let is_busy =
            lasted >= SHORTEST_MEASURED && on_cpu.as_secs_f64() > lasted.as_secs_f64() * BUSY;
        self.end_round(rate, is_busy, now);
        self.round = Round {
            began: Some(now),
            cpu_before: cpu_time,
            ..Round::NEW
        };
    }

    fn end_round(&mut self, rate: f64, is_busy: bool, now: Instant) {
        match self.phase {
            Phase::Growing { rate_before } if rate < rate_before * WORTH_IT => {
                self.size = (self.size / 2).max(1);
                self.settle(now + RETRY_GROWTH_AFTER);
            }
            Phase::Shrinking { rate_before } if rate < rate_before * STILL_ENOUGH => {
                // Each call brings what it can, so even more may be better.
                self.size = (self.size * 2).min(self.most);
                self.phase = Phase::Growing { rate_before: 0.0 };
                self.no_fewer_until = Some(now + LOOK_AGAIN_AFTER_SHRINKING);
            }
            Phase::Shrinking { .. } => self.settle(now),
            Phase::Settled { look_again } if now < look_again => {}
            Phase::Settled { .. } if self.may_shrink(now) => {
                self.size /= 2;
                self.phase = Phase::Shrinking { rate_before: rate };
            }
            _ if is_busy => self.settle(now + RETRY_GROWTH_WHEN_BUSY_AFTER),
            _ if self.size == self.most => self.settle(now + RETRY_GROWTH_AFTER),
            _ => {
                self.size = (self.size * 2).min(self.most);
                self.phase = Phase::Growing { rate_before: rate };
            }
        }
    }

    fn may_shrink(&self, now: Instant) -> bool {
        self.size > 1
            && self.round.is_sparse()
            && self.no_fewer_until.is_none_or(|until| now >= until)
    }

    fn settle(&mut self, look_again: Instant) {
        self.phase = Phase::Settled { look_again };
    }

    /// The server asks to slow down, in answer to a call sent at `sent`. Calls that were under way together are mostly
    /// all told so, which counts once; and for a moment those that were sent right afterwards are, too.
    pub(crate) fn throttled(&mut self, sent: Instant, now: Instant) {
        if self
            .halved
            .is_some_and(|halved| sent <= halved + RETRY_GROWTH_AFTER)
        {
            return;
        }
        self.halved = Some(now);
        self.size = (self.size / 2).max(1);
        self.settle(now + LOOK_AGAIN_AFTER_THROTTLING);
        self.round = Round::NEW;
    }

    /// There is nothing left to do: the next work starts over with the first window.
    pub(crate) fn restart(&mut self) {
        *self = Window::new(self.first, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each call after a time that depends on how many are under way, and how often it was called
    /// within a second of simulated time. Returns the size of the window at the end, and the largest.
    fn simulate(window: &mut Window, latency: impl Fn(usize) -> f64) -> (usize, usize) {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut calls: Vec<(f64, f64)> = Vec::new();
        let (mut now, mut largest) = (0.0, 0);
        while now < 1.0 {
            while calls.len() < window.size() {
                let under_way = calls.len() + 1;
                calls.push((now + latency(under_way), now));
            }
            largest = largest.max(window.size());
            let next = (0..calls.len())
                .min_by(|a, b| calls[*a].0.total_cmp(&calls[*b].0))
                .unwrap();
            let (answered, sent) = calls.swap_remove(next);
            now = answered;
            window.answered(10, true, at(sent), at(now));
        }
        (window.size(), largest)
    }

    #[test]
    fn a_window_grows_as_far_as_it_may_where_each_call_takes_its_time() {
        for latency in [0.005, 0.010, 0.020] {
            let mut window = Window::new(1, 100);
            assert_eq!(simulate(&mut window, |_| latency).0, 100, "{latency} s");
        }
    }

    #[test]
    fn a_window_stays_small_where_one_call_waits_for_the_other() {
        let mut window = Window::new(1, 256);
        let (_, largest) = simulate(&mut window, |under_way| 0.007 * under_way as f64);
        assert!(largest <= 8, "{largest}");
    }

    #[test]
    fn a_window_stops_growing_where_the_server_is_busy() {
        // Sixteen at a time, in 10 ms each.
        let busy = |under_way: usize| 0.010 * (under_way as f64 / 16.0).max(1.0);
        let mut window = Window::new(1, 256);
        let (size, largest) = simulate(&mut window, busy);
        assert!(size >= 16 && largest <= 64, "{size}, {largest}");
    }

    /// Answers `calls` calls that bring `messages` each; returns when that is done, if it begins at `start`.
    fn answer(
        window: &mut Window,
        calls: usize,
        messages: usize,
        start: Instant,
        time_of_one: impl Fn(usize) -> f64,
    ) -> Instant {
        let mut now = start;
        for _ in 0..calls {
            let sent = now;
            now += Duration::from_secs_f64(time_of_one(window.size()));
            window.answered(messages, false, sent, now);
        }
        now
    }

    #[test]
    fn a_window_shrinks_when_a_burst_is_over_and_messages_trickle() {
        let mut window = Window::new(1, 128);
        let start = Instant::now();
        assert_eq!(simulate(&mut window, |_| 0.010).0, 128);
        // Fifty messages a second, however many calls wait for them.
        answer(
            &mut window,
            1_500,
            1,
            start + Duration::from_secs(2),
            |_| 0.020,
        );
        assert!(window.size() <= 4, "{}", window.size());
        // A backlog of which each call brings a little.
        let later = start + Duration::from_secs(60);
        answer(&mut window, 20_000, 3, later, |size| 0.020 / size as f64);
        assert!(window.size() >= 64, "{}", window.size());
    }

    #[test]
    fn a_window_does_not_shrink_while_more_calls_bring_more_though_little_each() {
        let mut window = Window::new(1, 128);
        let mut now = Instant::now() + Duration::from_secs(2);
        assert_eq!(simulate(&mut window, |_| 0.010).0, 128);
        let mut sizes = Vec::new();
        for _ in 0..200 {
            now = answer(&mut window, 100, 3, now, |size| 0.020 / size as f64);
            sizes.push(window.size());
        }
        assert!(sizes.iter().all(|size| *size >= 64), "{sizes:?}");
        let small = sizes.iter().filter(|size| **size < 128).count();
        assert!(small <= 10, "{small} of {}", sizes.len());
    }

    #[test]
    fn a_window_does_not_grow_while_its_thread_is_busy() {
        const ROUND: Duration = Duration::from_millis(15);
        let mut window = Window::new(1, 64);
        let mut now = Instant::now();
        for _ in 0..10 {
            let (sent, before) = (now, cpu::thread_time());
            while cpu::thread_time() - before < ROUND {}
            now += ROUND;
            for _ in 0..window.size() {
                window.answered(10, true, sent, now);
            }
        }
        assert!(window.size() <= 2, "{}", window.size());
    }

    #[test]
    fn throttling_halves_a_window_for_a_while() {
        let mut window = Window::new(1, 64);
        simulate(&mut window, |_| 0.010);
        let sent = Instant::now() + Duration::from_secs(2);
        let told = |milliseconds| sent + Duration::from_millis(milliseconds);
        for later in 10..74 {
            window.throttled(sent, told(later));
        }
        assert_eq!(window.size(), 32, "all were under way together");
        window.throttled(told(100), told(101));
        assert_eq!(window.size(), 32, "sent right afterwards");
        window.throttled(told(300), told(301));
        assert_eq!(window.size(), 16);
        window.restart();
        assert_eq!(window.size(), 1);
    }
}
