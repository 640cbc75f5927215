//! `l7lb cache` and `l7lb cache top`.

use http::Method;

use super::purge::{FRESH, Origin, yaml};
use crate::control::call;
use crate::control::commands::{json_of, run_command, stdout_of};
use crate::lab::client::{get, get_with};
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port, lacks_own_engine};
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
        let count = |state: &serde_json::Value| state["routes"][0]["requests"][name].as_u64().unwrap();
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
