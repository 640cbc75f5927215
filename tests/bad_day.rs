//! The arithmetic and the schedules of the bench of bad days (`benches/bad_day`), whose own program is
//! not run by `cargo test`.

#![allow(clippy::indexing_slicing, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "only what has tests is used here; the bench uses all of it")]

#[path = "../benches/bad_day/measure.rs"]
mod measure;
#[path = "../benches/bad_day/scenario.rs"]
mod scenario;

use std::time::Duration;

use measure::{Sample, Summary, due, percentile};
use scenario::{BACKENDS, Deed, Scenario, VICTIM};

#[test]
fn requests_are_due_evenly_and_do_not_drift() {
    assert_eq!(due(0, 300), Duration::ZERO);
    assert_eq!(due(1, 300), Duration::from_nanos(3_333_333));
    assert_eq!(due(300, 300), Duration::from_secs(1));
    assert_eq!(due(299, 300), Duration::from_nanos(996_666_666));
    assert_eq!(due(3_000_000, 300), Duration::from_secs(10_000));
    assert_eq!(due(7, 0), Duration::from_secs(7), "no rate is taken as the lowest");
}

#[test]
fn percentiles_are_nearest_ranks() {
    let thousand: Vec<u64> = (1..=1000).collect();
    for (share, value) in [(0.0, 1), (0.5, 500), (0.99, 990), (0.999, 999), (1.0, 1000)] {
        assert_eq!(percentile(&thousand, share), value, "{share}");
    }
    assert_eq!(percentile(&[7], 0.5), 7);
    assert_eq!(percentile(&[], 0.99), 0);
}

#[test]
fn a_summary_counts_failures_and_finds_the_worst_second() {
    let sample = |second: u64, latency: u64, failure: Option<&str>| Sample {
        due: Duration::from_secs(second),
        latency: Duration::from_millis(latency),
        late: Duration::from_micros(latency),
        failure: failure.map(str::to_owned),
    };
    let samples = [sample(0, 1, None), sample(0, 2, None), sample(1, 90, Some("502")), sample(1, 3, Some("timeout"))];
    let summary = Summary::of(&samples);
    assert_eq!((summary.requests, summary.errors), (4, 2));
    assert_eq!((summary.p50, summary.p99, summary.worst_second), (2_000, 90_000, 90_000));
    assert_eq!(summary.failures.get("502"), Some(&1));
    assert_eq!(summary.client_late, 90);
    assert_eq!(Summary::of(&[]), Summary::default());
}

#[test]
fn deeds_are_in_order_and_inside_the_measurement() {
    for scenario in Scenario::ALL {
        for seconds in [1, 5, 30] {
            let length = Duration::from_secs(seconds);
            let deeds = scenario.deeds(length);
            assert!(deeds.is_sorted_by_key(|(at, _)| *at), "{scenario:?}");
            assert!(deeds.iter().all(|(at, _)| *at < length), "{scenario:?} in {seconds} s: {deeds:?}");
        }
    }
}

#[test]
fn whoever_is_ended_again_and_again_comes_back() {
    let deeds = Scenario::Killed.deeds(Duration::from_secs(30));
    assert_eq!(deeds.len(), 12, "six times");
    assert_eq!(deeds[2], (Duration::from_secs(6), Deed::Kill(VICTIM)));
    let rolling = Scenario::Rolling.deeds(Duration::from_secs(30));
    for backend in 0..BACKENDS {
        assert!(rolling.iter().any(|(_, deed)| *deed == Deed::Stop(backend)));
        assert!(rolling.iter().any(|(_, deed)| *deed == Deed::Start(backend)));
    }
}
