//! The `cache` benchmark: cache hits of l7lb beside nginx, Varnish and HAProxy.
//!
//! Each server has one worker on one core; the client and the origin share the other one. The servers take turns, so
//! that other load of the machine affects all alike. A server that is not installed is skipped. The figures are CPU
//! time per request of the processes of a server, and latencies where clients feel them.
//!
//! `--endurance N` compares nothing. It sends N requests to l7lb while it is restarted, upgraded and killed, checks
//! every byte, and watches memory and disk.
//!
//! `cargo bench --bench cache -- --help` lists the options.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and prints its results"
)]

mod client;
mod endurance;
mod fills;
mod hits;
mod lives;
mod mix;
mod object;
mod origin;
#[path = "../bad_day/process.rs"]
mod process;
mod report;
mod servers;
mod usage;

use std::error::Error;
use std::path::Path;

use clap::Parser;

use origin::Origin;
use servers::{Program, Server};

/// The part of the bytes of the mix that a cache holds is one of this many.
const PARTS: u64 = 10;

/// Compares caches, or tests the cache of l7lb for a long time.
#[derive(Debug, Parser)]
#[command(name = "cache")]
struct Flags {
    /// Sends this many requests to l7lb alone, with restarts, instead of comparing.
    #[arg(long, value_name = "REQUESTS")]
    endurance: Option<u64>,
    /// Only these parts of the comparison.
    #[arg(long, value_delimiter = ',', default_value = "hits,mix,fills")]
    parts: Vec<String>,
    /// Measurements of each figure, of which the table has the median.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// The length of each measurement, in seconds.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Objects of the mix.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    objects: u64,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::parse();
    if !flags.bench {
        println!("cache: this takes minutes; run it with `cargo bench --bench cache`");
        return Ok(());
    }
    if let Some(requests) = flags.endurance {
        return endurance::run(requests, flags.objects);
    }
    process::pin(process::LOAD_CORE);
    let folder = tempfile::tempdir()?;
    certificate(folder.path())?;
    let origin = Origin::start()?;
    let size = object::total(flags.objects) / PARTS;
    println!("{} objects, {} MiB; each cache holds {} MiB\n", flags.objects, (size * PARTS) >> 20, size >> 20);
    let mut servers = Vec::new();
    for program in [Program::L7lb, Program::Nginx, Program::Varnish, Program::Haproxy] {
        if program.is_installed() {
            servers.push(Server::start(program, origin.address, folder.path(), size)?);
        } else {
            println!("{program:?}: skipped because it is not installed");
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (rounds, seconds) = (flags.rounds, flags.seconds);
    let includes = |part: &str| flags.parts.iter().any(|wanted| wanted == part);
    if includes("hits") && !hits::is_available() {
        println!("hits: skipped because h2load is not installed (nghttp2-client)");
    } else if includes("hits") {
        println!("{}", hits::compare(&servers, rounds, seconds)?);
    }
    if includes("fills") {
        println!("{}", runtime.block_on(fills::compare(&servers, &origin, rounds, seconds * 2))?);
    }
    if includes("mix") {
        let fit = flags.objects / PARTS;
        let table = mix::compare(&servers, &origin, (flags.objects, fit), (rounds, seconds * 2));
        println!("{}", runtime.block_on(table)?);
    }
    Ok(())
}

fn certificate(folder: &Path) -> Result<(), Box<dyn Error>> {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let (certificate, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    std::fs::write(folder.join("both.pem"), format!("{certificate}{key}"))?;
    std::fs::write(folder.join("cert.pem"), certificate)?;
    std::fs::write(folder.join("key.pem"), key)?;
    Ok(())
}
