//! The CPU cost of one lookup in a routing table of 10 and of 10,000 routes.
//!
//! Both tables contain the same ten routes, and all requests match those ten, so the difference is the cost
//! of the other 9,990 routes. A third figure looks up every route of the large table once, in random order,
//! which adds cache misses.
//!
//! Without `--bench`, as in `cargo test --benches`, it runs one short round as a functional test.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and prints its results"
)]

use std::collections::HashSet;
use std::error::Error;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use l7lb::routing::conditions::{Source, Test};
use l7lb::routing::{Condition, Conditions, HostPattern, Matcher, Methods, PathPattern, RequestFacts, Table};

const LARGE: usize = 10_000;
const ROUNDS: usize = 60;
const LOOKUPS: usize = 50_000;
const WORDS: usize = 120;

/// Host, path, whether the path is exact, methods.
const SHARED: [(&str, &str, bool, &str); 10] = [
    ("*", "/", false, "*"),
    ("*", "/health", true, "GET"),
    ("*", "/static/assets", false, "*"),
    ("www.example.com", "/", false, "*"),
    ("www.example.com", "/apiA", false, "*"),
    ("www.example.com", "/apiA/v1/users", false, "GET,POST"),
    ("www.example.com", "/shop/cart/items/list", false, "*"),
    ("*.apps.example.org", "/", false, "*"),
    ("*.apps.example.org", "/apiB/v2", false, "*"),
    ("admin.example.com", "/login", true, "POST"),
];

const REQUESTS: [(&str, &str, Method); 16] = [
    ("other.test", "/", Method::GET),
    ("other.test", "/health", Method::GET),
    ("other.test", "/static/assets/logo.png", Method::GET),
    ("www.example.com", "/", Method::GET),
    ("www.example.com", "/index.html", Method::GET),
    ("www.example.com", "/apiA", Method::GET),
    ("www.example.com", "/apiA/v1/users", Method::POST),
    ("www.example.com", "/apiA/v1/users/4711", Method::GET),
    ("www.example.com", "/apiA/v1/users/4711", Method::DELETE),
    ("www.example.com:8443", "/shop/cart/items/list", Method::GET),
    ("WWW.example.com", "/shop/cart/items/list/2", Method::GET),
    ("one.apps.example.org", "/apiB/v2/things/17", Method::PUT),
    ("two.one.apps.example.org", "/apiB/v2", Method::GET),
    ("one.apps.example.org", "/favicon.ico", Method::GET),
    ("admin.example.com", "/login", Method::POST),
    ("admin.example.com", "/login", Method::GET),
];

type BoxError = Box<dyn Error>;

/// A linear congruential generator, so that every run has the same routes.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap_or_default() % limit
    }

    /// One in ten routes has a host of the shared routes; the others have one of many hosts.
    fn host(&mut self) -> String {
        match self.below(20) {
            0 => "*".to_owned(),
            1 => "www.example.com".to_owned(),
            2..=4 => format!("*.zone{}.example.org", self.below(100)),
            _ => format!("host{}.example.net", self.below(1_000)),
        }
    }

    fn path(&mut self) -> String {
        (0..=self.below(4)).map(|_| format!("/word{}", self.below(WORDS))).collect()
    }

    fn matcher(&mut self) -> Result<Matcher, BoxError> {
        let methods = if self.below(5) == 0 { "GET,POST" } else { "*" };
        let exact = self.below(10) == 0;
        matcher(&self.host(), &self.path(), exact, methods)
    }
}

fn matcher(host: &str, path: &str, exact: bool, methods: &str) -> Result<Matcher, BoxError> {
    Ok(Matcher {
        host: host.parse::<HostPattern>()?,
        path: PathPattern::new(path, exact)?,
        methods: methods.parse::<Methods>()?,
        conditions: Conditions::default(),
        priority: 0,
    })
}

/// A table of `count` routes: the ten shared routes and random others.
fn table(count: usize) -> Result<Table<usize>, BoxError> {
    let mut random = Random(7);
    let mut seen = HashSet::new();
    let mut routes = Vec::with_capacity(count);
    for (host, path, exact, methods) in SHARED {
        routes.push(matcher(host, path, exact, methods)?);
    }
    while routes.len() < count {
        let matcher = random.matcher()?;
        if seen.insert(matcher.to_string()) {
            routes.push(matcher);
        }
    }
    let numbered = routes.into_iter().zip(0..);
    Table::build(numbered).map_err(|error| format!("{error:?}").into())
}

/// Nanoseconds per lookup, averaged over one round.
fn round(table: &Table<usize>, requests: &[(&str, &str, Method)], lookups: usize) -> f64 {
    let start = Instant::now();
    for (host, path, method) in requests.iter().cycle().take(lookups) {
        black_box(table.find(Some(black_box(host)), black_box(path), method));
    }
    start.elapsed().as_secs_f64() * 1e9 / lookups as f64
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

/// A request for each route of the table, in random order.
fn shuffled_requests(table: &Table<usize>) -> Vec<(String, String, Method)> {
    let mut requests: Vec<_> = table
        .iter()
        .map(|(matcher, _)| {
            let host = matcher.host.to_string().replace('*', "some");
            (host, matcher.path.path().to_owned(), Method::GET)
        })
        .collect();
    let mut random = Random(11);
    for last in (1..requests.len()).rev() {
        requests.swap(last, random.below(last + 1));
    }
    requests
}

/// A table of `count` routes on one path, each for one value of a header field.
fn table_of_conditions(count: usize) -> Result<Table<usize>, BoxError> {
    let of = |number: usize| -> Result<(Matcher, usize), BoxError> {
        let source = Source::Header(HeaderName::from_static("x-tenant"));
        let condition = Condition { source, test: Test::Exact(format!("tenant-{number}")), negated: false };
        let conditions = Conditions { named: vec![condition], ..Conditions::default() };
        Ok((Matcher { conditions, ..matcher("*", "/", false, "*")? }, number))
    };
    let routes = (0..count).map(of).collect::<Result<Vec<_>, _>>()?;
    Table::build(routes).map_err(|error| format!("{error:?}").into())
}

/// Lookups among routes with conditions.
fn conditions(rounds: usize, lookups: usize) -> Result<(), BoxError> {
    let (small, large) = (table_of_conditions(SHARED.len())?, table_of_conditions(LARGE)?);
    let headers = HeaderMap::from_iter([(HeaderName::from_static("x-tenant"), HeaderValue::from_static("tenant-7"))]);
    let uri = Uri::from_static("/x");
    let facts = RequestFacts { headers: &headers, uri: &uri, client: IpAddr::from([192, 0, 2, 1]) };
    let round = |table: &Table<usize>| {
        let start = Instant::now();
        for _ in 0..lookups {
            black_box(table.find_for(None, black_box("/x"), &Method::GET, black_box(&facts)));
        }
        start.elapsed().as_secs_f64() * 1e9 / lookups as f64
    };
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        few.push(round(&small));
        many.push(round(&large));
    }
    let (few, many) = (median(few), median(many));
    println!("{:>6} routes of one path by a header field: {few:6.1} ns per lookup", small.len());
    println!("{:>6} routes of one path by a header field: {many:6.1} ns per lookup", large.len());
    println!("ratio {:.2} (aim: at most 1.20)", many / few);
    Ok(())
}

fn main() -> Result<(), BoxError> {
    let full = std::env::args().any(|argument| argument == "--bench");
    let (rounds, lookups) = if full { (ROUNDS, LOOKUPS) } else { (1, 1_000) };
    let (small, large) = (table(SHARED.len())?, table(LARGE)?);
    for (host, path, method) in &REQUESTS {
        let found = [&small, &large].map(|table| table.find(Some(host), path, method));
        if found[0].is_none() || found[0] != found[1] {
            return Err(format!("{host}{path}: the tables must return the same route, but returned {found:?}").into());
        }
    }
    let owned = shuffled_requests(&large);
    let all_routes: Vec<_> = owned.iter().map(|(host, path, method)| (&**host, &**path, method.clone())).collect();
    // The tables alternate, so that other load on the machine affects all of them equally.
    let (mut few, mut many, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        few.push(round(&small, &REQUESTS, lookups));
        many.push(round(&large, &REQUESTS, lookups));
        all.push(round(&large, &all_routes, lookups));
    }
    let (few, many, all) = (median(few), median(many), median(all));
    println!("{:>6} routes: {few:6.1} ns per lookup", small.len());
    println!("{:>6} routes: {many:6.1} ns per lookup, the same requests", large.len());
    println!("{:>6} routes: {all:6.1} ns per lookup, requests for every route", large.len());
    println!("ratio {:.2} for the same requests (aim: at most 1.20)", many / few);
    conditions(rounds, lookups)
}
