//! An l7lb that is restarted, upgraded and killed.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::net::TcpStream;

use crate::process::{Process, free_ports};

/// How long a process may take to start, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a process is replaced by the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replacement {
    /// SIGTERM, and a new process when it has ended.
    Restart,
    /// A new process takes over the sockets, and the old one gets SIGQUIT.
    Upgrade,
    /// SIGKILL, and a new process.
    Kill,
}

/// The replacements so far. A number is odd while one happens.
#[derive(Default)]
pub(crate) struct Epochs {
    any: AtomicU64,
    kill: AtomicU64,
}

impl Epochs {
    /// The state at the start of a request: of all replacements, and of the kills.
    pub(crate) fn now(&self) -> [u64; 2] {
        [self.any.load(Ordering::SeqCst), self.kill.load(Ordering::SeqCst)]
    }

    /// Whether a replacement, and whether a kill happened since `before`.
    pub(crate) fn happened_since(&self, before: [u64; 2]) -> [bool; 2] {
        let [any, kill] = self.now();
        [(before[0], any), (before[1], kill)].map(|(before, now)| before % 2 == 1 || before != now)
    }

    fn step(&self, replacement: Replacement) {
        self.any.fetch_add(1, Ordering::SeqCst);
        if replacement == Replacement::Kill {
            self.kill.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Sizes of the stores, and the folder of the one on disk.
pub(crate) struct Stores<'a> {
    pub(crate) memory: u64,
    pub(crate) disk: u64,
    pub(crate) path: &'a Path,
}

/// The running process.
pub(crate) struct Lives {
    pub(crate) address: SocketAddr,
    pub(crate) epochs: Arc<Epochs>,
    folder: PathBuf,
    process: Process,
}

impl Lives {
    /// Starts l7lb with its other files in `folder`.
    pub(crate) async fn start(origin: SocketAddr, folder: &Path, stores: &Stores<'_>) -> io::Result<Self> {
        let port = free_ports(1)?.first().copied().unwrap_or_default();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        std::fs::create_dir_all(folder)?;
        let (files, Stores { memory, disk, path }) = (folder.display(), stores);
        let text = format!(
            "server: {{ threads: 2, pid_file: {files}/pid, upgrade_sock: {files}/upgrade.sock, error_log: {files}/error.log }}
listeners: [{{ address: '{address}' }}]
connection_limits: {{ per_client: 8192 }}
access_log: {{ off: true }}
cache: {{ memory: {{ size: {memory} }}, disk: {{ path: {}, size: {disk} }} }}
routes:
  - {{ path: /memory, pool: origin, cache: {{}} }}
  - {{ path: /disk, pool: origin, cache: {{ store: disk }} }}
pools: {{ origin: {{ health_check: {{ type: tcp, interval: 1h }}, backends: [{{ address: '{origin}' }}] }} }}
",
            path.display()
        );
        std::fs::write(folder.join("l7lb.yaml"), text)?;
        let process = spawn(folder, false)?;
        let lives = Self { address, epochs: Arc::default(), folder: folder.to_owned(), process };
        lives.ready().await?;
        Ok(lives)
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Replaces the process.
    pub(crate) async fn replace(&mut self, replacement: Replacement) -> io::Result<()> {
        self.epochs.step(replacement);
        match replacement {
            Replacement::Upgrade => {
                let socket = self.folder.join("upgrade.sock");
                let successor = spawn(&self.folder, true)?;
                wait("the new process waits for no socket", || socket.exists()).await?;
                let mut old = std::mem::replace(&mut self.process, successor);
                old.signal(Signal::SIGQUIT);
                wait("the old process does not end after an upgrade", || old.has_ended()).await?;
            }
            Replacement::Restart | Replacement::Kill => {
                let signal = if replacement == Replacement::Kill { Signal::SIGKILL } else { Signal::SIGTERM };
                self.process.signal(signal);
                let process = &mut self.process;
                wait("the process does not end", || process.has_ended()).await?;
                self.process = spawn(&self.folder, false)?;
            }
        }
        self.ready().await?;
        self.epochs.step(replacement);
        Ok(())
    }

    async fn ready(&self) -> io::Result<()> {
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).await.is_err() {
            if Instant::now() > until {
                return Err(io::Error::other("l7lb does not listen"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

fn spawn(folder: &Path, upgrades: bool) -> io::Result<Process> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_l7lb"));
    command.arg("-c").arg(folder.join("l7lb.yaml"));
    if upgrades {
        command.arg("--upgrade");
    }
    Process::start_here(&mut command)
}

async fn wait(fault: &str, mut done: impl FnMut() -> bool) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > until {
            return Err(io::Error::other(fault.to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
