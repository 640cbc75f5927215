//! `l7lb sample-backend`: one of the demo's backends, as a process of its own so that it can be
//! killed to see what happens.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clap::Args;
use tokio::io::AsyncReadExt;

use super::Failure;
use crate::sample_backend::{self, Settings};

/// The backend's place.
#[derive(Args)]
pub(super) struct Arguments {
    /// The port to listen on; 0 takes a free one.
    #[arg(long)]
    port: u16,
    /// The name it answers with.
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

/// Serves until the demo is gone: its end of our standard input closes with it, whatever ends it.
async fn serve(settings: Settings) -> Result<(), Failure> {
    let listener = sample_backend::bind(&settings).await.map_err(|e| Failure::runtime(e.to_string()))?;
    let port = listener.local_addr().map_err(|e| Failure::runtime(e.to_string()))?.port();
    eprintln!("{port}");
    let demo_is_gone = async {
        let mut nothing = [0];
        // Nothing is ever sent; whatever the read returns, the other end is closed.
        tokio::io::stdin().read_exact(&mut nothing).await.ok();
    };
    sample_backend::serve(listener, settings, demo_is_gone).await;
    // A read of standard input cannot be called off, so the process is ended here.
    std::process::exit(0)
}
