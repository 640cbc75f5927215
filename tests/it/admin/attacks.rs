//! Web pages, slow clients, large requests and many connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{Admin, OPERATOR, OWNER, READER, TOKENS, cause};
use crate::lab::client::{self, Response};
use crate::lab::{Lab, PATIENCE, eventually, free_port, run};
use crate::one_pool;

fn with_headers(admin: &Admin, headers: &str) -> Response {
    admin.call_with(&format!("{headers}Authorization: Bearer {READER}\r\n"), "GET /version", "")
}

#[test]
fn host_that_is_not_known_is_rejected_before_the_login() {
    let admin = Admin::start(&format!("{TOKENS}, hosts: [LB.example.com]"));
    for host in ["127.0.0.1", "localhost:1", "[::1]:9443", "lb.example.com", "lb.EXAMPLE.com:9443"] {
        assert_eq!(with_headers(&admin, &format!("Host: {host}\r\n")).status, 200, "{host}");
    }
    for host in ["evil.example", "x.lb.example.com", "localhost.evil.example:9443", "127.0.0.1.nip.example"] {
        let response = with_headers(&admin, &format!("Host: {host}\r\n"));
        assert_eq!((response.status, cause(&response).as_str()), (421, "unknown_host"), "{host}");
        let response = admin.call_with(&format!("Host: {host}\r\n"), "GET /version", "");
        assert_eq!(response.status, 421, "{host} without a token");
    }
    let response = with_headers(&admin, "Host: localhost\r\nHost: evil.example\r\n");
    assert!([400, 421].contains(&response.status), "{response:?}");
    let absolute = admin.call_with(
        &format!("Host: localhost\r\nAuthorization: Bearer {READER}\r\n"),
        "GET http://evil.example/version",
        "",
    );
    assert_eq!(absolute.status, 421, "{absolute:?}");
}

#[test]
fn page_of_another_origin_is_rejected_and_no_response_allows_one() {
    let admin = Admin::start(TOKENS);
    let own = format!("Host: localhost:{0}\r\nOrigin: http://localhost:{0}\r\n", admin.port);
    assert_eq!(with_headers(&admin, &own).status, 200);
    for header in
        ["Origin: https://evil.example", "Origin: null", "Origin: http://localhost:1", "Sec-Fetch-Site: cross-site"]
    {
        let response = with_headers(&admin, &format!("Host: localhost:{}\r\n{header}\r\n", admin.port));
        assert_eq!((response.status, cause(&response).as_str()), (403, "cross_origin"), "{header}");
        assert!(response.headers.keys().all(|name| !name.starts_with("access-control-")), "{response:?}");
    }
}

#[test]
fn header_that_arrives_slowly_is_not_waited_for_and_delays_no_other_call() {
    let admin = Admin::start(TOKENS);
    let started = Instant::now();
    let mut slow: Vec<TcpStream> = (0..40).map(|_| client::connect(admin.port)).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\n").unwrap();
    }
    let mut ended = 0;
    while !slow.is_empty() {
        assert!(started.elapsed() < PATIENCE, "{} connections are still open", slow.len());
        assert_eq!(admin.call(Some(READER), "GET /version", "").status, 200);
        std::thread::sleep(Duration::from_millis(250));
        slow.retain_mut(|stream| {
            let open = stream.write_all(b"X: y\r\n").is_ok();
            ended += usize::from(!open);
            open
        });
    }
    assert_eq!(ended, 40);
}

#[test]
fn large_headers_and_bodies_are_rejected() {
    let admin = Admin::start(TOKENS);
    let large = format!("Host: localhost\r\nX-Large: {}\r\n", "x".repeat(100_000));
    let mut stream = client::connect(admin.port);
    stream.write_all(super::request(&large, "GET /version", "").as_bytes()).ok();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).ok();
    let response = String::from_utf8_lossy(&response);
    assert!(response.is_empty() || response.starts_with("HTTP/1.1 431 "), "{response}");
    let many: String = (0..1000).map(|number| format!("X-{number}: y\r\n")).collect();
    let mut stream = client::connect(admin.port);
    stream.write_all(super::request(&format!("Host: localhost\r\n{many}"), "GET /version", "").as_bytes()).ok();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).ok();
    let response = String::from_utf8_lossy(&response);
    assert!(response.is_empty() || response.starts_with("HTTP/1.1 431 "), "{response}");
    let body = format!(
        "POST /plan HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {READER}\r\nContent-Length: 99999999\r\n\r\n"
    );
    let response = client::exchange(admin.port, body.as_bytes());
    assert_eq!((response.status, cause(&response).as_str()), (413, "too_large"), "announced, and not read");
    let response = client::exchange(admin.port, body.replace("Authorization", "X-None").as_bytes());
    assert_eq!(response.status, 401, "the body of an unknown caller is not waited for");
    assert_eq!(admin.call(Some(READER), "GET /version", "").status, 200);
}

#[test]
fn only_admins_may_send_bodies_of_more_than_64_kib() {
    let admin = Admin::start(TOKENS);
    let question = |spaces: usize| format!(r#"{{"request":"GET http://localhost/apiA"}}{}"#, " ".repeat(spaces));
    for (token, spaces, status) in [(READER, 65_000, 200), (OPERATOR, 66_000, 413), (OWNER, 66_000, 200)] {
        let response = admin.call(Some(token), "POST /explain", &question(spaces));
        assert_eq!(response.status, status, "{token}: {response:?}");
    }
    let response = admin.call(Some(READER), "POST /explain", &question(66_000));
    assert_eq!((response.status, cause(&response).as_str()), (413, "too_large"));
}

#[test]
fn thousand_connections_of_one_client_are_bounded_and_the_process_continues_to_serve() {
    let admin = Admin::start(TOKENS);
    let held: Vec<TcpStream> = (0..1000).filter_map(|_| TcpStream::connect(("127.0.0.1", admin.port)).ok()).collect();
    let is_open = |stream: &&TcpStream| {
        stream.set_nonblocking(true).unwrap();
        matches!(stream.peek(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    };
    let mut open = held.len();
    eventually("connections beyond the limit are closed", PATIENCE, || {
        open = held.iter().filter(is_open).count();
        open <= 64
    });
    assert!(open > 0, "those within the limit stay open");
    let (status, _) = crate::control::call(&admin.lab, http::Method::GET, "/version", "");
    assert_eq!(status, 200, "the control socket is not affected");
    drop(held);
    eventually("the slots are free", PATIENCE, || {
        let mut stream = client::connect(admin.port);
        let headers = format!("Host: localhost\r\nAuthorization: Bearer {READER}\r\n");
        stream.write_all(super::request(&headers, "GET /version", "").as_bytes()).ok();
        let mut response = String::new();
        stream.read_to_string(&mut response).ok();
        response.starts_with("HTTP/1.1 200 ")
    });
}

#[test]
fn admin_port_in_use_is_an_error_at_the_start() {
    let folder = super::folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let backend = crate::lab::Backend::start("one");
    let yaml = one_pool(free_port(), &[&backend], &format!("admin: {{ listen: '{address}', {TOKENS} }}\n"));
    let file = Lab::configure(folder.path(), &yaml);
    let output = run(&["run", "--conf", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(&format!("cannot listen at {address}: ")), "{said}");
}
