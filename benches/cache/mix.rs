//! A mix of many objects, most of whose bytes do not fit into the caches.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinSet;

use crate::client::Connection;
use crate::hits::server;
use crate::object::{self, Zipf};
use crate::origin::Origin;
use crate::report::{Cell, median, percentile};
use crate::servers::{SUBJECTS, Server};
use crate::usage;

/// Connections at the same time.
const CONNECTIONS: usize = 32;
/// Requests before the measurement, for each object that fits.
const WARM_UP: u64 = 4;

/// What was measured of one server.
#[derive(Default)]
struct Measured {
    cpu: Vec<f64>,
    hits: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

/// Measures all servers with `objects` objects; they take turns. Returns a Markdown table.
pub(crate) async fn compare(
    servers: &[Server],
    origin: &Origin,
    (objects, fit): (u64, u64),
    (rounds, seconds): (u32, u32),
) -> Result<String, Box<dyn Error>> {
    let zipf = Arc::new(Zipf::new(objects));
    let mut all: BTreeMap<usize, Measured> = BTreeMap::new();
    for round in 0..=rounds {
        for (place, subject) in SUBJECTS.iter().enumerate() {
            let Some(server) = server(servers, subject) else { continue };
            let warm_up = round == 0;
            if warm_up && place == 0 {
                continue;
            }
            let until = if warm_up {
                Until::Requests(WARM_UP * fit / CONNECTIONS as u64)
            } else {
                Until::Time(Instant::now() + Duration::from_secs(seconds.into()))
            };
            let (cpu, fetched) = (usage::cpu_time(server.id()), origin.served());
            let times = load(server.plain(), subject.prefix, &zipf, until).await?;
            let cpu = usage::cpu_time(server.id()).saturating_sub(cpu);
            let requests = f64::from(u32::try_from(times.len())?);
            let fetched = f64::from(u32::try_from(origin.served() - fetched)?);
            if !warm_up {
                let measured = all.entry(place).or_default();
                measured.cpu.push(cpu.as_secs_f64() * 1e6 / requests);
                measured.hits.push((100.0 * (1.0 - fetched / requests)).max(0.0));
                measured.p50.push(percentile(&times, 0.5));
                measured.p99.push(percentile(&times, 0.99));
            }
        }
    }
    let mut table = "| mix | CPU per request | hits | p50 | p99 |\n|---|---|---|---|---|\n".to_owned();
    for (place, measured) in all {
        let name = SUBJECTS.get(place).map_or("", |subject| subject.name);
        let cell = |values: &[f64], unit| Cell(Some(median(values)), unit);
        let (cpu, hits) = (cell(&measured.cpu, " µs"), cell(&measured.hits, " %"));
        let (p50, p99) = (cell(&measured.p50, " ms"), cell(&measured.p99, " ms"));
        writeln!(table, "| {name} | {cpu} | {hits} | {p50} | {p99} |")?;
    }
    Ok(table)
}

/// When the load ends.
#[derive(Clone, Copy)]
enum Until {
    /// After this many requests on each connection.
    Requests(u64),
    Time(Instant),
}

/// Sends the mix, and returns the times of all requests.
async fn load(proxy: SocketAddr, prefix: &'static str, zipf: &Arc<Zipf>, until: Until) -> io::Result<Vec<Duration>> {
    let connections = (0..CONNECTIONS).map(|_| one_connection(proxy, prefix, Arc::clone(zipf), until));
    let times = connections.collect::<JoinSet<_>>().join_all().await;
    times.into_iter().collect::<io::Result<Vec<_>>>().map(|times| times.concat())
}

async fn one_connection(
    proxy: SocketAddr,
    prefix: &'static str,
    zipf: Arc<Zipf>,
    until: Until,
) -> io::Result<Vec<Duration>> {
    let mut times = Vec::new();
    let mut connection = Connection::open(proxy).await?;
    let mut left = u64::MAX;
    if let Until::Requests(requests) = until {
        left = requests;
    }
    while left > 0 && !matches!(until, Until::Time(end) if Instant::now() > end) {
        left -= 1;
        let number = zipf.next();
        if !connection.is_usable() {
            connection = Connection::open(proxy).await?;
        }
        let (began, asked) = (Instant::now(), SystemTime::now());
        let path = format!("{prefix}/o/{number}/{}", object::size(number));
        let response = connection.get(&path, "").await.map_err(|e| io::Error::other(format!("{path}: {e}")))?;
        times.push(began.elapsed());
        // The other caches send stale objects within a grace period.
        let slack = Duration::from_secs(3600);
        let checked = object::check(&response.body, number, asked, slack);
        if response.status != 200 || checked.is_err() {
            let (status, length) = (response.status, response.body.len());
            return Err(io::Error::other(format!("{path}: status {status}, {length} bytes, {checked:?}")));
        }
    }
    Ok(times)
}
