//! `l7lb sample-backend`: one backend of the demo in its own process, so that it can be killed.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clap::Args;
use tokio::io::AsyncReadExt;

use super::failure::Failure;
use crate::sample_backend::{self, Settings};

/// Options of the backend.
#[derive(Args)]
pub(super) struct Arguments {
    /// The port to listen on; 0 for a free one.
    #[arg(long)]
    port: u16,
    /// The name in its responses.
    #[arg(long)]
    name: String,
}

pub(super) fn main(arguments: Arguments) -> Result<(), Failure> {
    let settings = Settings {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: arguments.port,
        name: arguments.name,
        latency: Duration::ZERO,
        service_time: Duration::ZERO,
        cold: Duration::ZERO,
        error_rate: 0.0,
        response: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Failure::runtime(e.to_string()))?.block_on(serve(settings))
}

/// Serves until the demo ends, which closes this process's standard input.
async fn serve(settings: Settings) -> Result<(), Failure> {
    let listener = sample_backend::bind(&settings).await.map_err(|e| Failure::runtime(e.to_string()))?;
    let port = listener.local_addr().map_err(|e| Failure::runtime(e.to_string()))?.port();
    eprintln!("{port}");
    let demo_is_gone = async {
        let mut nothing = [0];
        // Nothing is ever sent; the read returns when the other end is closed.
        tokio::io::stdin().read_exact(&mut nothing).await.ok();
    };
    sample_backend::serve(listener, settings, demo_is_gone).await;
    // A read of standard input cannot be cancelled, so the process exits here.
    std::process::exit(0)
}
