//! The control socket: its path, access control, and the service.
//!
//! Only the user of the process and root may connect.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;

use super::caller::Caller;
use super::client::Client;
use super::context::Api;
use super::endpoints::router;
use super::override_transfer::{self, Listed};
use crate::base::accept_errors::AcceptErrors;
use crate::base::units::PoolName;
use crate::control::state_file::StateFile;
use crate::pool::Pool;

/// The timeout for a request after a connection.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a failed accept, which would fail again immediately.
const PAUSE: Duration = Duration::from_millis(500);

/// The path of the control socket: next to the upgrade socket.
#[must_use]
pub fn socket_path(upgrade_sock: &str) -> PathBuf {
    Path::new(upgrade_sock).with_file_name("control.sock")
}

/// The control socket. Cheap to clone; all clones share it.
#[derive(Clone)]
pub struct ControlSocket {
    path: PathBuf,
    open: Arc<Mutex<Option<std::os::unix::net::UnixListener>>>,
    opened: Arc<tokio::sync::Notify>,
}

impl ControlSocket {
    /// The socket at `path`, not open yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, open: Arc::default(), opened: Arc::default() }
    }

    /// Listens, replacing the socket of an older process. A failure is only logged: requests are served without
    /// the control API.
    pub fn open(&self) {
        match bind(&self.path) {
            Ok(listener) => {
                *self.open.lock() = Some(listener);
                self.opened.notify_one();
            }
            Err(e) => log::error!("no control socket at {}: {e}", self.path.display()),
        }
    }

    /// Listens, replacing the socket of the old process, and applies its overrides to `pools`. Overrides of backends
    /// that the old process has not found come from `state_file`, as do
    /// registered backends, which the old process may have changed since this one started. Returns when that is done.
    pub fn succeed(&self, pools: &BTreeMap<PoolName, Arc<Pool>>, state_file: &StateFile) {
        let before = Client::new(self.path.clone());
        // A separate thread, because the client blocks.
        let take = || override_transfer::take(&before, pools);
        let listed = std::thread::scope(|scope| scope.spawn(take).join()).ok().flatten();
        state_file.restore(pools, |saved| {
            let is_listed = |listed: &Listed| listed.contains(&(saved.pool.clone(), saved.backend));
            !listed.as_ref().is_some_and(is_listed)
        });
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

/// The background service of the control API, for the life of the process.
pub struct ControlService {
    control: ControlSocket,
    api: Api,
}

impl ControlService {
    /// A service at `control` for `api`.
    #[must_use]
    pub fn new(control: ControlSocket, api: Api) -> Self {
        Self { control, api }
    }

    async fn serve(&self) {
        let listener = match self.control.listener().await {
            Ok(listener) => listener,
            Err(e) => return log::error!("cannot accept a connection on the control socket: {e}"),
        };
        let (router, errors) = (router(self.api.clone()), AcceptErrors::default());
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(serve_connection(stream, router.clone()))),
                Err(e) => {
                    errors.report(&e, Instant::now().into_std());
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

#[async_trait]
impl BackgroundService for ControlService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = self.serve() => {}
            // An error means that the process ends.
            _ = shutdown.wait_for(|shutdown| *shutdown) => {}
        }
    }
}

/// The socket gets its name once it has private permissions.
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

/// Serves a connection, if its user may connect.
async fn serve_connection(stream: UnixStream, router: Router) {
    let ours = nix::unistd::Uid::effective().as_raw();
    let peer = stream.peer_cred().ok().map(|peer| peer.uid()).filter(|uid| *uid == ours || *uid == 0);
    let Some(uid) = peer else {
        return log::warn!("rejected a connection from another user at the control socket");
    };
    let router = router.layer(Extension(Caller::user(uid)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(e) = served {
        // The client may have disconnected.
        log::debug!("control socket: {e}");
    }
}
