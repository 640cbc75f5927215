//! Which requests are the slowest 1 %: an estimate of the 99th percentile that needs one number.

use std::time::Duration;

/// The part by which a slow request raises the estimate.
const RISE: f64 = 0.0495;
/// The part by which another request lowers it. Both balance when one of 100 requests is slow.
const FALL: f64 = 0.0005;

/// An estimate of the 99th percentile by stochastic approximation (Robbins and Monro, 1951), on a logarithmic scale so that
/// it suits durations of any size.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slowest {
    /// In seconds; 0 before the first request.
    estimate: f64,
}

impl Slowest {
    /// Notes the duration of a request. Returns whether it exceeds the estimate so far.
    pub(super) fn note(&mut self, duration: Duration) -> bool {
        let seconds = duration.as_secs_f64();
        if self.estimate == 0.0 {
            self.estimate = seconds;
            return false;
        }
        let slow = seconds > self.estimate;
        self.estimate *= if slow { 1.0 + RISE } else { 1.0 - FALL };
        slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;

    #[test]
    fn about_one_percent_of_requests_are_slow_whatever_their_distribution() {
        let mut random = Rng::with_seed(7);
        for scale in [1e-5, 1e-2, 10.0] {
            let mut slowest = Slowest::default();
            let mut duration = || Duration::from_secs_f64(scale * -random.f64().max(1e-9).ln());
            for _ in 0..20_000 {
                slowest.note(duration());
            }
            let slow = (0..100_000).filter(|_| slowest.note(duration())).count();
            assert!((700..1500).contains(&slow), "{scale}: {slow}");
        }
    }

    #[test]
    fn estimate_follows_requests_that_become_faster() {
        let mut slowest = Slowest::default();
        for _ in 0..1000 {
            slowest.note(Duration::from_secs(1));
        }
        let slow = (0..40_000).filter(|n| slowest.note(Duration::from_micros(900 + n % 200))).count();
        assert!(slow > 100, "{slow}");
    }
}
