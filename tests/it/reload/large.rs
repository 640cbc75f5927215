//! Reloads of a configuration with 10,000 routes and 1,000 pools: their duration, and the latency of requests
//! meanwhile. It prints figures and checks no limits, so it runs only by name; docs/performance.md has the command.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{UNWATCHED, replace};
use crate::lab::client::{connect, read_response};
use crate::lab::{Backend, Lab, free_port};

const ROUTES: usize = 10_000;
const POOLS: usize = 1_000;
const CONNECTIONS: usize = 4;

/// The routes are distributed over the pools in turn. `weights` returns the weight of a pool's first backend.
fn large(port: u16, backends: [&Backend; 2], weights: impl Fn(usize) -> usize, more: &str) -> String {
    use std::fmt::Write;
    let mut yaml = format!("listeners: [{{ address: '127.0.0.1:{port}' }}]\n{UNWATCHED}pools:\n");
    let [one, two] = backends.map(|backend| backend.port);
    for pool in 0..POOLS {
        writeln!(
            yaml,
            "  p{pool}: {{ health_check: {{ type: http, path: /health, interval: 1h }}, \
             backends: [{{ address: '127.0.0.1:{one}', weight: {} }}, {{ address: '127.0.0.1:{two}' }}] }}",
            weights(pool)
        )
        .unwrap();
    }
    yaml += "routes:\n";
    for route in 0..ROUTES {
        writeln!(yaml, "  - {{ host: h{}.example.com, path: /r{route}, pool: p{} }}", route % 100, route % POOLS)
            .unwrap();
    }
    yaml + more
}

/// Latencies of requests since the last `take`.
struct Latencies(Arc<Mutex<Vec<Duration>>>);

impl Latencies {
    fn take(&self) -> Vec<Duration> {
        let mut times = std::mem::take(&mut *self.0.lock().unwrap());
        times.sort();
        times
    }
}

fn send_requests(port: u16, times: &Mutex<Vec<Duration>>, stop: &AtomicBool) {
    let mut stream = connect(port);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let route = number * 7 % ROUTES;
        let request = format!("GET /r{route} HTTP/1.1\r\nHost: h{}.example.com\r\n\r\n", route % 100);
        let began = Instant::now();
        stream.write_all(request.as_bytes()).unwrap();
        let response = read_response(&mut stream);
        times.lock().unwrap().push(began.elapsed());
        assert_eq!(response.status, 200);
        // The test measures latency, not throughput.
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn print_latencies(what: &str, times: &[Duration]) {
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    eprintln!("{what}: {} requests, median {:?}, p99 {:?}, longest {:?}", times.len(), at(50), at(99), at(100));
}

#[test]
#[ignore = "takes a minute, and its figures mean something for a release build only"]
fn reload_times_with_ten_thousand_routes_and_a_thousand_pools() {
    let backends = [Backend::start("one"), Backend::start("two")];
    let port = free_port();
    let yaml = |weights: &dyn Fn(usize) -> usize, more: &str| large(port, [&backends[0], &backends[1]], weights, more);
    let lab = Lab::start(&yaml(&|_| 1, ""));
    let (times, stop) = (Latencies(Arc::default()), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (times, stop) = (Arc::clone(&times.0), Arc::clone(&stop));
            std::thread::spawn(move || send_requests(port, &times, &stop))
        })
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    times.take();
    std::thread::sleep(Duration::from_secs(8));
    print_latencies("without reloads", &times.take());
    let client = l7lb::control::api::Client::new(lab.folder().join("control.sock"));
    let reload = |what: &str, yaml: &str| {
        replace(&lab, yaml);
        let began = Instant::now();
        let changes: serde_json::Value = client.post("/reload").unwrap();
        let took = began.elapsed();
        eprintln!("{what}: {took:?}, {} pools changed", changes["pools"]["changed"].as_array().unwrap().len());
        std::thread::sleep(Duration::from_millis(300));
    };
    for round in 0..5 {
        reload("nothing changed", &yaml(&|_| 1, &format!("# {round}\n")));
    }
    print_latencies("during reloads without changes", &times.take());
    for round in 0..5 {
        reload("one pool changed", &yaml(&|pool| if pool == 7 { 2 + round } else { 1 }, ""));
    }
    print_latencies("during reloads of one pool", &times.take());
    for round in 0..5 {
        reload("all pools changed", &yaml(&|_| 2 + round % 2, ""));
    }
    print_latencies("during reloads of all pools", &times.take());
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
}
