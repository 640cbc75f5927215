//! The bench of bad days: what users see of a proxy when its backends are not well.
//!
//! Behind each proxy stand five sample backends; an open-loop client asks at a fixed rate while one
//! backend (or all, in turn) has a bad day. Proxies have one core, backends and client the other. For
//! each proxy and scenario everything is started anew, and ended afterwards. The results go to
//! `docs/performance.md` and `docs/bad-day.svg` with `--docs`; `benches/bad_day/run.sh` does all of it.
//!
//! `cargo bench --bench bad_day -- --help` tells the options.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench reads the clock and prints what it finds"
)]

mod client;
mod fleet;
mod measure;
mod plot;
mod process;
mod proxies;
mod report;
mod scenario;

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;

use client::Load;
use fleet::Fleet;
use measure::Summary;
use proxies::Proxy;
use report::{Results, Row};
use scenario::Scenario;

/// How long a proxy may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// Sent before each measurement.
const WARM_UP: Duration = Duration::from_secs(1);

/// What users see of a proxy when its backends are not well.
#[derive(Debug, Parser)]
#[command(name = "bad_day")]
struct Flags {
    /// How long each scenario is measured.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Requests a second.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rate: u64,
    /// How long the client waits for an answer, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
    /// Only proxies whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    proxies: Vec<String>,
    /// Only scenarios whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Policies of l7lb to measure beside its default.
    #[arg(long, value_delimiter = ',')]
    balance: Vec<String>,
    /// Adds to the results of earlier runs instead of starting anew.
    #[arg(long)]
    add: bool,
    /// Writes table and plot to docs/, at the place of this label in docs/performance.md.
    #[arg(long, value_name = "LABEL")]
    docs: Option<String>,
    /// What cargo bench passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::parse();
    if !flags.bench {
        println!("bad_day: this takes minutes; run it with `cargo bench --bench bad_day`");
        return Ok(());
    }
    process::pin(process::LOAD_CORE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = compare(&flags) => outcome,
            // Whoever is interrupted ends what it has started, too: by dropping it.
            signal = tokio::signal::ctrl_c() => Err(signal.err().map_or("interrupted".into(), Into::into)),
        }
    });
    // A thread that waits for a scenario's end has backends; they end with it.
    runtime.shutdown_timeout(Duration::from_secs(flags.seconds + 5));
    outcome
}

async fn compare(flags: &Flags) -> Result<(), Box<dyn Error>> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bad-day.json");
    let mut results = if flags.add { Results::load(&file)? } else { Results::default() };
    let chosen = |words: &[String], name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    for proxy in Proxy::all(&flags.balance).into_iter().filter(|proxy| chosen(&flags.proxies, &proxy.name())) {
        if !proxy.is_installed() {
            eprintln!("{}: skipped, it is not installed", proxy.name());
            continue;
        }
        for scenario in Scenario::ALL.into_iter().filter(|scenario| chosen(&flags.scenarios, scenario.title())) {
            let summary = match measure(&proxy, scenario, flags).await {
                Ok(summary) => summary,
                Err(error) => {
                    eprintln!("{}, {}: failed: {error}", proxy.name(), scenario.title());
                    continue;
                }
            };
            let [p50, p99, worst, late] =
                [summary.p50, summary.p99, summary.worst_second, summary.client_late].map(report::milliseconds);
            eprintln!(
                "{:<26} {:<28} p50 {p50:>6}  p99 {p99:>6}  worst second {worst:>6}  failed {:>4} {:?}  (client late {late})",
                proxy.name(),
                scenario.title(),
                summary.errors,
                summary.failures
            );
            results.put(Row { proxy: proxy.name(), scenario: scenario.title().to_owned(), summary });
            results.save(&file)?;
        }
    }
    let table = results.markdown();
    println!("{table}");
    if let Some(label) = &flags.docs {
        let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs");
        report::insert(&docs.join("performance.md"), label, &table)?;
        let title = format!("Bad days: {} requests a second, one of five backends in trouble", flags.rate);
        std::fs::write(docs.join("bad-day.svg"), plot::svg(&results, &title))?;
    }
    Ok(())
}

/// One proxy on one day, from nothing to nothing.
async fn measure(proxy: &Proxy, scenario: Scenario, flags: &Flags) -> Result<Summary, Box<dyn Error>> {
    let length = Duration::from_secs(flags.seconds);
    let folder = tempfile::tempdir()?;
    let mut fleet = Fleet::start(scenario)?;
    let port = process::free_ports(1)?.first().copied().ok_or("no port")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let running = proxy.start(address, fleet.ports(), folder.path())?;
    wait_until_ready(address).map_err(|error| explain(&error, folder.path()))?;

    let load = Load {
        proxy: address,
        rate: flags.rate,
        warm_up: WARM_UP,
        length,
        timeout: Duration::from_secs(flags.timeout),
    };
    let begin = Instant::now() + WARM_UP + Duration::from_millis(50);
    let suffering = tokio::task::spawn_blocking(move || {
        process::pin(process::LOAD_CORE);
        let outcome = fleet.suffer(&scenario.deeds(length), begin, begin + length);
        (fleet, outcome)
    });
    let samples = client::run(load, begin).await;
    let (fleet, outcome) = suffering.await?;
    outcome?;
    running.stop();
    drop(fleet);
    Ok(Summary::of(&samples))
}

/// Asks until the proxy answers with a 200.
fn wait_until_ready(address: SocketAddr) -> Result<(), String> {
    let until = Instant::now() + READY_WITHIN;
    let mut last = String::new();
    while Instant::now() < until {
        last = match ask(address) {
            Ok(answer) if answer.contains(" 200 ") => return Ok(()),
            Ok(answer) => answer,
            Err(error) => error.to_string(),
        };
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("it does not become ready: {last}"))
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench.test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

/// The error, with what the proxy itself said.
fn explain(error: &str, folder: &Path) -> String {
    let log = std::fs::read_to_string(folder.join("error.log")).unwrap_or_default();
    format!("{error}\n{}", log.lines().rev().take(5).collect::<Vec<_>>().join("\n"))
}
