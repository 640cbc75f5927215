//! A real etcd with one member, and a relay in front of it. Dropping the etcd kills the process.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{PATIENCE, eventually, free_port};

/// An etcd process with its folder.
pub struct Etcd {
    folder: tempfile::TempDir,
    child: Child,
    pub port: u16,
    arguments: Vec<String>,
    /// Further arguments of `etcdctl`.
    client: Vec<String>,
}

impl Etcd {
    /// Starts etcd. `None` if it is not installed, which is reported.
    pub fn start() -> Option<Self> {
        Self::start_with("http", &[], &[])
    }

    /// Starts etcd with the scheme of its URL, its further arguments, and those of its client.
    pub fn start_with(scheme: &str, server: &[&str], client: &[&str]) -> Option<Self> {
        if [Command::new("etcd").arg("--version"), Command::new("etcdctl").arg("version")].into_iter().any(|command| {
            !command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        }) {
            eprintln!("skipped: etcd or etcdctl is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let (port, peers) = (free_port(), format!("http://127.0.0.1:{}", free_port()));
        let url = format!("{scheme}://127.0.0.1:{port}");
        let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut arguments = owned(&["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        arguments.extend(owned(&["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]));
        arguments.extend(["--initial-cluster".to_owned(), format!("default={peers}")]);
        arguments.extend(owned(server));
        let mut client = owned(client);
        client.extend(["--endpoints".to_owned(), url, "--command-timeout=15s".to_owned()]);
        let child = Self::spawn(folder.path(), &arguments);
        let etcd = Self { folder, child, port, arguments, client };
        etcd.wait_until_ready();
        Some(etcd)
    }

    fn spawn(folder: &Path, arguments: &[String]) -> Child {
        let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
        Command::new("etcd")
            .arg("--data-dir")
            .arg(folder.join("data"))
            .args(arguments)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn wait_until_ready(&self) {
        eventually("etcd is ready", PATIENCE, || self.run(&["get", "ready"], None).status.success());
    }

    /// Kills the process with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the process again with its data, and waits until it responds.
    pub fn restart(&mut self) {
        self.child = Self::spawn(self.folder.path(), &self.arguments);
        self.wait_until_ready();
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Adds arguments of `etcdctl`, such as the user.
    pub fn use_client_arguments(&mut self, arguments: &[&str]) {
        self.client.extend(arguments.iter().map(ToString::to_string));
    }

    /// Runs `etcdctl`, which must succeed. Returns its standard output.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, None);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Sets a key to the bytes of `value`, of any length.
    pub fn put(&self, key: &str, value: &[u8]) {
        let file = self.folder.path().join("value");
        std::fs::write(&file, value).unwrap();
        let output = self.run(&["put", key], Some(&file));
        assert!(output.status.success(), "{key}: {output:?}");
    }

    fn run(&self, arguments: &[&str], input: Option<&Path>) -> Output {
        let input = input.map_or_else(Stdio::null, |file| File::open(file).unwrap().into());
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(&self.client).args(arguments).stdin(input).output().unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Forwards connections to a port, until it is frozen: then connections stay open, and nothing arrives any more.
pub struct Relay {
    pub port: u16,
    frozen: Arc<AtomicBool>,
    /// Whether the first connection is frozen.
    first_frozen: Arc<AtomicBool>,
}

impl Relay {
    pub fn start(to: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let (frozen, first_frozen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let shared = [Arc::clone(&first_frozen), Arc::clone(&frozen)];
        std::thread::spawn(move || {
            for (number, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let pair = |one: &TcpStream, two: &TcpStream| (one.try_clone().unwrap(), two.try_clone().unwrap());
                for (from, into) in [pair(&client, &server), pair(&server, &client)] {
                    let frozen = shared.clone().into_iter().skip(number.min(1)).collect::<Vec<_>>();
                    std::thread::spawn(move || forward(from, into, &frozen));
                }
            }
        });
        Self { port, frozen, first_frozen }
    }

    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::SeqCst);
    }

    /// Freezes only the first connection.
    pub fn freeze_first(&self) {
        self.first_frozen.store(true, Ordering::SeqCst);
    }
}

fn forward(mut from: TcpStream, mut into: TcpStream, frozen: &[Arc<AtomicBool>]) {
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer) {
            Ok(bytes @ 1..)
                if frozen.iter().any(|frozen| frozen.load(Ordering::SeqCst))
                    || into.write_all(&buffer[..bytes]).is_ok() => {}
            _ => break,
        }
    }
    into.shutdown(Shutdown::Both).ok();
}
