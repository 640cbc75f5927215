//! The `bad_day` benchmark: client latency and errors while backends fail, for several proxies.
//!
//! Each proxy has five sample backends. An open-loop client sends requests at a fixed rate while one
//! backend (or each in turn) fails. The proxy runs on one core, backends and client on the other. Each
//! combination of proxy and scenario starts new processes and stops them afterwards. `--docs` writes the
//! results to `docs/performance.md` and `docs/bad-day.svg`; `benches/bad_day/run.sh` runs everything.
//!
//! `cargo bench --bench bad_day -- --help` lists the options.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and prints its results"
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

/// How long a proxy may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// The load before each measurement.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures client latency and errors while backends fail.
#[derive(Debug, Parser)]
#[command(name = "bad_day")]
struct Flags {
    /// The length of each measurement, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Requests per second.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rate: u64,
    /// How long the client waits for a response, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
    /// Only proxies whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    proxies: Vec<String>,
    /// Only scenarios whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Balancing policies of l7lb to measure in addition to its default.
    #[arg(long, value_delimiter = ',')]
    balance: Vec<String>,
    /// Adds to the results of earlier runs instead of replacing them.
    #[arg(long)]
    add: bool,
    /// Writes table and plot to docs/. The label selects the section of docs/performance.md.
    #[arg(long, value_name = "LABEL")]
    docs: Option<String>,
    /// Passed by `cargo bench`.
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
    let result = runtime.block_on(async {
        tokio::select! {
            result = compare(&flags) => result,
            // Dropping the other future kills the processes that it has started.
            signal = tokio::signal::ctrl_c() => Err(signal.err().map_or("interrupted".into(), Into::into)),
        }
    });
    // A blocking thread of a running scenario owns the backends and stops them when it ends.
    runtime.shutdown_timeout(Duration::from_secs(flags.seconds + 5));
    result
}

async fn compare(flags: &Flags) -> Result<(), Box<dyn Error>> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bad-day.json");
    let mut results = if flags.add { Results::load(&file)? } else { Results::default() };
    let selected = |words: &[String], name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    for proxy in Proxy::all(&flags.balance).into_iter().filter(|proxy| selected(&flags.proxies, &proxy.name())) {
        if !proxy.is_installed() {
            eprintln!("{}: skipped because it is not installed", proxy.name());
            continue;
        }
        for scenario in Scenario::ALL.into_iter().filter(|scenario| selected(&flags.scenarios, scenario.title())) {
            let summary = match measure(&proxy, scenario, flags).await {
                Ok(summary) => summary,
                Err(error) => {
                    eprintln!("{}, {}: failed: {error}", proxy.name(), scenario.title());
                    continue;
                }
            };
            let [p50, p99, p999, worst, delay] =
                [summary.p50, summary.p99, summary.p999, summary.worst_second, summary.send_delay]
                    .map(report::milliseconds);
            eprintln!(
                "{:<26} {:<28} p50 {p50:>6}  p99 {p99:>6}  p99.9 {p999:>6}  worst second {worst:>6}  failed {:>4} {:?}  {:?} (send delay p99 {delay})",
                proxy.name(),
                scenario.title(),
                summary.errors,
                summary.failures,
                summary.shares.values().collect::<Vec<_>>()
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
        let title = format!("Backend failures: {} requests per second, one of five backends affected", flags.rate);
        std::fs::write(docs.join("bad-day.svg"), plot::svg(&results, &title))?;
    }
    Ok(())
}

/// Measures one proxy in one scenario, with new processes that it stops afterwards.
async fn measure(proxy: &Proxy, scenario: Scenario, flags: &Flags) -> Result<Summary, Box<dyn Error>> {
    let length = Duration::from_secs(flags.seconds);
    let folder = tempfile::tempdir()?;
    let mut fleet = Fleet::start(scenario)?;
    let port = process::free_ports(1)?.first().copied().ok_or("no port")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let running = proxy.start(address, fleet.ports(), folder.path())?;
    wait_until_ready(address).map_err(|error| with_error_log(&error, folder.path()))?;

    let load = Load {
        proxy: address,
        rate: flags.rate,
        warm_up: WARM_UP,
        length,
        timeout: Duration::from_secs(flags.timeout),
    };
    let begin = Instant::now() + WARM_UP + Duration::from_millis(50);
    let actions = tokio::task::spawn_blocking(move || {
        process::pin(process::LOAD_CORE);
        let result = fleet.run_actions(&scenario.actions(length), begin, begin + length);
        (fleet, result)
    });
    let samples = client::run(load, begin).await;
    let (fleet, result) = actions.await?;
    result?;
    running.stop();
    drop(fleet);
    Ok(Summary::of(&samples))
}

/// Sends requests until the proxy responds with a 200.
fn wait_until_ready(address: SocketAddr) -> Result<(), String> {
    let until = Instant::now() + READY_WITHIN;
    let mut last = String::new();
    while Instant::now() < until {
        last = match status_line(address) {
            Ok(line) if line.contains(" 200 ") => return Ok(()),
            Ok(line) => line,
            Err(error) => error.to_string(),
        };
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("not ready after {READY_WITHIN:?}: {last}"))
}

/// Sends one request and returns the status line of the response.
fn status_line(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench.test\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response.lines().next().unwrap_or_default().to_owned())
}

/// The error, with the last lines of the proxy's error log.
fn with_error_log(error: &str, folder: &Path) -> String {
    let log = std::fs::read_to_string(folder.join("error.log")).unwrap_or_default();
    format!("{error}\n{}", log.lines().rev().take(5).collect::<Vec<_>>().join("\n"))
}
