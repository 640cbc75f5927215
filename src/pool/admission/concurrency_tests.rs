//! The limiter in front of simulated servers: Poisson arrivals with a fixed seed, exponential service times,
//! and a simulated clock.

use super::*;
use crate::pool::passive_health::histogram::Counts;

/// A server with `workers` and a queue, behind the limiter.
struct Simulation {
    random: fastrand::Rng,
    gradient: Gradient,
    workers: usize,
    /// Mean service time in seconds.
    service: f64,
    now: f64,
    /// When each worker becomes free.
    free: Vec<f64>,
    /// When each request in flight ends.
    ends: Vec<f64>,
}

/// The result of a period.
#[derive(Debug, Default)]
struct Tally {
    rejected: u32,
    passed: u32,
}

impl Tally {
    fn rejected_share(&self) -> f64 {
        f64::from(self.rejected) / f64::from(self.rejected + self.passed)
    }
}

impl Simulation {
    fn new(workers: usize, service: f64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(7),
            gradient: Gradient::default(),
            workers,
            service,
            now: 0.0,
            free: vec![0.0; workers],
            ends: Vec::new(),
        }
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.random.f64()).ln()
    }

    /// The capacity of the server in requests per second.
    fn capacity(&self) -> f64 {
        self.workers as f64 / self.service
    }

    /// Offers `rate` requests per second for a number of windows.
    fn run(&mut self, rate: f64, windows: usize) -> Tally {
        let mut tally = Tally::default();
        for _ in 0..windows {
            let end = self.now + WINDOW.as_secs_f64();
            let (mut times, mut peak) = (Counts::default(), 0);
            while self.now < end {
                self.now += self.exponential(1.0 / rate);
                let now = self.now;
                self.ends.retain(|end| *end > now);
                if self.ends.len() >= self.gradient.limit() as usize {
                    tally.rejected += 1;
                    continue;
                }
                tally.passed += 1;
                let service = self.exponential(self.service);
                let worker = self.free.iter_mut().min_by(|one, other| one.total_cmp(other)).unwrap();
                let ends = worker.max(now) + service;
                *worker = ends;
                self.ends.push(ends);
                times.record(Duration::from_secs_f64(ends - now));
                peak = peak.max(self.ends.len());
            }
            if times.total() >= REQUESTS_MIN {
                self.gradient.window(times.median().unwrap(), u32::try_from(peak).unwrap());
            }
        }
        tally
    }
}

#[test]
fn low_load_is_never_rejected_and_keeps_the_limit() {
    let mut server = Simulation::new(20, 0.01);
    let load = server.capacity() * 0.3;
    assert_eq!(server.run(load, 2000).rejected, 0);
    assert_eq!(server.gradient.limit(), 50, "traffic did not approach the limit");
}

#[test]
fn limit_grows_while_latency_is_stable() {
    let mut server = Simulation::new(400, 0.1);
    let load = server.capacity() * 0.5;
    server.run(load, 100);
    assert!(server.gradient.limit() > 200, "{}", server.gradient.limit());
    let later = server.run(load, 100);
    assert_eq!(later.rejected, 0, "limit {}", server.gradient.limit());
}

#[test]
fn limit_converges_near_the_capacity_under_overload() {
    for (workers, service) in [(10, 0.01), (20, 0.02), (100, 0.05)] {
        let mut server = Simulation::new(workers, service);
        // A quiet period, then three times the capacity.
        let (morning, rush) = (server.capacity() * 0.4, server.capacity() * 3.0);
        server.run(morning, 100);
        server.run(rush, 100);
        let tally = server.run(rush, 100);
        let limit = server.gradient.limit() as usize;
        assert!((workers..=workers * 4).contains(&limit), "{limit} for {workers} workers");
        // It works at its capacity, and the excess is rejected.
        assert!((0.6..0.72).contains(&tally.rejected_share()), "{tally:?} for {workers} workers");
    }
}

#[test]
fn every_request_is_admitted_after_an_overload() {
    let mut server = Simulation::new(20, 0.01);
    let (calm, rush) = (server.capacity() * 0.4, server.capacity() * 4.0);
    server.run(calm, 50);
    server.run(rush, 300);
    server.run(calm, 20);
    assert_eq!(server.run(calm, 500).rejected, 0, "limit {}", server.gradient.limit());
}

#[test]
fn limit_adapts_to_a_permanently_slower_pool() {
    let mut server = Simulation::new(50, 0.01);
    let load = server.capacity() * 0.4;
    server.run(load, 100);
    server.service *= 2.5;
    // The same load is now the full capacity; ten minutes later only peaks are rejected.
    server.run(load * 0.8, 1200);
    let tally = server.run(load * 0.8, 200);
    assert!(tally.rejected_share() < 0.02, "{tally:?}, limit {}", server.gradient.limit());
}

#[test]
fn limit_stays_between_its_minimum_and_maximum() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut gradient = Gradient::default();
    for _ in 0..100_000 {
        let shift = random.u32(0..64);
        let median = Duration::from_nanos(random.u64(..) >> shift);
        let limit = gradient.window(median, random.u32(..));
        assert!((4..=100_000).contains(&limit));
    }
}
