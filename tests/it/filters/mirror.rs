//! The filter `mirror`.

use std::io::Write as _;
use std::time::Duration;

use http::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::control::call;
use crate::control::commands::stdout_of;
use crate::lab::client::{connect, exchange, get, get_with, read_head, read_response};
use crate::lab::frames::{DATA, END_STREAM, Frames, request};
use crate::lab::recorder::{Received, Recorder};
use crate::lab::scripted::{Held, Scripted};
use crate::lab::{Lab, PATIENCE, eventually, free_port, lacks_own_engine, run};
use crate::reload::{UNWATCHED, file, reloaded, replace};

/// A route with the filter; `more` has further filters before it.
fn text(port: u16, (backend, shadow): (u16, u16), keys: &str, more: &str) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\npools:\n  \
           a: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{backend}' }}] }}\n  \
           shadow: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{shadow}' }}] }}\n\
         routes: [{{ path: /, name: main, pool: a, filters: [{more} {{ mirror: {{ pool: shadow, {keys} }} }}] }}]\n{UNWATCHED}"
    )
}

/// What happened to the copies of the route.
fn counts(lab: &Lab) -> Value {
    call(lab, Method::GET, "/mirrors", "").1["mirrors"][0]["routes"][0].clone()
}

/// Waits until a value of [`counts`] has this value.
fn wait_for_count(lab: &Lab, pointer: &str, wanted: u64) {
    eventually(&format!("{pointer} is {wanted}"), PATIENCE, || counts(lab).pointer(pointer) == Some(&wanted.into()));
}

/// The next requests of a backend.
fn received(recorder: &Recorder, count: usize) -> Vec<Received> {
    let mut all = Vec::new();
    eventually("the requests have arrived", PATIENCE, || {
        all.extend(recorder.take());
        all.len() >= count
    });
    assert_eq!(all.len(), count, "{all:?}");
    all
}

/// The fields that copy and original have in common.
fn fields(received: &Received) -> Vec<String> {
    let differ = ["expect", "content-length", "transfer-encoding", "x-mirrored", "connection"];
    let is_common = |line: &&str| !differ.iter().any(|name| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
    let mut lines: Vec<String> = received.head.lines().filter(is_common).map(str::to_owned).collect();
    lines[1..].sort();
    lines
}

#[test]
fn copy_has_what_the_backend_gets_and_a_mark_over_both_versions_of_http() {
    if lacks_own_engine() {
        return;
    }
    for more in ["{ rewrite: { add_prefix: /v1 } },", "{ rewrite: { add_prefix: /v1 } }, { buffer: {} },"] {
        let (backend, shadow, port) = (Recorder::start(), Recorder::start(), free_port());
        let more = format!("{more} {{ headers: {{ request: {{ set: {{ X-A: b }}, remove: [X-C] }} }} }},");
        let lab = Lab::start(&text(port, (backend.port, shadow.port), "", &more));
        let forged = "X-Mirrored: 1\r\nAuthorization: Basic eA==\r\nCookie: s=1\r\nX-C: 1\r\n";
        assert_eq!(get_with(port, "/x?y=2", forged).status, 200);
        let head = "POST /p HTTP/1.1\r\nHost: a\r\nX-Client: 1\r\nConnection: close\r\n";
        for body in
            ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"]
        {
            assert_eq!(exchange(port, format!("{head}{body}").as_bytes()).status, 200);
        }
        let expecting = format!("{head}Expect: 100-continue\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(exchange(port, expecting.as_bytes()).status, 200);
        let mut frames = Frames::connect(port);
        frames.headers(1, false, &request(b"POST", b"/frames"));
        frames.send(DATA, 0, 1, b"hel");
        frames.send(DATA, END_STREAM, 1, b"lo");
        assert_eq!(frames.find(|frame| frame.stream == 1).unwrap().status(), 200);
        wait_for_count(&lab, "/statuses/0/copies", 5);
        let mut originals = received(&backend, 5);
        let mut copies = received(&shadow, 5);
        let order = |one: &Received| one.values("x-request-id")[0].to_owned();
        originals.sort_by_key(order);
        copies.sort_by_key(order);
        for (original, copy) in originals.iter().zip(&copies) {
            assert_eq!(fields(original), fields(copy));
            assert_eq!(original.body, copy.body);
            assert_eq!((original.values("x-mirrored").len(), copy.values("x-mirrored")), (0, vec!["1"]));
            assert_eq!((copy.values("x-a"), copy.values("x-c").len()), (vec!["b"], 0));
            assert!(copy.head.contains(" /v1/") && copy.values("expect").is_empty(), "{copy:?}");
        }
        assert_eq!(get_with(port, "/", "Connection: X-Mirrored\r\n").status, 400);
    }
}

/// A backend that reads a request and does not respond.
fn hanging() -> Scripted {
    Scripted::start(|mut stream| {
        std::io::copy(&mut stream, &mut std::io::sink()).ok();
    })
}

/// A backend whose response never ends.
fn trickling() -> Scripted {
    Scripted::start(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").ok();
        while stream.write_all(b".").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    })
}

/// A backend that holds its responses, and announces that it closes the connection after each.
fn closing() -> Held {
    Held::start_with(|mut stream, hold| {
        read_head(&mut stream);
        hold();
        // The other side may have closed the connection.
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok();
    })
}

#[test]
fn client_gets_its_response_while_the_copy_waits() {
    if lacks_own_engine() {
        return;
    }
    for shadow in [hanging(), trickling()] {
        let (backend, port) = (Recorder::start(), free_port());
        let lab = Lab::start(&text(port, (backend.port, shadow.port), "timeout: 60s", ""));
        for number in 1..=3 {
            let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
            assert_eq!(exchange(port, head.as_bytes()).status, 200);
            wait_for_count(&lab, "/sent", number);
        }
        let mirror = call(&lab, Method::GET, "/mirrors", "").1["mirrors"][0].clone();
        assert_eq!((&mirror["in_flight"], &mirror["place"]), (&3.into(), &"route main".into()), "{mirror}");
        let mut frames = Frames::connect(port);
        frames.get(1, "/");
        assert_eq!(frames.find(|frame| frame.stream == 1).unwrap().status(), 200);
        wait_for_count(&lab, "/sent", 4);
    }
}

#[test]
fn copy_that_fails_is_counted_by_its_cause_and_affects_neither_client_nor_pool() {
    if lacks_own_engine() {
        return;
    }
    let failing = Recorder::answering(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
    let (hanging, trickling) = (hanging(), trickling());
    for (shadow, keys, pointer, wanted) in [
        (failing.port, "", "/statuses/0/status", 503),
        (free_port(), "", "/failures/0/copies", 1),
        (hanging.port, "timeout: 300ms", "/failures/0/copies", 1),
        (trickling.port, "timeout: 300ms", "/incomplete", 1),
    ] {
        let (backend, port) = (Recorder::start(), free_port());
        let lab = Lab::start(&text(port, (backend.port, shadow), keys, ""));
        assert_eq!(get(port, "/").status, 200);
        wait_for_count(&lab, pointer, wanted);
        let counts = counts(&lab);
        if shadow == hanging.port {
            assert_eq!(counts["failures"][0]["cause"], "total_timeout", "{counts}");
        }
        assert_eq!(counts["sent"], 1, "{counts}");
        assert_eq!(get(port, "/").status, 200);
        let line = lab.wait_for_access("upstream=127.0.0.1");
        assert!(line.contains("status=200") && line.contains("attempts=1 "), "{line}");
        eventually("both lines are there", PATIENCE, || lab.access().len() >= 2);
        wait_for_count(&lab, "/sent", 2);
        assert_eq!(lab.access().len(), 2, "copies have no line in the access log");
    }
    assert_eq!(failing.take().len(), 2, "copies are not retried");
}

#[test]
fn pool_of_the_copies_without_an_available_backend_affects_no_request() {
    if lacks_own_engine() {
        return;
    }
    let (backend, port) = (Recorder::start(), free_port());
    let shadow = free_port();
    let base = text(port, (backend.port, shadow), "", "");
    let checked = "shadow: { health_check: { type: tcp, interval: 100ms }, ";
    let lab = Lab::start(&base.replace("shadow: { health_check: { type: none }, ", checked));
    lab.wait_for_log("backend down: pool=shadow");
    assert_eq!(get(port, "/").status, 200);
    wait_for_count(&lab, "/failures/0/copies", 1);
    assert_eq!(counts(&lab)["failures"][0]["cause"], "no_healthy_backend");
}

#[test]
fn full_pool_of_the_copies_affects_no_request() {
    if lacks_own_engine() {
        return;
    }
    let (backend, shadow, port) = (Recorder::start(), closing(), free_port());
    let limit = "shadow: { max_in_flight: { per_backend: 1 }, queue: { length: 1, timeout: 60s }, health_check";
    let base = text(port, (backend.port, shadow.port), "timeout: 60s", "").replace("shadow: { health_check", limit);
    let lab = Lab::start(&base);
    assert_eq!(get(port, "/1").status, 200);
    shadow.arrived();
    // One waits, and one finds the queue full.
    assert_eq!((get(port, "/2").status, get(port, "/3").status), (200, 200));
    wait_for_count(&lab, "/failures/0/copies", 1);
    shadow.release();
    wait_for_count(&lab, "/statuses/0/copies", 1);
    shadow.arrived();
    shadow.release();
    wait_for_count(&lab, "/statuses/0/copies", 2);
}

#[test]
fn requests_beyond_a_bound_are_not_copied_and_counted() {
    if lacks_own_engine() {
        return;
    }
    let (backend, shadow, port) = (Recorder::start(), Recorder::start(), free_port());
    let lab = Lab::start(&text(port, (backend.port, shadow.port), "body: 10", ""));
    let post = |framing: &str, body: &str| {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{framing}\r\n\r\n{body}");
        assert_eq!(exchange(port, head.as_bytes()).status, 200);
    };
    post("Content-Length: 11", "hello world");
    wait_for_count(&lab, "/dropped/body_too_large", 1);
    post("Transfer-Encoding: chunked", "b\r\nhello world\r\n0\r\n\r\n");
    wait_for_count(&lab, "/dropped/body_too_large", 2);
    post("Content-Length: 10", "helloworld");
    post("Transfer-Encoding: chunked", "a\r\nhelloworld\r\n0\r\n\r\n");
    wait_for_count(&lab, "/statuses/0/copies", 2);
    let mut leaving = connect(port);
    leaving.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").unwrap();
    eventually("the copy waits", PATIENCE, || {
        call(&lab, Method::GET, "/mirrors", "").1["mirrors"][0]["in_flight"] == 1
    });
    drop(leaving);
    wait_for_count(&lab, "/dropped/body_incomplete", 1);
    assert_eq!(received(&shadow, 2).iter().filter(|copy| copy.body == b"helloworld").count(), 2);
    let table = stdout_of(&lab, &["mirrors"]);
    assert!(table.contains("BODY TOO LARGE") && table.contains("route main"), "{table}");
}

#[test]
fn copies_beyond_max_concurrent_are_dropped_and_counted() {
    if lacks_own_engine() {
        return;
    }
    let (backend, shadow, port) = (Recorder::start(), closing(), free_port());
    let lab = Lab::start(&text(port, (backend.port, shadow.port), "max_concurrent: 1, timeout: 60s", ""));
    assert_eq!(get(port, "/").status, 200);
    shadow.arrived();
    assert_eq!((get(port, "/").status, get(port, "/").status), (200, 200));
    wait_for_count(&lab, "/dropped/too_many", 2);
    shadow.release();
    wait_for_count(&lab, "/statuses/0/copies", 1);
    assert_eq!(get(port, "/").status, 200);
    shadow.arrived();
    shadow.release();
    wait_for_count(&lab, "/sent", 2);
}

#[test]
fn tunnels_and_requests_outside_the_share_are_not_copied_and_explain_says_what_would_be() {
    if lacks_own_engine() {
        return;
    }
    let switching = Recorder::answering(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    );
    let (shadow, port) = (Recorder::start(), free_port());
    let lab = Lab::start(&text(port, (switching.port, shadow.port), "", ""));
    let mut stream = connect(port);
    let upgrade = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 101"));
    let explain = |lab: &Lab| {
        let explained = run(&["explain", "--conf", file(lab).to_str().unwrap(), "http://a/"]);
        String::from_utf8_lossy(&explained.stdout).into_owned()
    };
    let explained = explain(&lab);
    assert!(explained.contains("sends a copy to pool shadow  (100% to pool shadow, "), "{explained}");
    let (backend, other) = (Recorder::start(), free_port());
    let none = Lab::start(&text(other, (backend.port, shadow.port), "share: 0%", ""));
    assert_eq!(get(other, "/").status, 200);
    let explained = explain(&none);
    assert!(explained.contains("sends a copy of 0% of such requests to pool shadow"), "{explained}");
    for lab in [&lab, &none] {
        let all = call(lab, Method::GET, "/mirrors", "").1;
        assert_eq!(all["mirrors"][0]["routes"].as_array().unwrap().len(), 0, "{all}");
    }
    assert!(shadow.take().is_empty());
}

#[test]
fn copy_is_sent_although_the_client_leaves() {
    if lacks_own_engine() {
        return;
    }
    let (backend, shadow, port) = (closing(), closing(), free_port());
    let lab = Lab::start(&text(port, (backend.port, shadow.port), "timeout: 60s", ""));
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    backend.arrived();
    shadow.arrived();
    // With a reset: a client that closes its sending side may still read.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    lab.wait_for_access("cause=client_closed");
    shadow.release();
    wait_for_count(&lab, "/statuses/0/copies", 1);
}

#[test]
fn request_is_copied_as_configured_at_its_start_when_a_reload_removes_the_filter_meanwhile() {
    if lacks_own_engine() {
        return;
    }
    let (backend, shadow, port) = (Recorder::start(), Recorder::start(), free_port());
    let with = text(port, (backend.port, shadow.port), "", "");
    let lab = Lab::start(&with);
    let mut stream = connect(port);
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab").unwrap();
    eventually("the copy waits", PATIENCE, || {
        call(&lab, Method::GET, "/mirrors", "").1["mirrors"][0]["in_flight"] == 1
    });
    let without: String =
        with.lines().filter(|line| !line.contains("shadow:")).map(|line| format!("{line}\n")).collect();
    let without = without.replace(", filters: [ { mirror: { pool: shadow,  } }]", "");
    assert!(!without.contains("shadow"), "{without}");
    replace(&lab, &without);
    reloaded(&lab);
    stream.write_all(b"cd").unwrap();
    assert_eq!(read_response(&mut stream).status, 200);
    assert_eq!(received(&shadow, 1)[0].body, b"abcd");
    assert_eq!(get(port, "/").status, 200);
    assert_eq!(call(&lab, Method::GET, "/mirrors", "").1["mirrors"].as_array().unwrap().len(), 0);
    assert!(shadow.take().is_empty());
}

#[test]
fn counts_survive_a_reload_of_an_equal_filter() {
    if lacks_own_engine() {
        return;
    }
    let (backend, shadow, port) = (Recorder::start(), Recorder::start(), free_port());
    let before = text(port, (backend.port, shadow.port), "", "");
    let lab = Lab::start(&before);
    assert_eq!(get(port, "/").status, 200);
    wait_for_count(&lab, "/statuses/0/copies", 1);
    replace(&lab, &format!("{before}chains: {{ unused: [{{ security_headers: default }}] }}\n"));
    reloaded(&lab);
    assert_eq!(get(port, "/").status, 200);
    wait_for_count(&lab, "/statuses/0/copies", 2);
    replace(&lab, &text(port, (backend.port, shadow.port), "body: 1KiB", ""));
    reloaded(&lab);
    assert_eq!(get(port, "/").status, 200);
    wait_for_count(&lab, "/statuses/0/copies", 1);
}

#[test]
fn process_that_stops_does_not_wait_for_copies() {
    if lacks_own_engine() {
        return;
    }
    let (backend, shadow, port) = (Recorder::start(), hanging(), free_port());
    let mut lab = Lab::start(&text(port, (backend.port, shadow.port), "timeout: 60s", ""));
    assert_eq!(get(port, "/").status, 200);
    eventually("the copy has arrived", PATIENCE, || shadow.connections() == 1);
    lab.signal(Signal::SIGTERM);
    // Less than the timeout of the copy.
    assert!(lab.wait_exit(Duration::from_secs(30)).success());
}

#[test]
fn requests_that_the_cache_responds_to_are_copied() {
    if lacks_own_engine() {
        return;
    }
    let backend = Recorder::answering(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok");
    let (shadow, port) = (Recorder::start(), free_port());
    let cached =
        text(port, (backend.port, shadow.port), "", "").replace("pool: a, filters", "pool: a, cache: {}, filters");
    let lab = Lab::start(&cached);
    let mut requests = 0;
    eventually("the response is stored", PATIENCE, || {
        requests += 1;
        get(port, "/").header("cache-status").contains("; hit")
    });
    wait_for_count(&lab, "/statuses/0/copies", requests);
    assert!((backend.take().len() as u64) < requests);
    assert_eq!(shadow.take().len() as u64, requests);
}

#[test]
fn statuses_and_latencies_of_copies_are_compared_with_those_for_clients() {
    if lacks_own_engine() {
        return;
    }
    let (backend, port) = (Recorder::start(), free_port());
    let shadow = Scripted::start(|mut stream| {
        let head = read_head(&mut stream);
        let status = if head.contains("/broken") { "500 Broken" } else { "200 OK" };
        if head.contains("/lost") {
            return;
        }
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).ok();
    });
    let before = text(port, (backend.port, shadow.port), "compare: true", "");
    let lab = Lab::start(&before);
    for path in ["/", "/", "/broken", "/broken"] {
        assert_eq!(get(port, path).status, 200);
    }
    let mut frames = Frames::connect(port);
    frames.get(1, "/broken");
    assert_eq!(frames.find(|frame| frame.stream == 1).unwrap().status(), 200);
    wait_for_count(&lab, "/comparison/equal", 2);
    wait_for_count(&lab, "/comparison/different", 3);
    assert_eq!(get(port, "/lost").status, 200);
    wait_for_count(&lab, "/comparison/unpaired", 1);
    let comparison = counts(&lab)["comparison"].clone();
    let pair =
        |copy_status: u16, requests: u64| json!({ "status": 200, "copy_status": copy_status, "requests": requests });
    assert_eq!(comparison["pairs"], json!([pair(500, 3), pair(200, 2)]), "{comparison}");
    for side in ["original", "copy"] {
        let latency = |name: &str| comparison[side][name].as_f64().unwrap();
        assert!(0.0 < latency("p50_ms") && latency("p50_ms") <= latency("p99_ms"), "{comparison}");
    }
    let line = lab.wait_for_log("responses of copies differ");
    assert!(line.contains("route=main pool=shadow") && line.contains("status=200 copy_status=500"), "{line}");
    assert_eq!(lab.log().matches("responses of copies differ").count(), 1, "further differences are in the next event");
    let table = stdout_of(&lab, &["mirrors"]);
    assert!(table.contains("COPY P99") && table.contains("200 → 500: 3"), "{table}");
    replace(&lab, &format!("{before}chains: {{ unused: [{{ security_headers: default }}] }}\n"));
    reloaded(&lab);
    assert_eq!(get(port, "/").status, 200);
    wait_for_count(&lab, "/comparison/equal", 3);
}
