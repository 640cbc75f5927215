//! The `backends` benchmark: what a pool of many discovered backends costs.
//!
//! The real binary finds its backends in a file. Two sample backends listen at all loopback addresses, so each address
//! is a backend. It measures a pool of few and a pool of many backends:
//!
//! - memory per backend, before and after each backend has had a request;
//! - CPU time of the proxy per request and its throughput, for three policies, in rounds that alternate between both;
//! - the time from a changed file to its effect, in the API and for requests;
//! - CPU time without requests, with health checks at the default interval;
//! - a list that is longer than a source may have.
//!
//! `cargo bench --bench backends -- --help` lists the options.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and prints its results"
)]

mod balancer;
#[path = "../cost/callgrind.rs"]
mod callgrind;
mod load;
mod parts;
#[path = "../bad_day/process.rs"]
mod process;
#[path = "../cache/usage.rs"]
mod usage;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// An error that can leave its thread.
type BoxError = Box<dyn Error + Send + Sync>;

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Memory per backend.
    Memory,
    /// CPU time per request and throughput.
    Requests,
    /// Instructions per request, counted by callgrind.
    Instructions,
    /// From a changed file to its effect.
    Change,
    /// CPU time of health checks.
    Health,
    /// A list that is too long.
    TooLong,
}

/// Measures a pool of many discovered backends.
#[derive(Debug, Parser)]
#[command(name = "backends")]
struct Flags {
    /// The backends of the large pool.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=20_000))]
    backends: u32,
    /// The backends of the small pool.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    few: u32,
    /// Rounds of each measurement of requests.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The length of a round.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    round: Duration,
    /// Idle connections to backends that the balancer keeps; default: twice the number of backends.
    #[arg(long)]
    idle: Option<u32>,
    /// The parts to measure; default: all.
    #[arg(long, value_delimiter = ',')]
    parts: Vec<Part>,
    /// The measured policies; default: all.
    #[arg(long, value_delimiter = ',')]
    policies: Vec<String>,
    /// A further key of the pool, such as `passive_health: off`.
    #[arg(long, default_value = "removal_timeout: 5m", value_name = "YAML")]
    key: String,
    /// Measures this l7lb program.
    #[arg(long, value_name = "PROGRAM", default_value = env!("CARGO_BIN_EXE_l7lb"))]
    program: PathBuf,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), BoxError> {
    let flags = Flags::parse();
    if !flags.bench {
        println!("run it with `cargo bench --bench backends`");
        return Ok(());
    }
    process::pin(process::LOAD_CORE);
    let wants = |part: Part| flags.parts.is_empty() || flags.parts.contains(&part);
    if wants(Part::Memory) {
        parts::memory(&flags)?;
    }
    if wants(Part::Requests) {
        parts::requests(&flags)?;
    }
    if wants(Part::Instructions) {
        parts::instructions(&flags)?;
    }
    if wants(Part::Change) {
        parts::change(&flags)?;
    }
    if wants(Part::Health) {
        parts::health(&flags)?;
    }
    if wants(Part::TooLong) {
        parts::too_long(&flags)?;
    }
    Ok(())
}
