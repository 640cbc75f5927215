//! How the process says that it leaves, and how it does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::lab::client::{self, connect, exchange, get, read_answer, read_head};
use crate::lab::load::Load;
use crate::lab::scripted::Scripted;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};
use crate::one_pool;

/// A listener that says how the balancer is, and these further lines.
fn yaml(port: u16, backend: &Backend, more: &str) -> String {
    let health = "health: { live: /livez, ready: /readyz } }]";
    one_pool(port, &[backend], more).replace(" }]\npools", &format!(", {health}\npools"))
}

/// A server block with this grace period.
fn grace(seconds: u32) -> String {
    let paths = "upgrade_sock: '{folder}/upgrade.sock', pid_file: '{folder}/l7lb.pid'";
    format!("server: {{ threads: 2, grace_period_seconds: {seconds}, {paths} }}\n")
}

/// How many requests the backend has got, besides health checks.
fn arrived(backend: &Backend) -> u32 {
    get(backend.port, "/count").body.trim().parse().unwrap()
}

#[test]
fn own_health_is_answered_without_routes_limits_or_a_trace() {
    let one = Backend::start("one");
    let (port, plain) = (free_port(), free_port());
    let limit = "rate_limit: { type: fixed_window, limit: 2, window: 1h }\n";
    let redirecting = format!(
        "listeners: [{{ address: '127.0.0.1:{plain}', redirect_to_https: 443, health: {{ ready: /readyz }} }}, "
    );
    let lab = Lab::start(&yaml(port, &one, limit).replace("listeners: [", &redirecting));
    for _ in 0..5 {
        let (live, ready) = (get(port, "/livez"), get(port, "/readyz?probe"));
        assert_eq!(
            (live.status, live.body.as_str(), ready.status, ready.body.as_str()),
            (200, "live\n", 200, "ready\n")
        );
        assert_eq!(ready.header("cache-control"), "no-store");
    }
    assert_eq!((get(plain, "/readyz").status, get(plain, "/livez").status), (200, 308));
    let mut head = connect(port);
    head.write_all(b"HEAD /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut whole = String::new();
    head.read_to_string(&mut whole).unwrap();
    assert!(whole.starts_with("HTTP/1.1 200") && whole.ends_with("\r\n\r\n"), "{whole}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let over_h2 = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client::get_h2(stream, "http://localhost/readyz").await
    });
    assert_eq!(over_h2, (200, "ready\n".to_owned()));
    let posted = exchange(port, b"POST /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(posted.status, 404, "who writes there means something else");
    assert_eq!(get(port, "/livez/more").status, 429, "the limit counted the redirect and the write, and nothing else");
    lab.wait_for_access("path=/livez/more");
    assert!(
        !lab.access().iter().any(|line| line.contains("path=/readyz") && line.contains("method=GET")),
        "{:?}",
        lab.access()
    );
}

#[test]
fn readiness_fails_first_and_no_request_does() {
    let one = Backend::start("one");
    let port = free_port();
    let mut lab = Lab::start(&yaml(port, &one, "drain_delay: 2s"));
    let load = Load::start(port, "/apiA", 4, 2);
    load.wait_for_more(50);
    lab.signal(Signal::SIGTERM);
    lab.wait_for_log("not ready any more; listeners close in 2s");
    let ready = get(port, "/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "leaving\n"));
    assert_eq!((get(port, "/livez").status, get(port, "/apiA").status), (200, 200), "who comes is served");
    let client = l7lb::admin::Client::new(lab.folder().join("control.sock"));
    let told = client.get::<serde_json::Value>("/ready").unwrap_err().to_string();
    assert!(told.contains("about to leave"), "{told}");
    load.wait_for_more(50);
    let report = load.stop();
    assert_eq!((report.failed, report.statuses.len()), (Vec::new(), 1));
    assert!(lab.wait_exit(PATIENCE).success());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn what_is_cut_at_the_deadline_is_named_and_logged() {
    let one = Backend::start("one");
    let chat = Scripted::start(|mut stream| {
        read_head(&mut stream);
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .unwrap();
        std::thread::sleep(PATIENCE);
    });
    let port = free_port();
    let pool = format!(
        "pools:\n  chat: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{}' }}] }}",
        chat.port
    );
    let yaml = one_pool(port, &[&one], &grace(1))
        .replace("pools:", &pool)
        .replace("routes: [", "routes: [{ path: /chat, pool: chat }, ");
    let mut lab = Lab::start(&yaml);
    let mut hangs = connect(port);
    hangs.write_all(b"GET /apiA/hang HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut tunnel = connect(port);
    tunnel.write_all(b"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    assert!(read_head(&mut tunnel).starts_with("HTTP/1.1 101"));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
            let request = http::Request::get("http://localhost/apiA/h2/hang").body(()).unwrap();
            let _answer = sender.send_request(request, true).unwrap();
            connection.await.ok();
        });
    });
    eventually("all are in flight", PATIENCE, || arrived(&one) == 2);
    lab.signal(Signal::SIGTERM);
    let line = lab.wait_for_log("the grace period is over");
    assert!(line.contains("3 connections are cut, with 3 requests"), "{line}");
    lab.wait_for_log("request cut: route=*/chat client=127.0.0.1 after=");
    lab.wait_for_log("request cut: route=*/apiA client=127.0.0.1 after=");
    assert!(lab.wait_exit(PATIENCE).success());
    for path in ["/apiA/hang ", "/apiA/h2/hang ", "/chat "] {
        let line = lab.wait_for_access(&format!("path={path}"));
        assert!(line.contains("cause=shutdown"), "{line}");
    }
}

#[test]
fn a_second_signal_ends_it_at_once_whatever_it_waits_for() {
    let one = Backend::start("one");
    for (delay, again, waits_for) in [
        ("1h", Signal::SIGTERM, "not ready any more"),
        ("0s", Signal::SIGTERM, "finishing 1"),
        ("1h", Signal::SIGINT, "not ready any more"),
    ] {
        let port = free_port();
        let mut lab = Lab::start(&yaml(port, &one, &format!("drain_delay: {delay}")));
        let others = arrived(&one);
        let mut slow = connect(port);
        slow.write_all(b"GET /apiA/hang HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        eventually("it is in flight", PATIENCE, || arrived(&one) > others);
        lab.signal(Signal::SIGTERM);
        lab.wait_for_log(waits_for);
        lab.signal(again);
        assert!(lab.wait_exit(PATIENCE).success());
        lab.wait_for_log("connections are cut");
    }
}

#[test]
fn the_old_process_of_an_upgrade_does_not_fail_readiness() {
    let one = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&yaml(port, &one, "drain_delay: 1h"));
    // Half a question, so that the connection is not silent when the old process begins to leave.
    let mut asking = connect(port);
    asking.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n").unwrap();
    let next = lab.successor();
    lab.signal(Signal::SIGQUIT);
    next.wait_until_ready();
    lab.wait_for_log("the new process is ready");
    std::thread::sleep(Duration::from_millis(100));
    asking.write_all(b"\r\n").unwrap();
    let answer = read_answer(&mut asking);
    assert_eq!((answer.status, answer.header("connection")), (200, "close"), "{answer:?}");
    assert_eq!(get(port, "/readyz").status, 200);
    let mut lab = lab;
    assert!(lab.wait_exit(PATIENCE).success(), "without the delay: nobody comes any more");
}

/// As a service manager does that stops a service in the middle of an upgrade.
#[test]
fn a_process_that_is_asked_to_stop_while_it_is_replaced_finishes_what_it_has() {
    let one = Backend::start("one");
    let port = free_port();
    let mut lab = Lab::start(&one_pool(port, &[&one], ""));
    // The test is the new process.
    let waiting = UnixListener::bind(lab.folder().join("upgrade.sock")).unwrap();
    let mut slow = connect(port);
    slow.write_all(b"GET /apiA/delay/2s HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    eventually("the slow request is at the backend", PATIENCE, || arrived(&one) == 1);
    lab.signal(Signal::SIGQUIT);
    let (mut new, _) = waiting.accept().unwrap();
    lab.signal(Signal::SIGTERM);
    new.write_all(&[b'R', 0, 0, 0, 1]).unwrap();
    lab.wait_for_log("SIGTERM: finishing already");
    assert_eq!(read_answer(&mut slow).status, 200);
    assert!(lab.wait_exit(PATIENCE).success());
}

#[test]
fn sigint_waits_for_no_upgrade() {
    let one = Backend::start("one");
    let mut lab = Lab::start(&one_pool(free_port(), &[&one], ""));
    let waiting = UnixListener::bind(lab.folder().join("upgrade.sock")).unwrap();
    lab.signal(Signal::SIGQUIT);
    // A new process that takes its time; the old one would give it longer than the test has patience.
    let (_new, _) = waiting.accept().unwrap();
    lab.signal(Signal::SIGINT);
    assert!(lab.wait_exit(PATIENCE).success());
}
