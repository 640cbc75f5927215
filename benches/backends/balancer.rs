//! The measured process in front of its sample backends, and the file in which it finds them.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{LOAD_CORE, PROXY_CORE, Process, free_ports, wait_until_listening};
use crate::{BoxError, callgrind};

/// How long the process may take until its backends are known. Valgrind slows it down.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// What a balancer is measured with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    /// The program.
    pub(crate) program: &'a Path,
    /// The number of backends.
    pub(crate) count: u32,
    /// The balancing policy, in YAML.
    pub(crate) policy: &'a str,
    /// The health check, in YAML.
    pub(crate) health_check: &'a str,
    /// A further key of the pool, in YAML.
    pub(crate) key: &'a str,
    /// Idle connections that it keeps.
    pub(crate) idle: u32,
    /// Whether it runs in callgrind.
    pub(crate) counts: bool,
}

/// A running balancer and its backends. Dropping it ends them.
pub(crate) struct Balancer {
    pub(crate) address: SocketAddr,
    pub(crate) count: u32,
    process: Process,
    _backends: [Process; 2],
    folder: TempDir,
    ports: [u16; 2],
}

/// The address of the backend with this index.
pub(crate) fn backend(index: u32, port: u16) -> SocketAddr {
    // 127.1.0.0 and the following addresses are not used by anything else.
    (Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + index), port).into()
}

impl Balancer {
    /// Starts the balancer, and waits until all its backends are up.
    pub(crate) fn start(setup: &Setup<'_>) -> Result<Self, BoxError> {
        let folder = tempfile::tempdir()?;
        let ports: [u16; 3] = free_ports(3)?.try_into().map_err(|_| "three ports were requested")?;
        let [listener, first, second] = ports;
        let backends = [sample_backend(first, "old")?, sample_backend(second, "new")?];
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, listener));
        fs::write(folder.path().join("l7lb.yaml"), configuration(setup, folder.path(), address))?;
        write_list(folder.path(), &list(setup.count, first))?;
        let mut command = match setup.counts {
            true => callgrind::command(setup.program, folder.path()),
            false => Command::new(setup.program),
        };
        let mut process = Process::start(command.arg("-c").arg(folder.path().join("l7lb.yaml")), PROXY_CORE)?;
        std::thread::sleep(Duration::from_millis(500));
        if process.has_ended() {
            return Err(format!("{} has ended", setup.program.display()).into());
        }
        let started =
            Self { address, count: setup.count, process, _backends: backends, folder, ports: [first, second] };
        wait_until_listening(address, READY_WITHIN)?;
        started.wait_until("all backends are available", || Ok(started.available()? == u64::from(setup.count)))?;
        Ok(started)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the list: its first backend is at the other sample backend, with a large weight.
    /// Returns its address.
    pub(crate) fn replace_first(&self) -> Result<SocketAddr, BoxError> {
        let [first, second] = self.ports;
        let changed = backend(0, second);
        let mut text = format!("- {{ address: '{changed}', weight: 1000 }}\n");
        text += list(self.count, first).split_once('\n').map(|(_, rest)| rest).unwrap_or_default();
        write_list(self.folder(), &text)?;
        Ok(changed)
    }

    /// Replaces the list by the first one.
    pub(crate) fn restore(&self) -> Result<(), BoxError> {
        Ok(write_list(self.folder(), &list(self.count, self.ports[0]))?)
    }

    /// Replaces the list by one of `count` backends.
    pub(crate) fn replace_all(&self, count: u32) -> Result<(), BoxError> {
        Ok(write_list(self.folder(), &list(count, self.ports[0]))?)
    }

    /// The only pool, as the control API shows it.
    pub(crate) fn pool(&self) -> Result<Value, BoxError> {
        let (_, body) = self.get("/pools")?;
        let pools: Value = serde_json::from_str(&body)?;
        pools.pointer("/pools/0").cloned().ok_or_else(|| "there is no pool".into())
    }

    fn available(&self) -> Result<u64, BoxError> {
        Ok(self.pool()?.get("available").and_then(Value::as_u64).unwrap_or_default())
    }

    /// Sends a GET request to the control socket. Returns the status and the body.
    pub(crate) fn get(&self, path: &str) -> Result<(u16, String), BoxError> {
        let mut stream = UnixStream::connect(self.folder().join("control.sock"))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let (head, body) = response.split_once("\r\n\r\n").ok_or("a response without a head")?;
        let status =
            head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("a response without status")?;
        Ok((status, body.to_owned()))
    }

    /// Waits until `holds`. Returns how long that took.
    pub(crate) fn wait_until(
        &self,
        what: &str,
        mut holds: impl FnMut() -> Result<bool, BoxError>,
    ) -> Result<Duration, BoxError> {
        let begin = Instant::now();
        // The control socket exists a moment after the listeners.
        while !holds().unwrap_or(false) {
            if begin.elapsed() > READY_WITHIN {
                return Err(format!("not within {READY_WITHIN:?}: {what}").into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(begin.elapsed())
    }
}

fn sample_backend(port: u16, name: &str) -> io::Result<Process> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backend"));
    Process::start(command.args(["--address", "0.0.0.0", "--port", &port.to_string(), "--name", name]), LOAD_CORE)
}

/// A list of `count` backends.
fn list(count: u32, port: u16) -> String {
    let mut text = String::new();
    for index in 0..count {
        // Writing to a string cannot fail.
        writeln!(text, "- '{}'", backend(index, port)).ok();
    }
    text
}

/// Replaces the file in one step, as a deployment does.
fn write_list(folder: &Path, text: &str) -> io::Result<()> {
    fs::write(folder.join("list.new"), text)?;
    fs::rename(folder.join("list.new"), folder.join("list.yaml"))
}

fn configuration(setup: &Setup<'_>, folder: &Path, address: SocketAddr) -> String {
    let Setup { policy, health_check, key, idle, .. } = setup;
    let files = folder.display();
    format!(
        "server: {{ threads: 1, pid_file: {files}/pid, upgrade_sock: {files}/upgrade, error_log: {files}/error.log, \
         upstream_keepalive_pool_size: {idle} }}
listeners: [{{ address: '{address}' }}]
connection_limits: {{ per_client: 8192 }}
access_log: {{ file: {files}/access.log }}
routes: [{{ path: /, pool: many }}]
pools:
  many:
    balance: {policy}
    slow_start: 0s
    {key}
    health_check: {health_check}
    discover: [{{ file: {files}/list.yaml, hold: 0s }}]
"
    )
}
