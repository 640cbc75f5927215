//! The responses of a running process match its OpenAPI document.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{call, raw_exchange};
use crate::lab::client::{get, get_with};
use crate::lab::{Backend, Lab, free_port};
use crate::one_pool;
use crate::reload::{UNWATCHED, file};

fn schema_violations(document: &Value, schema: &Value, instance: &Value) -> Vec<String> {
    let schema = json!({ "allOf": [schema], "components": document["components"] });
    let validator = jsonschema::validator_for(&schema).unwrap();
    validator.iter_errors(instance).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

/// A process in which each kind of state exists: a cache with a response, and a kept request with the id `kept`.
fn start(port: u16, backends: [&Backend; 2]) -> Lab {
    let yaml = one_pool(port, &backends, &format!("trusted_proxies: ['127.0.0.1/32']\n{UNWATCHED}"))
        .replace("a: { ", "a: { discover: api, circuit_breaker: {}, max_in_flight: { total: 9 }, ")
        .replace("path: /apiA,", "path: /apiA, cache: { default_ttl: 1m },");
    let lab = Lab::start(&yaml);
    get(port, "/apiA");
    get_with(port, "/nowhere", "X-Request-Id: kept\r\n");
    lab
}

#[test]
fn every_endpoint_responds_according_to_its_openapi_schema() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let port = free_port();
    let lab = start(port, [&one, &two]);
    let (_, document) = call(&lab, Method::GET, "/openapi.json", "");
    let (backend, registered) = (format!("/pools/a/backends/127.0.0.1:{}", one.port), "/pools/a/backends/127.0.0.9:9");
    let text = std::fs::read_to_string(file(&lab)).unwrap();
    let draft = json!({ "file": "new.yaml", "text": text.replace("/apiA", "/apiB") }).to_string();
    let mut called = BTreeSet::new();
    for (method, template, path, body) in [
        ("GET", "/openapi.json", "/openapi.json", ""),
        ("GET", "/version", "/version", ""),
        ("GET", "/live", "/live", ""),
        ("GET", "/ready", "/ready", ""),
        ("PUT", "/pools/{pool}/backends/{address}/state", &format!("{backend}/state"), r#"{"state":"draining"}"#),
        ("PUT", "/pools/{pool}/backends/{address}/weight", &format!("{backend}/weight"), r#"{"weight":3}"#),
        ("GET", "/configuration", "/configuration", ""),
        ("GET", "/routes", "/routes", ""),
        ("GET", "/pools", "/pools", ""),
        ("GET", "/backends", "/backends", ""),
        ("GET", "/pools/{pool}/backends/{address}", &backend, ""),
        ("DELETE", "/pools/{pool}/backends/{address}/override", &format!("{backend}/override"), ""),
        ("PUT", "/pools/{pool}/backends/{address}", registered, r#"{"weight":2,"ttl":"1m","labels":{"a":"b"}}"#),
        ("POST", "/pools/{pool}/backends/{address}/renew", &format!("{registered}/renew"), ""),
        ("DELETE", "/pools/{pool}/backends/{address}", &format!("{registered}?wait=1s"), ""),
        ("POST", "/pools/{pool}/sources/accept", "/pools/a/sources/accept", ""),
        ("GET", "/log-level", "/log-level", ""),
        ("PUT", "/log-level", "/log-level", r#"{"level":"debug"}"#),
        ("POST", "/reload", "/reload", ""),
        ("POST", "/plan", "/plan", &draft),
        ("POST", "/explain", "/explain", &format!(r#"{{"request":"GET http://localhost:{port}/apiA"}}"#)),
        ("GET", "/cache", "/cache", ""),
        ("GET", "/cache/top", "/cache/top?by=hits&n=1", ""),
        ("POST", "/cache/purge", "/cache/purge", r#"{"tag":"a"}"#),
        ("GET", "/requests", "/requests?kept=failed&n=5", ""),
        ("GET", "/requests/{id}", "/requests/kept", ""),
        ("GET", "/mirrors", "/mirrors", ""),
        ("GET", "/events", "/events", ""),
    ] {
        let operation = &document["paths"][template][method.to_ascii_lowercase()];
        let (status, response) = call(&lab, method.parse().unwrap(), path, body);
        assert_eq!(status, StatusCode::OK, "{method} {path}: {response}");
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        assert_eq!(schema_violations(&document, schema, &response), [""; 0], "{method} {path}: {response:#}");
        if !body.is_empty() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let sent = serde_json::from_str(body).unwrap();
            assert_eq!(schema_violations(&document, schema, &sent), [""; 0], "{method} {path}");
        }
        called.insert((method.to_ascii_lowercase(), template.to_owned()));
        // Error responses match the document, too.
        let head = raw_exchange(&lab, format!("TRACE {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        let problem = serde_json::from_str(head.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let schema = &operation["responses"]["default"]["content"]["application/problem+json"]["schema"];
        assert_eq!(schema_violations(&document, schema, &problem), [""; 0], "{method} {path}: {problem}");
    }
    let all = document["paths"].as_object().unwrap().iter();
    let all = all
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())));
    assert_eq!(called, all.collect::<BTreeSet<_>>(), "every documented operation is called");
}
