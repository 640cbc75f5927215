//! `l7lb reload --upgrade-if-needed`: a new process takes over where this one cannot follow.

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

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A process that somebody else started; it ends with the test.
struct Other(Pid);

impl Other {
    /// The one that has taken over, as the command says.
    fn of(said: &str) -> Self {
        let pid = said.split("process ").nth(1).unwrap_or_else(|| panic!("{said}")).split(' ').next().unwrap();
        Self(Pid::from_raw(pid.parse().unwrap()))
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        kill(self.0, Signal::SIGKILL).ok();
    }
}

fn further_listener(yaml: &str, port: u16) -> String {
    yaml.replace("listeners: [", &format!("listeners: [{{ address: '127.0.0.1:{port}' }}, "))
}

#[test]
fn a_further_listener_is_taken_up_under_load_without_a_failed_request() {
    let one = Backend::start("one");
    let (port, further) = (free_port(), free_port());
    let mut lab = Lab::start(&one_pool(port, &[&one], UNWATCHED));
    assert_eq!(said(&upgrade(&lab)), "l7lb: reloaded\n  nothing changed\n", "not needed");
    let load = Load::start(port, "/apiA", 4, 2);
    load.wait_for_more(100);
    replace(&lab, &further_listener(&one_pool(port, &[&one], UNWATCHED), further));
    let upgraded = upgrade(&lab);
    let told = said(&upgraded);
    assert!(upgraded.status.success() && told.ends_with(" has taken over\n  taken up: listeners\n"), "{told}");
    let next = Other::of(&told);
    assert_ne!(next.0.as_raw(), i32::try_from(lab.pid()).unwrap());
    assert_eq!(get(further, "/apiA").status, 200, "from the answer on it serves");
    assert!(lab.wait_exit(PATIENCE).success());
    load.wait_for_more(100);
    assert_eq!(reloaded(&lab), "l7lb: reloaded\n  nothing changed\n", "the new process is asked");
    let report = load.stop();
    assert_eq!((report.failed, report.statuses.keys().copied().collect::<Vec<_>>()), (Vec::new(), vec![200]));
    // It is the lab's child's child, so nobody else ends it, and it can be replaced in its turn.
    let third = free_port();
    replace(&lab, &further_listener(&one_pool(port, &[&one], UNWATCHED), third));
    let last = Other::of(&said(&upgrade(&lab)));
    eventually("the one before has left", PATIENCE, || {
        !std::path::Path::new(&format!("/proc/{}", next.0)).exists() || is_zombie(next.0)
    });
    assert_eq!(get(third, "/apiA").status, 200);
    assert!(std::net::TcpStream::connect(("127.0.0.1", further)).is_err(), "a listener that is gone is closed");
    drop(last);
}

/// Whether it has ended, and nobody has asked for its status.
fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

#[test]
fn a_new_process_that_cannot_serve_costs_nothing_and_says_why() {
    let one = Backend::start("one");
    let (port, taken) = (free_port(), free_port());
    let mut lab = Lab::start(&one_pool(port, &[&one], UNWATCHED));
    let occupied = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
    replace(&lab, &further_listener(&one_pool(port, &[&one], UNWATCHED), taken));
    let load = Load::start(port, "/apiA", 2, 1);
    load.wait_for_more(50);
    let failed = upgrade(&lab);
    let told = said(&failed);
    assert_eq!(failed.status.code(), Some(1), "{told}");
    assert!(told.contains("the old process serves on"), "{told}");
    assert!(told.contains(&format!("cannot listen at 127.0.0.1:{taken}")), "{told}");
    load.wait_for_more(50);
    let report = load.stop();
    assert_eq!((report.failed, report.statuses.len()), (Vec::new(), 1));
    assert!(lab.is_running());
    drop(occupied);
    // What was in the way is gone, and the same order does it.
    let _next = Other::of(&said(&upgrade(&lab)));
    assert!(lab.wait_exit(PATIENCE).success());
    assert_eq!(get(taken, "/apiA").status, 200);
}

#[test]
fn a_daemon_is_followed_by_a_daemon() {
    let one = Backend::start("one");
    let (port, further) = (free_port(), free_port());
    let folder = tempfile::tempdir().unwrap();
    // Relative names mean the same to the successor.
    let server = "server: { threads: 1, pid_file: l7lb.pid, upgrade_sock: run/upgrade.sock, error_log: error.log }\n";
    let yaml = one_pool(port, &[&one], &format!("{server}{UNWATCHED}access_log: {{ off: true }}\n"));
    Lab::configure(folder.path(), &yaml);
    let l7lb = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_l7lb"));
        command.current_dir(folder.path()).args(arguments).output().unwrap()
    };
    let pid = || std::fs::read_to_string(folder.path().join("l7lb.pid")).unwrap_or_default().trim().to_owned();
    assert!(l7lb(&["-c", "l7lb.yaml", "-d"]).status.success());
    eventually("the daemon answers", PATIENCE, || l7lb(&["reload", "-c", "l7lb.yaml"]).status.code() != Some(1));
    let first = pid();
    Lab::configure(folder.path(), &further_listener(&yaml, further));
    let upgraded = l7lb(&["reload", "--upgrade-if-needed", "-c", "l7lb.yaml"]);
    let told = said(&upgraded);
    let log = || std::fs::read_to_string(folder.path().join("error.log")).unwrap_or_default();
    assert!(upgraded.status.success(), "{told}\n{}", log());
    let next = Other::of(&told);
    assert_eq!((get(further, "/apiA").status, pid()), (200, next.0.to_string()));
    eventually("the first has left", PATIENCE, || !std::path::Path::new(&format!("/proc/{first}")).exists());
}

#[test]
fn systemd_is_told_which_process_counts_from_now_on() {
    let one = Backend::start("one");
    let (port, further) = (free_port(), free_port());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let path = folder.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let yaml = one_pool(port, &[&one], UNWATCHED);
    let mut lab = Lab::start_with(Arc::clone(&folder), &yaml, &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    replace(&lab, &further_listener(&yaml, further));
    let next = Other::of(&said(&upgrade(&lab)));
    assert!(lab.wait_exit(PATIENCE).success());
    let mut heard = Vec::new();
    let mut space = [0; 1024];
    while !heard.iter().any(|message: &String| message.starts_with("MAINPID=")) {
        let length = manager.recv(&mut space).unwrap();
        heard.push(String::from_utf8_lossy(&space[..length]).trim_end().to_owned());
    }
    assert_eq!(heard.last(), Some(&format!("MAINPID={}", next.0)), "{heard:?}");
    assert!(!heard.iter().any(|message| message.starts_with("STOPPING")), "the service goes on: {heard:?}");
}

#[test]
fn a_process_that_is_all_of_a_service_says_that_it_cannot_be_replaced() {
    let one = Backend::start("one");
    let port = free_port();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    Lab::configure(folder.path(), &one_pool(port, &[&one], UNWATCHED));
    // A shell sets the variable to the number that it hands on to the process.
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
    eventually("it answers", PATIENCE, || run(&["reload", "--conf", conf]).status.success());
    Lab::configure(folder.path(), &further_listener(&one_pool(port, &[&one], UNWATCHED), free_port()));
    let refused = run(&["reload", "--upgrade-if-needed", "--conf", conf]);
    let still = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(still && refused.status.code() == Some(1) && said(&refused).contains("Type=notify"), "{}", said(&refused));
}
