//! The CPU cost of one access log line on the request thread, in each format: formatting and handing over, not writing.
//!
//! Without `--bench`, as in `cargo test --benches`, it runs one short round as a functional test.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and prints its results"
)]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use l7lb::base::fault::{Faults, Place};
use l7lb::observe::access_log::Config;
use l7lb::observe::record::layout::Format;
use l7lb::observe::record::redaction;
use l7lb::observe::{AccessLog, Record};

const ROUNDS: u32 = 30;

/// Lines of a round: less than the writer can be behind.
const LINES: u32 = 5_000;

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = if std::env::args().any(|argument| argument == "--bench") { ROUNDS } else { 1 };
    let null = Config { file: Some("/dev/null".into()), ..Config::default() };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let redact = redaction::Config { query: names(&["token"]), headers: Vec::new(), client_address: true };
    let full = Config {
        format: Format::Json,
        query: true,
        redact,
        request_headers: names(&["user-agent", "referer"]),
        response_headers: names(&["content-type"]),
        ..null.clone()
    };
    let template =
        "${client.ip} \"${request.method} ${request.uri}\" ${response.status} \"${request.header.user-agent}\"";
    for (name, config) in [
        ("text", null.clone()),
        ("json", Config { format: Format::Json, ..null.clone() }),
        ("combined", Config { format: Format::Combined, ..null.clone() }),
        ("template", Config { template: Some(template.to_owned()), ..null.clone() }),
        ("json, header fields, redaction", full),
        ("text, 2xx: 0%", Config { sample: [("2xx".into(), "0%".parse()?)].into(), ..null.clone() }),
    ] {
        let mut faults = Faults::default();
        let spec = config.check(&Place::root(), &mut faults);
        assert!(faults.is_empty(), "the configuration is valid");
        println!("{name:32} {:6.0} ns per line", measure(&AccessLog::start(&spec)?, rounds));
    }
    Ok(())
}

/// The nanoseconds for a line in the fastest round.
fn measure(log: &AccessLog, rounds: u32) -> f64 {
    let headers: HeaderMap = [
        (header::HOST, "www.example.com"),
        (header::USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        (header::REFERER, "https://www.example.com/shop/items?page=2"),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
    .into_iter()
    .collect();
    let response = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let record = record(&headers, &response);
    let mut best = f64::MAX;
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..LINES {
            log.write(black_box(&record));
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(LINES));
        // The writer must not be behind in the next round.
        std::thread::sleep(Duration::from_millis(30));
    }
    best
}

fn record<'a>(headers: &'a HeaderMap, response: &'a [(HeaderName, HeaderValue)]) -> Record<'a> {
    Record {
        time: SystemTime::now(),
        client: "203.0.113.77",
        method: "GET",
        host: "www.example.com",
        path: "/shop/cart/items/list",
        query: Some("page=2&token=0123456789abcdef"),
        protocol: "HTTP/1.1",
        request_headers: Some(headers),
        response_headers: response,
        status: 200,
        bytes: 4711,
        latency: Duration::from_micros(1_234),
        upstream: Some("10.0.0.1:8080"),
        upstream_latency: Some(Duration::from_micros(987)),
        attempts: 1,
        route: Some("*/shop"),
        pool: Some("shop"),
        request_id: "26c8d04ad24dadd9abbf15eb5e770722",
        cache: "",
        cause: None,
        failed_attempts: &[],
        detail: "",
    }
}
