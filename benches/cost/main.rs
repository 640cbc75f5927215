//! The `cost` benchmark: CPU instructions per request of l7lb, of its cache and of bare Pingora, counted by callgrind.
//!
//! Instruction counts do not depend on the load of the machine, so a change of a few percent is visible. One client
//! sends requests one after the other on one warm connection; the count covers the whole proxy process, without
//! start and warm-up. `cost.toml` has the committed figures; `--check` fails if a figure grows by more than
//! [`TOLERANCE`], `--update` writes them.
//!
//! `--train PROGRAM` measures nothing. It sends the traffic mix from which a profile-guided build learns; see
//! `packaging/pgo.sh`.
//!
//! `cargo bench --bench cost -- --help` lists the options. Requires valgrind.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and prints its results"
)]

mod callgrind;
mod client;
mod figures;
#[path = "../bad_day/process.rs"]
mod process;
mod proxy;
mod train;

use std::path::{Path, PathBuf};

use clap::Parser;

use client::BoxError;
use figures::Figures;
use proxy::{Kind, Proxy};

/// How much a figure may grow before `--check` fails.
const TOLERANCE: f64 = 0.03;

/// Counts CPU instructions per request.
#[derive(Debug, Parser)]
#[command(name = "cost")]
struct Flags {
    /// Requests per measurement.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    requests: u32,
    /// Only l7lb, without bare Pingora.
    #[arg(long)]
    short: bool,
    /// Fails if a figure grows by more than 3 % over the committed one.
    #[arg(long)]
    check: bool,
    /// Writes the figures to benches/cost/cost.toml.
    #[arg(long, conflicts_with = "check")]
    update: bool,
    /// Sends the training load of a profile-guided build to this l7lb program, without valgrind.
    #[arg(long, value_name = "PROGRAM")]
    train: Option<PathBuf>,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), BoxError> {
    let flags = Flags::parse();
    rustls_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    if let Some(program) = &flags.train {
        return runtime.block_on(train::train(program));
    }
    if !flags.bench {
        println!("run it with `cargo bench --bench cost`");
        return Ok(());
    }
    if !callgrind::is_available() {
        println!("skipped: callgrind is not available; install valgrind");
        return Ok(());
    }
    let kinds: &[Kind] =
        if flags.short { &[Kind::L7lb, Kind::Cached] } else { &[Kind::L7lb, Kind::Cached, Kind::Bare] };
    let mut measured = Figures::default();
    for kind in kinds {
        runtime.block_on(measure(*kind, flags.requests, &mut measured))?;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/cost/cost.toml");
    let committed = Figures::load(&file)?;
    print!("{}", measured.table(&committed));
    if flags.update {
        measured.save(&file)?;
    }
    match measured.grown(&committed, TOLERANCE) {
        grown if flags.check && !grown.is_empty() => {
            Err(format!("costs more than committed: {}", grown.join(", ")).into())
        }
        _ => Ok(()),
    }
}

/// The instructions per request of one proxy, for every protocol.
async fn measure(kind: Kind, requests: u32, figures: &mut Figures) -> Result<(), BoxError> {
    // The cache does not depend on the protocol of the client.
    let protocols = if kind == Kind::Cached { &[client::Protocol::Http1][..] } else { &client::PROTOCOLS };
    for protocol in protocols.iter().copied() {
        let proxy = Proxy::start_in_callgrind(kind)?;
        let mut client = client::Connector::new(protocol, &proxy)?.connect().await?;
        client.requests(requests / 2).await?;
        proxy.zero()?;
        client.requests(requests).await?;
        let instructions = proxy.dump()?;
        figures.put(&format!("{}_{}", protocol.name(), kind.name()), instructions / u64::from(requests));
        drop(client);
    }
    Ok(())
}

fn rustls_provider() {
    // An error means that it is already installed.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
}
