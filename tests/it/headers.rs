//! What a backend is told about the client, and what a client cannot say itself.

use serde_json::Value;

use crate::lab::client::{Answer, exchange, get_with};
use crate::lab::{Backend, Lab, free_port};
use crate::one_pool;

/// The values of a header as the backend received it.
fn received(answer: &Answer, name: &str) -> Vec<String> {
    let echo: Value = serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
    let pairs = echo["headers"].as_array().unwrap();
    let values = pairs.iter().filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
    values.map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
}

const FORGED: &str = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: mine\r\n";

#[test]
fn an_untrusted_client_cannot_pretend() {
    let backend = Backend::start("one");
    let port = free_port();
    let _lab = Lab::start(&one_pool(port, &[&backend], ""));
    let answer = get_with(port, "/apiA/echo", FORGED);
    assert_eq!(received(&answer, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(received(&answer, "x-forwarded-proto"), ["http"]);
    assert_eq!(received(&answer, "x-forwarded-host"), ["localhost"]);
    assert_eq!(received(&answer, "host"), ["localhost"], "Host is kept");
    assert!(received(&answer, "x-real-ip").is_empty() && received(&answer, "forwarded").is_empty());
    let id = received(&answer, "x-request-id");
    assert!(id.len() == 1 && id[0].len() == 32 && id[0] != "mine", "{id:?}");
    assert_eq!(answer.header("x-request-id"), id[0], "the client is told too");
}

#[test]
fn a_trusted_proxy_is_believed_and_appended_to() {
    let backend = Backend::start("one");
    let port = free_port();
    let _lab = Lab::start(&one_pool(port, &[&backend], "trusted_proxies: [127.0.0.1/32]"));
    let answer = get_with(port, "/apiA/echo", FORGED);
    assert_eq!(received(&answer, "x-forwarded-for"), ["6.6.6.6, 127.0.0.1"]);
    assert_eq!(received(&answer, "x-forwarded-proto"), ["https"]);
    assert_eq!(received(&answer, "x-forwarded-host"), ["evil"]);
    assert_eq!(received(&answer, "x-request-id"), ["mine"]);
}

#[test]
fn what_belongs_to_one_connection_is_not_passed_on() {
    let backend = Backend::start("one");
    let port = free_port();
    let _lab = Lab::start(&one_pool(port, &[&backend], ""));
    let answer = exchange(
        port,
        b"GET /apiA/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=9\r\nTE: trailers\r\nProxy-Connection: close\r\nX-Kept: 1\r\n\r\n",
    );
    for name in ["x-secret", "keep-alive", "proxy-connection"] {
        assert!(received(&answer, name).is_empty(), "{name}: {answer:?}");
    }
    assert_eq!(received(&answer, "x-kept"), ["1"]);
}
