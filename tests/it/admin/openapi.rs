//! What a real process answers is what its OpenAPI document says.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ask, raw};
use crate::lab::client::get;
use crate::lab::{Backend, Lab, free_port};
use crate::one_pool;
use crate::reload::{UNWATCHED, file};

fn faults(document: &Value, schema: &Value, answer: &Value) -> Vec<String> {
    let schema = json!({ "allOf": [schema], "components": document["components"] });
    let validator = jsonschema::validator_for(&schema).unwrap();
    validator.iter_errors(answer).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

#[test]
fn every_endpoint_answers_as_its_document_says() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let port = free_port();
    let yaml = one_pool(port, &[&one, &two], UNWATCHED)
        .replace("a: { ", "a: { circuit_breaker: {}, max_in_flight: { total: 9 }, ");
    let lab = Lab::start(&yaml);
    get(port, "/apiA");
    let (_, document) = ask(&lab, Method::GET, "/openapi.json", "");
    let backend = format!("/pools/a/backends/127.0.0.1:{}", one.port);
    let text = std::fs::read_to_string(file(&lab)).unwrap();
    let draft = json!({ "file": "new.yaml", "text": text.replace("/apiA", "/apiB") }).to_string();
    let mut asked = BTreeSet::new();
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
        ("GET", "/log-level", "/log-level", ""),
        ("PUT", "/log-level", "/log-level", r#"{"level":"debug"}"#),
        ("POST", "/reload", "/reload", ""),
        ("POST", "/plan", "/plan", &draft),
        ("POST", "/explain", "/explain", &format!(r#"{{"request":"GET http://localhost:{port}/apiA"}}"#)),
        ("GET", "/events", "/events", ""),
    ] {
        let operation = &document["paths"][template][method.to_ascii_lowercase()];
        let (status, answer) = ask(&lab, method.parse().unwrap(), path, body);
        assert_eq!(status, StatusCode::OK, "{method} {path}: {answer}");
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        assert_eq!(faults(&document, schema, &answer), [""; 0], "{method} {path}: {answer:#}");
        if !body.is_empty() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            assert_eq!(faults(&document, schema, &serde_json::from_str(body).unwrap()), [""; 0], "{method} {path}");
        }
        asked.insert((method.to_ascii_lowercase(), template.to_owned()));
        // What is wrong is told as the document says it, too.
        let head = raw(&lab, format!("TRACE {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        let problem = serde_json::from_str(head.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let schema = &operation["responses"]["default"]["content"]["application/problem+json"]["schema"];
        assert_eq!(faults(&document, schema, &problem), [""; 0], "{method} {path}: {problem}");
    }
    let all = document["paths"].as_object().unwrap().iter();
    let all = all
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())));
    assert_eq!(asked, all.collect::<BTreeSet<_>>(), "each is asked");
}
