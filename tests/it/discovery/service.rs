//! `l7lb register`: a service that registers itself and is drained before it stops.

use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{backends, yaml};
use crate::control::socket;
use crate::lab::client::get;
use crate::lab::load::Load;
use crate::lab::{Lab, PATIENCE, eventually, free_port};

/// A sample backend under `l7lb register`; ends with the test.
struct Service(Child);

impl Service {
    fn start(lab: &Lab, port: u16, name: &str, more: &[&str]) -> Self {
        let (socket, port) = (socket(lab).display().to_string(), port.to_string());
        let address = format!("127.0.0.1:{port}");
        let service = [env!("CARGO_BIN_EXE_backend"), "--port", &port, "--name", name];
        let own = ["register", "--pool", "p", "--address", &address, "--socket", &socket, "--ttl", "3s"];
        let child = Command::new(env!("CARGO_BIN_EXE_l7lb"))
            .args(own)
            .args(more)
            .arg("--")
            .args(service)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }

    /// Its exit code and what it has written.
    fn wait(mut self) -> (Option<i32>, String) {
        use std::io::Read;
        let mut text = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (self.0.wait().unwrap().code(), text)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It ends its service, too.
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).ok();
        self.0.wait().ok();
    }
}

#[test]
fn rolling_deployment_of_services_that_register_themselves_fails_no_request() {
    let port = free_port();
    let lab = Lab::start(&yaml(port, "api"));
    let count = |count: usize| {
        eventually("the services are available", PATIENCE, || {
            let listed = backends(&lab);
            listed.len() == count && listed.iter().all(|backend| backend["available"] == true)
        });
    };
    let mut old: Vec<Service> =
        (0..5).map(|n| Service::start(&lab, free_port(), &format!("old{n}"), &["--health", "/health"])).collect();
    count(5);
    let load = Load::start(port, "/", 4, 2);
    load.wait_for_more(100);
    let mut new = Vec::new();
    for n in 0..5 {
        new.push(Service::start(&lab, free_port(), &format!("new{n}"), &["--health", "/health"]));
        count(6);
        let left = old.remove(0);
        left.signal(Signal::SIGTERM);
        let (_, text) = left.wait();
        assert!(text.contains("drained"), "{text}");
        count(5);
        load.wait_for_more(50);
    }
    load.stop_without_failure();
    assert!(get(port, "/").header("x-backend").starts_with("new"));
}

#[test]
fn python_program_of_the_page_registers_and_drains() {
    let page = include_str!("../../../docs/configuration/discovery.md");
    let program = page.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let (port, admin, service) = (free_port(), free_port(), free_port());
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let (token, file) = (folder.path().join("token"), folder.path().join("program.py"));
    std::fs::write(&token, "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::write(&file, program).unwrap();
    let block = format!(
        "admin: {{ listen: '127.0.0.1:{admin}', tokens: [{{ name: t, file: '{}', role: operate }}] }}\n",
        token.display()
    );
    let lab = Lab::start_in(folder, &(yaml(port, "api") + &block));
    let python = Command::new("python3")
        .arg(&file)
        .args([&format!("http://127.0.0.1:{admin}"), "p", &format!("127.0.0.1:{service}")])
        .env("L7LB_TOKEN_FILE", &token)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(python) = python else { return eprintln!("skipped: there is no python3") };
    let program = Service(python);
    eventually("it is registered", PATIENCE, || backends(&lab).len() == 1);
    program.signal(Signal::SIGTERM);
    let (code, text) = program.wait();
    assert_eq!((code, text.as_str()), (Some(0), ""));
    lab.wait_for_log(&format!("backend registration ended: pool=p backend=127.0.0.1:{service}"));
}

#[test]
fn registration_ends_when_the_service_ends_or_its_supervisor_is_killed() {
    let port = free_port();
    let lab = Lab::start(&yaml(port, "api"));
    let service_port = free_port();
    let service = Service::start(&lab, service_port, "one", &[]);
    eventually("it is registered", PATIENCE, || backends(&lab).len() == 1);
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", service.0.id())).unwrap();
    service.signal(Signal::SIGKILL);
    lab.wait_for_log(&format!("backend registration expired: pool=p backend=127.0.0.1:{service_port}"));
    // The service outlives a killed supervisor.
    for child in children.split_whitespace() {
        kill(Pid::from_raw(child.parse().unwrap()), Signal::SIGKILL).unwrap();
    }
    drop(service);

    let failing = Command::new(env!("CARGO_BIN_EXE_l7lb"))
        .args(["register", "--pool", "p", "--address", "127.0.0.1:1", "--socket"])
        .arg(socket(&lab))
        .args(["--", "sh", "-c", "exit 7"])
        .output()
        .unwrap();
    assert_eq!(failing.status.code(), Some(7), "the exit code of the service");
    let missing = Command::new(env!("CARGO_BIN_EXE_l7lb"))
        .args(["register", "--pool", "nope", "--address", &format!("127.0.0.1:{port}"), "--socket"])
        .arg(socket(&lab))
        .args(["--", "sleep", "60"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(!missing.status.success() && text.contains("there is no pool `nope`"), "{text}");
    assert!(backends(&lab).is_empty());
}
