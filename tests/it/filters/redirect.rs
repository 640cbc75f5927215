//! The filter `redirect`.

use std::sync::Arc;

use crate::lab::client::{connect_tls, exchange, read_response, tls_config};
use crate::lab::frames::{Frames, request};
use crate::lab::{Lab, free_port};
use std::io::Write as _;

fn lab(port: u16, more: &str, redirect: &str) -> Lab {
    Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}'{more} }}]\nfilters: [{{ redirect: {redirect} }}]\n\
         routes: [{{ path: /, filters: [{{ respond: {{ body: passed }} }}] }}]\n"
    ))
}

fn location(port: u16, host: &str, target: &str) -> (u16, String) {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let response = exchange(port, request.as_bytes());
    (response.status, response.header("location").to_owned())
}

#[test]
fn redirect_to_https_keeps_path_and_query() {
    let port = free_port();
    let _lab = lab(port, "", "{ scheme: https, status: 308 }");
    assert_eq!(location(port, "a.test:8080", "/x%20y?z=1|2"), (308, "https://a.test/x%20y?z=1|2".to_owned()));
    let mut frames = Frames::connect(port);
    frames.headers(1, true, &request(b"GET", b"/x"));
    assert_eq!(frames.find(|frame| frame.stream == 1).unwrap().status(), 308);
}

#[test]
fn redirect_does_not_apply_to_a_client_that_is_there_already() {
    let port = free_port();
    let lab = lab(
        port,
        ", tls: { certificates: [{ certificate: '{folder}/localhost.pem', key: '{folder}/localhost-key.pem' }] }",
        "{ scheme: https }",
    );
    let config = tls_config(lab.folder(), &["http/1.1"]);
    let mut stream = connect_tls(port, Arc::clone(&config));
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(read_response(&mut stream).status, 200);
}

#[test]
fn path_of_the_client_never_leads_to_another_site() {
    let port = free_port();
    let _lab = lab(port, "", "{ to: '${request.path}/x' }");
    for target in ["//evil.test", "/%5Cevil.test", "/\\evil.test", "/%2F%2Fevil.test"] {
        let (status, location) = location(port, "a.test", target);
        let leads_away = location.starts_with("//") || location.starts_with("/\\") || location.contains("://");
        assert!(status == 400 || !leads_away, "{target}: {status} {location}");
    }
}
