//! What the process does when it is told something: stop, stop at once, hand over, open logs anew.
//!
//! | signal | what happens |
//! |---|---|
//! | SIGTERM | readiness fails; after `drain_delay` the listeners close; requests in flight end, and the process leaves; at the latest after the grace period. A second one: as SIGINT |
//! | SIGINT | the process leaves at once |
//! | SIGQUIT | the sockets go to a new process that waits for them; then as SIGTERM. Without one: nothing |
//! | SIGHUP | the configuration is read anew, and the access log is opened anew |
//! | SIGUSR1 | the access log is opened anew |

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
use crate::control::reload::{Orders, Outcome, Upgrade};
use crate::listener::{Drain, handover};
use crate::observe::access_log;

/// What the service manager grants beyond the time that we take.
const MARGIN: Duration = Duration::from_secs(5);

/// How long the process lives at least after it was replaced.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long a process that we started may take to read its configuration.
const WAIT_FOR_SUCCESSOR: Duration = Duration::from_secs(30);

/// Pingora asks this when to stop.
pub(super) struct Signals {
    pub(super) drain: Drain,
    pub(super) lifecycle: Lifecycle,
    pub(super) grace: Duration,
    pub(super) log_slot: access_log::Slot,
    /// Has the configuration read anew, where it came from a file.
    pub(super) orders: Option<Orders>,
    pub(super) hand_over: HandOver,
    /// Who asks for an upgrade.
    pub(super) upgrades: Mutex<mpsc::Receiver<Upgrade>>,
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
    /// Hands the sockets to the process that waits.
    fn to_waiting(&self) -> io::Result<Option<u32>> {
        handover::send(&self.upgrade_sock, &self.sockets, handover::WAIT_FOR_STARTED, || Ok(()))
    }

    /// Starts a process and hands the sockets to it, at its own `upgrade_sock`.
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
                log::error!("cannot listen to signals: {e}");
                return ShutdownSignal::FastShutdown;
            }
        };
        // Pingora asks once.
        let (_, none) = mpsc::channel(1);
        let mut upgrades = std::mem::replace(&mut *self.upgrades.lock(), none);
        loop {
            tokio::select! {
                _ = streams.interrupt.recv() => {
                    log::info!("SIGINT: leaving at once");
                    return self.leave();
                }
                _ = streams.terminate.recv() => {
                    self.lifecycle.enter(Phase::Draining);
                    break;
                }
                _ = streams.quit.recv() => {
                    let sockets = self.hand_over.sockets.len();
                    log::info!("SIGQUIT: handing {sockets} sockets over to the process that waits");
                    let hand_over = self.hand_over.clone();
                    match self.replace(&mut streams.interrupt, move || hand_over.to_waiting()).await {
                        None => return self.leave(),
                        Some(Ok(_)) => break,
                        Some(Err(_)) => {}
                    }
                }
                Some(Upgrade { upgrade_sock, changes, tell }) = upgrades.recv() => {
                    log::info!("starting a process that takes over");
                    let hand_over = self.hand_over.clone();
                    let hand_over = move || hand_over.to_successor(&upgrade_sock);
                    let Some(replaced) = self.replace(&mut streams.interrupt, hand_over).await else {
                        return self.leave();
                    };
                    let upgraded = replaced.is_ok();
                    // Whoever asked may have left.
                    tell.send(match replaced {
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
                    if let Some(orders) = &self.orders {
                        orders.give();
                    }
                }
            }
        }
        tokio::select! {
            () = self.finish() => {}
            signal = streams.at_once(self.lifecycle.phase()) => log::info!("{signal}: {} connections are cut", self.drain.open()),
        }
        self.leave()
    }
}

impl Streams {
    /// Somebody cannot wait any longer. A process that was replaced in `phase` was not asked to stop yet: whoever
    /// stops all of a service asks the old one too, and means it politely.
    async fn at_once(&mut self, phase: Phase) -> &'static str {
        let mut polite = phase == Phase::Replaced;
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.terminate.recv() => {
                    if !std::mem::take(&mut polite) {
                        return "SIGTERM again";
                    }
                    log::info!("SIGTERM: finishing already, since another process has taken over");
                }
            }
        }
    }
}

impl Signals {
    /// Lets everybody finish, and names those who took too long.
    async fn finish(&self) {
        if self.lifecycle.phase() == Phase::Draining {
            let delay = self.lifecycle.drain_delay();
            systemd::stopping(delay + self.grace + MARGIN);
            if !delay.is_zero() {
                log::info!("SIGTERM: not ready any more; listeners close in {delay:?}");
                tokio::time::sleep(delay).await;
            }
            log::info!("SIGTERM: finishing {} connections, for at most {:?}", self.drain.open(), self.grace);
        }
        // After an upgrade, whoever asked for it is still to be told.
        let replaced = self.lifecycle.phase() == Phase::Replaced;
        let told = tokio::time::sleep(if replaced { FAREWELL } else { Duration::ZERO });
        let (late, ()) = tokio::join!(self.drain.run(self.grace), told);
        if late == 0 {
            return log::info!("all connections are finished");
        }
        self.lifecycle.enter(Phase::Aborting);
        let deaf = self.drain.cut().await;
        let cut = self.lifecycle.aborted();
        log::warn!("the grace period is over: {late} connections are cut, with {} requests", cut.total);
        cut.named.iter().for_each(|request| log::warn!("request cut: {request}"));
        if cut.total > cut.named.len() {
            log::warn!("request cut: {} more", cut.total - cut.named.len());
        }
        if deaf > 0 {
            log::warn!("{deaf} connections did not end even so");
        }
    }

    /// Has another process take over by `hand_over`, and says which. Nothing where SIGINT came before; a new process
    /// notices that this one has left, and ends.
    async fn replace(
        &self,
        interrupt: &mut Signal,
        hand_over: impl FnOnce() -> io::Result<Option<u32>> + Send + 'static,
    ) -> Option<Result<Option<u32>, String>> {
        let (tell, told) = oneshot::channel();
        // A thread of its own: the runtime would wait at its end for one of those that it has for blocking work.
        std::thread::spawn(move || tell.send(hand_over()));
        let told = tokio::select! {
            told = told => told,
            _ = interrupt.recv() => {
                log::info!("SIGINT: leaving at once, in the middle of an upgrade");
                return None;
            }
        };
        Some(match told.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Ok(pid) => {
                let (open, grace) = (self.drain.open(), self.grace);
                log::info!("the new process is ready; finishing {open} connections, for at most {grace:?}");
                if let Some(pid) = pid {
                    systemd::replaced(pid);
                }
                self.lifecycle.enter(Phase::Replaced);
                Ok(pid)
            }
            Err(e) => {
                log::error!("upgrade failed, this process goes on serving: {e}");
                Err(e.to_string())
            }
        })
    }

    fn reopen(&self) {
        if let Some(access_log) = &*self.log_slot.lock() {
            log::info!("opening the access log anew");
            access_log.reopen();
        }
    }

    /// The last lines are written before Pingora ends the process.
    fn leave(&self) -> ShutdownSignal {
        if let Some(access_log) = &*self.log_slot.lock() {
            access_log.flush();
        }
        ShutdownSignal::FastShutdown
    }
}
