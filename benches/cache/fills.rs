//! Latency while a slow origin fills the cache: of hits, and of clients that wait for the same object.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::Connection;
use crate::hits::server;
use crate::origin::{Origin, SLOW};
use crate::report::{Cell, median, percentile};
use crate::servers::{SUBJECTS, Server};

/// Clients that want the same object at the same time.
const WAITING: usize = 8;
/// The time between two fills.
const FILL_EVERY: Duration = Duration::from_millis(50);
/// Bytes of a slow object.
const SLOW_SIZE: usize = 128 * 1024;
/// Connections with hits, and the time between two hits on one.
const HITTING: usize = 8;
const HIT_EVERY: Duration = Duration::from_millis(20);

/// What was measured of one server, in milliseconds.
#[derive(Default)]
struct Measured {
    hit: [Vec<f64>; 2],
    waited: [Vec<f64>; 2],
    fetches: Vec<f64>,
}

/// Measures all servers; they take turns. Returns a Markdown table.
pub(crate) async fn compare(
    servers: &[Server],
    origin: &Origin,
    rounds: u32,
    seconds: u32,
) -> Result<String, Box<dyn Error>> {
    let mut all: BTreeMap<usize, Measured> = BTreeMap::new();
    let mut first = 1_000_000;
    for _ in 0..rounds {
        for (place, subject) in SUBJECTS.iter().enumerate().skip(1) {
            let Some(server) = server(servers, subject) else { continue };
            let fetched = origin.served();
            let end = Instant::now() + Duration::from_secs(seconds.into());
            let hits = (0..HITTING).map(|_| hits(server.plain(), subject.prefix, end)).collect::<JoinSet<_>>();
            let (waited, fills) = fill(server.plain(), subject.prefix, first, end).await?;
            let hits = hits.join_all().await.into_iter().collect::<io::Result<Vec<_>>>()?.concat();
            let measured = all.entry(place).or_default();
            for (times, lists) in [(&hits, &mut measured.hit), (&waited, &mut measured.waited)] {
                for (share, list) in [0.5, 0.99].into_iter().zip(lists) {
                    list.push(percentile(times, share));
                }
            }
            first += fills;
            let fetched = f64::from(u32::try_from(origin.served() - fetched)?);
            measured.fetches.push(fetched / f64::from(u32::try_from(fills)?));
        }
    }
    let mut table = format!(
        "| during fills | hits: p50, p99 | {WAITING} clients of one object (at least {} ms): p50, p99 | fetches of an object |\n|---|---|---|---|\n",
        SLOW.as_millis()
    );
    for (place, measured) in all {
        let name = SUBJECTS.get(place).map_or("", |subject| subject.name);
        let two = |lists: &[Vec<f64>; 2]| {
            let [p50, p99] = lists.each_ref().map(|list| median(list));
            format!("{}, {}", Cell(Some(p50), ""), Cell(Some(p99), " ms"))
        };
        let fetches = Cell(Some(median(&measured.fetches)), "");
        writeln!(table, "| {name} | {} | {} | {fetches} |", two(&measured.hit), two(&measured.waited))?;
    }
    Ok(table)
}

/// Requests one small object again and again. The times start when each request is sent.
async fn hits(proxy: SocketAddr, prefix: &'static str, end: Instant) -> io::Result<Vec<Duration>> {
    let mut times = Vec::new();
    let mut connection = Connection::open(proxy).await?;
    let mut due = Instant::now() + HIT_EVERY.mul_f64(fastrand::f64());
    while due < end {
        tokio::time::sleep_until(due.into()).await;
        // Not `due`: the timer is rounded to milliseconds.
        let began = Instant::now();
        get(&mut connection, &format!("{prefix}/o/0/1024")).await?;
        times.push(began.elapsed());
        due += HIT_EVERY;
    }
    Ok(times)
}

/// Lets several clients request each new object at once. Returns their times, and the number of objects.
async fn fill(
    proxy: SocketAddr,
    prefix: &'static str,
    first: u64,
    end: Instant,
) -> Result<(Vec<Duration>, u64), Box<dyn Error>> {
    let mut clients = JoinSet::new();
    let mut number = first;
    while Instant::now() < end {
        for _ in 0..WAITING {
            clients.spawn(async move {
                let began = Instant::now();
                let mut connection = Connection::open(proxy).await?;
                get(&mut connection, &format!("{prefix}/slow/{number}/{SLOW_SIZE}")).await?;
                io::Result::Ok(began.elapsed())
            });
        }
        number += 1;
        tokio::time::sleep(FILL_EVERY).await;
    }
    let times = clients.join_all().await.into_iter().collect::<io::Result<Vec<_>>>()?;
    Ok((times, number - first))
}

async fn get(connection: &mut Connection, path: &str) -> io::Result<()> {
    match connection.get(path, "").await {
        Ok(response) if response.status == 200 => Ok(()),
        Ok(response) => Err(io::Error::other(format!("{path}: status {}", response.status))),
        Err(e) => Err(io::Error::other(format!("{path}: {e}"))),
    }
}
