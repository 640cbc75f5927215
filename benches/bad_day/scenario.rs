//! The scenarios: the actions on the five backends and their times.
//!
//! A scenario is a list of timed actions, so it can be tested without being run. Time 0 is the start of the
//! measurement. By then the proxy has been under load for a second with all backends healthy, so the
//! results include the time to detect the fault.

use std::time::Duration;

/// The number of backends of each proxy.
pub(crate) const BACKENDS: usize = 5;

/// The affected backend. It is not the first, which some proxies prefer.
pub(crate) const AFFECTED: usize = 2;

/// How long a cold backend is ten times slower after its start.
pub(crate) const COLD: Duration = Duration::from_secs(10);

/// How long a backend is down during a restart.
const DOWNTIME: Duration = Duration::from_millis(1000);

/// An action on one backend, which is given by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Sets a fault, by the path below `/fault/` of the sample backend.
    InjectFault(usize, &'static str),
    /// Kills the process immediately, with requests in flight.
    Kill(usize),
    /// Stops the process gracefully: it finishes the requests in flight.
    Stop(usize),
    /// Starts the process.
    Start(usize),
    /// Starts the process, which is slow for [`COLD`].
    StartCold(usize),
}

/// A failure scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    Healthy,
    Slow,
    Delay,
    Hang,
    Fail,
    ConnectionRefused,
    Killed,
    Pause,
    Cold,
    Rolling,
}

impl Scenario {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [Self; 10] = [
        Self::Healthy,
        Self::Slow,
        Self::Delay,
        Self::Hang,
        Self::Fail,
        Self::ConnectionRefused,
        Self::Killed,
        Self::Pause,
        Self::Cold,
        Self::Rolling,
    ];

    /// The title in the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Slow => "one 10× slower",
            Self::Delay => "one takes 200 ms",
            Self::Hang => "one hangs",
            Self::Fail => "one responds with 500",
            Self::ConnectionRefused => "one refuses connections",
            Self::Killed => "one killed every 5 s",
            Self::Pause => "one pauses 300 ms every 2 s",
            Self::Cold => "cold start of one",
            Self::Rolling => "rolling restart of all",
        }
    }

    /// The backend that is not running when the proxy starts.
    pub(crate) fn initially_absent(self) -> Option<usize> {
        (self == Self::Cold).then_some(AFFECTED)
    }

    /// The actions of a measurement of this length with their times, in order.
    pub(crate) fn actions(self, length: Duration) -> Vec<(Duration, Action)> {
        let at_start = |action| vec![(Duration::ZERO, action)];
        match self {
            Self::Healthy => Vec::new(),
            Self::Slow => at_start(Action::InjectFault(AFFECTED, "slow/10")),
            Self::Delay => at_start(Action::InjectFault(AFFECTED, "delay/200ms")),
            Self::Hang => at_start(Action::InjectFault(AFFECTED, "hang")),
            Self::Fail => at_start(Action::InjectFault(AFFECTED, "fail")),
            Self::ConnectionRefused => at_start(Action::Kill(AFFECTED)),
            Self::Pause => at_start(Action::InjectFault(AFFECTED, "pause/300ms/2s")),
            Self::Cold => at_start(Action::StartCold(AFFECTED)),
            Self::Killed => (0u64..)
                .map(|repetition| Duration::from_secs(1 + 5 * repetition))
                .take_while(|at| *at + DOWNTIME < length)
                .flat_map(|at| [(at, Action::Kill(AFFECTED)), (at + DOWNTIME, Action::Start(AFFECTED))])
                .collect(),
            Self::Rolling => (0..BACKENDS)
                .zip(0u32..)
                .flat_map(|(backend, position)| {
                    // Each backend has a fifth of the time and is down for at most half of it.
                    let fifth = length / 5;
                    let at = fifth * position + fifth / 10;
                    [(at, Action::Stop(backend)), (at + DOWNTIME.min(fifth / 2), Action::Start(backend))]
                })
                .collect(),
        }
    }
}
