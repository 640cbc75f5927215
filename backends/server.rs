//! The sample backend: a small HTTP server to put behind the load balancer, in
//! the demo, by hand and in the integration tests.
//!
//! It speaks HTTP/1.1 and cleartext HTTP/2 (by prior knowledge) on one port.
//! This file listens and keeps the connections; `answers` says what each path
//! answers, `bodies` holds the streamed bodies, `mood` makes it misbehave, and `tape`
//! remembers what arrived byte by byte so that `/echo` can repeat it.

mod answers;
mod bodies;
mod mood;
mod tape;

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

use answers::Answers;
use tape::{Taped, TapedStream};

/// How long a stopping backend lets requests in flight finish.
const FINISH_WITHIN: Duration = Duration::from_millis(500);

/// How long to rest after a failed accept: it fails when the process is out of
/// file descriptors, and retrying at once would only burn a core.
const REST_AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(20);

/// What one backend is called, where it listens and how it misbehaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The address to listen on.
    pub address: IpAddr,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// The name it answers with in `x-backend` and in its greeting.
    pub name: String,
    /// Waited before each answer, health and count excepted.
    pub latency: Duration,
    /// The mean time that an ordinary answer takes, exponentially distributed, on top of the latency.
    pub service_time: Duration,
    /// How long after its start the service time is ten times as long.
    pub cold: Duration,
    /// The share of answers, from 0 to 1, that are a 500 instead.
    pub error_rate: f64,
    /// The text of an ordinary answer; without it, `Hello from NAME`.
    pub response: Option<String>,
}

/// Opens the port that the settings name.
///
/// It is a step of its own so that the caller can say which port was taken, or
/// that it could not be had, before the backend serves.
///
/// # Errors
///
/// When the port cannot be listened on; the message names it.
pub async fn bind(settings: &Settings) -> io::Result<TcpListener> {
    let (address, port) = (settings.address, settings.port);
    TcpListener::bind((address, port))
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on port {port} of {address}: {error}")))
}

/// Serves on the listener until `stop` completes, then lets the requests in
/// flight finish for half a second at most.
pub async fn serve(listener: TcpListener, settings: Settings, stop: impl Future<Output = ()>) {
    let answers = Arc::new(Answers::new(settings));
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => keep_connection(stream, &answers, &graceful),
                Err(_) => tokio::time::sleep(REST_AFTER_FAILED_ACCEPT).await,
            },
        }
    }
    // Closed before the wait, so that newcomers are refused and go elsewhere
    // instead of sitting in the accept queue.
    drop(listener);
    // Running out of time is no error: what still hangs is cut off by design.
    tokio::time::timeout(FINISH_WITHIN, graceful.shutdown()).await.ok();
}

/// Serves one connection on a task of its own.
fn keep_connection(stream: TcpStream, answers: &Arc<Answers>, graceful: &GracefulShutdown) {
    // Without it small answers can wait for the peer's delayed acknowledgement.
    // A failure only costs that, so it is not worth dropping the connection.
    stream.set_nodelay(true).ok();
    let (stream, tape) = TapedStream::new(stream);
    let answers = Arc::clone(answers);
    let watcher = graceful.watcher();
    tokio::spawn(async move {
        let service = service_fn(move |request| {
            let answers = Arc::clone(&answers);
            let tape = Taped::clone(&tape);
            async move { answers.answer(request, &tape).await }
        });
        // No timer is given on purpose: with one, hyper closes a kept-alive
        // connection that idles for 30 seconds, and the balancer's reuse of it
        // would sometimes race with that.
        let server = auto::Builder::new(TokioExecutor::new());
        let connection = server.serve_connection(TokioIo::new(stream), service);
        // A connection that breaks, or that /close breaks, concerns only its peer.
        watcher.watch(connection.into_owned()).await.ok();
    });
}
