//! Random exchanges against an independent model: nothing is served that RFC 9111 forbids, no response of one identity
//! reaches another, and each body carries its own hash.
//!
//! `L7LB_CACHE_EXCHANGES` sets the number of exchanges, `L7LB_CACHE_SEED` the seed.

mod generator;
mod model;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use model::{Record, Request};

use super::configuration;
use super::origin::Origin;
use super::wire::{Client, Message};
use crate::lab::{Lab, free_port};

/// Each worker has its own targets and is the only one that uses them, so that the order of its exchanges is known.
const WORKERS: usize = 8;
const TARGETS: usize = 6;

/// All responses that the origin sent, by their id.
type Records = Arc<Mutex<HashMap<String, Record>>>;

/// An exchange as the client saw it.
struct Exchange {
    request: Request,
    sent: Instant,
    response: Message,
}

#[test]
fn random_exchanges_never_get_a_response_that_the_rfc_forbids() {
    let variable = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let seed = variable("L7LB_CACHE_SEED", fastrand::u64(..));
    let exchanges = usize::try_from(variable("L7LB_CACHE_EXCHANGES", 3000)).unwrap();
    let records = Records::default();
    let (shared, rng) = (Arc::clone(&records), Mutex::new(Rng::with_seed(seed)));
    let origin = Origin::start(move |request, stream| generator::respond(&shared, &rng, &request, stream));
    let port = free_port();
    let route = |path: &str, keys: &str| {
        let keys = super::with_store(keys);
        format!("  - {{ path: /{path}, pool: a, retry: {{ attempts: 1 }}, cache: {{ {keys} }} }}\n")
    };
    let windows = "default_ttl: 60s, stale_if_error: 5s, stale_while_revalidate: 1s";
    let routes = route("default", "") + &route("ttl", windows);
    let _lab = Lab::start(&configuration(port, origin.port, &routes));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let records = Arc::clone(&records);
            std::thread::spawn(move || {
                let rng = Rng::with_seed(seed.wrapping_add(1 + worker as u64));
                run(worker, exchanges / WORKERS, rng, port, &records)
            })
        })
        .collect();
    let mut reused = 0;
    let results: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    for result in results {
        match result {
            Ok(count) => reused += count,
            Err(fault) => panic!("L7LB_CACHE_SEED={seed}: {fault}"),
        }
    }
    eprintln!("{exchanges} exchanges, {reused} responses reused (seed {seed})");
    assert!(reused * 10 > exchanges, "the cache is hardly used: {reused} of {exchanges}");
}

/// Runs the exchanges of one worker. Returns how many responses were reused.
fn run(worker: usize, exchanges: usize, mut rng: Rng, port: u16, records: &Records) -> Result<usize, String> {
    let mut reused = 0;
    let mut history = Vec::new();
    let mut changed = HashMap::new();
    let mut tags = Vec::new();
    for number in 0..exchanges {
        if rng.usize(..100) == 0 {
            // Lifetimes of a second end.
            std::thread::sleep(Duration::from_millis(1100));
        }
        let route = if rng.bool() { "default" } else { "ttl" };
        let target = format!("/{route}/{worker}/{}", rng.usize(..TARGETS));
        let count = if rng.usize(..5) == 0 { 3 } else { 1 };
        let requests: Vec<Request> = (0..count)
            .map(|part| generator::request(&mut rng, &target, format!("{worker}-{number}-{part}"), &tags))
            .collect();
        let exchanges = perform(requests, port);
        for exchange in &exchanges {
            history.push(describe(exchange));
            tags.extend(exchange.response.field("etag"));
            let verdict = model::check(exchange, &records.lock().unwrap(), changed.get(&target));
            reused += usize::from(verdict.map_err(|fault| {
                let last = history.len().saturating_sub(40);
                let of_target: Vec<&str> =
                    history[last..].iter().map(String::as_str).filter(|line| line.contains(&target)).collect();
                let known = records.lock().unwrap();
                let stored = known.values().find(|record| fault.contains(&record.id));
                format!("{fault}\nstored: {stored:#?}\n{}", of_target.join("\n"))
            })?);
        }
        // Responses stored before the last successful unsafe request are invalid (RFC 9111 §4.4).
        let unsafe_end = exchanges.iter().filter(|one| one.request.is_unsafe() && one.response.status() < 400);
        if let (Some(start), true) = (unsafe_end.map(|one| one.sent).max(), exchanges.len() == 1) {
            changed.insert(target, start);
        }
    }
    Ok(reused)
}

/// Sends the requests at once, each on its own connection.
fn perform(requests: Vec<Request>, port: u16) -> Vec<Exchange> {
    let running: Vec<_> = requests
        .into_iter()
        .map(|request| {
            std::thread::spawn(move || {
                let fields: Vec<(&str, &str)> =
                    request.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let mut client = Client::connect(port);
                let sent = Instant::now();
                let response = client.ask(request.method, &request.target, &fields);
                Exchange { sent, response, request }
            })
        })
        .collect();
    running.into_iter().map(|exchange| exchange.join().unwrap()).collect()
}

fn describe(exchange: &Exchange) -> String {
    let (request, response) = (&exchange.request, &exchange.response);
    format!(
        "{} {} {:?}\n    -> {} {:?} {}",
        request.method,
        request.target,
        request.fields,
        response.start,
        response.fields,
        response.text().get(..80).unwrap_or_default()
    )
}
