//! Starting, stopping, and being replaced, under load.

use std::io::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lab::client::{self, get, read_answer};
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port, run};
use crate::one_pool;

#[test]
fn an_upgrade_under_load_loses_no_request_twice_in_a_row() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let port = free_port();
    let mut lab = Lab::start(&one_pool(port, &[&one, &two], ""));
    let load = Load::start(port, "/apiA", 8, 4);
    for _ in 0..2 {
        load.wait_for_more(500);
        let next = lab.successor();
        lab.signal(Signal::SIGQUIT);
        next.wait_until_ready();
        assert!(lab.wait_exit(PATIENCE).success());
        assert!(lab.log().contains("all connections are finished"), "{}", lab.log());
        lab = next;
    }
    load.wait_for_more(500);
    let report = load.stop();
    assert_eq!(report.failed, Vec::<String>::new(), "{} answered", report.statuses.values().sum::<usize>());
    assert_eq!(report.statuses.keys().copied().collect::<Vec<_>>(), [200], "{report:?}");
}

#[test]
fn without_a_successor_an_upgrade_changes_nothing() {
    let backend = Backend::start("one");
    let port = free_port();
    let mut lab = Lab::start(&one_pool(port, &[&backend], ""));
    lab.signal(Signal::SIGQUIT);
    lab.wait_for_log("upgrade failed, this process goes on serving");
    assert_eq!(get(port, "/apiA").status, 200);
    assert!(lab.is_running());
}

#[test]
fn a_successor_that_cannot_start_changes_nothing() {
    let backend = Backend::start("one");
    let (port, taken) = (free_port(), free_port());
    let mut lab = Lab::start(&one_pool(port, &[&backend], ""));
    // The successor has a further listener, whose port is taken.
    let _occupied = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
    let yaml = one_pool(port, &[&backend], "")
        .replace("listeners: [", &format!("listeners: [{{ address: '127.0.0.1:{taken}' }}, "));
    Lab::configure(lab.folder(), &yaml);
    let mut next = lab.successor();
    lab.signal(Signal::SIGQUIT);
    assert_eq!(next.wait_exit(PATIENCE).code(), Some(1));
    next.wait_for_log(&format!("cannot listen at 127.0.0.1:{taken}"));
    lab.wait_for_log("upgrade failed, this process goes on serving");
    assert_eq!(get(port, "/apiA").status, 200);
    assert!(lab.is_running());
}

#[test]
fn sigterm_finishes_what_is_in_flight_and_leaves_at_once_after() {
    let backend = Backend::start("one");
    let port = free_port();
    let mut lab = Lab::start(&one_pool(port, &[&backend], ""));
    let mut idle = client::connect(port);
    idle.write_all(b"GET /apiA HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut idle).status, 200);
    let mut slow = client::connect(port);
    slow.write_all(b"GET /apiA/delay/1500ms HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    eventually("the slow request is in flight", PATIENCE, || get(port, "/apiA/count").status == 200);
    let asked = Instant::now();
    lab.signal(Signal::SIGTERM);
    lab.wait_for_log("SIGTERM");
    let answer = read_answer(&mut slow);
    assert_eq!(answer.status, 200);
    assert!(lab.wait_exit(PATIENCE).success());
    assert!(asked.elapsed() < Duration::from_secs(10), "the grace period of 30 s is not slept through");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn sigint_leaves_at_once() {
    let backend = Backend::start("one");
    let port = free_port();
    let mut lab = Lab::start(&one_pool(port, &[&backend], ""));
    let mut slow = client::connect(port);
    slow.write_all(b"GET /apiA/hang HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    lab.signal(Signal::SIGINT);
    assert!(lab.wait_exit(Duration::from_secs(5)).success());
}

#[test]
fn a_port_that_is_taken_ends_the_process_with_its_name() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let free = free_port();
    let file = Lab::configure(
        folder.path(),
        &format!(
            "listeners: [{{ address: '127.0.0.1:{free}' }}, {{ address: '{address}' }}]\npools: {{ p: {{ backends: [{{ address: '127.0.0.1:1' }}] }} }}\nroutes: [{{ path: /, pool: p }}]"
        ),
    );
    let ended = run(&["run", "--conf", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("cannot listen at {address}")), "{said}");
}

#[test]
fn a_daemon_detaches_writes_its_pid_and_stops_on_sigterm() {
    let backend = Backend::start("one");
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display();
    let server = format!(
        "server: {{ pid_file: '{place}/l7lb.pid', upgrade_sock: '{place}/upgrade.sock', error_log: '{place}/error.log' }}\n"
    );
    let file =
        Lab::configure(folder.path(), &format!("{server}{}", one_pool(port, &[&backend], "access_log: { off: true }")));
    let started = run(&["-c", file.to_str().unwrap(), "-d"]);
    assert!(started.status.success(), "{started:?}");
    eventually("the daemon serves", PATIENCE, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() && get(port, "/apiA").status == 200
    });
    let pid: i32 = std::fs::read_to_string(folder.path().join("l7lb.pid")).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    eventually("the daemon is gone", PATIENCE, || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    let log = std::fs::read_to_string(folder.path().join("error.log")).unwrap();
    assert!(log.contains(" ready: ") && log.contains("SIGTERM"), "{log}");
}
