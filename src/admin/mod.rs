//! The control socket: a Unix-domain socket in the folder that only we may enter, where a running
//! process is asked to do something and answers.
//!
//! A command is a line of text, its answer a line of JSON, and then the connection is over. Whoever is
//! not the user of the process, or root, is not listened to.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::reload::{Orders, Outcome, Span};

/// Has the configuration file read anew; the answer is an [`Outcome`].
pub const RELOAD: &str = "reload";

/// The longest command, in bytes.
const COMMAND_MAX: u64 = 4096;
/// How long whoever connects may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer is waited for: new pools are given 5 s to settle.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
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
}

impl Control {
    /// The socket at `path`, not open yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, open: Arc::default() }
    }

    /// Listens, in the place of an older process. Without the socket requests are served all the same,
    /// so that it cannot be had is only logged.
    pub fn open(&self) {
        match bind(&self.path) {
            Ok(listener) => *self.open.lock() = Some(listener),
            Err(e) => log::error!("no control socket at {}: {e}", self.path.display()),
        }
    }
}

/// The background service that answers at the control socket.
pub struct Admin {
    control: Control,
    orders: Orders,
    span: Span,
}

impl Admin {
    /// A service that passes on what is asked for at `control`.
    #[must_use]
    pub fn new(control: Control, orders: Orders, span: Span) -> Self {
        Self { control, orders, span }
    }

    async fn serve(&self) {
        let Some(listener) = self.control.open.lock().take() else { return };
        let listener = match UnixListener::from_std(listener) {
            Ok(listener) => listener,
            Err(e) => return log::error!("cannot accept at the control socket: {e}"),
        };
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(answer(stream, self.orders.clone()))),
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
    async fn start(&self, _shutdown: ShutdownWatch) {
        self.span.clone().run(self.serve()).await;
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

/// Answers one command.
async fn answer(stream: UnixStream, orders: Orders) {
    let ours = nix::unistd::Uid::effective().as_raw();
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == ours || peer.uid() == 0) {
        return log::warn!("somebody else than the user of this process is at the control socket");
    }
    let (reader, mut writer) = stream.into_split();
    let mut command = String::new();
    let mut reader = tokio::io::BufReader::new(reader.take(COMMAND_MAX));
    if !matches!(timeout(PATIENCE, reader.read_line(&mut command)).await, Ok(Ok(1..))) {
        return;
    }
    let outcome = match command.trim_end() {
        RELOAD => orders.outcome().await,
        unknown => Outcome::Failed { reason: format!("unknown command {unknown:?}") },
    };
    match serde_json::to_string(&outcome) {
        // Whoever asked may have left.
        Ok(line) => drop(timeout(PATIENCE, writer.write_all(format!("{line}\n").as_bytes())).await),
        Err(e) => log::error!("cannot write an answer: {e}"),
    }
}

/// Asks the process whose control socket is at `path`, and returns its line.
///
/// # Errors
/// When there is none, or it does not answer.
pub fn ask(path: &Path, command: &str) -> io::Result<String> {
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.write_all(format!("{command}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.ends_with('\n') { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
