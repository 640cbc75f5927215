//! Tests of the meaning of EndpointSlices.

use serde_json::{Value, json};

use super::*;

fn slice(name: &str, kind: &str, ports: Value, endpoints: Value) -> (String, Slice) {
    let value = json!({ "metadata": { "name": name, "resourceVersion": "1" }, "addressType": kind, "ports": ports,
        "endpoints": endpoints });
    (name.to_owned(), serde_json::from_value(value).unwrap())
}

fn http() -> Value {
    json!([{ "name": "http", "port": 8080, "protocol": "TCP" }])
}

fn pod(address: &str, name: &str, conditions: Value) -> Value {
    json!({ "addresses": [address, "10.255.0.1"], "conditions": conditions, "nodeName": "n1", "zone": "z1",
        "hints": { "forZones": [{ "name": "z9" }] },
        "targetRef": { "kind": "Pod", "name": name, "uid": format!("uid-{name}"), "namespace": "a" } })
}

fn describe(listed: &Listed) -> Vec<String> {
    let line = |found: &Found| {
        let zone = found.zone.as_ref().map_or("-", |zone| zone.as_str());
        format!("{} {zone} {}{}", found.address, found.labels, if found.drain { " drain" } else { "" })
    };
    listed.found.iter().map(line).collect()
}

fn listed(slices: &[(String, Slice)], port: Option<&str>, family: Family) -> Result<Listed, String> {
    let port = port.map(|port| port.parse().unwrap());
    list(&slices.iter().cloned().collect(), port.as_ref(), family)
}

#[test]
fn conditions_of_an_endpoint_decide_whether_it_is_a_backend_drained_or_absent() {
    for (conditions, expected) in [
        (json!({}), Some(false)),
        (json!(null), Some(false)),
        (json!({ "ready": null, "serving": null }), Some(false)),
        (json!({ "ready": true, "serving": true, "terminating": false }), Some(false)),
        // publishNotReadyAddresses
        (json!({ "ready": true, "serving": true, "terminating": true }), Some(false)),
        (json!({ "ready": false, "serving": true, "terminating": true }), Some(true)),
        (json!({ "ready": false, "serving": false, "terminating": true }), None),
        (json!({ "ready": false, "terminating": true }), None),
        (json!({ "ready": false, "serving": false, "terminating": false }), None),
        (json!({ "ready": false }), None),
    ] {
        let one = slice("s", "IPv4", http(), json!([pod("10.0.0.1", "p", conditions.clone())]));
        let listed = listed(&[one], None, Family::Any).unwrap();
        assert_eq!(listed.found.first().map(|found| found.drain), expected, "{conditions}");
        assert_eq!(listed.rejected, None);
    }
}

#[test]
fn slices_give_addresses_zones_and_labels_once_for_each_pod() {
    let draining = json!({ "ready": false, "serving": true, "terminating": true });
    let slices = [
        slice(
            "a",
            "IPv4",
            http(),
            json!([pod("10.0.0.1", "one", json!({})), pod("10.0.0.2", "two", draining.clone())]),
        ),
        // A duplicate in another state, and the other addresses of the first pod and of a third one.
        slice("b", "IPv4", http(), json!([pod("10.0.0.1", "one", draining), pod("10.0.0.2", "two", json!({}))])),
        slice("c", "IPv6", http(), json!([pod("fd00::1", "one", json!({})), pod("fd00::3", "three", json!({}))])),
        slice("d", "IPv4", http(), json!([{ "addresses": ["10.0.0.4"], "zone": "not a zone" }])),
        slice("e", "IPv4", json!(null), json!(null)),
    ];
    let all = listed(&slices, None, Family::Any).unwrap();
    let one = "10.0.0.1:8080 z1 node=n1,pod=one";
    let three = "[fd00::3]:8080 z1 node=n1,pod=three";
    assert_eq!(describe(&all), [one, "10.0.0.2:8080 z1 node=n1,pod=two", "10.0.0.4:8080 - ", three]);
    let ipv6 = listed(&slices, Some("http"), Family::Ipv6).unwrap();
    assert_eq!(describe(&ipv6), ["[fd00::1]:8080 z1 node=n1,pod=one", three]);
    assert_eq!(listed(&slices, Some("8080"), Family::Ipv4).unwrap().found.len(), 3);
}

#[test]
fn port_is_chosen_by_name_or_number_and_must_be_clear() {
    let several = json!([{ "name": "http", "port": 8080 }, { "name": "metrics", "port": 9090, "protocol": "TCP" },
        { "name": "dns", "port": 53, "protocol": "UDP" }]);
    let endpoints = |address: &str| json!([{ "addresses": [address] }]);
    let one = [slice("a", "IPv4", several, endpoints("10.0.0.1"))];
    let address = |port: &str| listed(&one, Some(port), Family::Any).map(|listed| listed.found[0].address.to_string());
    assert_eq!(address("http").as_deref(), Ok("10.0.0.1:8080"));
    assert_eq!(address("9090").as_deref(), Ok("10.0.0.1:9090"));
    for (port, reason) in [
        (None, "several ports; choose one with `port`: http, metrics"),
        (Some("web"), "no port `web`; its ports are: http, metrics"),
        (Some("53"), "no port `53`"),
    ] {
        let error = listed(&one, port, Family::Any).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
    // The number of a named port differs between pods; a slice without the port is left out.
    let differing = [
        slice("a", "IPv4", json!([{ "name": "http", "port": 1 }]), endpoints("10.0.0.1")),
        slice("b", "IPv4", json!([{ "name": "http", "port": 2 }]), endpoints("10.0.0.2")),
        slice("c", "IPv4", json!([]), endpoints("10.0.0.3")),
    ];
    let found = listed(&differing, None, Family::Any).unwrap();
    assert_eq!(describe(&found), ["10.0.0.1:1 - ", "10.0.0.2:2 - "]);
    assert_eq!(found.rejected, Some((1, "the slice `c` has no TCP port".to_owned())));
    assert!(listed(&[], Some("http"), Family::Any).unwrap().found.is_empty());
    for text in ["0", "65536", "", "a b", "a/b"] {
        assert_eq!(text.parse::<Port>(), Err(()), "{text}");
    }
}

#[test]
fn endpoints_that_cannot_be_backends_are_left_out_with_a_reason() {
    for (kind, endpoint, reason) in [
        ("FQDN", json!({ "addresses": ["a.example.com"] }), "the slice `s` has the address type `FQDN`"),
        ("IPv4", json!({ "addresses": ["a.example.com"] }), "`a.example.com` is not an IP address"),
        ("IPv4", json!({ "addresses": ["fd00::1"] }), "`fd00::1` is not of the slice's address type"),
        ("IPv4", json!({ "addresses": null }), "an endpoint has no address"),
        ("IPv4", json!({ "addresses": ["10.0.0.1"], "nodeName": "a\nb" }), "the label \"node\" is invalid"),
    ] {
        let listed = listed(&[slice("s", kind, http(), json!([endpoint]))], None, Family::Any).unwrap();
        let (count, problem) = listed.rejected.unwrap();
        assert!(count == 1 && problem.contains(reason) && listed.found.is_empty(), "{problem}");
    }
}
