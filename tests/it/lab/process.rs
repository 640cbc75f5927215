//! Real processes: `l7lb` with its own folder, and sample backends. Dropping one kills the process, so that a
//! failing test leaves nothing running.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client::{self, Response};
use super::ports::free_port;

/// The longest wait for something that should happen immediately.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The lines that a process has written so far, and whether its output has ended.
#[derive(Default)]
struct Written {
    lines: Vec<String>,
    ended: bool,
}

/// The output of a process, with a notification for new lines.
#[derive(Clone, Default)]
struct Lines(Arc<(Mutex<Written>, Condvar)>);

impl Lines {
    /// Reads `source` to its end on a separate thread.
    fn follow(source: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let (writer, source) = (lines.clone(), BufReader::new(source));
        std::thread::spawn(move || {
            for line in source.lines().map_while(Result::ok) {
                writer.0.0.lock().unwrap().lines.push(line);
                writer.0.1.notify_all();
            }
            writer.0.0.lock().unwrap().ended = true;
            writer.0.1.notify_all();
        });
        lines
    }

    fn all(&self) -> Vec<String> {
        self.0.0.lock().unwrap().lines.clone()
    }

    /// Waits for a line that contains `pattern`. `None` if the process ended or the wait timed out.
    fn wait_for(&self, pattern: &str, patience: Duration) -> Option<String> {
        let until = Instant::now() + patience;
        let mut state = self.0.0.lock().unwrap();
        loop {
            if let Some(line) = state.lines.iter().find(|line| line.contains(pattern)) {
                return Some(line.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return None;
            }
            state = self.0.1.wait_timeout(state, left).unwrap().0;
        }
    }
}

/// The configuration with this `server.engine`. The variable `L7LB_TEST_ENGINE` runs all tests with it, except those of
/// the cache, which only the own engine has.
fn with_engine(yaml: &str, engine: Option<&str>) -> String {
    let Some(engine) = engine.filter(|_| !yaml.contains("cache: {")) else { return yaml.to_owned() };
    assert!(yaml.contains("server: {") || yaml.contains("server:\n"), "no place for the engine in {yaml}");
    let inline = yaml.replacen("server: {", &format!("server: {{ engine: {engine},"), 1);
    if inline == yaml { yaml.replacen("server:\n", &format!("server:\n  engine: {engine}\n"), 1) } else { inline }
}

/// One `l7lb` process with its folder.
pub struct Lab {
    folder: Arc<tempfile::TempDir>,
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Lab {
    /// Starts `l7lb` with this configuration and waits until it is ready. `{folder}` in the text is replaced by
    /// the lab's folder, which contains a certificate for localhost.
    pub fn start(yaml: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self::configure(folder.path(), yaml);
        let lab = Self::spawn(folder, &[]);
        lab.wait_until_ready();
        lab
    }

    /// Like [`Lab::start`], in a folder that the test has filled.
    pub fn start_in(folder: Arc<tempfile::TempDir>, yaml: &str) -> Self {
        Self::configure(folder.path(), yaml);
        let lab = Self::spawn(folder, &[]);
        lab.wait_until_ready();
        lab
    }

    /// Like [`Lab::start_in`], with further environment variables.
    pub fn start_with(folder: Arc<tempfile::TempDir>, yaml: &str, environment: &[(&str, &str)]) -> Self {
        Self::configure(folder.path(), yaml);
        let lab = Self::spawn_with(folder, &[], environment);
        lab.wait_until_ready();
        lab
    }

    /// Starts `l7lb` in a folder that the test has filled, and does not wait for it.
    pub fn start_without_waiting(folder: Arc<tempfile::TempDir>, yaml: &str) -> Self {
        Self::configure(folder.path(), yaml);
        Self::spawn(folder, &[])
    }

    /// Writes the configuration and a certificate into `folder`.
    pub fn configure(folder: &Path, yaml: &str) -> PathBuf {
        let file = folder.join("l7lb.yaml");
        // Each lab has its own upgrade socket, so that labs do not affect each other.
        let own = format!(
            "server: {{ threads: 2, upgrade_sock: '{0}/upgrade.sock', pid_file: '{0}/l7lb.pid' }}\n",
            folder.display()
        );
        let yaml = if yaml.contains("server:") { yaml.to_owned() } else { own + yaml };
        let yaml = with_engine(&yaml, std::env::var("L7LB_TEST_ENGINE").ok().as_deref());
        std::fs::write(&file, yaml.replace("{folder}", &folder.display().to_string())).unwrap();
        if !folder.join("localhost.pem").exists() {
            let made = run(&["cert", "--folder", &folder.display().to_string()]);
            assert!(made.status.success(), "{made:?}");
        }
        file
    }

    fn spawn(folder: Arc<tempfile::TempDir>, arguments: &[&str]) -> Self {
        Self::spawn_with(folder, arguments, &[])
    }

    fn spawn_with(folder: Arc<tempfile::TempDir>, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program());
        command.envs(environment.iter().copied());
        Self::spawn_command(folder, command, arguments)
    }

    /// Like [`Lab::start_in`], with a shell script that ends with `exec "$0" "$@"`, in mount points of its own.
    pub fn start_in_own_mounts(folder: Arc<tempfile::TempDir>, yaml: &str, script: &str) -> Self {
        Self::configure(folder.path(), yaml);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(program());
        let lab = Self::spawn_command(folder, command, &[]);
        lab.wait_until_ready();
        lab
    }

    fn spawn_command(folder: Arc<tempfile::TempDir>, mut command: Command, arguments: &[&str]) -> Self {
        let mut child = command
            .args(["run", "--conf"])
            .arg(folder.path().join("l7lb.yaml"))
            .args(arguments)
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = Lines::follow(child.stdout.take().unwrap());
        let stderr = Lines::follow(child.stderr.take().unwrap());
        Self { folder, child, stdout, stderr }
    }

    /// Starts a second process with the same configuration that takes over the sockets of this one, and waits
    /// until it is ready.
    pub fn successor(&self) -> Self {
        let successor = Self::spawn(Arc::clone(&self.folder), &["--upgrade"]);
        eventually("the successor waits", PATIENCE, || self.folder().join("upgrade.sock").exists());
        successor
    }

    pub fn wait_until_ready(&self) {
        self.wait_for_log(" ready: ");
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for a line of the operator's log.
    pub fn wait_for_log(&self, pattern: &str) -> String {
        self.stderr
            .wait_for(pattern, PATIENCE)
            .unwrap_or_else(|| panic!("no `{pattern}` in the log:\n{}", self.stderr.all().join("\n")))
    }

    pub fn log(&self) -> String {
        self.stderr.all().join("\n")
    }

    /// Waits for a line of the access log.
    pub fn wait_for_access(&self, pattern: &str) -> String {
        self.stdout
            .wait_for(pattern, PATIENCE)
            .unwrap_or_else(|| panic!("no `{pattern}` in the access log:\n{}", self.stdout.all().join("\n")))
    }

    /// The process id, for `/proc`.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All access log lines so far.
    pub fn access(&self) -> Vec<String> {
        self.stdout.all()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until the process exits.
    pub fn wait_exit(&mut self, patience: Duration) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", patience, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The tested `l7lb`. The variable `L7LB` names another binary, such as a release build, for measurements.
fn program() -> PathBuf {
    std::env::var_os("L7LB").map_or_else(|| env!("CARGO_BIN_EXE_l7lb").into(), PathBuf::from)
}

/// Runs `l7lb` to its end.
pub fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_l7lb")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// One sample backend.
pub struct Backend {
    pub port: u16,
    name: String,
    arguments: Vec<String>,
    child: Child,
}

impl Backend {
    pub fn start(name: &str) -> Self {
        Self::start_with(name, &[])
    }

    pub fn start_with(name: &str, arguments: &[&str]) -> Self {
        Self::start_at(free_port(), name, arguments)
    }

    /// Starts it at this port; `arguments` may have another address than 127.0.0.1.
    pub fn start_at(port: u16, name: &str, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let child = Self::spawn(port, name, &arguments);
        Self { port, name: name.to_owned(), arguments, child }
    }

    fn spawn(port: u16, name: &str, arguments: &[String]) -> Child {
        let mut child = Command::new(env!("CARGO_BIN_EXE_backend"))
            .args(["--port", &port.to_string(), "--name", name])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Lines::follow(child.stdout.take().unwrap());
        assert!(lines.wait_for("listening", PATIENCE).is_some(), "backend {name} does not listen at {port}");
        child
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Replaces the process by another one with this name.
    pub fn restart_as(&mut self, name: &str) {
        name.clone_into(&mut self.name);
        self.restart();
    }

    pub fn restart(&mut self) {
        self.child = Self::spawn(self.port, &self.name, &self.arguments);
    }

    pub fn set_health(&self, well: bool) {
        let word = if well { "up" } else { "down" };
        let response = self
            .ask(&format!("POST /health/{word} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        assert!(response.status < 300, "{response:?}");
    }

    /// Injects the fault `none`, `fail`, `hang` or `slow/10`; health checks are not affected.
    pub fn inject_fault(&self, fault: &str) {
        let response = self
            .ask(&format!("POST /fault/{fault} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        assert!(response.status < 300, "{response:?}");
    }

    fn ask(&self, request: &str) -> Response {
        client::exchange(self.port, request.as_bytes())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Polls a condition that has no event to wait for.
pub fn eventually(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < until, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
