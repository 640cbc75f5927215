//! `l7lb status`, `pools`, `routes`, `events`, `log-level`: the state of a running process.

use std::time::Duration;

use clap::{Args, ValueEnum};
use http::Method;
use serde_json::json;

use super::failure::{EXIT_RUNTIME, Failure};
use super::process::ProcessArguments;
use super::table::{self, Table, count, or_dash};
use crate::control::api::client::CallError;
use crate::control::api::configuration::{Configuration, Route, Routes};
use crate::control::api::log::{Events, Level};
use crate::control::api::pools::Pools;
use crate::control::api::process::{Ready, Version};
use crate::observe::operator_log::{LogLevel, LoggedEvent};
use crate::pool::selection::choice::percent;

/// The polling interval for new events.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The selection of events.
#[derive(Args)]
pub(super) struct EventArguments {
    /// Events after the one with this number.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: u64,
    /// Continue with new events until the process ends.
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    process: ProcessArguments,
}

/// The log level.
#[derive(Args)]
pub(super) struct LevelArguments {
    /// Log lines of this level and more severe ones; without it show the level.
    level: Option<LogLevel>,
    #[command(flatten)]
    process: ProcessArguments,
}

impl ValueEnum for LogLevel {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Off, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.word()))
    }
}

/// The exit code is 1 if the process is not ready.
pub(super) fn status(process: &ProcessArguments) -> Result<(), Failure> {
    let client = process.client()?;
    let version: Version = client.get("/version")?;
    let configuration: Configuration = client.get("/configuration")?;
    let Pools { pools } = client.get("/pools")?;
    let ready = match client.get::<Ready>("/ready") {
        Ok(_) => None,
        Err(CallError::Problem(problem)) => Some(problem),
        Err(other) => return Err(other.into()),
    };
    let down = pools.iter().filter(|pool| pool.available == 0).map(|pool| pool.name.to_string()).collect::<Vec<_>>();
    let in_flight: u32 = pools.iter().map(|pool| pool.in_flight).sum();
    let (backends, available) =
        pools.iter().fold((0, 0), |(all, available), pool| (all + pool.backends, available + pool.available));
    if process.json {
        table::json(&json!({
            "version": version.version, "pid": version.pid,
            "ready": ready.is_none(), "cause": ready.as_ref().map(|problem| problem.cause),
            "file": configuration.file, "sha256": configuration.sha256,
            "generation": configuration.generation, "applied": configuration.applied,
            "pools": pools.len(), "pools_without_backend": down,
            "backends": backends, "backends_available": available, "in_flight": in_flight,
        }))?;
    } else {
        let hash: String = configuration.sha256.chars().take(12).collect();
        let without = if down.is_empty() { String::new() } else { format!("; none for {}", down.join(", ")) };
        table::print(&format!(
            "process        l7lb {} (pid {})\nready          {}\nconfiguration  {} ({hash}), generation {} since {}\n\
             backends       {available} of {backends} available in {}{without}\nin flight      {}\n",
            version.version,
            version.pid,
            ready.as_ref().map_or_else(|| "yes".to_owned(), |problem| format!("no: {}", problem.detail)),
            or_dash(configuration.file),
            configuration.generation,
            configuration.applied,
            count(pools.len(), "pool"),
            count(in_flight as usize, "request"),
        ))?;
    }
    // Everything has been printed.
    if ready.is_some() { Err(Failure { code: EXIT_RUNTIME, message: String::new() }) } else { Ok(()) }
}

pub(super) fn pools(process: &ProcessArguments) -> Result<(), Failure> {
    let response: Pools = process.client()?.get("/pools")?;
    if process.json {
        return table::json(&response);
    }
    let mut table = Table::new(["pool", "balance", "available", "in flight", "waiting"]);
    for pool in &response.pools {
        table.row([
            pool.name.to_string(),
            pool.balance.to_string(),
            format!("{} of {}", pool.available, pool.backends),
            pool.in_flight.to_string(),
            or_dash(pool.waiting),
        ]);
    }
    table.print()?;
    sources(&response)?;
    zones(&response)
}

/// The zones of pools with a zone preference, if there are any.
fn zones(pools: &Pools) -> Result<(), Failure> {
    let mut table = Table::new(["pool", "zone", "backends", "capacity", "requests"]);
    let mut is_empty = true;
    for (pool, zones) in pools.pools.iter().filter_map(|pool| Some((pool, pool.zones.as_ref()?))) {
        for zone in &zones.zones {
            is_empty = false;
            let name = match &zone.zone {
                Some(name) if *name == zones.local => format!("{name} (local)"),
                name => or_dash(name.as_ref()),
            };
            table.row([
                pool.name.to_string(),
                name,
                zone.backends.to_string(),
                format!("{}", (zone.capacity * 100.0).round() / 100.0),
                percent(zone.share),
            ]);
        }
    }
    if is_empty {
        return Ok(());
    }
    table::print("\n")?;
    table.print()
}

/// The sources of backends, if there are any.
fn sources(pools: &Pools) -> Result<(), Failure> {
    let mut table = Table::new(["pool", "source", "backends", "held", "rejected", "listed", "failure"]);
    let mut is_empty = true;
    for (pool, source) in pools.pools.iter().flat_map(|pool| pool.sources.iter().map(move |source| (pool, source))) {
        is_empty = false;
        table.row([
            pool.name.to_string(),
            source.source.clone(),
            source.backends.to_string(),
            source.moves.map_or_else(|| source.held.to_string(), |moves| format!("list that moves {}", percent(moves))),
            source.rejected.to_string(),
            or_dash(source.listed),
            or_dash(source.failure.as_ref()),
        ]);
    }
    if is_empty {
        return Ok(());
    }
    table::print("\n")?;
    table.print()
}

pub(super) fn routes(process: &ProcessArguments) -> Result<(), Failure> {
    let response: Routes = process.client()?.get("/routes")?;
    if process.json {
        return table::json(&response);
    }
    let mut table = Table::new(["route", "matches", "pools", "sticky", "limit"]);
    for route in &response.routes {
        let sticky = if route.sticky { "yes" } else { "no" };
        let limit = or_dash(route.rate_limit.as_ref());
        table.row([route.name.to_string(), route.matches.clone(), shares(route), sticky.to_owned(), limit]);
    }
    table.print()
}

/// `a`, or `a 95, b 5`.
fn shares(route: &Route) -> String {
    match route.pools.as_slice() {
        [only] => only.pool.to_string(),
        several => {
            several.iter().map(|share| format!("{} {}", share.pool, share.weight)).collect::<Vec<_>>().join(", ")
        }
    }
}

pub(super) fn events(arguments: &EventArguments) -> Result<(), Failure> {
    let client = arguments.process.client()?;
    let mut after = arguments.after;
    loop {
        let recent: Events = client.get(&format!("/events?after={after}"))?;
        if arguments.process.json && !arguments.follow {
            return table::json(&recent);
        }
        if recent.lost > 0 {
            eprintln!("l7lb: {} older events are no longer kept", recent.lost);
        }
        for event in &recent.events {
            if !table::is_read(&line(event, arguments.process.json)?)? {
                return Ok(());
            }
            after = event.number;
        }
        if !arguments.follow {
            return Ok(());
        }
        after = after.max(recent.events.last().map_or(after, |event| event.number)).max(after + recent.lost);
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// One event. With `--json` it is one line; as text further lines are indented.
fn line(event: &LoggedEvent, json: bool) -> Result<String, Failure> {
    if json {
        let text = serde_json::to_string(event).map_err(|e| Failure::runtime(e.to_string()))?;
        return Ok(format!("{text}\n"));
    }
    let text = event.text.replace('\n', "\n       ");
    Ok(format!("{:>5}  {}  {:5}  {text}\n", event.number, event.at, event.level.word()))
}

pub(super) fn log_level(arguments: &LevelArguments) -> Result<(), Failure> {
    let client = arguments.process.client()?;
    let now: Level = match arguments.level {
        Some(level) => client.send(Method::PUT, "/log-level", &Level { level })?,
        None => client.get("/log-level")?,
    };
    if arguments.process.json { table::json(&now) } else { table::print(&format!("{}\n", now.level.word())) }
}
