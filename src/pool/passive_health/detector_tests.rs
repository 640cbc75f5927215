//! The detector without a network: which backends are ejected, for how long, and how many.

use super::*;
use crate::base::backend_address::BackendAddress;
use crate::pool::passive_health::config::Setting;

fn spec() -> Spec {
    Setting::default().check(&crate::base::fault::Place::root(), &mut crate::base::fault::Faults::default()).unwrap()
}

fn address(host: usize) -> BackendAddress {
    BackendAddress::from(([127, 0, 0, 1], u16::try_from(host).unwrap() + 1))
}

fn report(host: usize, millis: u64, count: u32) -> Report {
    let mut times = Counts::default();
    (0..count).for_each(|_| times.record(Duration::from_millis(millis)));
    Report { address: address(host), up: true, outcomes: Share { succeeded: count, failed: 0 }, times, waiting: 0 }
}

/// A pool with these latencies in milliseconds, with 20 responses each.
fn taking(millis: &[u64]) -> Vec<Report> {
    millis.iter().enumerate().map(|(host, millis)| report(host, *millis, 20)).collect()
}

/// A pool with these failures per 100 requests.
fn failing(percents: &[u32]) -> Vec<Report> {
    let host = |(host, percent): (usize, &u32)| Report {
        outcomes: Share { succeeded: 100 - percent, failed: *percent },
        ..report(host, 2, 0)
    };
    percents.iter().enumerate().map(host).collect()
}

struct Bench {
    detector: Detector,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { detector: Detector::new(spec()), now: Instant::now() }
    }

    /// Ends a number of windows of one second each; returns the ejected backends.
    fn windows(&mut self, count: usize, pool: &[Report]) -> Vec<usize> {
        (0..count).flat_map(|_| self.window(pool)).filter_map(ejected).collect()
    }

    fn window(&mut self, pool: &[Report]) -> Vec<Change> {
        self.now += Duration::from_secs(1);
        self.detector.window(pool, self.now)
    }

    fn fails(&mut self, host: usize, gateway: bool, pool: &[Report]) -> Option<Change> {
        self.detector.consecutive_failures_reached(address(host), (5, gateway), pool, self.now)
    }
}

fn ejected(change: Change) -> Option<usize> {
    match change {
        Change::Ejected { address, .. } => Some(usize::from(address.port()) - 1),
        Change::Returned { .. } => None,
    }
}

fn period(change: Option<Change>) -> u64 {
    match change {
        Some(Change::Ejected { period, .. }) => period.as_secs(),
        _ => 0,
    }
}

#[test]
fn backend_ten_times_slower_than_its_peers_is_ejected_after_three_windows() {
    let mut bench = Bench::new();
    let pool = taking(&[2, 2, 3, 2, 20]);
    assert_eq!(bench.windows(2, &pool), [] as [usize; 0]);
    let changes = bench.window(&pool);
    let [Change::Ejected { reason: Reason::Slow(own, others), .. }] = changes.as_slice() else {
        panic!("{changes:?}");
    };
    assert!(*own > *others * 8, "{changes:?}");
}

#[test]
fn no_backend_is_ejected_if_all_are_slow_or_too_few_are_measured() {
    for pool in [
        taking(&[200, 210, 190, 220, 205]),
        taking(&[2, 300, 300]),
        taking(&[2, 20]),
        taking(&[1, 1, 5]),
        (0..5).map(|host| report(host, if host == 4 { 500 } else { 2 }, 2)).take(1).collect(),
    ] {
        assert_eq!(Bench::new().windows(50, &pool), [] as [usize; 0], "{pool:?}");
    }
}

#[test]
fn single_slow_window_does_not_eject() {
    let mut bench = Bench::new();
    for _ in 0..10 {
        assert_eq!(bench.windows(2, &taking(&[2, 2, 20])), [] as [usize; 0]);
        assert_eq!(bench.windows(1, &taking(&[2, 2, 2])), [] as [usize; 0]);
    }
}

#[test]
fn backend_with_little_traffic_is_compared_after_enough_responses() {
    let mut bench = Bench::new();
    let mut pool = taking(&[2, 2, 2, 2]);
    pool.push(report(4, 100, 2));
    // Ten responses make one window: three of them take fifteen seconds.
    assert_eq!(bench.windows(14, &pool), [] as [usize; 0]);
    assert_eq!(bench.windows(1, &pool), [4]);
}

#[test]
fn unresponsive_backend_among_responding_peers_is_ejected() {
    let mut silent = taking(&[2, 2, 2]);
    silent.push(Report { waiting: 3, ..report(3, 0, 0) });
    assert_eq!(Bench::new().windows(3, &silent), [3]);
    let lonely: Vec<Report> = (0..3).map(|host| Report { waiting: 9, ..report(host, 0, 0) }).collect();
    assert_eq!(Bench::new().windows(50, &lonely), [] as [usize; 0], "no backend responds");
    let mut night = Bench::new();
    night.window(&taking(&[2, 2, 2, 2]));
    assert_eq!(night.windows(50, &lonely), [] as [usize; 0], "no backend responds any more");
    let long_poll: Vec<Report> = taking(&[30_000, 30_000]).into_iter().chain(silent.last().cloned()).collect();
    assert_eq!(Bench::new().windows(50, &long_poll), [] as [usize; 0], "the peers take as long");
}

#[test]
fn consecutive_gateway_failures_eject_without_comparison() {
    let pool = failing(&[0, 0, 100]);
    let mut bench = Bench::new();
    assert_eq!(bench.detector.consecutive_failures_reached(address(2), (4, true), &pool, bench.now), None);
    assert_eq!(bench.fails(2, true, &pool).and_then(ejected), Some(2));
    assert_eq!(bench.fails(2, true, &pool), None, "it is ejected already");
}

#[test]
fn server_errors_eject_only_if_the_peers_are_healthy() {
    assert!(Bench::new().fails(4, false, &failing(&[0, 0, 0, 0, 100])).is_some());
    assert!(Bench::new().fails(4, false, &failing(&[100, 0, 0, 0, 100])).is_some(), "two backends may be unhealthy");
    assert_eq!(Bench::new().fails(4, false, &failing(&[40, 40, 40, 40, 40])), None, "the fault is in the request");
    let idle: Vec<Report> = (0..3).map(|host| report(host, 2, 0)).collect();
    assert_eq!(Bench::new().fails(2, false, &idle), None, "too few requests");
    let mut bench = Bench::new();
    bench.window(&failing(&[0, 0, 0]));
    assert!(bench.fails(2, false, &idle).is_some(), "the last window counts too");
}

#[test]
fn low_success_rate_ejects_and_a_slightly_lower_one_does_not() {
    let mut bench = Bench::new();
    assert_eq!(bench.windows(9, &failing(&[0, 0, 1, 0, 60])), [] as [usize; 0]);
    assert_eq!(bench.windows(1, &failing(&[0, 0, 1, 0, 60])), [4]);
    assert_eq!(Bench::new().windows(30, &failing(&[0, 0, 0, 0, 2])), [] as [usize; 0]);
    assert_eq!(Bench::new().windows(30, &failing(&[50, 55, 60, 45, 50])), [] as [usize; 0], "all are unhealthy");
    assert_eq!(Bench::new().windows(30, &failing(&[0, 0, 0, 60])), [] as [usize; 0], "too few to compare");
}

#[test]
fn ejection_time_doubles_up_to_the_maximum_and_recovers_stepwise() {
    let mut bench = Bench::new();
    let pool = failing(&[0, 0, 0]);
    let mut periods = Vec::new();
    for _ in 0..7 {
        periods.push(period(bench.fails(2, true, &pool)));
        let until = bench.detector.next_return().unwrap();
        assert_eq!(bench.detector.returns(until - Duration::from_nanos(1)), []);
        assert_eq!(bench.detector.returns(until), [Change::Returned { address: address(2) }]);
        bench.now = until;
    }
    assert_eq!(periods, [10, 20, 40, 80, 160, 300, 300]);
    bench.windows(41, &pool);
    assert_eq!(period(bench.fails(2, true, &pool)), 80, "seven doublings, four of them removed");
}

#[test]
fn passed_trial_ends_the_ejection_and_failed_trial_doubles_it() {
    let mut bench = Bench::new();
    let pool = failing(&[0, 0, 0]);
    let trial = |bench: &mut Bench, verdict| bench.detector.trial_ended(address(2), verdict, bench.now);
    assert_eq!(trial(&mut bench, Verdict::Passed), None, "it is not ejected");
    assert_eq!(period(bench.fails(2, true, &pool)), 10);
    let extended = trial(&mut bench, Verdict::Failed);
    let after = Duration::from_secs(10);
    assert!(
        matches!(extended, Some(Change::Ejected { reason: Reason::TrialFailed, trials: Some(trials), .. }) if trials.after == after)
    );
    assert_eq!(period(extended), 20);
    assert_eq!(bench.detector.next_return(), Some(bench.now + Duration::from_secs(20)));
    assert_eq!(trial(&mut bench, Verdict::Passed), Some(Change::Returned { address: address(2) }));
    assert_eq!(bench.detector.next_return(), None);
    assert_eq!(period(bench.fails(2, true, &pool)), 40, "the doublings stay");
}

#[test]
fn at_most_half_of_a_pool_is_ejected_and_never_the_last_backend() {
    for (hosts, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)] {
        let pool = failing(&vec![100; hosts]);
        let mut bench = Bench::new();
        let out = (0..hosts).filter(|host| bench.fails(*host, true, &pool).is_some()).count();
        assert_eq!(out, most, "of {hosts}");
    }
    let mut pool = failing(&[0, 0, 100, 100]);
    pool[0].up = false;
    pool[1].up = false;
    let mut bench = Bench::new();
    assert!(bench.fails(2, true, &pool).is_some());
    assert_eq!(bench.fails(3, true, &pool), None, "no other backend takes requests");
}

#[test]
fn slowest_backend_is_ejected_first() {
    let mut bench = Bench::new();
    assert_eq!(bench.windows(3, &taking(&[2, 2, 2, 2, 40, 80, 120])), [6, 5, 4]);
}

#[test]
fn history_of_a_removed_backend_is_dropped() {
    let mut bench = Bench::new();
    let pool = failing(&[0, 0, 100]);
    bench.fails(2, true, &pool);
    bench.window(&pool[..2]);
    assert_eq!(bench.detector.next_return(), None);
}
