//! Requests reach backends: by path prefix, round-robin, with every protocol.

use std::io::Write;

use crate::lab::client::{self, get, get_h2};
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, free_port};
use crate::one_pool;

#[test]
fn requests_are_routed_by_prefix_and_balanced_round_robin() {
    let backends: Vec<Backend> = (1..=5).map(|n| Backend::start(&format!("b{n}"))).collect();
    let address = |n: usize| format!("{{ address: '127.0.0.1:{}' }}", backends[n - 1].port);
    let port = free_port();
    let lab = Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools:\n  a: {{ balance: round_robin, backends: [{}, {}] }}\n  b: {{ balance: round_robin, backends: [{}, {}, {}] }}\n\
         routes: [{{ path: /apiA, pool: a }}, {{ path: /apiB, pool: b }}, {{ path: /apiA/special, pool: b, methods: [POST] }}]",
        address(1),
        address(3),
        address(2),
        address(4),
        address(5)
    ));
    let who = |path: &str| get(port, path).header("x-backend").to_owned();
    let mut first: Vec<String> = (0..4).map(|_| who("/apiA")).collect();
    assert_eq!(first[..2], first[2..], "round-robin");
    first.truncate(2);
    first.sort();
    assert_eq!(first, ["b1", "b3"]);
    let mut second: Vec<String> = (0..3).map(|_| who("/apiB/x?y=/apiA")).collect();
    second.sort();
    assert_eq!(second, ["b2", "b4", "b5"]);
    assert_eq!(get(port, "/apiAB").status, 404);
    assert_eq!(get(port, "/").status, 404);
    let post = client::exchange(
        port,
        b"POST /apiA/special HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    assert!(["b2", "b4", "b5"].contains(&post.header("x-backend")));
    assert!(["b1", "b3"].contains(&who("/apiA/special").as_str()), "GET goes by the shorter prefix");
    drop(lab);
}

#[test]
fn cleartext_http2_works_by_prior_knowledge_and_short_http1_requests_are_served() {
    let backend = Backend::start("one");
    let port = free_port();
    let _lab = Lab::start(&one_pool(port, &[&backend], ""));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let response = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        get_h2(stream, "http://localhost/apiA").await
    });
    assert_eq!(response, (200, "Hello from one\n".to_owned()));
    // 18 bytes: shorter than the HTTP/2 preface, for which Pingora would wait without a timeout.
    assert_eq!(client::exchange(port, b"GET / HTTP/1.0\r\n\r\n").status, 404);
}

#[test]
fn cleartext_http2_to_backends_works() {
    let backend = Backend::start("one");
    let port = free_port();
    let yaml = one_pool(port, &[&backend], "").replace("a: { ", "a: { protocol: h2c, ");
    let _lab = Lab::start(&yaml);
    let response = get(port, "/apiA/echo");
    assert_eq!(response.status, 200);
    assert!(response.body.contains("HTTP/2"), "{}", response.body);
}

#[test]
fn uploads_and_downloads_are_forwarded_completely() {
    let backend = Backend::start("one");
    let port = free_port();
    let _lab = Lab::start(&one_pool(port, &[&backend], ""));
    let mut stream = client::connect(port);
    let body = vec![b'x'; 3_000_000];
    write!(stream, "POST /apiA/upload HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
    stream.write_all(&body).unwrap();
    let response = client::read_response(&mut stream);
    assert!(response.body.contains("3000000"), "{response:?}");
    // The connection is kept for the next request.
    stream.write_all(b"GET /apiA/bytes/2000000 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(client::read_response(&mut stream).body.len(), 2_000_000);
}

#[test]
fn pipelined_requests_get_responses_in_order() {
    let backend = Backend::start("one");
    let port = free_port();
    let _lab = Lab::start(&one_pool(port, &[&backend], ""));
    let mut stream = client::connect(port);
    stream
        .write_all(b"GET /apiA/status/201 HTTP/1.1\r\nHost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: x\r\n\r\nGET /apiA/status/202 HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let statuses: Vec<u16> = (0..3).map(|_| client::read_response(&mut stream).status).collect();
    assert_eq!(statuses, [201, 404, 202]);
}

#[test]
fn killed_backend_fails_no_request_and_gets_requests_after_recovery() {
    let (steady, mut mortal) = (Backend::start("steady"), Backend::start("mortal"));
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&steady, &mortal], ""));
    let load = Load::start(port, "/apiA", 8, 2);
    load.wait_for_more(200);
    mortal.kill();
    lab.wait_for_log(&format!("backend down: pool=a backend=127.0.0.1:{}", mortal.port));
    load.wait_for_more(200);
    mortal.restart();
    eventually_used_again(port, "mortal");
    let report = load.stop();
    assert_eq!(report.failed, Vec::<String>::new());
    assert_eq!(report.statuses.keys().copied().collect::<Vec<_>>(), [200], "{report:?}");
}

fn eventually_used_again(port: u16, name: &str) {
    crate::lab::eventually("the backend is used again", crate::lab::PATIENCE, || {
        get(port, "/apiA").header("x-backend") == name
    });
}
