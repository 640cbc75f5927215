//! `l7lb cache` and `l7lb cache top`.

use http::Method;
use serde_json::{Value, json};

use super::purge::{FRESH, Origin, yaml};
use crate::control::call;
use crate::control::commands::{json_of, run_command, stdout_of};
use crate::lab::client::{get, get_with};
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port, lacks_own_engine, run};
use crate::one_pool;

#[test]
fn cache_command_shows_what_the_caches_did_and_the_stores() {
    if lacks_own_engine() {
        return;
    }
    let (origin, port) = (Origin::start(FRESH), free_port());
    let lab = Lab::start(&yaml(port, origin.port));
    get(port, "/a");
    let hit = || get(port, "/a").header("cache-status").contains("; hit");
    eventually("the response is stored", PATIENCE, hit);
    let (_, before) = call(&lab, Method::GET, "/cache", "");
    hit();
    get_with(port, "/a", "If-Match: \"x\"\r\n");
    get_with(port, "/b", "Cache-Control: only-if-cached\r\n");
    get_with(port, "/a", "Cache-Control: no-cache\r\n");
    let after = json_of(&lab, &["cache"]);
    let counted = |name: &str| {
        let count = |state: &Value| state["routes"][0]["requests"][name].as_u64().unwrap();
        count(&after) - count(&before)
    };
    let names = ["total", "hit", "miss", "bypass", "only_if_cached", "stale", "collapsed"];
    assert_eq!(names.map(counted), [4, 1, 1, 1, 1, 0, 0], "{after:#}");
    let route = &after["routes"][0];
    assert_eq!((route["route"].as_str(), route["store"].as_str()), (Some("main"), Some("memory")));
    assert!(route["hit_ratio"].as_f64().unwrap() > 0.0 && route["bytes_saved"].as_u64().unwrap() > 0, "{route:#}");
    assert_eq!(after["stores"][0]["entries"], 1, "{after:#}");
    assert_eq!(after["stores"][1]["capacity"], 64 << 20, "{after:#}");
    let text = stdout_of(&lab, &["cache"]);
    for word in ["HIT RATIO", "main   memory", "disk   disk", "EVICTIONS", "64.0 MiB"] {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
}

#[test]
fn top_lists_the_largest_or_most_requested_responses_without_purged_ones() {
    if lacks_own_engine() {
        return;
    }
    let (origin, port) = (Origin::start("Cache-Control: max-age=60\r\nVary: Accept\r\n"), free_port());
    let lab = Lab::start(&yaml(port, origin.port));
    let long = format!("/a/{}", "x".repeat(2000));
    for (path, times) in [("/a/1", 5), ("/disk/1", 3), (&long, 1)] {
        get(port, path);
        let hit = || get(port, path).header("cache-status").contains("; hit");
        eventually("the response is stored", PATIENCE, hit);
        (0..times).for_each(|_| assert!(hit()));
    }
    let keys = |arguments: &[&str]| {
        let top = json_of(&lab, &[&["cache", "top"], arguments].concat());
        let objects = top["objects"].as_array().unwrap().iter();
        objects.map(|object| object["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let key = |path: &str| format!("http://localhost{path}");
    assert_eq!(keys(&["--by", "hits"]), [key("/a/1"), key("/disk/1"), key(&long)]);
    assert_eq!(keys(&["--store", "memory"]), [key(&long), key("/a/1")]);
    assert_eq!(keys(&["--by", "hits", "-n", "1"]), [key("/a/1")]);
    let text = stdout_of(&lab, &["cache", "top", "--store", "disk"]);
    assert!(text.starts_with("STORE  SIZE") && text.contains("http://localhost/disk/1\n"), "{text}");
    stdout_of(&lab, &["cache", "purge", "--tag", "a"]);
    assert_eq!(keys(&[]), [key("/disk/1")]);
    assert_eq!(run_command(&lab, &["cache", "top", "-n", "1001"]).status.code(), Some(2));
}

#[test]
fn cache_commands_without_a_cache_fail_with_the_reason() {
    let one = Backend::start("one");
    let lab = Lab::start(&one_pool(free_port(), &[&one], ""));
    assert_eq!(stdout_of(&lab, &["cache"]), "no route has a cache\n");
    for arguments in [&["cache", "top"][..], &["cache", "purge", "--all"]] {
        let output = run_command(&lab, arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("no route uses a cache"), "{output:?}");
    }
}

#[test]
fn explain_shows_whether_a_request_uses_the_cache_and_its_key() {
    if lacks_own_engine() {
        return;
    }
    let (origin, port) = (Origin::start(FRESH), free_port());
    let rule = "path: /bypass, pool: a, cache: { methods: [GET], bypass: { headers: [X-Preview] } }";
    let yaml = yaml(port, origin.port) + "  - { " + rule + " }\n  - { path: /none, pool: a }\n";
    let lab = Lab::start(&yaml);
    let file = lab.folder().join("l7lb.yaml");
    let offline = |request: &str, header: &str| {
        let output = run(&["explain", request, "-H", header, "--json", "--conf", file.to_str().unwrap()]);
        let explained: Value = serde_json::from_slice(&output.stdout).unwrap();
        explained["cache"].clone()
    };
    for (request, header, bypass) in [
        ("http://localhost/a", "A: b", Value::Null),
        ("HEAD http://localhost/a", "A: b", Value::Null),
        ("POST http://localhost/a", "A: b", json!("unsafe_method")),
        ("OPTIONS http://localhost/a", "A: b", json!("method")),
        ("HEAD http://localhost/bypass", "A: b", json!("method")),
        ("http://localhost/a", "Content-Length: 1", json!("body")),
        ("http://localhost/a", "Content-Length: 0", Value::Null),
        ("http://localhost/a", "If-Match: x", json!("precondition")),
        ("http://localhost/bypass", "X-Preview: 1", json!("rule")),
        ("http://localhost/a", "X-Preview: 1", Value::Null),
    ] {
        let cache = offline(request, header);
        assert_eq!(
            (&cache["bypass"], &cache["used"]),
            (&bypass, &json!(bypass.is_null())),
            "{request} {header}: {cache}"
        );
        assert_eq!(cache["state"], Value::Null);
    }
    assert_eq!(offline("http://localhost/none", "A: b"), Value::Null, "the route has no cache");
    assert_eq!(offline("https://localhost:443/%61?b", "A: b")["key"], "https://localhost/a?b");
}

#[test]
fn live_explain_shows_what_is_stored_before_and_after_a_request() {
    if lacks_own_engine() {
        return;
    }
    let fields = "Cache-Control: max-age=3600\r\nAge: 100\r\nVary: Accept\r\n";
    let (origin, port) = (Origin::start(fields), free_port());
    let lab = Lab::start(&yaml(port, origin.port));
    let live =
        |request: &str, header: &str| json_of(&lab, &["explain", request, "-H", header, "--live"])["cache"].clone();
    for path in ["/a", "/disk/a"] {
        let url = format!("http://localhost{path}");
        let before = live(&url, "A: b");
        assert_eq!(
            before["state"],
            json!({ "response": null, "variant_headers": [], "unstorable": false, "from": "backend" })
        );
        get(port, path);
        let hit = || get(port, path).header("cache-status").contains("; hit");
        eventually("the response is stored", PATIENCE, hit);
        let after = live(&url, "A: b");
        let (state, response) = (&after["state"], &after["state"]["response"]);
        assert_eq!((&state["from"], &state["variant_headers"]), (&json!("stored"), &json!(["accept"])), "{after:#}");
        assert_eq!((&response["status"], &response["size"]), (&json!(200), &json!(1)), "{after:#}");
        let (age, ttl) = (response["age"].as_u64().unwrap(), response["ttl"].as_u64().unwrap());
        assert!((100..200).contains(&age) && (3400..=3500).contains(&ttl), "{after:#}");
        assert_eq!(live(&url, "Accept: text/html")["state"]["response"], Value::Null, "another variant");
        assert_eq!(live(&url, "Cache-Control: no-cache")["state"]["from"], "validated");
        assert_eq!(live(&url, "Cache-Control: no-store, only-if-cached")["state"]["from"], "not_cached");
        let hits = |path: &str| {
            let top = json_of(&lab, &["cache", "top"]);
            let objects = top["objects"].as_array().unwrap();
            objects.iter().find(|object| object["key"] == path).unwrap()["hits"].clone()
        };
        let uses = hits(&url);
        let text = stdout_of(&lab, &["explain", &url, "--live"]);
        for part in ["cache    used\n  key    http://localhost/", "stored 200, fresh for 34", "varies by accept"] {
            assert!(text.contains(part), "no {part:?} in:\n{text}");
        }
        assert_eq!(hits(&url), uses, "explain is no use of the response");
        stdout_of(&lab, &["cache", "purge", "--tag", "all", "--soft"]);
        let purged = live(&url, "A: b");
        assert_eq!(
            (&purged["state"]["from"], &purged["state"]["response"]["soft_purged"]),
            (&json!("validated"), &json!(true))
        );
    }
}

#[test]
fn explain_reports_a_response_that_cannot_be_stored() {
    if lacks_own_engine() {
        return;
    }
    let (origin, port) = (Origin::start("Cache-Control: no-store\r\n"), free_port());
    let lab = Lab::start(&yaml(port, origin.port));
    get(port, "/a");
    let cache = json_of(&lab, &["explain", "http://localhost/a", "--live"])["cache"].clone();
    assert_eq!((&cache["state"]["unstorable"], &cache["state"]["response"]), (&json!(true), &Value::Null), "{cache:#}");
}
