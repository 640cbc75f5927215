//! Containers: which are ready, which address and settings they have, and hostile labels.

use serde_json::{Value, json};

use super::super::config::Config;
use super::*;
use crate::base::fault::{Faults, Place};
use crate::tls::connection::REASON_MAX;

fn spec(keys: Value) -> Spec {
    let config: Config = serde_json::from_value(keys).unwrap();
    let mut faults = Faults::default();
    let spec = config.check(&Place::default(), &mut faults);
    assert!(faults.into_vec().is_empty());
    spec.unwrap()
}

/// A container with one network and one port; `changes` replaces keys.
fn container(changes: Value) -> Container {
    let mut all = json!({
        "Id": "4c01db0b339c", "Names": ["/web-1"], "Image": "shop:7", "State": "running", "Status": "Up 2 minutes",
        "Labels": {}, "Ports": [{ "PrivatePort": 8080, "Type": "tcp" }],
        "NetworkSettings": { "Networks": { "bridge": { "IPAddress": "172.17.0.2", "GlobalIPv6Address": "" } } }
    });
    all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

fn address(keys: Value, changes: Value) -> Result<String, String> {
    container(changes).found(&spec(keys), false).map(|found| found.address.to_string())
}

#[test]
fn running_container_is_ready_unless_its_health_check_has_not_passed() {
    for (changes, expected) in [
        (json!({}), true),
        (json!({ "Status": "Up 2 minutes (healthy)" }), true),
        (json!({ "Status": "Up 2 minutes (unhealthy)" }), false),
        (json!({ "Status": "Up 1 second (health: starting)" }), false),
        (json!({ "Health": { "Status": "none" } }), true),
        (json!({ "Health": { "Status": "healthy" } }), true),
        (json!({ "Health": { "Status": "starting" } }), false),
        (json!({ "Health": { "Status": "unhealthy" }, "Status": "Up" }), false),
        (json!({ "State": "paused", "Status": "Up 2 minutes (Paused)" }), false),
        (json!({ "State": "exited" }), false),
    ] {
        assert_eq!(container(changes.clone()).is_ready(), expected, "{changes}");
    }
}

#[test]
fn labels_of_a_container_are_the_settings_of_its_backend() {
    let labels = json!({
        "l7lb.pool": "api", "l7lb.port": "81", "l7lb.weight": "5", "l7lb.backup": "true", "l7lb.zone": "eu-1",
        "com.example.other": "x"
    });
    let found = container(json!({ "Labels": labels })).found(&spec(json!({ "port": 82 })), true).unwrap();
    assert_eq!(found.address.to_string(), "172.17.0.2:81");
    assert_eq!((found.weight, found.backup, found.drain), (5, true, true));
    assert_eq!(found.zone.unwrap().as_str(), "eu-1");
    assert_eq!(found.labels.to_string(), "container=web-1,image=shop:7");
}

#[test]
fn port_is_that_of_the_label_or_the_key_or_the_only_exposed_one() {
    let udp = json!({ "PrivatePort": 53, "Type": "udp" });
    let published = |ip: &str| json!({ "IP": ip, "PrivatePort": 8080, "PublicPort": 80, "Type": "tcp" });
    let two = json!([{ "PrivatePort": 1, "Type": "tcp" }, { "PrivatePort": 2, "Type": "tcp" }]);
    let ok = |port: u16| Ok(format!("172.17.0.2:{port}"));
    assert_eq!(address(json!({}), json!({ "Ports": [published("0.0.0.0"), published("::"), udp] })), ok(8080));
    assert_eq!(address(json!({ "port": 9 }), json!({ "Ports": two })), ok(9));
    assert_eq!(address(json!({ "port": 9 }), json!({ "Ports": null, "Labels": { "l7lb.port": "7" } })), ok(7));
    let none = "container `web-1`: it exposes no TCP port; add the label `l7lb.port`, or the key `port`";
    assert_eq!(address(json!({}), json!({ "Ports": null })).unwrap_err(), none);
    assert!(address(json!({}), json!({ "Ports": two })).unwrap_err().contains("it exposes 2 TCP ports; add the label"));
}

#[test]
fn address_is_that_of_the_named_or_the_only_network() {
    let networks = |networks: Value| json!({ "NetworkSettings": { "Networks": networks } });
    let two = json!({ "a": { "IPAddress": "10.0.0.1" }, "b": { "IPAddress": "10.0.0.2" }, "c": null });
    let ok = |ip: &str| Ok(format!("{ip}:8080"));
    assert_eq!(address(json!({ "network": "b" }), networks(two.clone())), ok("10.0.0.2"));
    let mut labelled = networks(two.clone());
    labelled["Labels"] = json!({ "l7lb.network": "a" });
    assert_eq!(address(json!({ "network": "b" }), labelled), ok("10.0.0.1"));
    let several = address(json!({}), networks(two.clone())).unwrap_err();
    assert!(several.contains("several networks, such as `a` and `b`; add the label `l7lb.network`"), "{several}");
    let missing = address(json!({ "network": "c" }), networks(two)).unwrap_err();
    assert!(missing.contains("it has no address in the network `c`"), "{missing}");
    let v6 = json!({ "a": { "IPAddress": "", "GlobalIPv6Address": "fd00::2" } });
    assert_eq!(address(json!({}), networks(v6)), ok("[fd00::2]"));
    assert_eq!(address(json!({}), networks(json!({ "host": { "IPAddress": "" } }))), ok("127.0.0.1"));
    for nothing in [json!({ "none": { "IPAddress": "" } }), json!({}), json!(null)] {
        assert!(address(json!({}), networks(nothing)).unwrap_err().contains("it has no address"));
    }
}

#[test]
fn hostile_labels_leave_out_the_container_with_a_short_printable_reason() {
    let megabyte = "x".repeat(1 << 20);
    for (labels, problem) in [
        (json!({ "l7lb.port": "0" }), "the label `l7lb.port` is `0`, which is not a port (1 to 65535)"),
        (json!({ "l7lb.port": "65536" }), "is `65536`, which is not a port"),
        (json!({ "l7lb.port": "" }), "is ``, which is not a port"),
        (json!({ "l7lb.weight": "1000000000" }), "the label `l7lb.weight` is 1000000000, more than 1000"),
        (json!({ "l7lb.weight": "-1" }), "is `-1`, which is not a number from 0 to 1000"),
        (json!({ "l7lb.weight": "99999999999999999999" }), "which is not a number"),
        (json!({ "l7lb.backup": "yes" }), "is `yes`, which is not true or false"),
        (json!({ "l7lb.zone": "a\u{1b}[31m\nb" }), r"is `a\u{1b}[31m\nb`, which is not the name of a zone"),
        (json!({ "l7lb.zone": megabyte }), "the label `l7lb.zone` is `xxx"),
        (json!({ "l7lb.network": megabyte }), "it has no address in the network `xxx"),
        (json!({ "l7lb.wieght\u{7}": "1" }), r"`l7lb.wieght\u{7}` is none of the labels of l7lb"),
    ] {
        let reason = address(json!({}), json!({ "Labels": labels })).unwrap_err();
        assert!(reason.contains(problem), "{reason}");
        assert!(reason.chars().count() <= REASON_MAX + 1 && !reason.chars().any(char::is_control), "{reason}");
    }
    // Labels of others, names and images do not matter, whatever they are.
    let odd = json!({ "Labels": { "other": megabyte }, "Names": null, "Image": megabyte });
    assert_eq!(address(json!({}), odd), Ok("172.17.0.2:8080".to_owned()));
}
