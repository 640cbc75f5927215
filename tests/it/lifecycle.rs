//! Start, shutdown and upgrade of the process, also under load.

use std::io::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lab::client::{self, get, read_response};
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port, run};
use crate::one_pool;

#[test]
fn two_upgrades_in_a_row_under_load_fail_no_request() {
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
        assert!(lab.log().contains("all connections have ended"), "{}", lab.log());
        lab = next;
    }
    load.wait_for_more(500);
    let report = load.stop();
    assert_eq!(report.failed, Vec::<String>::new(), "{} responses", report.statuses.values().sum::<usize>());
    assert_eq!(report.statuses.keys().copied().collect::<Vec<_>>(), [200], "{report:?}");
}

#[test]
fn process_continues_to_serve_if_no_successor_connects() {
    let backend = Backend::start("one");
    let port = free_port();
    let mut lab = Lab::start(&one_pool(port, &[&backend], ""));
    lab.signal(Signal::SIGQUIT);
    lab.wait_for_log("upgrade failed, this process continues to serve");
    assert_eq!(get(port, "/apiA").status, 200);
    assert!(lab.is_running());
}

#[test]
fn process_continues_to_serve_if_its_successor_fails_to_start() {
    let backend = Backend::start("one");
    let (port, taken) = (free_port(), free_port());
    let mut lab = Lab::start(&one_pool(port, &[&backend], ""));
    // The successor has a further listener, whose port is in use.
    let _occupant = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
    let yaml = one_pool(port, &[&backend], "")
        .replace("listeners: [", &format!("listeners: [{{ address: '127.0.0.1:{taken}' }}, "));
    Lab::configure(lab.folder(), &yaml);
    let mut next = lab.successor();
    lab.signal(Signal::SIGQUIT);
    assert_eq!(next.wait_exit(PATIENCE).code(), Some(1));
    next.wait_for_log(&format!("cannot listen at 127.0.0.1:{taken}"));
    lab.wait_for_log("upgrade failed, this process continues to serve");
    assert_eq!(get(port, "/apiA").status, 200);
    assert!(lab.is_running());
}

#[test]
fn sigterm_completes_requests_in_flight_and_exits_without_further_delay() {
    let backend = Backend::start("one");
    let port = free_port();
    let mut lab = Lab::start(&one_pool(port, &[&backend], ""));
    let mut idle = client::connect(port);
    idle.write_all(b"GET /apiA HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(read_response(&mut idle).status, 200);
    let mut slow = client::connect(port);
    slow.write_all(b"GET /apiA/delay/1500ms HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    eventually("the slow request is in flight", PATIENCE, || get(port, "/apiA/count").status == 200);
    let signalled = Instant::now();
    lab.signal(Signal::SIGTERM);
    lab.wait_for_log("SIGTERM");
    let response = read_response(&mut slow);
    assert_eq!(response.status, 200);
    assert!(lab.wait_exit(PATIENCE).success());
    assert!(
        signalled.elapsed() < Duration::from_secs(10),
        "the process does not wait for the rest of the 30 s grace period"
    );
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn sigint_exits_immediately() {
    let backend = Backend::start("one");
    let port = free_port();
    let mut lab = Lab::start(&one_pool(port, &[&backend], ""));
    let mut slow = client::connect(port);
    slow.write_all(b"GET /apiA/hang HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    lab.signal(Signal::SIGINT);
    assert!(lab.wait_exit(Duration::from_secs(5)).success());
}

#[test]
fn process_exits_and_names_the_address_if_a_port_is_in_use() {
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
    let output = run(&["run", "--conf", file.to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&format!("cannot listen at {address}")), "{stderr}");
}

#[test]
fn daemon_detaches_writes_its_pid_and_stops_on_sigterm() {
    let backend = Backend::start("one");
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().display();
    let server = format!(
        "server: {{ pid_file: '{directory}/l7lb.pid', upgrade_sock: '{directory}/upgrade.sock', error_log: '{directory}/error.log' }}\n"
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
    eventually("the daemon has exited", PATIENCE, || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    let log = std::fs::read_to_string(folder.path().join("error.log")).unwrap();
    assert!(log.contains(" ready: ") && log.contains("SIGTERM"), "{log}");
}
