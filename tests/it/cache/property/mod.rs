//! Random exchanges, purges and reloads against an independent model: nothing is served that RFC 9111 forbids, nothing
//! that was purged before the request, no response of one identity reaches another, and each body carries its own hash.
//!
//! `L7LB_CACHE_EXCHANGES` sets the number of exchanges, `L7LB_CACHE_SEED` the seed.

mod generator;
mod model;
mod operator;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use model::{Record, Request};
use operator::{Operator, Purge, Purged};

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
    let configurations = ["5s", "6s"].map(|timeout| {
        let timeout = format!("lock_timeout: {timeout}");
        let routes = route("default", &timeout) + &route("ttl", &format!("{windows}, {timeout}"));
        configuration(port, origin.port, &routes)
    });
    let operator = Operator::new(Lab::start(&configurations[0]), configurations);
    let results: Vec<_> = std::thread::scope(|scope| {
        let start = |worker: usize| {
            let rng = Rng::with_seed(seed.wrapping_add(1 + worker as u64));
            let mut worker = Worker::new(worker, rng, port, &records, &operator);
            scope.spawn(move || worker.run(exchanges / WORKERS))
        };
        let workers: Vec<_> = (0..WORKERS).map(start).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let mut reused = 0;
    for result in results {
        match result {
            Ok(count) => reused += count,
            Err(fault) => panic!("L7LB_CACHE_SEED={seed}: {fault}"),
        }
    }
    let [purges, reloads] = operator.counts();
    eprintln!("{exchanges} exchanges, {reused} responses reused, {purges} purges, {reloads} reloads (seed {seed})");
    assert!(reused * 10 > exchanges, "the cache is hardly used: {reused} of {exchanges}");
    assert!(purges * 100 > exchanges && reloads > 0, "{purges} purges, {reloads} reloads");
}

/// Sends the exchanges of its targets, one step after the other.
struct Worker<'a> {
    number: usize,
    rng: Rng,
    port: u16,
    records: &'a Records,
    operator: &'a Operator,
    /// The purges by this worker, and its unsafe requests.
    purged: HashMap<String, Purged>,
    tags: Vec<String>,
    history: Vec<String>,
}

impl<'a> Worker<'a> {
    fn new(number: usize, rng: Rng, port: u16, records: &'a Records, operator: &'a Operator) -> Self {
        let (purged, tags, history) = (HashMap::new(), Vec::new(), Vec::new());
        Self { number, rng, port, records, operator, purged, tags, history }
    }

    /// Runs the exchanges. Returns how many responses were reused.
    fn run(&mut self, exchanges: usize) -> Result<usize, String> {
        let mut reused = 0;
        for number in 0..exchanges {
            if self.rng.usize(..100) == 0 {
                // Lifetimes of a second end.
                std::thread::sleep(Duration::from_millis(1100));
            }
            if self.number == 0 && number % 100 == 50 {
                self.operator.reload();
            }
            reused += self.step(number)?;
        }
        Ok(reused)
    }

    /// Requests for one target, perhaps with a purge at the same time.
    fn step(&mut self, number: usize) -> Result<usize, String> {
        let route = if self.rng.bool() { "default" } else { "ttl" };
        let target = format!("/{route}/{}/{}", self.number, self.rng.usize(..TARGETS));
        let count = if self.rng.usize(..5) == 0 { 3 } else { 1 };
        let id = |part| format!("{}-{number}-{part}", self.number);
        let requests: Vec<Request> =
            (0..count).map(|part| generator::request(&mut self.rng, &target, id(part), &self.tags)).collect();
        let purge = (self.rng.usize(..30) == 0).then(|| Purge::random(&mut self.rng, self.number, route, &target));
        let (delay, by_command) = (self.rng.u64(..6), self.rng.usize(..5) == 0);
        let before = self.purged.get(&target).copied().unwrap_or_default().and(self.operator.purged());
        let (operator, port) = (self.operator, self.port);
        let (exchanges, purged) = std::thread::scope(|scope| {
            let purging = purge.as_ref().map(|purge| {
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(delay));
                    operator.purge(purge, by_command)
                })
            });
            (perform(requests, port), purging.map(|purging| purging.join().unwrap()))
        });
        let mut reused = 0;
        for exchange in &exchanges {
            reused += usize::from(self.check(exchange, &target, before)?);
        }
        // Responses stored before the last successful unsafe request are invalid (RFC 9111 §4.4).
        let unsafe_end = exchanges.iter().filter(|one| one.request.is_unsafe() && one.response.status() < 400);
        if let (Some(start), true) = (unsafe_end.map(|one| one.sent).max(), exchanges.len() == 1) {
            self.add(target, Purged::hard(start));
        }
        if let Some((purge, purged)) = purge.zip(purged) {
            self.history.push(format!("purged {:?}", purge.arguments()));
            for (route, target) in
                ["default", "ttl"].into_iter().flat_map(|route| (0..TARGETS).map(move |n| (route, n)))
            {
                let target = format!("/{route}/{}/{target}", self.number);
                if purge.concerns(&target) {
                    self.add(target, purged);
                }
            }
        }
        Ok(reused)
    }

    fn add(&mut self, target: String, purged: Purged) {
        let known = self.purged.entry(target).or_default();
        *known = known.and(purged);
    }

    /// Whether the response is a reused one, which it may be.
    fn check(&mut self, exchange: &Exchange, target: &str, purged: Purged) -> Result<bool, String> {
        self.history.push(describe(exchange));
        self.tags.extend(exchange.response.field("etag"));
        let verdict = model::check(exchange, &self.records.lock().unwrap(), purged);
        verdict.map_err(|fault| {
            let last = self.history.len().saturating_sub(40);
            let is_related = |line: &&String| line.contains(target) || line.starts_with("purged");
            let related: Vec<&String> = self.history[last..].iter().filter(is_related).collect();
            let known = self.records.lock().unwrap();
            let stored = known.values().find(|record| fault.contains(&record.id));
            format!("{fault}\npurged: {purged:?}\nstored: {stored:#?}\n{related:#?}")
        })
    }
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
