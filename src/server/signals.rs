//! What the process does when it is told something: stop, stop at once, hand over, open logs anew.
//!
//! | signal | what happens |
//! |---|---|
//! | SIGTERM | requests in flight end, then the process leaves; at the latest after the grace period |
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

use crate::listener::{Drain, handover};
use crate::observe::access_log;
use crate::reload::Orders;
use crate::systemd;

/// Pingora asks this when to stop.
pub(super) struct Signals {
    pub(super) drain: Drain,
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
                    log::info!("SIGTERM: finishing {} connections, for at most {:?}", self.drain.open(), self.grace);
                    break;
                }
                _ = streams.quit.recv() => {
                    if self.hand_over().await {
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
        systemd::stopping();
        tokio::select! {
            cut = self.drain.run(self.grace) => match cut {
                0 => log::info!("all connections are finished"),
                cut => log::warn!("the grace period is over: {cut} connections are cut"),
            },
            _ = streams.interrupt.recv() => log::info!("SIGINT: {} connections are cut", self.drain.open()),
        }
        self.leave()
    }
}

impl Signals {
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
