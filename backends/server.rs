//! The sample backend: a small HTTP server to put behind the load balancer, in
//! the demo, by hand and in the integration tests.
//!
//! It speaks HTTP/1.1 and cleartext HTTP/2 (by prior knowledge) on one port.
//! This file listens and serves the connections. `responses` has the response of
//! each path, `bodies` the streamed bodies, `fault_injection` the injected faults,
//! and `recording` the received bytes for `/echo`.

mod bodies;
mod fault_injection;
mod recording;
mod responses;

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};

use recording::{Recording, RecordingStream};
use responses::Responder;

/// How long requests in flight may take to finish during a graceful shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// The pause after a failed accept. Accept fails when the process has reached its
/// file descriptor limit; an immediate retry would fail again and use a full core.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(20);

/// The name, address, timing and failures of one backend.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The address to listen on.
    pub address: IpAddr,
    /// The port to listen on; 0 selects a free port.
    pub port: u16,
    /// The name in `x-backend` and in the default response.
    pub name: String,
    /// A fixed delay before each response, except for `/health` and `/count`.
    pub latency: Duration,
    /// The mean of an exponentially distributed service time, in addition to `latency`.
    pub service_time: Duration,
    /// How long after the start the service time is ten times as long.
    pub cold: Duration,
    /// The share of responses, from 0 to 1, that are a 500.
    pub error_rate: f64,
    /// The body of the default response; without it, `Hello from NAME`.
    pub response: Option<String>,
}

/// Opens the listening socket of the settings.
///
/// It is separate from [`serve`] so that the caller can report the chosen port, or
/// an error, before the backend serves.
///
/// # Errors
///
/// If the port is not available; the message names it.
pub async fn bind(settings: &Settings) -> io::Result<TcpListener> {
    let (address, port) = (settings.address, settings.port);
    TcpListener::bind((address, port))
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on port {port} of {address}: {error}")))
}

/// Serves on the listener until `stop` completes, then waits at most half a second
/// for the requests in flight.
pub async fn serve(listener: TcpListener, settings: Settings, stop: impl Future<Output = ()>) {
    let responder = Arc::new(Responder::new(settings));
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => spawn_connection(stream, &responder, &graceful),
                Err(_) => tokio::time::sleep(ACCEPT_ERROR_PAUSE).await,
            },
        }
    }
    // Closed before the wait, so that new connections are refused instead of
    // remaining in the accept queue.
    drop(listener);
    // A timeout is not an error: the remaining requests are aborted by design.
    tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.ok();
}

/// Serves one connection in its own task.
fn spawn_connection(stream: TcpStream, responder: &Arc<Responder>, graceful: &GracefulShutdown) {
    // Without TCP_NODELAY small responses can wait for the peer's delayed
    // acknowledgement. A failure has no other effect, so it is ignored.
    stream.set_nodelay(true).ok();
    let (stream, recording) = RecordingStream::new(stream);
    let responder = Arc::clone(responder);
    let watcher = graceful.watcher();
    tokio::spawn(async move {
        let service = service_fn(move |request| {
            let responder = Arc::clone(&responder);
            let recording = Recording::clone(&recording);
            async move { responder.respond(request, &recording).await }
        });
        // No timer is set: with one, hyper closes a keep-alive connection that is
        // idle for 30 seconds, which races with its reuse by the load balancer.
        let server = auto::Builder::new(TokioExecutor::new());
        let connection = server.serve_connection(TokioIo::new(stream), service);
        // A connection error, or a close by /close, affects only this connection.
        watcher.watch(connection.into_owned()).await.ok();
    });
}
