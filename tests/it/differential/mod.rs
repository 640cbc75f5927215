//! Both engines behave alike: generated exchanges pass through l7lb's engine and through Pingora's loop, and the
//! client, the backend and the access log must see the same.
//!
//! `L7LB_DIFFERENTIAL_SECONDS=3600 cargo test --test it differential -- --nocapture` runs for an hour. A failure names
//! the number of its case; `L7LB_DIFFERENTIAL_FROM=<number>` starts there.
//!
//! Clients and backends use HTTP/1.1 or HTTP/2, in all four pairings.
//!
//! Differences that are intended are not observed: the version of a response (l7lb always sends HTTP/1.1), trailers
//! and interim responses over HTTP/2 (only l7lb's engine forwards them), and the case of header names.

mod backend;
mod case;
mod client;
mod stream_backend;
mod stream_client;

use std::sync::Arc;
use std::time::{Duration, Instant};

use backend::{Cases, Received};
use case::{Case, Protocol};
use client::Seen;

use crate::lab::{Lab, free_port};

/// Cases of a normal test run.
const CASES: usize = 200;

/// Cases between two comparisons of the access logs.
const BATCH: usize = 100;

/// One engine with its own backend.
struct Side {
    port: u16,
    lab: Lab,
    cases: Arc<Cases>,
}

/// What was observed of one case.
#[derive(Debug, PartialEq)]
struct Observation {
    client: Vec<Seen>,
    backend: Vec<Received>,
}

impl Side {
    fn start(engine: &str) -> Self {
        let cases = Arc::<Cases>::default();
        let list = |ports: [u16; 2]| ports.map(|port| format!("'127.0.0.1:{port}'")).join(" }, { address: ");
        let http1 = list([cases.start(), cases.start()]);
        let http2 = list([cases.start_http2(), cases.start_http2()]);
        let settings = "balance: round_robin, passive_health: off, timeouts: { first_byte: 5s, idle: 5s }, \
                        health_check: { type: none }";
        let port = free_port();
        let lab = Lab::start(&format!(
            "server: {{ engine: {engine}, threads: 1, upgrade_sock: '{{folder}}/upgrade.sock', pid_file: '{{folder}}/pid' }}\n\
             listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
             client_timeouts: {{ keepalive: 5s, header: 5s, body: 5s, write: 5s }}\n\
             pools:\n  p: {{ {settings}, backends: [{{ address: {http1} }}] }}\n  \
             h: {{ {settings}, protocol: h2c, backends: [{{ address: {http2} }}] }}\n\
             routes: [{{ path: /, pool: p }}, {{ path: /h2/, pool: h }}]\n"
        ));
        Self { port, lab, cases }
    }

    fn run(&self, number: usize, case: &Arc<Case>) -> Observation {
        self.cases.insert(number, case);
        let mut client = match case.client {
            Protocol::Http1 => client::run(self.port, number, case),
            Protocol::Http2 => stream_client::run(self.port, number, case),
        };
        let mut backend = self.cases.take(number, case);
        let retried = backend.len() > 1;
        // After a failure, whether the connection was reused decides about one more attempt.
        backend.dedup();
        for seen in &mut client {
            if let Seen::Response { interim, status, .. } = seen
                && (retried || status.starts_with("502") || status.starts_with("504"))
            {
                // Pingora's loop may drop an interim response if the attempt fails immediately after it.
                interim.clear();
            }
        }
        for seen in &mut client {
            if let Seen::Stream { status, fields, body, end } = seen
                && !end.is_empty()
            {
                // A reset discards what has not left yet.
                (*status, *fields, *body) = (0, Vec::new(), String::new());
            }
        }
        if case.backend == Protocol::Http2 {
            for seen in &mut client {
                if let Seen::Response { interim, .. } = seen {
                    // Whether the body arrives before an HTTP/2 backend is ready decides whether 100 is sent.
                    interim.clear();
                }
            }
        }
        if case.responds_early() {
            // How much of the request has arrived by then decides whether the connection is kept.
            client.truncate(1);
            for seen in &mut client {
                if let Seen::Response { fields, .. } = seen {
                    fields.retain(|field| !field.starts_with("connection:"));
                }
            }
        }
        Observation { client, backend }
    }

    /// Whether the retry budget prevented a retry, which depends on the time.
    fn lacks_budget(&self, number: usize, case: &Case) -> bool {
        let until = Instant::now() + Duration::from_secs(2);
        while self.raw_lines(number, case).is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.raw_lines(number, case).iter().any(|line| line.contains("budget is exhausted"))
    }

    fn raw_lines(&self, number: usize, case: &Case) -> Vec<String> {
        let path = format!("path={} ", case.path(number));
        let mut log = self.lab.access();
        log.retain(|line| line.contains(&path));
        log
    }

    /// The access log lines of the case, without what differs between any two requests.
    fn lines(&self, number: usize, case: &Case) -> Vec<String> {
        let mut varying = vec!["time", "client", "latency_ms", "upstream", "upstream_latency_ms", "request_id"];
        if case.responds_early() && case.client == Protocol::Http2 {
            // Pingora's loop may still wait for the request when the client, which has its response, leaves.
            varying.push("cause");
        }
        if case.request.abort.is_some() {
            // How far the request came before the client left is a matter of time.
            varying.extend(["attempts", "status", "cause"]);
        }
        let lines = self.raw_lines(number, case);
        let lines = lines.iter().map(|line| match line.split_once("cause=backend_failed") {
            Some((before, _)) => without(before, &[&varying[..], &["attempts"]].concat()) + "cause=backend_failed",
            None => without(line, &varying),
        });
        lines.collect()
    }
}

fn without(line: &str, keys: &[&str]) -> String {
    let differs = |word: &&str| word.split_once('=').is_some_and(|(key, _)| keys.contains(&key)) || word.ends_with('Z');
    line.split(' ').filter(|word| !differs(word)).collect::<Vec<_>>().join(" ")
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn both_engines_behave_alike_for_generated_exchanges() {
    if std::env::var("L7LB_TEST_ENGINE").is_ok() {
        // That adds a second `engine` to the configuration; the comparison has both anyway.
        return;
    }
    let (own, pingora) = (Side::start("own"), Side::start("pingora"));
    let until = number("L7LB_DIFFERENTIAL_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let first = number("L7LB_DIFFERENTIAL_FROM").unwrap_or(0) as usize;
    let mut compared = first;
    for number in first.. {
        let case = Arc::new(Case::generate(number as u64));
        let (ours, theirs) = (own.run(number, &case), pingora.run(number, &case));
        let skipped = ours != theirs && (own.lacks_budget(number, &case) || pingora.lacks_budget(number, &case));
        assert!(skipped || ours == theirs, "case {number}: {case:#?}\n  own: {ours:#?}\n  pingora: {theirs:#?}");
        let last = until.map_or(number + 1 >= first + CASES, |until| Instant::now() >= until);
        if last || number % BATCH == BATCH - 1 {
            compare_logs(&own, &pingora, compared..number + 1);
            compared = number + 1;
        }
        if last {
            println!("{} exchanges are alike", compared - first);
            return;
        }
    }
}

fn compare_logs(own: &Side, pingora: &Side, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let case = Case::generate(number as u64);
        if case.request.abort.is_some() && case.client == Protocol::Http2 {
            // Pingora's loop may log nothing for a stream that its client resets.
            continue;
        }
        let lines = || (own.lines(number, &case), pingora.lines(number, &case));
        // A line may be written after the client has seen the response.
        let alike = || matches!(lines(), (own, pingora) if own == pingora && !own.is_empty());
        let until = Instant::now() + Duration::from_secs(2);
        while !alike() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        if !own.lacks_budget(number, &case) && !pingora.lacks_budget(number, &case) {
            let (own, pingora) = lines();
            assert_eq!(own, pingora, "case {number}: {case:#?}");
        }
    }
}
