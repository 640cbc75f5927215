//! The header field Proxy-Status: who gets it, and what it reveals.

use std::io::Write;

use crate::lab::client::{connect, get, read_head};
use crate::lab::scripted::Scripted;
use crate::lab::{Backend, Lab, free_port};

const TRUSTED: &str = "trusted_proxies: [127.0.0.1/32]\n";

/// A pool at `/` whose backends are at these ports, tried in this order at first, and a redirect at `/moved`.
fn lab(port: u16, backends: &[u16], more: &str) -> Lab {
    let backends: Vec<String> = backends.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ p: {{ balance: round_robin, passive_health: off, health_check: {{ type: none }}, backends: [{}] }} }}\n\
         routes:\n\
         - {{ path: /api, pool: p }}\n\
         - {{ path: /moved, filters: [{{ respond: {{ status: 410 }} }}] }}\n{more}",
        backends.join(", ")
    ))
}

/// The status code and every Proxy-Status of the response to raw bytes.
fn send(port: u16, request: &str) -> (u16, Vec<String>) {
    let mut stream = connect(port);
    stream.write_all(request.as_bytes()).unwrap();
    let head = read_head(&mut stream);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let ours = fields.filter(|(name, _)| name.eq_ignore_ascii_case("proxy-status"));
    (status, ours.map(|(_, value)| value.to_owned()).collect())
}

/// Every Proxy-Status of the response to GET.
fn values(port: u16, path: &str) -> Vec<String> {
    send(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).1
}

/// A request that the listener rejects before any route.
const MALFORMED: &str = "GET /api HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n";

#[test]
fn trusted_client_gets_cause_detail_and_backend_and_others_get_nothing_by_default() {
    let (down, port) = (free_port(), free_port());
    let _lab = lab(port, &[down], TRUSTED);
    let refused = send(port, "GET /api HTTP/1.1\r\nHost: x\r\n\r\n");
    let expected = format!(
        "l7lb; error=connection_refused; details=\"connect_failed: not retried: no other backend\"; next-hop=\"127.0.0.1:{down}\""
    );
    assert_eq!(refused, (502, vec![expected]));
    let missing = values(port, "/nowhere");
    assert!(missing[0].starts_with("l7lb; error=destination_not_found; details=\"no_route"), "{missing:?}");
    assert_eq!(values(port, "/moved"), ["l7lb; error=proxy_internal_response; details=\"respond\""]);
    let malformed = send(port, MALFORMED).1;
    assert!(malformed[0].starts_with("l7lb; error=http_request_error; details=\"bad_request: "), "{malformed:?}");

    let port = free_port();
    let _untrusting = lab(port, &[down], "");
    for path in ["/api", "/nowhere", "/moved"] {
        assert_eq!(values(port, path), [""; 0], "{path}");
    }
    assert_eq!(send(port, MALFORMED), (400, Vec::new()));
}

#[test]
fn every_client_gets_the_cause_without_addresses_if_configured() {
    let (down, port) = (free_port(), free_port());
    let lab = lab(port, &[down], "proxy_status: all\n");
    assert_eq!(values(port, "/api"), ["l7lb; error=connection_refused; details=\"connect_failed\""]);
    assert_eq!(values(port, "/nowhere"), ["l7lb; error=destination_not_found; details=\"no_route\""]);
    assert_eq!(send(port, MALFORMED).1, ["l7lb; error=http_request_error; details=\"bad_request\""]);
    assert!(lab.wait_for_access("path=/nowhere ").contains(" cause=no_route"), "the same name as in the access log");
    assert!(get(port, "/nowhere").body.contains("no_route"), "the same name as in the body");

    let port = free_port();
    let _off = self::lab(port, &[down], &format!("proxy_status: off\n{TRUSTED}"));
    assert_eq!(values(port, "/api"), [""; 0]);
}

#[test]
fn proxy_status_of_a_backend_stays_and_that_of_l7lb_follows() {
    let inner = Scripted::start(|mut stream| {
        read_head(&mut stream);
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nProxy-Status: inner; error=dns_error\r\nConnection: close";
        stream.write_all(format!("{head}\r\n\r\n").as_bytes()).ok();
    });
    let port = free_port();
    let lab_of_both = lab(port, &[free_port(), inner.port], TRUSTED);
    let all: Vec<Vec<String>> = (0..4).map(|_| values(port, "/api")).collect();
    let forwarded = format!("l7lb; next-hop=\"127.0.0.1:{}\"; received-status=200", inner.port);
    for values in &all {
        assert_eq!(values[0], "inner; error=dns_error");
        assert!(values.len() == 1 || values[1..] == [forwarded.clone()], "{values:?}");
    }
    assert!(all.iter().any(|values| values.len() == 2), "an attempt failed: {:?}", lab_of_both.access());

    let (good, port) = (Backend::start("good"), free_port());
    let _lab = lab(port, &[good.port], TRUSTED);
    assert_eq!(values(port, "/api"), [""; 0], "there is nothing to report");
}

#[test]
fn response_of_the_cache_after_a_failed_attempt_has_no_received_status() {
    let backend = Scripted::start(|mut stream| {
        read_head(&mut stream);
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: max-age=60\r\nConnection: close";
        stream.write_all(format!("{head}\r\n\r\nbody").as_bytes()).ok();
    });
    let (down, port) = (free_port(), free_port());
    let lab = Lab::start(&format!(
        "cache: {{ memory: {{ size: 16MiB }} }}\n\
         listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ p: {{ balance: round_robin, passive_health: off, health_check: {{ type: none }}, backends: [127.0.0.1:{down}, 127.0.0.1:{}] }} }}\n\
         routes: [{{ path: /, pool: p, cache: {{}} }}]\n{TRUSTED}",
        backend.port
    ));
    let part = |number| send(port, &format!("GET /{number} HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-0\r\n\r\n"));
    let mut failed = 0;
    for (status, values) in (0..6).map(part) {
        // The backend has sent the whole body with status 200.
        assert_eq!(status, 206);
        if let [value] = values.as_slice() {
            assert_eq!(*value, format!("l7lb; next-hop=\"127.0.0.1:{}\"", backend.port));
            failed += 1;
        }
    }
    assert!(failed > 0, "an attempt failed: {:?}", lab.access());
    assert_eq!(part(0), (206, Vec::new()), "a hit needs no attempt");
}
