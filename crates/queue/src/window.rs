//! How many calls of a kind to have in flight: more, as long as more calls bring more.
//!
//! Nobody knows beforehand what a queue and a machine give. At AWS a call takes milliseconds whatever else is under
//! way, and a hundred calls bring a hundred times as much as one; an emulator on the same machine does one thing at a
//! time, and more calls only wait for each other. So the window doubles for as long as that brings more, round by
//! round, and looks again now and then whether it would.

use std::time::{Duration, Instant};

/// How much more twice as many calls must bring to be worth it. They would bring twice as much, if the first round
/// did not begin with the answers to the calls before.
const WORTH_IT: f64 = 1.1;

/// How soon to look again whether more calls bring more, and how soon after being told to slow down.
const RETRY_GROWTH_AFTER: Duration = Duration::from_millis(250);
const LOOK_AGAIN_AFTER_THROTTLING: Duration = Duration::from_secs(5);

/// The number of calls that may be in flight.
#[derive(Debug)]
pub(crate) struct Window {
    first: usize,
    most: usize,
    size: usize,
    phase: Phase,
    round: Round,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// It has just doubled; before, this many messages arrived a second.
    Growing { rate_before: f64 },
    /// More calls did not bring more, or are not wanted, until then.
    Settled { look_again: Instant },
}

/// One answer for each call in the window.
#[derive(Clone, Copy, Debug)]
struct Round {
    began: Option<Instant>,
    calls: usize,
    messages: usize,
}

impl Round {
    const NEW: Round = Round {
        began: None,
        calls: 0,
        messages: 0,
    };
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
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// A call has ended that was sent at `sent`, while there is work for all that the window allows, and dealt with so
    /// many messages.
    pub(crate) fn answered(&mut self, messages: usize, sent: Instant, now: Instant) {
        let began = *self.round.began.get_or_insert(sent);
        self.round.calls += 1;
        self.round.messages += messages;
        if self.round.calls < self.size {
            return;
        }
        let seconds = now.saturating_duration_since(began).as_secs_f64();
        let rate = self.round.messages as f64 / seconds.max(1e-6);
        self.end_round(rate, now);
        self.round = Round {
            began: Some(now),
            ..Round::NEW
        };
    }

    fn end_round(&mut self, rate: f64, now: Instant) {
        match self.phase {
            Phase::Growing { rate_before } if rate < rate_before * WORTH_IT => {
                self.size = (self.size / 2).max(1);
                self.settle(now + RETRY_GROWTH_AFTER);
            }
            Phase::Settled { look_again } if now < look_again => {}
            _ if self.size == self.most => self.settle(now + RETRY_GROWTH_AFTER),
            _ => {
                self.size = (self.size * 2).min(self.most);
                self.phase = Phase::Growing { rate_before: rate };
            }
        }
    }

    fn settle(&mut self, look_again: Instant) {
        self.phase = Phase::Settled { look_again };
    }

    /// The server asks to slow down.
    pub(crate) fn throttled(&mut self, now: Instant) {
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
            window.answered(10, at(sent), at(now));
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

    #[test]
    fn throttling_halves_a_window_for_a_while() {
        let mut window = Window::new(1, 64);
        simulate(&mut window, |_| 0.010);
        window.throttled(Instant::now() + Duration::from_secs(2));
        assert_eq!(window.size(), 32);
        window.restart();
        assert_eq!(window.size(), 1);
    }
}
