//! The socket itself: where it lies, who may come in, and the service that lets them.
//!
//! Whoever is not the user of the process, or root, is not listened to.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::net::{UnixListener, UnixStream};

use super::{Api, Client, inheritance, router};
use crate::base::units::PoolName;
use crate::pool::Pool;

/// How long whoever connects may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is waited after accepting has failed, since it would fail again at once.
const PAUSE: Duration = Duration::from_millis(500);

/// Where the control socket of a process lies: beside its upgrade socket.
#[must_use]
pub fn socket_path(upgrade_sock: &str) -> PathBuf {
    Path::new(upgrade_sock).with_file_name("control.sock")
}

/// The control socket, once it is open. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Control {
    path: PathBuf,
    open: Arc<Mutex<Option<std::os::unix::net::UnixListener>>>,
    opened: Arc<tokio::sync::Notify>,
}

impl Control {
    /// The socket at `path`, not open yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, open: Arc::default(), opened: Arc::default() }
    }

    /// Listens, in the place of an older process. Without the socket requests are served all the same,
    /// so that it cannot be had is only logged.
    pub fn open(&self) {
        match bind(&self.path) {
            Ok(listener) => {
                *self.open.lock() = Some(listener);
                self.opened.notify_one();
            }
            Err(e) => log::error!("no control socket at {}: {e}", self.path.display()),
        }
    }

    /// Listens in the place of a process that hands over, and has what operators said about its backends hold
    /// for `pools` too. Returns when that is done.
    pub fn succeed(&self, pools: &BTreeMap<PoolName, Arc<Pool>>) {
        let before = Client::new(self.path.clone());
        // A thread of its own, since whoever asks waits.
        std::thread::scope(|scope| drop(scope.spawn(|| inheritance::take(&before, pools)).join()));
        self.open();
    }

    /// Waits until it is open.
    async fn listener(&self) -> io::Result<UnixListener> {
        loop {
            if let Some(listener) = self.open.lock().take() {
                return UnixListener::from_std(listener);
            }
            self.opened.notified().await;
        }
    }
}

/// The background service that answers at the control socket, for as long as the process lives.
pub struct Admin {
    control: Control,
    api: Api,
}

impl Admin {
    /// A service that answers at `control` with what `api` knows.
    #[must_use]
    pub fn new(control: Control, api: Api) -> Self {
        Self { control, api }
    }

    async fn serve(&self) {
        let listener = match self.control.listener().await {
            Ok(listener) => listener,
            Err(e) => return log::error!("cannot accept at the control socket: {e}"),
        };
        let router = router(self.api.clone());
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(answer(stream, router.clone()))),
                Err(e) => {
                    log::error!("cannot accept at the control socket: {e}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

#[async_trait]
impl BackgroundService for Admin {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = self.serve() => {}
            // An error is the end of the process.
            _ = shutdown.wait_for(|shutdown| *shutdown) => {}
        }
    }
}

/// The socket gets its name when it is closed to others.
fn bind(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(&new)?;
    listener.set_nonblocking(true)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

/// Answers whoever is at the other end, if they may ask.
async fn answer(stream: UnixStream, router: Router) {
    let ours = nix::unistd::Uid::effective().as_raw();
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == ours || peer.uid() == 0) {
        return log::warn!("somebody else than the user of this process is at the control socket");
    }
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(e) = served {
        // Whoever asked may have left.
        log::debug!("control socket: {e}");
    }
}
