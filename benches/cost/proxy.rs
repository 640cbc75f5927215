//! The measured proxies, each in front of one sample backend.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::callgrind;
use crate::client::BoxError;
use crate::process::{LOAD_CORE, PROXY_CORE, Process, free_ports, wait_until_listening};

/// How long a proxy may take to become ready. Valgrind slows it down.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A proxy program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// l7lb with its defaults, and an access log in a file.
    L7lb,
    /// The same, with a cache that has the response.
    Cached,
    /// `examples/bare.rs`.
    Bare,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::L7lb => "l7lb",
            Self::Cached => "cached",
            Self::Bare => "bare",
        }
    }

    fn program(self) -> Result<PathBuf, BoxError> {
        if self != Self::Bare {
            return Ok(env!("CARGO_BIN_EXE_l7lb").into());
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo).args(["build", "--quiet", "--release", "--example", "bare"]).status()?;
        let folder = Path::new(env!("CARGO_BIN_EXE_l7lb")).parent().unwrap_or_else(|| Path::new("."));
        if built.success() { Ok(folder.join("examples/bare")) } else { Err("examples/bare.rs cannot be built".into()) }
    }
}

/// A running proxy and its backend. Dropping it ends both.
pub(crate) struct Proxy {
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    process: Process,
    _backend: Process,
    folder: TempDir,
}

impl Proxy {
    /// Starts the proxy in callgrind.
    pub(crate) fn start_in_callgrind(kind: Kind) -> Result<Self, BoxError> {
        Self::start(kind, &kind.program()?, true)
    }

    /// Starts `program` without callgrind.
    pub(crate) fn start_program(program: &Path) -> Result<Self, BoxError> {
        Self::start(Kind::L7lb, program, false)
    }

    fn start(kind: Kind, program: &Path, counts: bool) -> Result<Self, BoxError> {
        let folder = tempfile::tempdir()?;
        let [plain, tls, backend] = free_ports(3)?.try_into().map_err(|_| "three ports were requested")?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_backend"));
        let backend_process = Process::start(command.args(["--port", &backend.to_string()]), LOAD_CORE)?;
        certificate(folder.path())?;
        let mut command = if counts { callgrind::command(program, folder.path()) } else { Command::new(program) };
        let process = Process::start(arguments(kind, &mut command, folder.path(), [plain, tls, backend])?, PROXY_CORE)?;
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let proxy = Self { plain: address(plain), tls: address(tls), process, _backend: backend_process, folder };
        wait_until_listening(proxy.plain, READY_WITHIN)?;
        wait_until_listening(proxy.tls, READY_WITHIN)?;
        Ok(proxy)
    }

    /// Sets the instruction counter to zero.
    pub(crate) fn zero(&self) -> io::Result<()> {
        callgrind::zero(self.process.id())
    }

    /// The instructions since [`Self::zero`].
    pub(crate) fn dump(&self) -> io::Result<u64> {
        callgrind::dump(self.process.id(), self.folder.path())
    }

    /// Ends the process, so that it writes its profile.
    pub(crate) fn stop(self) {
        self.process.stop();
    }

    /// The certificate of the TLS listener.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }
}

fn certificate(folder: &Path) -> Result<(), BoxError> {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(folder.join("cert.pem"), issued.cert.pem())?;
    std::fs::write(folder.join("key.pem"), issued.signing_key.serialize_pem())?;
    Ok(())
}

fn arguments<'a>(
    kind: Kind,
    command: &'a mut Command,
    folder: &Path,
    [plain, tls, backend]: [u16; 3],
) -> io::Result<&'a mut Command> {
    let files = folder.display();
    if kind == Kind::Bare {
        let [plain, backend, tls] = [plain, backend, tls].map(|port| format!("127.0.0.1:{port}"));
        return Ok(command.args([backend, plain, tls, format!("{files}/cert.pem"), format!("{files}/key.pem")]));
    }
    let file = folder.join("l7lb.yaml");
    let cache = if kind == Kind::Cached { ", cache: { default_ttl: 1h }" } else { "" };
    // Health checks are rare, so that they do not add to the count.
    std::fs::write(
        &file,
        format!(
            "server: {{ threads: 1, pid_file: {files}/pid, upgrade_sock: {files}/upgrade, error_log: {files}/error.log }}
listeners:
  - {{ address: 127.0.0.1:{plain} }}
  - {{ address: 127.0.0.1:{tls}, tls: {{ certificates: [{{ certificate: {files}/cert.pem, key: {files}/key.pem }}] }} }}
connection_limits: {{ per_client: 8192 }}
access_log: {{ file: {files}/access.log }}
routes: [{{ path: /, pool: cost{cache} }}]
pools:
  cost: {{ health_check: {{ type: tcp, interval: 1h }}, backends: [{{ address: 127.0.0.1:{backend} }}] }}
"
        ),
    )?;
    Ok(command.arg("-c").arg(file))
}
