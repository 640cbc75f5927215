//! What the process does when it is told something: stop, stop at once, hand over, open logs anew.
//!
//! | signal | what happens |
//! |---|---|
//! | SIGTERM | readiness fails; after `drain_delay` the listeners close; requests in flight end, and the process leaves; at the latest after the grace period. A second one: as SIGINT |
//! | SIGINT | the process leaves at once |
//! | SIGQUIT | the sockets go to a new process that waits for them; then as SIGTERM. Without one: nothing |
//! | SIGHUP | the configuration is read anew, and the access log is opened anew |
//! | SIGUSR1 | the access log is opened anew |

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::lifecycle::{Lifecycle, Phase};
use crate::listener::{Drain, handover};
use crate::observe::access_log;
use crate::reload::Orders;
use crate::systemd;

/// What the service manager grants beyond the time that we take.
const MARGIN: Duration = Duration::from_secs(5);

/// Pingora asks this when to stop.
pub(super) struct Signals {
    pub(super) drain: Drain,
    pub(super) lifecycle: Lifecycle,
    pub(super) grace: Duration,
    pub(super) log_slot: access_log::Slot,
    /// Has the configuration read anew, where it came from a file.
    pub(super) orders: Option<Orders>,
    pub(super) sockets: Vec<(String, RawFd)>,
    pub(super) upgrade_sock: PathBuf,
}

struct Streams {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    reopen: Signal,
    hangup: Signal,
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
        loop {
            tokio::select! {
                _ = streams.interrupt.recv() => {
                    log::info!("SIGINT: leaving at once");
                    return self.leave();
                }
                _ = streams.terminate.recv() => {
                    self.lifecycle.enter(Phase::Leaving);
                    break;
                }
                _ = streams.quit.recv() => {
                    if self.hand_over().await {
                        self.lifecycle.enter(Phase::Replaced);
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
            signal = streams.at_once() => log::info!("{signal}: {} connections are cut", self.drain.open()),
        }
        self.leave()
    }
}

impl Streams {
    /// Somebody cannot wait any longer.
    async fn at_once(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM again",
        }
    }
}

impl Signals {
    /// Lets everybody finish, and names those who took too long.
    async fn finish(&self) {
        if self.lifecycle.phase() == Phase::Leaving {
            let delay = self.lifecycle.drain_delay();
            systemd::stopping(delay + self.grace + MARGIN);
            if !delay.is_zero() {
                log::info!("SIGTERM: not ready any more; listeners close in {delay:?}");
                tokio::time::sleep(delay).await;
            }
            log::info!("SIGTERM: finishing {} connections, for at most {:?}", self.drain.open(), self.grace);
        }
        let late = self.drain.run(self.grace).await;
        if late == 0 {
            return log::info!("all connections are finished");
        }
        self.lifecycle.enter(Phase::Cutting);
        let deaf = self.drain.cut().await;
        let cut = self.lifecycle.cut();
        log::warn!("the grace period is over: {late} connections are cut, with {} requests", cut.total);
        cut.named.iter().for_each(|request| log::warn!("request cut: {request}"));
        if cut.total > cut.named.len() {
            log::warn!("request cut: {} more", cut.total - cut.named.len());
        }
        if deaf > 0 {
            log::warn!("{deaf} connections did not end even so");
        }
    }

    /// Hands the sockets to a new process; false where there is none that becomes ready.
    async fn hand_over(&self) -> bool {
        log::info!("SIGQUIT: handing {} sockets over at {}", self.sockets.len(), self.upgrade_sock.display());
        let (path, sockets) = (self.upgrade_sock.clone(), self.sockets.clone());
        let sent = tokio::task::spawn_blocking(move || handover::send(&path, &sockets)).await;
        match sent {
            Ok(Ok(())) => {
                log::info!(
                    "the new process is ready; finishing {} connections, for at most {:?}",
                    self.drain.open(),
                    self.grace
                );
                true
            }
            Ok(Err(e)) => {
                log::error!("upgrade failed, this process goes on serving: {e}");
                false
            }
            Err(e) => {
                log::error!("upgrade failed, this process goes on serving: {e}");
                false
            }
        }
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
