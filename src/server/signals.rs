//! Signals: graceful and immediate shutdown, upgrade, reload, and reopening of logs.
//!
//! | signal | effect |
//! |---|---|
//! | SIGTERM | graceful shutdown: readiness fails; after `drain_delay` the listeners close; requests in flight finish,
//! at most for the grace period. A second one: as SIGINT |
//! | SIGINT | immediate shutdown |
//! | SIGQUIT | graceful upgrade: the sockets go to a new process that waits for them; then as SIGTERM. Without a new
//! process: nothing |
//! | SIGHUP | the configuration is reloaded, and the access log is reopened |
//! | SIGUSR1 | the access log is reopened |

use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::successor::Successor;

use crate::base::lifecycle::{Lifecycle, Phase};
use crate::base::systemd;
use crate::control::reload::{Outcome, ReloadHandle, UpgradeRequest};
use crate::listener::{Drain, handover};
use crate::observe::access_log;

/// What is added to the stop timeout requested from the service manager.
const MARGIN: Duration = Duration::from_secs(5);

/// How long the process lives at least after it was replaced.
const RESULT_DELIVERY: Duration = Duration::from_millis(500);
/// How long a started process may take to read its configuration.
const WAIT_FOR_SUCCESSOR: Duration = Duration::from_secs(30);

/// Pingora waits for the shutdown signal of this type.
pub(super) struct Signals {
    pub(super) drain: Drain,
    pub(super) lifecycle: Lifecycle,
    pub(super) grace: Duration,
    pub(super) log_slot: access_log::Slot,
    /// Requests reloads, if the configuration came from a file.
    pub(super) reload_handle: Option<ReloadHandle>,
    pub(super) hand_over: HandOver,
    /// Receives requests for upgrades.
    pub(super) upgrades: Mutex<mpsc::Receiver<UpgradeRequest>>,
}

/// What an upgrade needs.
#[derive(Clone)]
pub(super) struct HandOver {
    pub(super) sockets: Vec<(String, RawFd)>,
    pub(super) upgrade_sock: PathBuf,
    pub(super) successor: Successor,
}

struct Streams {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    reopen: Signal,
    hangup: Signal,
}

impl HandOver {
    /// Hands over the sockets to the process that waits.
    fn to_waiting(&self) -> io::Result<Option<u32>> {
        handover::send(&self.upgrade_sock, &self.sockets, handover::WAIT_FOR_STARTED, || Ok(()))
    }

    /// Starts a process and hands over the sockets to it, at its own `upgrade_sock`.
    fn to_successor(&self, upgrade_sock: &str) -> io::Result<Option<u32>> {
        let path = self.successor.resolve(upgrade_sock);
        let mut starting = self.successor.start().map_err(io::Error::other)?;
        let pid = handover::send(&path, &self.sockets, WAIT_FOR_SUCCESSOR, || starting.check())?;
        starting.release();
        Ok(pid)
    }
}

impl Streams {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            reopen: signal(SignalKind::user_defined1())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let mut streams = match Streams::new() {
            Ok(streams) => streams,
            Err(e) => {
                log::error!("cannot register signal handlers: {e}");
                return ShutdownSignal::FastShutdown;
            }
        };
        // Pingora calls this once.
        let (_, none) = mpsc::channel(1);
        let mut upgrades = std::mem::replace(&mut *self.upgrades.lock(), none);
        loop {
            tokio::select! {
                _ = streams.interrupt.recv() => {
                    log::info!("SIGINT: immediate shutdown");
                    return self.leave();
                }
                _ = streams.terminate.recv() => {
                    self.lifecycle.enter(Phase::Draining);
                    break;
                }
                _ = streams.quit.recv() => {
                    let sockets = self.hand_over.sockets.len();
                    log::info!("SIGQUIT: handing over {sockets} sockets to the waiting process");
                    let hand_over = self.hand_over.clone();
                    match self.replace(&mut streams.interrupt, move || hand_over.to_waiting()).await {
                        None => return self.leave(),
                        Some(Ok(_)) => break,
                        Some(Err(_)) => {}
                    }
                }
                Some(UpgradeRequest { upgrade_sock, changes, reply }) = upgrades.recv() => {
                    log::info!("starting a new process to take over");
                    let hand_over = self.hand_over.clone();
                    let hand_over = move || hand_over.to_successor(&upgrade_sock);
                    let Some(replaced) = self.replace(&mut streams.interrupt, hand_over).await else {
                        return self.leave();
                    };
                    let upgraded = replaced.is_ok();
                    // The requester may have disconnected.
                    reply.send(match replaced {
                        Ok(pid) => Outcome::Upgraded { changes, pid },
                        Err(reason) => Outcome::UpgradeFailed { changes, reason },
                    }).ok();
                    if upgraded {
                        break;
                    }
                }
                _ = streams.reopen.recv() => self.reopen(),
                _ = streams.hangup.recv() => {
                    self.reopen();
                    if let Some(reload_handle) = &self.reload_handle {
                        reload_handle.request_reload();
                    }
                }
            }
        }
        tokio::select! {
            () = self.finish() => {}
            signal = streams.early_end(self.lifecycle.phase()) => log::info!("{signal}: aborting {} connections", self.drain.open()),
        }
        self.leave()
    }
}

impl Streams {
    /// Waits for a signal that ends the graceful shutdown early. After an upgrade, in `phase` [`Phase::Replaced`], the
    /// first SIGTERM does not count: a service manager sends it to all processes of the service to start a graceful
    /// shutdown.
    async fn early_end(&mut self, phase: Phase) -> &'static str {
        let mut ignore_terminate = phase == Phase::Replaced;
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.terminate.recv() => {
                    if !std::mem::take(&mut ignore_terminate) {
                        return "second SIGTERM";
                    }
                    log::info!("SIGTERM: already draining, another process has taken over");
                }
            }
        }
    }
}

impl Signals {
    /// Drains all connections, and logs the requests that were aborted.
    async fn finish(&self) {
        if self.lifecycle.phase() == Phase::Draining {
            let delay = self.lifecycle.drain_delay();
            systemd::stopping(delay + self.grace + MARGIN);
            if !delay.is_zero() {
                log::info!("SIGTERM: draining, readiness checks fail; listeners close in {delay:?}");
                tokio::time::sleep(delay).await;
            }
            log::info!("SIGTERM: draining {} connections, at most for {:?}", self.drain.open(), self.grace);
        }
        // After an upgrade its requester still has to get the result.
        let replaced = self.lifecycle.phase() == Phase::Replaced;
        let delivered = tokio::time::sleep(if replaced { RESULT_DELIVERY } else { Duration::ZERO });
        let (late, ()) = tokio::join!(self.drain.run(self.grace), delivered);
        if late == 0 {
            return log::info!("all connections have ended");
        }
        self.lifecycle.enter(Phase::Aborting);
        let still_open = self.drain.abort().await;
        let cut = self.lifecycle.aborted();
        log::warn!("the grace period is over: aborting {late} connections with {} requests", cut.total);
        cut.named.iter().for_each(|request| log::warn!("request aborted: {request}"));
        if cut.total > cut.named.len() {
            log::warn!("{} more requests aborted", cut.total - cut.named.len());
        }
        if still_open > 0 {
            log::warn!("{still_open} connections are still open after they were aborted");
        }
    }

    /// Hands over to another process with `hand_over` and returns it. `None` if SIGINT came before; then the
    /// new process notices the end of this one, and stops.
    async fn replace(
        &self,
        interrupt: &mut Signal,
        hand_over: impl FnOnce() -> io::Result<Option<u32>> + Send + 'static,
    ) -> Option<Result<Option<u32>, String>> {
        let (reply, delivered) = oneshot::channel();
        // A separate thread: the runtime would wait at its end for one of its blocking threads.
        std::thread::spawn(move || reply.send(hand_over()));
        let delivered = tokio::select! {
            delivered = delivered => delivered,
            _ = interrupt.recv() => {
                log::info!("SIGINT: immediate shutdown during an upgrade");
                return None;
            }
        };
        Some(match delivered.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Ok(pid) => {
                let (open, grace) = (self.drain.open(), self.grace);
                log::info!("the new process is ready; draining {open} connections, at most for {grace:?}");
                if let Some(pid) = pid {
                    systemd::replaced(pid);
                }
                self.lifecycle.enter(Phase::Replaced);
                Ok(pid)
            }
            Err(e) => {
                log::error!("upgrade failed, this process continues to serve: {e}");
                Err(e.to_string())
            }
        })
    }

    fn reopen(&self) {
        if let Some(access_log) = &*self.log_slot.lock() {
            log::info!("reopening the access log");
            access_log.reopen();
        }
    }

    /// Writes the last lines before Pingora ends the process.
    fn leave(&self) -> ShutdownSignal {
        if let Some(access_log) = &*self.log_slot.lock() {
            access_log.flush();
        }
        ShutdownSignal::FastShutdown
    }
}
