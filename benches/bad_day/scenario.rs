//! The days: what happens to the five backends, and when.
//!
//! A scenario is a list of deeds with their times, so that it can be read, and tested, without being
//! played. Time 0 is when the measurement begins: the proxy has been in use for a second by then and
//! all was well, so what it costs to notice the fault is part of the figure.

use std::time::Duration;

/// The backends behind each proxy.
pub(crate) const BACKENDS: usize = 5;

/// Whom it hits: not the first, which some proxies favour.
pub(crate) const VICTIM: usize = 2;

/// How long a cold backend is ten times slower.
pub(crate) const COLD: Duration = Duration::from_secs(10);

/// How long a backend is away while it restarts.
const AWAY: Duration = Duration::from_millis(1000);

/// Something that is done to one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Its mood changes, as `/mood/…` of the sample backend says.
    Mood(usize, &'static str),
    /// It ends at once, in the middle of whatever it does.
    Kill(usize),
    /// It is asked to end, finishes what it has, and ends.
    Stop(usize),
    /// It starts.
    Start(usize),
    /// It starts and is slow at first.
    StartCold(usize),
}

/// One kind of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    Healthy,
    Slow,
    Hang,
    Fail,
    Refuse,
    Killed,
    Pause,
    Cold,
    Rolling,
}

impl Scenario {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [Self; 9] = [
        Self::Healthy,
        Self::Slow,
        Self::Hang,
        Self::Fail,
        Self::Refuse,
        Self::Killed,
        Self::Pause,
        Self::Cold,
        Self::Rolling,
    ];

    /// What it is called in the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Slow => "one 10× slower",
            Self::Hang => "one hangs",
            Self::Fail => "one answers 500",
            Self::Refuse => "one refuses connections",
            Self::Killed => "one killed every 5 s",
            Self::Pause => "one pauses 300 ms every 2 s",
            Self::Cold => "cold start of one",
            Self::Rolling => "rolling restart of all",
        }
    }

    /// The backend that is not there when the proxy starts.
    pub(crate) fn absent(self) -> Option<usize> {
        (self == Self::Cold).then_some(VICTIM)
    }

    /// What is done in a measurement of this length, and when, in order.
    pub(crate) fn deeds(self, length: Duration) -> Vec<(Duration, Deed)> {
        let at_once = |deed| vec![(Duration::ZERO, deed)];
        match self {
            Self::Healthy => Vec::new(),
            Self::Slow => at_once(Deed::Mood(VICTIM, "slow/10")),
            Self::Hang => at_once(Deed::Mood(VICTIM, "hang")),
            Self::Fail => at_once(Deed::Mood(VICTIM, "fail")),
            Self::Refuse => at_once(Deed::Kill(VICTIM)),
            Self::Pause => at_once(Deed::Mood(VICTIM, "pause/300ms/2s")),
            Self::Cold => at_once(Deed::StartCold(VICTIM)),
            Self::Killed => (0u64..)
                .map(|turn| Duration::from_secs(1 + 5 * turn))
                .take_while(|at| *at + AWAY < length)
                .flat_map(|at| [(at, Deed::Kill(VICTIM)), (at + AWAY, Deed::Start(VICTIM))])
                .collect(),
            Self::Rolling => (0..BACKENDS)
                .zip(0u32..)
                .flat_map(|(backend, turn)| {
                    // Each has a fifth of the time, in which it is away for at most half.
                    let fifth = length / 5;
                    let at = fifth * turn + fifth / 10;
                    [(at, Deed::Stop(backend)), (at + AWAY.min(fifth / 2), Deed::Start(backend))]
                })
                .collect(),
        }
    }
}
