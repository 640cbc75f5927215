//! Graceful and immediate shutdown, readiness meanwhile, and the end of the old process after an upgrade.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::lab::client::{self, connect, exchange, get, read_head, read_response};
use crate::lab::load::Load;
use crate::lab::scripted::Scripted;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};
use crate::one_pool;

/// A configuration whose listener has health endpoints, with these further lines.
fn yaml(port: u16, backend: &Backend, more: &str) -> String {
    let health = "health: { live: /livez, ready: /readyz } }]";
    one_pool(port, &[backend], more).replace(" }]\npools", &format!(", {health}\npools"))
}

/// A server block with this grace period.
fn grace(seconds: u32) -> String {
    let paths = "upgrade_sock: '{folder}/upgrade.sock', pid_file: '{folder}/l7lb.pid'";
    format!("server: {{ threads: 2, grace_period_seconds: {seconds}, {paths} }}\n")
}

/// The number of requests that the backend has received, without health checks.
fn received(backend: &Backend) -> u32 {
    get(backend.port, "/count").body.trim().parse().unwrap()
}

#[test]
fn health_endpoints_bypass_routes_rate_limits_and_the_access_log() {
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
    let mut response = String::new();
    head.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("\r\n\r\n"), "{response}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let over_h2 = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client::get_h2(stream, "http://localhost/readyz").await
    });
    assert_eq!(over_h2, (200, "ready\n".to_owned()));
    let posted = exchange(port, b"POST /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(posted.status, 404, "a POST is not a health request");
    assert_eq!(
        get(port, "/livez/more").status,
        429,
        "the rate limit counts the redirect and the POST, and no health request"
    );
    lab.wait_for_access("path=/livez/more");
    assert!(
        !lab.access().iter().any(|line| line.contains("path=/readyz") && line.contains("method=GET")),
        "{:?}",
        lab.access()
    );
}

#[test]
fn readiness_fails_before_listeners_close_and_no_request_fails() {
    let one = Backend::start("one");
    let port = free_port();
    let mut lab = Lab::start(&yaml(port, &one, "drain_delay: 2s"));
    let load = Load::start(port, "/apiA", 4, 2);
    load.wait_for_more(50);
    lab.signal(Signal::SIGTERM);
    lab.wait_for_log("draining, readiness checks fail; listeners close in 2s");
    let ready = get(port, "/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "draining\n"));
    assert_eq!((get(port, "/livez").status, get(port, "/apiA").status), (200, 200), "requests are still served");
    let client = l7lb::control::api::Client::new(lab.folder().join("control.sock"));
    let error = client.get::<serde_json::Value>("/ready").unwrap_err().to_string();
    assert!(error.contains("shutting down"), "{error}");
    load.wait_for_more(50);
    let report = load.stop();
    assert_eq!((report.failed, report.statuses.len()), (Vec::new(), 1));
    assert!(lab.wait_exit(PATIENCE).success());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn requests_aborted_at_the_end_of_the_grace_period_are_logged() {
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
    let mut hanging = connect(port);
    hanging.write_all(b"GET /apiA/hang HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut tunnel = connect(port);
    tunnel.write_all(b"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    assert!(read_head(&mut tunnel).starts_with("HTTP/1.1 101"));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
            let request = http::Request::get("http://localhost/apiA/h2/hang").body(()).unwrap();
            let _response = sender.send_request(request, true).unwrap();
            connection.await.ok();
        });
    });
    eventually("all requests are in flight", PATIENCE, || received(&one) == 2);
    lab.signal(Signal::SIGTERM);
    let line = lab.wait_for_log("the grace period is over");
    assert!(line.contains("aborting 3 connections with 3 requests"), "{line}");
    lab.wait_for_log("request aborted: route=*/chat client=127.0.0.1 after=");
    lab.wait_for_log("request aborted: route=*/apiA client=127.0.0.1 after=");
    assert!(lab.wait_exit(PATIENCE).success());
    for path in ["/apiA/hang ", "/apiA/h2/hang ", "/chat "] {
        let line = lab.wait_for_access(&format!("path={path}"));
        assert!(line.contains("cause=shutdown"), "{line}");
    }
}

#[test]
fn second_signal_ends_the_process_immediately() {
    let one = Backend::start("one");
    for (delay, second, phase) in [
        ("1h", Signal::SIGTERM, "draining, readiness checks fail"),
        ("0s", Signal::SIGTERM, "draining 1"),
        ("1h", Signal::SIGINT, "draining, readiness checks fail"),
    ] {
        let port = free_port();
        let mut lab = Lab::start(&yaml(port, &one, &format!("drain_delay: {delay}")));
        let before = received(&one);
        let mut slow = connect(port);
        slow.write_all(b"GET /apiA/hang HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        eventually("the request is in flight", PATIENCE, || received(&one) > before);
        lab.signal(Signal::SIGTERM);
        lab.wait_for_log(phase);
        lab.signal(second);
        assert!(lab.wait_exit(PATIENCE).success());
        lab.wait_for_log("aborting 1 connections");
    }
}

#[test]
fn readiness_does_not_fail_in_the_old_process_during_an_upgrade() {
    let one = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&yaml(port, &one, "drain_delay: 1h"));
    // An incomplete request, so that the connection is not idle when the old process starts to drain.
    let mut pending = connect(port);
    pending.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n").unwrap();
    let next = lab.successor();
    lab.signal(Signal::SIGQUIT);
    next.wait_until_ready();
    lab.wait_for_log("the new process is ready");
    std::thread::sleep(Duration::from_millis(100));
    pending.write_all(b"\r\n").unwrap();
    let response = read_response(&mut pending);
    assert_eq!((response.status, response.header("connection")), (200, "close"), "{response:?}");
    assert_eq!(get(port, "/readyz").status, 200);
    let mut lab = lab;
    assert!(lab.wait_exit(PATIENCE).success(), "the old process skips drain_delay, as it gets no new connections");
}

/// A service manager may stop a service during an upgrade.
#[test]
fn sigterm_during_an_upgrade_does_not_abort_requests_in_flight() {
    let one = Backend::start("one");
    let port = free_port();
    let mut lab = Lab::start(&one_pool(port, &[&one], ""));
    // The test plays the new process.
    let upgrade_socket = UnixListener::bind(lab.folder().join("upgrade.sock")).unwrap();
    let mut slow = connect(port);
    slow.write_all(b"GET /apiA/delay/2s HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    eventually("the slow request reaches the backend", PATIENCE, || received(&one) == 1);
    lab.signal(Signal::SIGQUIT);
    let (mut new, _) = upgrade_socket.accept().unwrap();
    lab.signal(Signal::SIGTERM);
    new.write_all(&[b'R', 0, 0, 0, 1]).unwrap();
    lab.wait_for_log("SIGTERM: already draining");
    assert_eq!(read_response(&mut slow).status, 200);
    assert!(lab.wait_exit(PATIENCE).success());
}

#[test]
fn sigint_during_an_upgrade_stops_the_process_immediately() {
    let one = Backend::start("one");
    let mut lab = Lab::start(&one_pool(free_port(), &[&one], ""));
    let upgrade_socket = UnixListener::bind(lab.folder().join("upgrade.sock")).unwrap();
    lab.signal(Signal::SIGQUIT);
    // The new process never reports readiness. The old process would wait for it longer than PATIENCE.
    let (_new, _) = upgrade_socket.accept().unwrap();
    lab.signal(Signal::SIGINT);
    assert!(lab.wait_exit(PATIENCE).success());
}
