//! Child processes that end with the benchmark, and free ports for them.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// The CPU core of the proxies.
pub(crate) const PROXY_CORE: usize = 0;
/// The CPU core of the backends and the client.
pub(crate) const LOAD_CORE: usize = 1;

/// How long a process may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Pins the calling thread, and threads and processes that it starts later, to one core. Has no effect on a
/// machine without that core.
pub(crate) fn pin(core: usize) {
    let mut cores = CpuSet::new();
    if cores.set(core).is_ok() {
        sched_setaffinity(Pid::from_raw(0), &cores).ok();
    }
}

/// A process in its own process group. Dropping it kills the group.
pub(crate) struct Process(Child);

impl Process {
    /// Starts the command on a core and discards its output.
    pub(crate) fn start(command: &mut Command, core: usize) -> io::Result<Self> {
        pin(core);
        let process = Self::start_here(command);
        pin(LOAD_CORE);
        process
    }

    /// Starts the command on the cores of the calling thread, and discards its output.
    pub(crate) fn start_here(command: &mut Command) -> io::Result<Self> {
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(Self)
    }

    /// The process id.
    #[allow(dead_code, reason = "used by some of the benchmarks that share this file")]
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether the process has ended.
    #[allow(dead_code, reason = "used by some of the benchmarks that share this file")]
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// Sends a signal to the group.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Ok(group) = i32::try_from(self.0.id()) {
            // An error means that the group has already ended.
            killpg(Pid::from_raw(group), signal).ok();
        }
    }

    /// Sends SIGTERM and waits up to [`STOP_TIMEOUT`]; then drop kills the group.
    #[allow(dead_code, reason = "used by some of the benchmarks that share this file")]
    pub(crate) fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let until = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < until {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        self.0.wait().ok();
    }
}

/// `count` free ports of 127.0.0.1, outside the ephemeral range: an outgoing connection must not take the
/// port of a backend that is not running.
pub(crate) fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let mut held = Vec::new();
    for _ in 0..1000 {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", fastrand::u16(12_000..32_000))) {
            held.push(listener);
        }
        if held.len() == count {
            return held.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect();
        }
    }
    Err(io::Error::other("no free ports on 127.0.0.1"))
}

/// Waits until a process accepts connections at `address`.
pub(crate) fn wait_until_listening(address: SocketAddr, within: Duration) -> io::Result<()> {
    let until = Instant::now() + within;
    while TcpStream::connect(address).is_err() {
        if Instant::now() > until {
            return Err(io::Error::other(format!("nothing listens at {address} after {within:?}")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
