//! The five backends of a run, and the execution of a scenario's actions on them.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{LOAD_CORE, Process, free_ports, wait_until_listening};
use crate::scenario::{Action, BACKENDS, COLD, Scenario};

/// The mean of a backend's service time, exponentially distributed.
pub(crate) const SERVICE_TIME: &str = "2ms";

/// How long a backend may take to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(5);

/// Five sample backends with fixed ports. Dropping it kills their processes.
pub(crate) struct Fleet {
    ports: Vec<u16>,
    running: Vec<Option<Process>>,
}

impl Fleet {
    /// Starts all backends that the scenario starts with, and waits until they listen.
    pub(crate) fn start(scenario: Scenario) -> io::Result<Self> {
        let ports = free_ports(BACKENDS)?;
        let mut fleet = Self { ports, running: (0..BACKENDS).map(|_| None).collect() };
        let present: Vec<usize> =
            (0..BACKENDS).filter(|backend| Some(*backend) != scenario.initially_absent()).collect();
        for backend in &present {
            fleet.spawn(*backend, Duration::ZERO)?;
        }
        for backend in present {
            wait_until_listening(fleet.address(backend)?, LISTENS_WITHIN)?;
        }
        Ok(fleet)
    }

    /// The ports of all backends, including those that are not running.
    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Performs each action at its time after `begin`, and returns at `end`.
    pub(crate) fn run_actions(
        &mut self,
        actions: &[(Duration, Action)],
        begin: Instant,
        end: Instant,
    ) -> io::Result<()> {
        for (at, action) in actions {
            std::thread::sleep((begin + *at).saturating_duration_since(Instant::now()));
            self.perform(*action)?;
        }
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
        Ok(())
    }

    fn perform(&mut self, action: Action) -> io::Result<()> {
        match action {
            Action::InjectFault(backend, fault) => self.post(backend, &format!("/fault/{fault}")),
            Action::Start(backend) => self.spawn(backend, Duration::ZERO),
            Action::StartCold(backend) => self.spawn(backend, COLD),
            Action::Kill(backend) => {
                drop(self.take(backend));
                Ok(())
            }
            Action::Stop(backend) => {
                if let Some(process) = self.take(backend) {
                    process.stop();
                }
                Ok(())
            }
        }
    }

    fn take(&mut self, backend: usize) -> Option<Process> {
        self.running.get_mut(backend).and_then(Option::take)
    }

    fn address(&self, backend: usize) -> io::Result<SocketAddr> {
        let port = self.ports.get(backend).ok_or_else(|| io::Error::other("no such backend"))?;
        Ok((Ipv4Addr::LOCALHOST, *port).into())
    }

    fn spawn(&mut self, backend: usize, cold: Duration) -> io::Result<()> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backend"));
        command
            .args(["--port", &self.address(backend)?.port().to_string()])
            .args(["--name", &format!("backend-{backend}")])
            .args(["--service-time", SERVICE_TIME])
            .args(["--cold", &humantime::format_duration(cold).to_string()]);
        let process = Process::start(&mut command, LOAD_CORE)?;
        if let Some(slot) = self.running.get_mut(backend) {
            *slot = Some(process);
        }
        Ok(())
    }

    fn post(&self, backend: usize, path: &str) -> io::Result<()> {
        let mut stream = TcpStream::connect(self.address(backend)?)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        match response.starts_with("HTTP/1.1 200") {
            true => Ok(()),
            false => Err(io::Error::other(format!("backend {backend} rejects {path}: {response}"))),
        }
    }
}
