//! One sample backend in a process of its own.

use std::net::SocketAddr;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::client;
use super::ports::{free_port, loopback};
use super::process::Process;

/// How long a backend has to listen.
const DEADLINE: Duration = Duration::from_secs(20);

/// A running sample backend. Dropping it kills it.
pub struct Backend {
    name: String,
    port: u16,
    arguments: Vec<String>,
    process: Process,
}

impl Backend {
    /// Starts a backend on a free port.
    pub fn start(name: &str) -> Self {
        Self::start_on(free_port(), name, &[])
    }

    /// Starts a backend on a free port with more arguments, such as
    /// `["--latency", "5ms"]`.
    pub fn start_with(name: &str, arguments: &[&str]) -> Self {
        Self::start_on(free_port(), name, arguments)
    }

    /// Starts a backend on this port with more arguments.
    ///
    /// # Panics
    ///
    /// When it does not listen in time; the message holds its complaint.
    pub fn start_on(port: u16, name: &str, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let process = launch(port, name, &arguments);
        Self {
            name: name.to_owned(),
            port,
            arguments,
            process,
        }
    }

    /// Its name, which its answers carry in `x-backend`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills it at once: its connections break and its port refuses.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends it a signal; SIGSTOP makes it hang, SIGCONT go on, SIGTERM end in order.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    pub fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        let status = self.process.wait_exit(within);
        status.unwrap_or_else(|| panic!("backend {} still runs after {within:?}", self.name))
    }

    /// Starts it anew on its port; kills it before if it still runs. Its count
    /// is 0 and its health good again.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = launch(self.port, &self.name, &self.arguments);
    }

    /// Makes its health check fail from now on.
    pub fn fail_health(&self) {
        self.ask("POST", "/health/down");
    }

    /// Makes its health check succeed again.
    pub fn mend_health(&self) {
        self.ask("POST", "/health/up");
    }

    /// How many requests it got, those for health and count not among them.
    pub fn count(&self) -> u64 {
        let count = self.ask("GET", "/count");
        count.trim().parse().expect("a count is a number")
    }

    /// The body of its answer, asked directly.
    fn ask(&self, method: &str, path: &str) -> String {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            self.addr()
        );
        let answer = client::raw_text(self.addr(), request.as_bytes());
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => body.to_owned(),
            _ => panic!("backend {} answered to {path}:\n{answer}", self.name),
        }
    }
}

fn launch(port: u16, name: &str, arguments: &[String]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backend"));
    command
        .args(["--port", &port.to_string(), "--name", name])
        .args(arguments)
        // The developer's own setting must not change what the tests see.
        .env_remove("BACKEND_RESPONSE");
    let mut process = Process::start(command);
    if process.stdout().wait_for(" listening on ", 1, DEADLINE).is_none() {
        process.kill();
        let complaint = process.stderr().text();
        panic!("backend {name} does not listen on port {port}: {complaint}");
    }
    process
}
