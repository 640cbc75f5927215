//! A steady load that sees every failed request: so many tasks that each send
//! the next request as soon as the last was answered, until told to stop.
//!
//! It speaks HTTP/1 on raw sockets and HTTP/2 with the `h2` crate, since a
//! client with a connection pool repeats some failed requests in silence.
//! Requests that a server declined in order are no failures: connections that
//! it closed by `Connection: close`, or while no request was on them, and
//! HTTP/2 requests above the last id of its GOAWAY, or refused by
//! REFUSED_STREAM, which the protocol declares safe to send again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::Protocol;
use super::{eventually, load_http1, load_http2, tls};

/// Waited after a failed request, so that a dead server does not make millions.
pub(super) const AFTER_FAILURE: Duration = Duration::from_millis(10);

/// What is asked, and how hard.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The protocol to speak.
    pub protocol: Protocol,
    /// Where to connect.
    pub address: SocketAddr,
    /// The host to ask for, in the request and by SNI.
    pub host: String,
    /// The path to ask for.
    pub path: String,
    /// How many tasks ask at the same time.
    pub tasks: usize,
    /// How many of the tasks share an HTTP/2 connection.
    pub tasks_per_connection: usize,
    /// How long each task rests between an answer and the next request.
    pub pause: Duration,
}

impl Plan {
    /// Four tasks that ask for `/` of `localhost` without a pause; tasks that
    /// speak HTTP/2 share one connection.
    pub fn new(protocol: Protocol, address: SocketAddr) -> Self {
        Self {
            protocol,
            address,
            host: "localhost".to_owned(),
            path: "/".to_owned(),
            tasks: 4,
            tasks_per_connection: 4,
            pause: Duration::ZERO,
        }
    }
}

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Complete answers with a status from 200 to 299.
    pub ok: u64,
    /// Requests without a complete answer, each with what went wrong.
    pub failed: Vec<String>,
    /// Complete answers by status, the good ones included.
    pub statuses: BTreeMap<u16, u64>,
    /// Connections opened.
    pub connections: u64,
    /// HTTP/2 requests that the server declined in order and that were sent again.
    pub resent: u64,
    /// HTTP/1 connections that the server closed while no request was on them.
    pub closed_idle: u64,
}

impl Report {
    /// Asserts that there were answers and that all of them were good.
    ///
    /// # Panics
    ///
    /// When a request failed, or was answered with another status than 2xx.
    pub fn assert_clean(&self) {
        let answered: u64 = self.statuses.values().sum();
        let clean = self.failed.is_empty() && self.ok > 0 && self.ok == answered;
        assert!(clean, "the load was not clean: {self:#?}");
    }
}

/// A running load. Dropping it breaks it off.
pub struct Load {
    tally: Tally,
    phase: watch::Sender<Phase>,
    worker: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Finishing,
    BrokenOff,
}

impl Load {
    /// Starts the load, on a thread of its own.
    pub fn start(plan: Plan) -> Self {
        let tally = Tally::default();
        let (phase, watched) = watch::channel(Phase::Running);
        let shared = tally.clone();
        let worker = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(run(plan, shared, Running(watched)));
        });
        Self {
            tally,
            phase,
            worker: Some(worker),
        }
    }

    /// What came of it so far.
    pub fn so_far(&self) -> Report {
        self.tally.lock().clone()
    }

    /// Waits for so many more good answers from now on: the load has then gone
    /// on through whatever just happened.
    ///
    /// # Panics
    ///
    /// When they do not come in time.
    pub fn wait_for_more(&self, answers: u64, within: Duration) {
        let wanted = self.tally.lock().ok + answers;
        eventually("more good answers to the load", within, || {
            self.tally.lock().ok >= wanted
        });
    }

    /// Stops it: each task finishes the request it is on.
    pub fn stop(mut self) -> Report {
        self.end(Phase::Finishing);
        self.so_far()
    }

    fn end(&mut self, phase: Phase) {
        self.phase.send_replace(phase);
        if let Some(worker) = self.worker.take() {
            assert!(worker.join().is_ok(), "the load itself panicked");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Nothing is left of a load that was stopped; a second panic while a
        // test panics would hide the first.
        self.phase.send_replace(Phase::BrokenOff);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

async fn run(plan: Plan, tally: Tally, running: Running) {
    let mut tasks = JoinSet::new();
    let plan = Arc::new(plan);
    match plan.protocol {
        Protocol::Http1 | Protocol::Http1Tls => {
            for _ in 0..plan.tasks {
                let (plan, tally) = (Arc::clone(&plan), tally.clone());
                tasks.spawn(load_http1::ask(plan, tally, running.clone()));
            }
        }
        Protocol::Http2 | Protocol::Http2Tls => {
            let mut shared = load_http2::Shared::new(&plan, &tally);
            for number in 0..plan.tasks {
                if number % plan.tasks_per_connection.max(1) == 0 {
                    shared = load_http2::Shared::new(&plan, &tally);
                }
                tasks.spawn(load_http2::ask(Arc::clone(&shared), running.clone()));
            }
        }
    }
    let mut breaking = running.0.clone();
    tokio::select! {
        () = async { while let Some(ended) = tasks.join_next().await { ended.expect("a task of the load") } } => {}
        _ = breaking.wait_for(|phase| *phase == Phase::BrokenOff) => {}
    }
}

/// Tells the tasks whether to go on.
#[derive(Clone)]
pub(super) struct Running(watch::Receiver<Phase>);

impl Running {
    /// Whether to send another request.
    pub(super) fn goes_on(&self) -> bool {
        *self.0.borrow() == Phase::Running
    }
}

/// The shared report that the tasks write into.
#[derive(Clone, Default)]
pub(super) struct Tally(Arc<Mutex<Report>>);

impl Tally {
    /// The report, to be changed.
    pub(super) fn lock(&self) -> MutexGuard<'_, Report> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a complete answer.
    pub(super) fn answered(&self, status: u16) {
        let mut report = self.lock();
        report.ok += u64::from((200..300).contains(&status));
        *report.statuses.entry(status).or_default() += 1;
    }

    /// Counts a request without a complete answer.
    pub(super) fn failed(&self, what: String) {
        self.lock().failed.push(what);
    }
}

/// A connection with or without TLS.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Connects as the plan says.
pub(super) async fn connect(plan: &Plan) -> Result<Box<dyn Duplex>, String> {
    if plan.protocol.is_tls() {
        let stream = tls::connect(plan.address, &plan.host, plan.protocol.alpn()).await?;
        return Ok(Box::new(stream));
    }
    let stream = TcpStream::connect(plan.address)
        .await
        .map_err(|error| format!("connect: {error}"))?;
    let _ = stream.set_nodelay(true);
    Ok(Box::new(stream))
}
