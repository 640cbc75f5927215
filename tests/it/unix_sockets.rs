//! Backends behind Unix domain sockets, with every protocol, health check and policy.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use l7lb::http::proxy_protocol::{Header, parse};
use parking_lot::Mutex;

use crate::lab::bridge::Bridge;
use crate::lab::client::{connect, exchange, get, get_h2, get_with, read_head, read_response};
use crate::lab::grpc::{Channel, GrpcBackend, NOT_SERVING};
use crate::lab::recorder::Recorder;
use crate::lab::scripted::Scripted;
use crate::lab::{Backend, Lab, PATIENCE, authority, eventually, free_port, run, tls_backend};

const UNCHECKED: &str = "health_check: { type: none }, passive_health: off";

/// A folder for sockets and the configuration.
struct Folder(Arc<tempfile::TempDir>);

impl Folder {
    fn new() -> Self {
        Self(Arc::new(tempfile::tempdir().unwrap()))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// A bridge to `port` with this name.
    fn bridge(&self, name: &str, port: u16) -> Bridge {
        Bridge::start(&self.path(name), port)
    }

    /// A balancer with one pool of these backends and keys.
    fn start(&self, port: u16, pool: &str, backends: &[String], route: &str) -> Lab {
        let backends: Vec<String> = backends.iter().map(|address| format!("{{ address: '{address}' }}")).collect();
        let yaml = format!(
            "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
             pools: {{ p: {{ {pool}, backends: [{}] }} }}\n\
             routes: [{{ path: /, pool: p{route} }}]\n",
            backends.join(", ")
        );
        Lab::start_in(Arc::clone(&self.0), &yaml)
    }

    fn address(&self, name: &str) -> String {
        format!("unix:{}", self.path(name))
    }
}

#[test]
fn unix_backend_serves_http1_and_its_connection_is_reused() {
    let (folder, recorder, port) = (Folder::new(), Recorder::start(), free_port());
    let bridge = folder.bridge("a.sock", recorder.port);
    let lab = folder.start(port, UNCHECKED, &[folder.address("a.sock")], "");
    let mut client = connect(port);
    for _ in 0..3 {
        client.write_all(b"POST /x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 4\r\n\r\nbody").unwrap();
        let response = read_response(&mut client);
        assert_eq!((response.status, response.body.as_str()), (200, "ok"));
    }
    let received = recorder.take();
    assert!(received.iter().all(|request| request.brief() == "POST /x|body"));
    assert!(received.iter().all(|request| request.values("host") == ["shop.test"]), "the client's Host");
    assert_eq!(bridge.connections(), 1);
    let line = lab.wait_for_access("path=/x");
    assert!(line.contains(&format!(" upstream={} ", folder.address("a.sock"))), "{line}");
}

#[test]
fn unix_backend_serves_http2_through_a_symbolic_link_on_one_connection() {
    let (folder, backend, port) = (Folder::new(), Backend::start("a"), free_port());
    let bridge = folder.bridge("a.sock", backend.port);
    symlink(folder.path("a.sock"), folder.path("link.sock")).unwrap();
    let pool = format!("protocol: h2c, {UNCHECKED}");
    let lab = folder.start(port, &pool, &[folder.address("link.sock")], "");
    let mut client = connect(port);
    for _ in 0..3 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(read_response(&mut client).body.trim(), "Hello from a");
    }
    assert_eq!(bridge.connections(), 1, "{}", lab.log());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (status, body) = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        get_h2(stream, "http://localhost/").await
    });
    assert_eq!((status, body.trim()), (200, "Hello from a"));
}

#[test]
fn unix_backend_with_tls_is_verified_by_the_configured_name() {
    let (folder, port) = (Folder::new(), free_port());
    let authority = authority::Authority::new("backends");
    std::fs::write(folder.path("ca.pem"), authority.pem()).unwrap();
    let backend = tls_backend::start(&authority.issue(&["api.internal"]), None);
    let _bridge = folder.bridge("a.sock", backend.port);
    for (name, status) in [("api.internal", 200), ("other.internal", 502)] {
        let pool = format!("{UNCHECKED}, tls: {{ server_name: {name}, ca: '{}' }}", folder.path("ca.pem"));
        let _lab = folder.start(port, &pool, &[folder.address("a.sock")], "");
        assert_eq!(get(port, "/").status, status, "{name}");
    }
}

#[test]
fn unix_backend_at_an_abstract_name_is_used() {
    let (folder, backend, port) = (Folder::new(), Backend::start("a"), free_port());
    let name = format!("@l7lb-it-{port}");
    let bridge = Bridge::start(&name, backend.port);
    for protocol in ["http1", "h2c"] {
        let pool = format!("protocol: {protocol}, health_check: {{ type: http, path: /health }}");
        let lab = folder.start(port, &pool, &[format!("unix:{name}")], "");
        assert_eq!(get(port, "/").body.trim(), "Hello from a");
        assert!(lab.wait_for_access("path=/ ").contains(&format!("upstream=unix:{name} ")));
    }
    assert!(bridge.connections() > 0);
}

#[test]
fn every_health_check_detects_a_closed_and_reopened_socket() {
    const TIMES: &str = "interval: 100ms, unhealthy_interval: 100ms, rise: 1, fall: 1";
    for (check, protocol) in
        [("type: tcp", "http1"), ("type: http, path: /health", "http1"), ("type: http, path: /health", "h2c")]
    {
        let (folder, backend, port) = (Folder::new(), Backend::start("a"), free_port());
        let bridge = folder.bridge("a.sock", backend.port);
        let pool = format!("protocol: {protocol}, health_check: {{ {check}, {TIMES} }}");
        let lab = folder.start(port, &pool, &[folder.address("a.sock")], "");
        let address = folder.address("a.sock");
        lab.wait_for_log(&format!("backend up: pool=p backend={address}"));
        assert_eq!(get(port, "/").status, 200);
        drop(bridge);
        let line = lab.wait_for_log(&format!("backend down: pool=p backend={address}"));
        // A check that was on its way when the socket closed is reset.
        assert!(line.contains("reason=\"Connection re"), "{line}");
        std::fs::remove_file(folder.path("a.sock")).unwrap();
        let _bridge = folder.bridge("a.sock", backend.port);
        eventually("the backend returns", PATIENCE, || get(port, "/").status == 200);
    }
}

#[test]
fn grpc_health_check_decides_about_a_unix_backend() {
    let (folder, backend, port) = (Folder::new(), GrpcBackend::start(false), free_port());
    let _bridge = folder.bridge("a.sock", backend.port);
    let pool =
        "protocol: h2c, health_check: { type: grpc, interval: 100ms, unhealthy_interval: 100ms, rise: 1, fall: 1 }";
    let lab = folder.start(port, pool, &[folder.address("a.sock")], "");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let reply = Channel::connect(port).await.call("/lab/Echo", &[], &[b"hello"]).await;
        assert_eq!((reply.status(), reply.messages[0].as_ref()), ("0", b"hello".as_slice()));
    });
    backend.set_health(NOT_SERVING);
    lab.wait_for_log("reason=\"NOT_SERVING\"");
}

#[test]
fn unix_backend_gets_a_proxy_protocol_header() {
    let headers = Arc::new(Mutex::new(Vec::<Header>::new()));
    let seen = Arc::clone(&headers);
    let backend = Scripted::start(move |mut stream| {
        let mut bytes = Vec::new();
        let header = loop {
            match parse(&bytes).unwrap() {
                Some((header, _)) => break header,
                None => {
                    let mut byte = [0];
                    if std::io::Read::read(&mut stream, &mut byte).unwrap_or(0) == 0 {
                        return;
                    }
                    bytes.push(byte[0]);
                }
            }
        };
        seen.lock().push(header);
        while !read_head(&mut stream).is_empty() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
    });
    let (folder, port) = (Folder::new(), free_port());
    let _bridge = folder.bridge("a.sock", backend.port);
    let pool = "proxy_protocol: v2, health_check: { type: http, path: /health, interval: 10s }";
    let _lab = folder.start(port, pool, &[folder.address("a.sock")], "");
    for _ in 0..2 {
        let mut client = connect(port);
        for _ in 0..2 {
            client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            assert_eq!(read_response(&mut client).body, "ok");
        }
        let expected = Header { source: client.local_addr().ok(), destination: client.peer_addr().ok() };
        assert_eq!(headers.lock().last(), Some(&expected));
    }
    let headers = headers.lock();
    assert_eq!(headers.len(), 3, "one check, and one connection for each client: {headers:?}");
    assert_eq!(headers[0], Header::default(), "the check");
}

#[test]
fn request_is_retried_when_the_socket_is_missing_or_refuses() {
    let (folder, backend, port) = (Folder::new(), Backend::start("a"), free_port());
    let _bridge = folder.bridge("a.sock", backend.port);
    drop(folder.bridge("refuses.sock", backend.port));
    std::fs::write(folder.path("file.sock"), "").unwrap();
    for other in ["missing.sock", "refuses.sock", "file.sock"] {
        let pool = format!("balance: round_robin, {UNCHECKED}");
        let lab = folder.start(port, &pool, &[folder.address("a.sock"), folder.address(other)], "");
        for _ in 0..4 {
            let posted =
                exchange(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx");
            assert_eq!(posted.status, 200, "{other}");
        }
        lab.wait_for_access("attempts=2");
    }
    let lab = folder.start(port, UNCHECKED, &[folder.address("missing.sock")], "");
    let response = get(port, "/");
    assert_eq!(response.status, 502);
    lab.wait_for_access("cause=connect_failed");
}

#[test]
fn timeouts_apply_to_unix_backends() {
    let hangs = Scripted::start(|mut stream| {
        read_head(&mut stream);
        read_head(&mut stream);
    });
    let (folder, port) = (Folder::new(), free_port());
    let _bridge = folder.bridge("a.sock", hangs.port);
    let pool = format!("timeouts: {{ first_byte: 300ms }}, {UNCHECKED}");
    let lab = folder.start(port, &pool, &[folder.address("a.sock")], "");
    assert_eq!(get(port, "/").status, 504);
    lab.wait_for_access("cause=first_byte_timeout");
}

#[test]
fn affinity_and_consistent_hash_select_unix_backends_by_their_address() {
    let (folder, port) = (Folder::new(), free_port());
    let backends = ["a", "b", "c"].map(Backend::start);
    let names = ["a.sock", "b.sock", "c.sock"];
    let _bridges: Vec<Bridge> = names.iter().zip(&backends).map(|(name, to)| folder.bridge(name, to.port)).collect();
    let addresses = names.map(|name| folder.address(name));
    {
        let _lab = folder.start(port, UNCHECKED, &addresses, ", sticky: { cookie: {} }");
        let first = get(port, "/");
        let cookie = first.header("set-cookie").split(';').next().unwrap().to_owned();
        for _ in 0..6 {
            let response = get_with(port, "/", &format!("Cookie: {cookie}\r\n"));
            assert_eq!((response.body.as_str(), response.header("set-cookie")), (first.body.as_str(), ""));
        }
    }
    let chosen = |route: &str, pool: &str, addresses: &[String]| -> Vec<String> {
        let _lab = folder.start(port, pool, addresses, route);
        // On one connection, so that no other request is in flight.
        let mut client = connect(port);
        let ask = |user: usize| {
            client.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\nX-User: {user}\r\n\r\n").as_bytes()).unwrap();
            read_response(&mut client).body
        };
        (0..12).map(ask).collect()
    };
    let hash = format!("balance: {{ type: consistent_hash, by: header, name: X-User }}, {UNCHECKED}");
    let reversed: Vec<String> = addresses.iter().rev().cloned().collect();
    for (route, pool) in [("", hash.as_str()), (", sticky: { by: header, name: X-User }", UNCHECKED)] {
        let before = chosen(route, pool, &addresses);
        assert_eq!(before, chosen(route, pool, &reversed), "the order of the backends does not matter");
        assert!(before.iter().any(|body| *body != before[0]), "users are spread: {before:?}");
    }
}

#[test]
fn commands_show_and_change_unix_backends_by_their_address() {
    let (folder, backend, port) = (Folder::new(), Backend::start("a"), free_port());
    let _bridge = folder.bridge("a.sock", backend.port);
    let pool = format!("{UNCHECKED}, slow_start: 0s");
    let _lab = folder.start(port, &pool, &[folder.address("a.sock"), "127.0.0.1:1".to_owned()], "");
    let conf = folder.path("l7lb.yaml");
    let of = |arguments: &[&str]| {
        let output = run(&[arguments, &["--conf", &conf]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let address = folder.address("a.sock");
    assert!(of(&["backends"]).contains(&address));
    let drained = of(&["backends", "drain", "p", &address]);
    assert!(drained.contains(&address) && drained.contains("draining"), "{drained}");
    let weight = of(&["backends", "weight", "p", &address, "7"]);
    assert!(weight.contains('7'), "{weight}");
    of(&["backends", "reset", "p", &address]);
    let explained = of(&["explain", "--live", "http://localhost/"]);
    assert!(explained.contains(&address), "{explained}");
    let new = folder.path("new.yaml");
    let yaml = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(&new, yaml.replace("a.sock", "b.sock")).unwrap();
    let planned = of(&["plan", &new]);
    assert!(planned.contains(&format!("backend {} added", folder.address("b.sock"))), "{planned}");
    let checked = run(&["check", &new]);
    let output = String::from_utf8([checked.stdout, checked.stderr].concat()).unwrap();
    assert!(checked.status.success() && output.contains("there is no socket at"), "{output}");
}
