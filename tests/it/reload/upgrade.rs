//! `l7lb reload --upgrade-if-needed`: a new process takes over if a change cannot be applied by a reload.

use std::os::unix::net::UnixDatagram;
use std::process::Output;
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{UNWATCHED, file, reloaded, replace};
use crate::lab::client::get;
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port, run};
use crate::one_pool;

fn upgrade(lab: &Lab) -> Output {
    run(&["reload", "--upgrade-if-needed", "--conf", file(lab).to_str().unwrap()])
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A process that the upgrade started. Dropping it kills the process.
struct NewProcess(Pid);

impl NewProcess {
    /// The process that has taken over, according to the output of the command.
    fn from_output(output: &str) -> Self {
        let pid = output.split("process ").nth(1).unwrap_or_else(|| panic!("{output}")).split(' ').next().unwrap();
        Self(Pid::from_raw(pid.parse().unwrap()))
    }
}

impl Drop for NewProcess {
    fn drop(&mut self) {
        kill(self.0, Signal::SIGKILL).ok();
    }
}

fn with_listener(yaml: &str, port: u16) -> String {
    yaml.replace("listeners: [", &format!("listeners: [{{ address: '127.0.0.1:{port}' }}, "))
}

#[test]
fn upgrade_adds_a_listener_under_load_without_a_failed_request() {
    let one = Backend::start("one");
    let (port, new_port) = (free_port(), free_port());
    let mut lab = Lab::start(&one_pool(port, &[&one], UNWATCHED));
    assert_eq!(stderr(&upgrade(&lab)), "l7lb: reloaded\n  nothing changed\n", "no upgrade is needed");
    let load = Load::start(port, "/apiA", 4, 2);
    load.wait_for_more(100);
    replace(&lab, &with_listener(&one_pool(port, &[&one], UNWATCHED), new_port));
    let upgraded = upgrade(&lab);
    let report = stderr(&upgraded);
    assert!(upgraded.status.success() && report.ends_with(" has taken over\n  active now: listeners\n"), "{report}");
    let next = NewProcess::from_output(&report);
    assert_ne!(next.0.as_raw(), i32::try_from(lab.pid()).unwrap());
    assert_eq!(get(new_port, "/apiA").status, 200, "the new listener accepts when the command returns");
    assert!(lab.wait_exit(PATIENCE).success());
    load.wait_for_more(100);
    assert_eq!(reloaded(&lab), "l7lb: reloaded\n  nothing changed\n", "the new process handles the reload");
    load.stop_without_failure();
    // The new process is not a child of the test, so `NewProcess` must end it. It can be replaced in turn.
    let third = free_port();
    replace(&lab, &with_listener(&one_pool(port, &[&one], UNWATCHED), third));
    let last = NewProcess::from_output(&stderr(&upgrade(&lab)));
    eventually("the previous process has exited", PATIENCE, || {
        !std::path::Path::new(&format!("/proc/{}", next.0)).exists() || is_zombie(next.0)
    });
    assert_eq!(get(third, "/apiA").status, 200);
    assert!(std::net::TcpStream::connect(("127.0.0.1", new_port)).is_err(), "a removed listener is closed");
    drop(last);
}

/// Whether the process has exited and its parent has not yet waited for it.
fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

#[test]
fn failed_upgrade_reports_the_cause_and_the_old_process_continues_to_serve() {
    let one = Backend::start("one");
    let (port, taken) = (free_port(), free_port());
    let mut lab = Lab::start(&one_pool(port, &[&one], UNWATCHED));
    let occupant = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
    replace(&lab, &with_listener(&one_pool(port, &[&one], UNWATCHED), taken));
    let load = Load::start(port, "/apiA", 2, 1);
    load.wait_for_more(50);
    let failed = upgrade(&lab);
    let report = stderr(&failed);
    assert_eq!(failed.status.code(), Some(1), "{report}");
    assert!(report.contains("the old process continues to serve"), "{report}");
    assert!(report.contains(&format!("cannot listen at 127.0.0.1:{taken}")), "{report}");
    load.wait_for_more(50);
    let report = load.stop();
    assert_eq!((report.failed, report.statuses.len()), (Vec::new(), 1));
    assert!(lab.is_running());
    drop(occupant);
    // The port is free now, and the same command succeeds.
    let _next = NewProcess::from_output(&stderr(&upgrade(&lab)));
    assert!(lab.wait_exit(PATIENCE).success());
    assert_eq!(get(taken, "/apiA").status, 200);
}

#[test]
fn upgrade_of_a_daemon_starts_a_daemon() {
    let one = Backend::start("one");
    let (port, new_port) = (free_port(), free_port());
    let folder = tempfile::tempdir().unwrap();
    // The new process must resolve relative paths identically.
    let server = "server: { threads: 1, pid_file: l7lb.pid, upgrade_sock: run/upgrade.sock, error_log: error.log }\n";
    let yaml = one_pool(port, &[&one], &format!("{server}{UNWATCHED}access_log: {{ off: true }}\n"));
    Lab::configure(folder.path(), &yaml);
    let l7lb = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_l7lb"));
        command.current_dir(folder.path()).args(arguments).output().unwrap()
    };
    let pid = || std::fs::read_to_string(folder.path().join("l7lb.pid")).unwrap_or_default().trim().to_owned();
    assert!(l7lb(&["-c", "l7lb.yaml", "-d"]).status.success());
    eventually("the daemon serves its control socket", PATIENCE, || {
        l7lb(&["reload", "-c", "l7lb.yaml"]).status.code() != Some(1)
    });
    let first = pid();
    Lab::configure(folder.path(), &with_listener(&yaml, new_port));
    let upgraded = l7lb(&["reload", "--upgrade-if-needed", "-c", "l7lb.yaml"]);
    let report = stderr(&upgraded);
    let log = || std::fs::read_to_string(folder.path().join("error.log")).unwrap_or_default();
    assert!(upgraded.status.success(), "{report}\n{}", log());
    let next = NewProcess::from_output(&report);
    assert_eq!((get(new_port, "/apiA").status, pid()), (200, next.0.to_string()));
    eventually("the first process has exited", PATIENCE, || !std::path::Path::new(&format!("/proc/{first}")).exists());
}

#[test]
fn systemd_is_notified_of_the_new_main_pid_after_an_upgrade() {
    let one = Backend::start("one");
    let (port, new_port) = (free_port(), free_port());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let path = folder.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let yaml = one_pool(port, &[&one], UNWATCHED);
    let mut lab = Lab::start_with(Arc::clone(&folder), &yaml, &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    replace(&lab, &with_listener(&yaml, new_port));
    let next = NewProcess::from_output(&stderr(&upgrade(&lab)));
    assert!(lab.wait_exit(PATIENCE).success());
    let mut messages = Vec::new();
    let mut space = [0; 1024];
    while !messages.iter().any(|message: &String| message.starts_with("MAINPID=")) {
        let length = manager.recv(&mut space).unwrap();
        messages.push(String::from_utf8_lossy(&space[..length]).trim_end().to_owned());
    }
    assert_eq!(messages.last(), Some(&format!("MAINPID={}", next.0)), "{messages:?}");
    assert!(!messages.iter().any(|message| message.starts_with("STOPPING")), "the service does not stop: {messages:?}");
}

#[test]
fn upgrade_is_rejected_in_a_systemd_service_without_notify_type() {
    let one = Backend::start("one");
    let port = free_port();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    Lab::configure(folder.path(), &one_pool(port, &[&one], UNWATCHED));
    // The shell sets the variable to its own PID, which the process keeps through exec.
    let script = format!("SYSTEMD_EXEC_PID=$$ exec {} run --conf l7lb.yaml", env!("CARGO_BIN_EXE_l7lb"));
    let mut child = std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let conf = folder.path().join("l7lb.yaml");
    let conf = conf.to_str().unwrap();
    eventually("the process serves its control socket", PATIENCE, || run(&["reload", "--conf", conf]).status.success());
    Lab::configure(folder.path(), &with_listener(&one_pool(port, &[&one], UNWATCHED), free_port()));
    let output = run(&["reload", "--upgrade-if-needed", "--conf", conf]);
    let is_running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        is_running && output.status.code() == Some(1) && stderr(&output).contains("Type=notify"),
        "{}",
        stderr(&output)
    );
}
