//! Metrics of the running process: names and values, and that clients cannot create series.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use l7lb::control::api::Client;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::control::{raw_exchange, socket};
use crate::lab::client::{connect, exchange, get, get_with};
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};

/// The series of a scrape with their values.
pub fn scrape(lab: &Lab) -> BTreeMap<String, f64> {
    let (status, text) = Client::new(socket(lab)).exchange(Method::GET, "/metrics", Default::default()).unwrap();
    assert_eq!(status, 200);
    series(std::str::from_utf8(&text).unwrap())
}

fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let parsed = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
    });
    let found: BTreeMap<String, f64> = parsed.collect();
    assert_eq!(found.len(), text.lines().filter(|line| !line.starts_with('#')).count(), "each series is there once");
    found
}

/// The sum of a family over all series with these labels.
fn sum(found: &BTreeMap<String, f64>, family: &str, labels: &[&str]) -> f64 {
    let matches = |name: &str| {
        name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
            && labels.iter().all(|label| name.contains(label))
    };
    found.iter().filter(|(name, _)| matches(name)).map(|(_, value)| value).sum()
}

fn lines(lab: &Lab) -> Vec<Value> {
    let log = std::fs::read_to_string(lab.folder().join("access.log")).unwrap_or_default();
    let complete = log.rsplit_once('\n').map_or("", |(complete, _)| complete);
    complete.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn yaml(port: u16, good: &Backend, closed: u16) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         access_log: {{ format: json, file: '{{folder}}/access.log' }}\n\
         pools:\n\
         \x20 a: {{ health_check: {{ type: none }}, passive_health: off, backends: ['127.0.0.1:{}'] }}\n\
         \x20 mixed: {{ health_check: {{ type: none }}, passive_health: off, balance: round_robin, max_in_flight: {{ total: 50 }}, \
         backends: ['127.0.0.1:{}', '127.0.0.1:{closed}'] }}\n\
         routes:\n\
         \x20 - {{ path: /apiA, pool: a, body_size: 1KiB }}\n\
         \x20 - {{ path: /mixed, pool: mixed }}\n\
         \x20 - {{ path: /cached, pool: a, cache: {{ default_ttl: 1m }} }}\n",
        good.port, good.port
    )
}

#[test]
fn metrics_agree_with_the_access_log() {
    let backend = Backend::start("one");
    let (port, closed) = (free_port(), free_port());
    let lab = Lab::start(&yaml(port, &backend, closed));
    for number in 0..20 {
        get(port, "/apiA");
        get(port, "/mixed");
        get(port, "/cached");
        get(port, &format!("/nowhere/{number}"));
    }
    exchange(port, b"POST /apiA HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    exchange(port, b"POST /apiA HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\nConnection: close\r\n\r\n");
    exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n");
    let mut aborted = connect(port);
    aborted.write_all(b"GET /apiA/delay/2s HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    eventually("the backend has the request", PATIENCE, || {
        sum(&scrape(&lab), "l7lb_pool_requests_in_flight", &[]) == 1.0
    });
    drop(aborted);
    let count = 84;
    eventually("all lines are written", PATIENCE, || lines(&lab).len() == count);
    let found = scrape(&lab);
    let lines = lines(&lab);
    assert_eq!(sum(&found, "l7lb_requests_total", &[]), count as f64);
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let mut wanted: BTreeMap<String, f64> = BTreeMap::new();
    for line in &lines {
        let status = match line["status"].as_u64().unwrap() {
            0 => "none".to_owned(),
            status => format!("{}xx", status / 100),
        };
        let series = format!(
            "l7lb_requests_total{{listener=\"127.0.0.1:{port}\",route=\"{}\",pool=\"{}\",method=\"{}\",status=\"{status}\",cause=\"{}\"}}",
            text(line, "route"),
            text(line, "pool"),
            text(line, "method"),
            text(line, "cause"),
        );
        *wanted.entry(series).or_default() += 1.0;
    }
    let counted: BTreeMap<String, f64> =
        found.clone().into_iter().filter(|(name, _)| name.starts_with("l7lb_requests_total")).collect();
    assert_eq!(counted, wanted);
    let total = |key: &str| lines.iter().filter_map(|line| line[key].as_f64()).sum::<f64>();
    assert_eq!(sum(&found, "l7lb_sent_bytes_total", &[]), total("bytes"));
    assert_eq!(sum(&found, "l7lb_attempts_total", &[]), total("attempts"));
    assert!(sum(&found, "l7lb_attempts_total", &["outcome=\"connect_failed\""]) >= 1.0, "{found:#?}");
    // The header of the aborted response had arrived; the oversized request reached no backend.
    assert_eq!(sum(&found, "l7lb_attempts_total", &["pool=\"a\"", "outcome=\"2xx\""]), 23.0, "{found:#?}");
    assert_eq!(sum(&found, "l7lb_received_bytes_total", &[]), 5.0);
    assert_eq!(sum(&found, "l7lb_request_duration_seconds_count", &[]), count as f64);
    assert_eq!(sum(&found, "l7lb_queue_wait_seconds_count", &[]), 20.0, "only `mixed` has a queue");
    assert_eq!(sum(&found, "l7lb_cache_requests_total", &["result=\"hit\""]), 19.0);
    assert_eq!(sum(&found, "l7lb_connections_total", &[]), count as f64);
    eventually("no connection is open", PATIENCE, || sum(&scrape(&lab), "l7lb_connections_open", &[]) == 0.0);
    assert_eq!(sum(&found, "l7lb_pool_backends", &["pool=\"mixed\""]), 2.0);
}

/// One pool, and the metrics at this port.
fn with_metrics_at(port: u16, metrics: u16, backend: &Backend) -> String {
    crate::one_pool(port, &[backend], &format!("metrics: {{ listen: '127.0.0.1:{metrics}' }}\n"))
}

#[test]
fn metrics_address_serves_the_metrics_and_nothing_else() {
    let (backend, port, metrics) = (Backend::start("one"), free_port(), free_port());
    let lab = Lab::start(&with_metrics_at(port, metrics, &backend));
    lab.wait_for_log(&format!("metrics: http://127.0.0.1:{metrics}/metrics"));
    get(port, "/apiA");
    let mut response = get(metrics, "/metrics");
    eventually("the request is counted", PATIENCE, || {
        response = get(metrics, "/metrics");
        sum(&series(&response.body), "l7lb_requests_total", &["status=\"2xx\""]) == 1.0
    });
    assert_eq!((response.status, response.header("content-type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
    let open = get_with(metrics, "/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n");
    assert!(open.body.trim_end().ends_with("# EOF"), "{open:?}");
    let post =
        exchange(metrics, b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!((post.status, post.header("allow")), (405, "GET,HEAD"), "{post:?}");
    for path in ["/", "/version", "/backends", "/configuration", "/metrics/", "/metrics/x", "/reload"] {
        let response = get(metrics, path);
        assert_eq!((response.status, response.body.as_str()), (404, ""), "{path}");
    }
}

#[test]
fn metrics_address_bounds_the_connections_of_a_client() {
    let (backend, port, metrics) = (Backend::start("one"), free_port(), free_port());
    let _lab = Lab::start(&with_metrics_at(port, metrics, &backend));
    let mut idle: Vec<_> = (0..32).map(|_| connect(metrics)).collect();
    let mut refused = connect(metrics);
    assert_eq!(refused.read(&mut [0; 1]).unwrap_or_default(), 0, "the 33rd connection is closed");
    idle.pop();
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    eventually("another connection is served", PATIENCE, || {
        let mut again = connect(metrics);
        let mut text = String::new();
        again.write_all(request).is_ok() && again.read_to_string(&mut text).is_ok() && text.starts_with("HTTP/1.1 200")
    });
}

#[test]
fn slow_and_large_headers_at_the_metrics_address_end_their_connections_and_delay_no_scrape() {
    let (backend, port, metrics) = (Backend::start("one"), free_port(), free_port());
    let _lab = Lab::start(&with_metrics_at(port, metrics, &backend));
    let mut slow: Vec<_> = (0..20).map(|_| connect(metrics)).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n").unwrap();
    }
    let large = format!("X-Large: {}\r\n", "x".repeat(20 << 10));
    assert_eq!(get_with(metrics, "/metrics", &large).status, 431);
    eventually("every slow connection ends", PATIENCE, || {
        assert_eq!(get(metrics, "/metrics").status, 200);
        std::thread::sleep(Duration::from_millis(250));
        slow.retain_mut(|stream| stream.write_all(b"X: y\r\n").is_ok());
        slow.is_empty()
    });
}

#[test]
fn upgrade_hands_over_the_metrics_port_without_a_failed_scrape() {
    let (backend, port, metrics) = (Backend::start("one"), free_port(), free_port());
    let mut lab = Lab::start(&with_metrics_at(port, metrics, &backend));
    let (stop, scrapes) = (AtomicBool::new(false), AtomicUsize::new(0));
    let reloaded = || {
        let response = get(metrics, "/metrics");
        assert_eq!(response.status, 200, "{response:?}");
        scrapes.fetch_add(1, Ordering::Relaxed);
        sum(&series(&response.body), "l7lb_process_start_time_seconds", &[])
    };
    let before = reloaded();
    std::thread::scope(|scope| {
        let scraping = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                reloaded();
            }
        });
        eventually("some scrapes", PATIENCE, || scrapes.load(Ordering::Relaxed) > 20);
        let next = lab.successor();
        lab.signal(Signal::SIGQUIT);
        next.wait_until_ready();
        assert!(lab.wait_exit(PATIENCE).success());
        let so_far = scrapes.load(Ordering::Relaxed);
        eventually("scrapes of the new process", PATIENCE, || scrapes.load(Ordering::Relaxed) > so_far + 20);
        assert!(reloaded() > before, "the new process responds");
        stop.store(true, Ordering::Relaxed);
        scraping.join().unwrap();
    });
}

#[test]
fn reload_that_changes_the_metrics_address_needs_an_upgrade_and_serves_the_previous_one() {
    let (backend, port, metrics) = (Backend::start("one"), free_port(), free_port());
    let lab = Lab::start(&with_metrics_at(port, metrics, &backend));
    let file = lab.folder().join("l7lb.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace(&format!("127.0.0.1:{metrics}"), &format!("127.0.0.1:{}", free_port()));
    crate::lab::authority::replace(&file, text);
    lab.wait_for_log("keys=metrics");
    assert_eq!(get(metrics, "/metrics").status, 200);
}

#[test]
fn hostile_requests_create_no_series() {
    let backend = Backend::start("one");
    let (port, closed) = (free_port(), free_port());
    let lab = Lab::start(&yaml(port, &backend, closed));
    let send = |number: usize| {
        let methods = ["GET", "BREW", "PROPFIND", "QUERY"];
        let method = methods[number % methods.len()];
        let request = format!(
            "{method} /apiA/{number}?{number} HTTP/1.1\r\nHost: h{number}.test\r\nUser-Agent: {number}\r\n\
             X-Request-ID: {number}\r\nX-{number}: y\r\nConnection: close\r\n\r\n"
        );
        exchange(port, request.as_bytes());
        exchange(
            port,
            format!("GET /{number} HTTP/1.1\r\nHost: h{number}.test\r\nConnection: close\r\n\r\n").as_bytes(),
        );
    };
    (0..4).for_each(send);
    let names = |found: BTreeMap<String, f64>| found.into_keys().collect::<Vec<_>>();
    let all_are_counted = || sum(&scrape(&lab), "l7lb_requests_total", &[]) == 8.0;
    eventually("the first requests are counted", PATIENCE, all_are_counted);
    let before = names(scrape(&lab));
    (4..400).for_each(send);
    assert_eq!(names(scrape(&lab)), before);
}

#[test]
fn counters_of_a_removed_route_and_backend_survive_until_they_are_pruned_and_others_stay() {
    let backend = Backend::start("one");
    let (port, closed) = (free_port(), free_port());
    let lab = Lab::start(&yaml(port, &backend, closed));
    get(port, "/apiA");
    let file = lab.folder().join("l7lb.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("  - { path: /mixed, pool: mixed }\n", "");
    crate::lab::authority::replace(&file, text);
    lab.wait_for_log("configuration reloaded");
    get(port, "/apiA");
    let both = || sum(&scrape(&lab), "l7lb_requests_total", &["route=\"*/apiA\""]) == 2.0;
    eventually("a reload keeps the counters", PATIENCE, both);
    let found = scrape(&lab);
    assert_eq!(sum(&found, "l7lb_reloads_total", &["result=\"applied\""]), 1.0);
    assert_eq!(sum(&found, "l7lb_reloads_total", &["result=\"rejected\""]), 0.0);
}

#[test]
fn scrape_has_the_format_that_the_client_accepts() {
    let backend = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&crate::one_pool(port, &[&backend], ""));
    let request = |accept: &str| {
        format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n")
    };
    let open = raw_exchange(&lab, request("application/openmetrics-text; version=1.0.0"));
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"), "{open}");
    assert!(open.trim_end().ends_with("# EOF"), "{open}");
    let plain = raw_exchange(&lab, request("text/plain"));
    assert!(plain.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{plain}");
    assert!(
        plain.contains("# TYPE l7lb_connections_total counter\n") || plain.contains("l7lb_pool_backends"),
        "{plain}"
    );
}
