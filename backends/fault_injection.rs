//! Fault injection at run time, for the `bad_day` benchmark and for manual tests.
//!
//! `POST /fault/…` sets the fault. It stays active until the next one is set.
//!
//! | path | effect |
//! |---|---|
//! | `/fault/none` | none |
//! | `/fault/slow/10` | every response takes ten times its service time |
//! | `/fault/delay/200ms` | every response takes 200 ms |
//! | `/fault/hang` | no response; requests wait until the fault changes |
//! | `/fault/fail` | every response is a 500, after the usual service time |
//! | `/fault/pause/300ms/2s` | no response is sent during 300 ms of every 2 s, as in a garbage collection |
//!
//! Faults do not affect `/health` and `/count`: they model a service that fails while its health checks
//! pass.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A fault of a backend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum InjectedFault {
    /// No fault.
    None,
    /// Every response takes this many times its service time.
    Slow(f64),
    /// Every response takes this long.
    Delay(Duration),
    /// No response is sent.
    Hang,
    /// Every response is a 500.
    Fail,
    /// No response is sent for the first `pause` of every `period`.
    Pause {
        /// The length of one pause.
        pause: Duration,
        /// From the start of one pause to the start of the next.
        period: Duration,
    },
}

impl InjectedFault {
    /// The fault that the path segments after `/fault` name.
    pub(super) fn parse(segments: &[&str]) -> Option<Self> {
        match segments {
            ["none"] => Some(Self::None),
            ["hang"] => Some(Self::Hang),
            ["fail"] => Some(Self::Fail),
            ["slow", factor] => {
                let factor = factor.parse().ok().filter(|factor| (0.0..=1e6).contains(factor))?;
                Some(Self::Slow(factor))
            }
            ["delay", time] => humantime::parse_duration(time).ok().map(Self::Delay),
            ["pause", pause, period] => {
                let pause = humantime::parse_duration(pause).ok()?;
                let period = humantime::parse_duration(period).ok()?;
                (pause < period).then_some(Self::Pause { pause, period })
            }
            _ => None,
        }
    }
}

/// The remaining time of the current pause, `elapsed` after the first one started; zero outside a pause.
fn remaining_pause(elapsed: Duration, pause: Duration, period: Duration) -> Duration {
    let position = elapsed.as_secs_f64() % period.as_secs_f64();
    pause.saturating_sub(Duration::from_secs_f64(position))
}

/// The injected fault and the service time of one backend.
#[derive(Debug)]
pub(super) struct FaultInjector {
    /// The fault and when it was set.
    fault: Mutex<(InjectedFault, Instant)>,
    changed: Notify,
    started: Instant,
    service_time: Duration,
    cold: Duration,
}

impl FaultInjector {
    /// A backend without a fault. Its service time is exponentially distributed with mean `service_time`,
    /// and ten times as long during the first `cold` of its run time.
    pub(super) fn new(service_time: Duration, cold: Duration) -> Self {
        let started = Instant::now();
        let fault = Mutex::new((InjectedFault::None, started));
        Self { fault, changed: Notify::new(), started, service_time, cold }
    }

    /// Sets the fault. Requests that hang because of the previous fault continue with the new one.
    pub(super) fn set(&self, fault: InjectedFault) {
        *self.fault.lock() = (fault, Instant::now());
        self.changed.notify_waiters();
    }

    fn fault(&self) -> (InjectedFault, Instant) {
        *self.fault.lock()
    }

    /// Waits for one service time under the current fault. Returns false if the request fails.
    pub(super) async fn run_service_time(&self) -> bool {
        loop {
            // Created before the fault is read, so that no change is missed.
            let changed = self.changed.notified();
            match self.fault() {
                (InjectedFault::Hang, _) => changed.await,
                _ => break,
            }
        }
        let (fault, since) = self.fault();
        let mut factor = if self.started.elapsed() < self.cold { 10.0 } else { 1.0 };
        if let InjectedFault::Slow(multiple) = fault {
            factor *= multiple;
        }
        if let InjectedFault::Delay(time) = fault {
            tokio::time::sleep(time).await;
        } else if !self.service_time.is_zero() {
            tokio::time::sleep(self.service_time.mul_f64(exponential(fastrand::f64()) * factor)).await;
        }
        if let InjectedFault::Pause { pause, period } = fault {
            // A response that would be sent during a pause is sent at its end.
            tokio::time::sleep(remaining_pause(since.elapsed(), pause, period)).await;
        }
        fault != InjectedFault::Fail
    }
}

/// A sample of the exponential distribution with mean 1, from a `uniform` sample of [0, 1).
fn exponential(uniform: f64) -> f64 {
    -(1.0 - uniform).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_paths_are_parsed_and_invalid_paths_are_rejected() {
        let milliseconds = Duration::from_millis;
        let pause = InjectedFault::Pause { pause: milliseconds(300), period: milliseconds(2000) };
        for (segments, fault) in [
            (vec!["none"], Some(InjectedFault::None)),
            (vec!["slow", "10"], Some(InjectedFault::Slow(10.0))),
            (vec!["delay", "200ms"], Some(InjectedFault::Delay(milliseconds(200)))),
            (vec!["delay", "long"], None),
            (vec!["pause", "300ms", "2s"], Some(pause)),
            (vec!["pause", "2s", "2s"], None),
            (vec!["slow", "-1"], None),
            (vec!["slow", "NaN"], None),
            (vec!["slow"], None),
            (vec!["unknown"], None),
            (vec![], None),
        ] {
            assert_eq!(InjectedFault::parse(&segments), fault, "{segments:?}");
        }
    }

    #[test]
    fn remaining_pause_is_zero_outside_a_pause() {
        for (elapsed, expected) in [(0, 300), (100, 200), (300, 0), (1999, 0), (2000, 300), (4299, 1)] {
            let remaining = remaining_pause(
                Duration::from_millis(elapsed),
                Duration::from_millis(300),
                Duration::from_millis(2000),
            );
            assert!(
                remaining.abs_diff(Duration::from_millis(expected)) < Duration::from_micros(10),
                "{elapsed}: {remaining:?}"
            );
        }
    }

    #[test]
    fn service_time_is_exponentially_distributed() {
        assert_eq!(exponential(0.0), 0.0);
        assert!((exponential(0.5) - 0.693).abs() < 0.001, "the median is ln 2");
        assert!((exponential(0.99) - 4.605).abs() < 0.001);
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_request_continues_with_the_new_fault() {
        let faults = std::sync::Arc::new(FaultInjector::new(Duration::ZERO, Duration::ZERO));
        faults.set(InjectedFault::Hang);
        let waiting = tokio::spawn({
            let faults = std::sync::Arc::clone(&faults);
            async move { faults.run_service_time().await }
        });
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(!waiting.is_finished());
        faults.set(InjectedFault::Fail);
        assert!(!waiting.await.unwrap(), "the request fails under the new fault");
    }
}
