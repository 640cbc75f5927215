//! The CPU cost of backend selection, for every balancing policy, in pools of 10 and 1,000 backends.
//!
//! `cargo bench --bench pick`. Each figure is the median of several rounds. One thread picks and releases a
//! backend, so contention between threads is not included.
//!
//! Without `--bench`, as in `cargo test --benches`, it runs one short round as a functional test.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and prints its results"
)]

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use l7lb::base::fault::{Faults, Place};
use l7lb::pool::{self, Key, Pool};
use tokio::sync::watch;

const ROUNDS: usize = 21;
const PICKS: u32 = 50_000;
const POLICIES: [&str; 5] =
    ["round_robin", "random", "least_requests", "peak_ewma", "{ type: consistent_hash, by: client_ip }"];

type BoxError = Box<dyn Error>;

fn build(balance: &str, count: usize) -> Result<Arc<Pool>, BoxError> {
    let backends: String =
        (0..count).map(|index| format!("{{ address: '127.0.{}.{}:80' }}, ", index / 250, index % 250 + 1)).collect();
    let yaml = format!("{{ balance: {balance}, health_check: {{ type: none }}, backends: [{backends}] }}");
    let config: pool::Config = serde_yaml::from_str(&yaml)?;
    let mut faults = Faults::default();
    let spec = config.check(&Place::root(), &mut faults);
    Ok(Arc::new(Pool::build("pick".into(), &spec, &pool::Connectors::default(), Instant::now())?))
}

/// Runs discovery, records a response time for every backend, and stops the pool's background task.
async fn prepare(pool: &Arc<Pool>) {
    let (_stop, shutdown) = watch::channel(false);
    let running = tokio::spawn({
        let pool = Arc::clone(pool);
        async move { pool.run(shutdown).await }
    });
    pool.settled().await;
    running.abort();
    let now = Instant::now();
    for (endpoint, millis) in pool.candidates().iter().zip((1..8).cycle()) {
        endpoint.record_response_start(Some(Duration::from_millis(millis)), now);
    }
}

/// Nanoseconds per pick and release, averaged over one round.
fn round(pool: &Pool, picks: u32) -> f64 {
    let start = Instant::now();
    for number in 0..picks {
        let lease = pool.pick(Key::of(&number.to_le_bytes()), &[], black_box(start));
        drop(black_box(lease));
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(picks)
}

fn main() -> Result<(), BoxError> {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let (rounds, picks) = if measured { (ROUNDS, PICKS) } else { (1, 100) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for balance in POLICIES {
        for count in [10, 1_000] {
            let pool = build(balance, count)?;
            runtime.block_on(prepare(&pool));
            if pool.candidates().len() != count || pool.pick(Key::NONE, &[], Instant::now()).is_none() {
                return Err(format!("{balance}: no backend is available").into());
            }
            let mut figures: Vec<f64> = (0..rounds).map(|_| round(&pool, picks)).collect();
            figures.sort_by(f64::total_cmp);
            let median = figures.get(rounds / 2).copied().unwrap_or_default();
            println!("{count:>5} backends  {median:>7.0} ns  {balance}");
        }
    }
    Ok(())
}
