//! The service that accepts connections: one worker per core, each with its own sockets, runtime and proxy, so
//! that a connection stays on one core.
//!
//! With `work_stealing` there is one worker on Pingora's runtime instead, whose threads share the work.

use std::io;
use std::sync::Arc;
use std::thread;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service as PingoraService;
use tokio::sync::{mpsc, watch};

use super::accept::{AcceptorSettings, accept};
use super::client_rules::ActiveClientRules;
use super::drain::Drain;
use super::engine::Engine;
use super::sockets::Socket;
use super::worker_context::WorkerContext;
use crate::base::vital::Vital;
use crate::observe::Observers;

/// The number of tasks that a worker runs between two looks at its sockets. A larger number saves system calls and lets
/// more responses of a connection leave in one write; tokio's default is 61. docs/performance.md has the measurement.
const EVENT_INTERVAL: u32 = 1024;

/// A bound listen address: its sockets, and the settings of its listener.
pub struct BoundListener {
    /// One socket per worker, or more after an upgrade from a process with more workers.
    pub sockets: Vec<Socket>,
    /// The settings for its connections.
    pub settings: Arc<AcceptorSettings>,
}

/// The parts from which each worker is built.
pub struct WorkerParts<E> {
    /// Creates the engine of a worker with these observers. It runs inside the runtime of the worker.
    pub engine: Box<dyn Fn(Observers) -> E + Send + Sync>,
    /// Creates the observers of a worker with this number of threads.
    pub observers: Box<dyn Fn(usize) -> Observers + Send + Sync>,
}

/// Creates the parts. It runs when the service starts, because a daemon must not have threads before it forks.
pub type Prepare<E> = Box<dyn FnOnce() -> Result<WorkerParts<E>, String> + Send + Sync>;

/// How work is distributed over threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// This many workers with one thread each.
    SingleThreaded(usize),
    /// One worker with this many threads.
    WorkStealing(usize),
}

/// The service that accepts and serves the connections of all listeners.
pub struct ListenerService<E> {
    start: Mutex<Option<Start<E>>>,
    workers: Workers,
    rules: ActiveClientRules,
    drain: Drain,
    settled: watch::Receiver<bool>,
}

struct Start<E> {
    listeners: Vec<BoundListener>,
    prepare: Prepare<E>,
    on_ready: Box<dyn FnOnce() + Send + Sync>,
}

impl<E> ListenerService<E> {
    /// A service for `listeners`. When `settled` becomes true, it starts its workers, calls `on_ready`, and accepts
    /// connections.
    pub fn new(
        listeners: Vec<BoundListener>,
        prepare: Prepare<E>,
        on_ready: impl FnOnce() + Send + Sync + 'static,
        (workers, rules): (Workers, ActiveClientRules),
        (drain, settled): (Drain, watch::Receiver<bool>),
    ) -> Self {
        let start = Start { listeners, prepare, on_ready: Box::new(on_ready) };
        Self { start: Mutex::new(Some(start)), workers, rules, drain, settled }
    }
}

#[async_trait]
impl<E: Engine> PingoraService for ListenerService<E> {
    async fn start_service(&mut self, _fds: Option<ListenFds>, mut shutdown: ShutdownWatch, _per_fd: usize) {
        let Some(start) = self.start.lock().take() else {
            return;
        };
        // The sockets already listen, so an early client waits in the accept queue and its connection is not refused.
        self.settled.wait_for(|settled| *settled).await.ok();
        if let Err(e) = self.serve(start).await {
            log::error!("{e}");
            std::process::exit(1);
        }
        shutdown.wait_for(|shutdown| *shutdown).await.ok();
    }

    fn name(&self) -> &'static str {
        "listeners"
    }

    fn threads(&self) -> Option<usize> {
        match self.workers {
            Workers::SingleThreaded(_) => Some(1),
            Workers::WorkStealing(threads) => Some(threads),
        }
    }
}

impl<E: Engine> ListenerService<E> {
    /// Starts the workers, and accepts once all of them are ready.
    async fn serve(&self, start: Start<E>) -> Result<(), String> {
        let parts = Arc::new((start.prepare)()?);
        let shares =
            distribute(start.listeners, if let Workers::SingleThreaded(workers) = self.workers { workers } else { 1 });
        let threads = if let Workers::WorkStealing(threads) = self.workers { threads } else { 1 };
        let open = watch::Sender::new(false);
        let workers = shares.len();
        let (ready, mut all_ready) = mpsc::channel(workers.max(1));
        for (number, listeners) in shares.into_iter().enumerate() {
            let worker = Worker {
                number,
                threads,
                listeners,
                parts: Arc::clone(&parts),
                rules: self.rules.clone(),
                drain: self.drain.clone(),
                ready: ready.clone(),
                open: open.subscribe(),
            };
            match self.workers {
                Workers::WorkStealing(_) => drop(tokio::spawn(worker.run())),
                Workers::SingleThreaded(_) => {
                    start_thread(number, worker).map_err(|e| format!("cannot start a worker: {e}"))?
                }
            }
        }
        drop(ready);
        for _ in 0..workers {
            let outcome = all_ready.recv().await.ok_or("a worker ended before it was ready")?;
            outcome.map_err(|e: io::Error| format!("cannot accept: {e}"))?;
        }
        (start.on_ready)();
        open.send_replace(true);
        Ok(())
    }
}

/// Distributes the sockets: each worker gets one of each listener if there are enough.
fn distribute(listeners: Vec<BoundListener>, workers: usize) -> Vec<Vec<(Arc<AcceptorSettings>, Socket)>> {
    let mut shares: Vec<Vec<_>> = (0..workers.max(1)).map(|_| Vec::new()).collect();
    for listener in listeners {
        // Round robin, so that no socket is left without a worker.
        let workers = shares.len();
        for (number, socket) in listener.sockets.into_iter().enumerate() {
            if let Some(share) = shares.get_mut(number % workers) {
                share.push((Arc::clone(&listener.settings), socket));
            }
        }
    }
    shares
}

fn start_thread<E: Engine>(number: usize, worker: Worker<E>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(EVENT_INTERVAL).build()?;
    let thread = thread::Builder::new().name(format!("worker {number}"));
    thread.spawn(move || runtime.block_on(worker.run()))?;
    Ok(())
}

/// One worker before it runs.
struct Worker<E> {
    number: usize,
    threads: usize,
    listeners: Vec<(Arc<AcceptorSettings>, Socket)>,
    parts: Arc<WorkerParts<E>>,
    rules: ActiveClientRules,
    drain: Drain,
    ready: mpsc::Sender<io::Result<()>>,
    open: watch::Receiver<bool>,
}

impl<E: Engine> Worker<E> {
    /// Runs until the process ends.
    async fn run(mut self) {
        let number = self.number;
        let _vital = Vital(format!("worker {number}"));
        let observers = (self.parts.observers)(self.threads);
        let lag = observers.metrics.lag();
        tokio::spawn(async move { lag.measure().await });
        let engine = (self.parts.engine)(observers.clone());
        let worker = Arc::new(WorkerContext::new(engine, observers, self.drain.clone(), self.rules));
        let listener = |(settings, socket): (_, Socket)| Ok((settings, socket.into_async()?));
        let listeners: io::Result<Vec<_>> = self.listeners.into_iter().map(listener).collect();
        let (listeners, outcome) = match listeners {
            Ok(listeners) => (listeners, Ok(())),
            Err(e) => (Vec::new(), Err(e)),
        };
        // The channel is closed if another worker has failed.
        self.ready.send(outcome).await.ok();
        drop(self.ready);
        // No connection is accepted unless all workers are ready.
        if self.open.wait_for(|open| *open).await.is_err() {
            return;
        }
        for (settings, listener) in listeners {
            let (worker, vital) = (Arc::clone(&worker), Vital(format!("a listener of worker {number}")));
            tokio::spawn(async move {
                let _vital = vital;
                accept(worker, listener, settings).await;
            });
        }
        // The runtime of the worker ends with this task.
        self.drain.closing_idle().wait_for(|closing| *closing).await.ok();
        worker.engine.clean_up().await;
        std::future::pending::<()>().await;
    }
}
