//! The `backend` program: the sample backend as its own process.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use l7lb::sample_backend::{Settings, bind, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A small HTTP server to put behind the load balancer.
#[derive(Debug, Parser)]
#[command(name = "backend", version)]
struct Flags {
    /// The port to listen on; 0 selects a free port.
    #[arg(long, default_value_t = 8081)]
    port: u16,
    /// The address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// The name in `x-backend` and in the default response.
    #[arg(long, default_value = "backend")]
    name: String,
    /// A fixed delay before each response, except for /health and /count, such as "5ms".
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    latency: Duration,
    /// The mean of an exponentially distributed service time of each other response.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    service_time: Duration,
    /// How long after the start the service time is ten times as long, such as "10s".
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    cold: Duration,
    /// The share of responses, from 0 to 1, that are a 500.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    error_rate: f64,
    /// The body of the default response; without it, "Hello from NAME".
    #[arg(long, env = "BACKEND_RESPONSE")]
    response: Option<String>,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("it must be a number from 0 to 1".to_owned()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Flags::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("backend: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: Flags) -> io::Result<()> {
    let settings = Settings {
        address: flags.address,
        port: flags.port,
        name: flags.name,
        latency: flags.latency,
        service_time: flags.service_time,
        cold: flags.cold,
        error_rate: flags.error_rate,
        response: flags.response,
    };
    let listener = bind(&settings).await?;
    // Installed before the line is printed: its reader may send a signal immediately.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    print_address(&settings.name, &listener)?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve(listener, settings, stop).await;
    Ok(())
}

/// Prints one line with the address that the backend listens on.
fn print_address(name: &str, listener: &TcpListener) -> io::Result<()> {
    let address = listener.local_addr()?;
    let line = format!("backend {name} listening on http://{address}");
    // Not println: it panics if standard output is closed.
    writeln!(io::stdout(), "{line}").ok();
    Ok(())
}
