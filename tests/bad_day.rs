//! Tests of the statistics and schedules of the `bad_day` benchmark (`benches/bad_day`), which `cargo test`
//! does not run.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test")]
#![allow(dead_code, reason = "the tests use only a part of the modules; the benchmark uses all")]

#[path = "../benches/bad_day/measure.rs"]
mod measure;
#[path = "../benches/bad_day/scenario.rs"]
mod scenario;

use std::time::Duration;

use measure::{Sample, Summary, due, percentile};
use scenario::{AFFECTED, Action, BACKENDS, Scenario};

#[test]
fn scheduled_times_are_evenly_spaced_without_drift() {
    assert_eq!(due(0, 300), Duration::ZERO);
    assert_eq!(due(1, 300), Duration::from_nanos(3_333_333));
    assert_eq!(due(300, 300), Duration::from_secs(1));
    assert_eq!(due(299, 300), Duration::from_nanos(996_666_666));
    assert_eq!(due(3_000_000, 300), Duration::from_secs(10_000));
    assert_eq!(due(7, 0), Duration::from_secs(7), "a rate of 0 is treated as 1");
}

#[test]
fn percentile_uses_the_nearest_rank() {
    let thousand: Vec<u64> = (1..=1000).collect();
    for (share, value) in [(0.0, 1), (0.5, 500), (0.99, 990), (0.999, 999), (1.0, 1000)] {
        assert_eq!(percentile(&thousand, share), value, "{share}");
    }
    assert_eq!(percentile(&[7], 0.5), 7);
    assert_eq!(percentile(&[], 0.99), 0);
}

#[test]
fn summary_includes_failures_and_the_worst_second() {
    let sample = |second: u64, latency: u64, failure: Option<&str>| Sample {
        due: Duration::from_secs(second),
        latency: Duration::from_millis(latency),
        send_delay: Duration::from_micros(latency),
        failure: failure.map(str::to_owned),
        backend: failure.is_none().then(|| format!("backend-{latency}")),
    };
    let samples = [sample(0, 1, None), sample(0, 2, None), sample(1, 90, Some("502")), sample(1, 3, Some("timeout"))];
    let summary = Summary::of(&samples);
    assert_eq!((summary.requests, summary.errors), (4, 2));
    assert_eq!((summary.p50, summary.p99, summary.worst_second), (2_000, 90_000, 90_000));
    assert_eq!(summary.failures.get("502"), Some(&1));
    assert_eq!(
        summary.shares.into_iter().collect::<Vec<_>>(),
        [("backend-1".to_owned(), 1), ("backend-2".to_owned(), 1)]
    );
    assert_eq!(summary.send_delay, 90);
    assert_eq!(Summary::of(&[]), Summary::default());
}

#[test]
fn actions_are_sorted_and_within_the_measurement() {
    for scenario in Scenario::ALL {
        for seconds in [1, 5, 30] {
            let length = Duration::from_secs(seconds);
            let actions = scenario.actions(length);
            assert!(actions.is_sorted_by_key(|(at, _)| *at), "{scenario:?}");
            assert!(actions.iter().all(|(at, _)| *at < length), "{scenario:?} in {seconds} s: {actions:?}");
        }
    }
}

#[test]
fn every_stopped_backend_is_started_again() {
    let actions = Scenario::Killed.actions(Duration::from_secs(30));
    assert_eq!(actions.len(), 12, "six kills and six starts");
    assert_eq!(actions[2], (Duration::from_secs(6), Action::Kill(AFFECTED)));
    let rolling = Scenario::Rolling.actions(Duration::from_secs(30));
    for backend in 0..BACKENDS {
        assert!(rolling.iter().any(|(_, action)| *action == Action::Stop(backend)));
        assert!(rolling.iter().any(|(_, action)| *action == Action::Start(backend)));
    }
}
