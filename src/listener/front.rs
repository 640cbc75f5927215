//! The service that accepts connections: one worker per core, each with its own sockets, runtime and proxy, so
//! that a connection stays on one core.
//!
//! With `work_stealing` there is one worker on Pingora's runtime instead, whose threads share the work.

use std::io;
use std::sync::Arc;
use std::thread;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::apps::HttpServerApp;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service as PingoraService;
use pingora_proxy::{HttpProxy, ProxyHttp};
use tokio::sync::{mpsc, watch};

use super::accept::{Entrance, accept};
use super::drain::Drain;
use super::service::{LiveRules, Service};
use super::sockets::Socket;
use crate::observe::AccessLog;

/// A listener: its sockets and settings.
pub struct Door {
    /// One per worker, or more after an upgrade from a process with more workers.
    pub sockets: Vec<Socket>,
    /// The settings for its connections.
    pub entrance: Arc<Entrance>,
}

/// What the service needs when it starts.
pub struct Makings<P> {
    /// Creates the proxy of a worker; called inside the runtime of the worker.
    pub proxy: Box<dyn Fn() -> HttpProxy<P> + Send + Sync>,
    /// The access log for rejected requests.
    pub access_log: AccessLog,
}

/// Creates the parts; called late, because a daemon must not have threads before it forks.
pub type Prepare<P> = Box<dyn FnOnce() -> Result<Makings<P>, String> + Send + Sync>;

/// How work is distributed over threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// This many workers with one thread each.
    Apart(usize),
    /// One worker with this many threads.
    Together(usize),
}

/// The service of all listeners.
pub struct Front<P> {
    start: Mutex<Option<Start<P>>>,
    workers: Workers,
    rules: LiveRules,
    drain: Drain,
    settled: watch::Receiver<bool>,
}

struct Start<P> {
    doors: Vec<Door>,
    prepare: Prepare<P>,
    on_ready: Box<dyn FnOnce() + Send + Sync>,
}

impl<P> Front<P> {
    /// A service for these listeners. It accepts once `settled` is true, and then calls `on_ready`.
    pub fn new(
        doors: Vec<Door>,
        prepare: Prepare<P>,
        on_ready: impl FnOnce() + Send + Sync + 'static,
        (workers, rules): (Workers, LiveRules),
        (drain, settled): (Drain, watch::Receiver<bool>),
    ) -> Self {
        let start = Start { doors, prepare, on_ready: Box::new(on_ready) };
        Self { start: Mutex::new(Some(start)), workers, rules, drain, settled }
    }
}

#[async_trait]
impl<P> PingoraService for Front<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    async fn start_service(&mut self, _fds: Option<ListenFds>, mut shutdown: ShutdownWatch, _per_fd: usize) {
        let Some(start) = self.start.lock().take() else {
            return;
        };
        // The sockets already listen, so early clients wait and are not refused.
        self.settled.wait_for(|settled| *settled).await.ok();
        if let Err(e) = self.serve(start).await {
            log::error!("{e}");
            std::process::exit(1);
        }
        shutdown.wait_for(|shutdown| *shutdown).await.ok();
    }

    fn name(&self) -> &'static str {
        "front"
    }

    fn threads(&self) -> Option<usize> {
        match self.workers {
            Workers::Apart(_) => Some(1),
            Workers::Together(threads) => Some(threads),
        }
    }
}

impl<P> Front<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    /// Starts the workers, and accepts once all of them are ready.
    async fn serve(&self, start: Start<P>) -> Result<(), String> {
        let makings = Arc::new((start.prepare)()?);
        let shares = share(start.doors, if let Workers::Apart(workers) = self.workers { workers } else { 1 });
        let open = watch::Sender::new(false);
        let (ready, mut all_ready) = mpsc::channel(shares.len().max(1));
        for (number, doors) in shares.into_iter().enumerate() {
            let worker = Worker {
                doors,
                makings: Arc::clone(&makings),
                rules: self.rules.clone(),
                drain: self.drain.clone(),
                ready: ready.clone(),
                open: open.subscribe(),
            };
            match self.workers {
                Workers::Together(_) => drop(tokio::spawn(worker.run())),
                Workers::Apart(_) => start_thread(number, worker).map_err(|e| format!("cannot start a worker: {e}"))?,
            }
        }
        drop(ready);
        while let Some(outcome) = all_ready.recv().await {
            outcome.map_err(|e: io::Error| format!("cannot accept: {e}"))?;
        }
        (start.on_ready)();
        open.send_replace(true);
        Ok(())
    }
}

/// Distributes the sockets: each worker gets one of each listener if there are enough.
fn share(doors: Vec<Door>, workers: usize) -> Vec<Vec<(Arc<Entrance>, Socket)>> {
    let mut shares: Vec<Vec<_>> = (0..workers.max(1)).map(|_| Vec::new()).collect();
    for door in doors {
        // Round robin, so that no socket is left without a worker.
        let workers = shares.len();
        for (number, socket) in door.sockets.into_iter().enumerate() {
            if let Some(share) = shares.get_mut(number % workers) {
                share.push((Arc::clone(&door.entrance), socket));
            }
        }
    }
    shares
}

fn start_thread<P>(number: usize, worker: Worker<P>) -> io::Result<()>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = thread::Builder::new().name(format!("worker {number}"));
    thread.spawn(move || runtime.block_on(worker.run()))?;
    Ok(())
}

/// One worker before it runs.
struct Worker<P> {
    doors: Vec<(Arc<Entrance>, Socket)>,
    makings: Arc<Makings<P>>,
    rules: LiveRules,
    drain: Drain,
    ready: mpsc::Sender<io::Result<()>>,
    open: watch::Receiver<bool>,
}

impl<P> Worker<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    /// Runs until the process ends.
    async fn run(mut self) {
        let proxy = (self.makings.proxy)();
        let service = Arc::new(Service::new(proxy, self.makings.access_log.clone(), self.drain.clone(), self.rules));
        let incoming = |(entrance, socket): (_, Socket)| Ok((entrance, socket.into_incoming()?));
        let doors: io::Result<Vec<_>> = self.doors.into_iter().map(incoming).collect();
        let (doors, outcome) = match doors {
            Ok(doors) => (doors, Ok(())),
            Err(e) => (Vec::new(), Err(e)),
        };
        // The receiver may have stopped because another worker has failed.
        self.ready.send(outcome).await.ok();
        drop(self.ready);
        // No connection is accepted unless all workers are ready.
        if self.open.wait_for(|open| *open).await.is_err() {
            return;
        }
        for (entrance, incoming) in doors {
            tokio::spawn(accept(Arc::clone(&service), incoming, entrance));
        }
        // The runtime exists as long as this task.
        self.drain.silent().wait_for(|silent| *silent).await.ok();
        service.proxy.http_cleanup().await;
        std::future::pending::<()>().await;
    }
}
