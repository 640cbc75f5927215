//! The measurements.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::balancer::{Balancer, Setup};
use crate::load::{self, Client, Until};
use crate::usage::{cpu_time, resident};
use crate::{BoxError, Flags, callgrind};

/// The measured policies, in YAML.
const POLICIES: [&str; 3] = ["round_robin", "least_requests", "{ type: consistent_hash, by: header, name: x-key }"];
/// A health check that does not add to the figures.
const RARE: &str = "{ type: tcp, interval: 1h, unhealthy_interval: 10s }";
/// The default health check.
const DEFAULT: &str = "{ type: tcp }";
/// Requests to each backend before a measurement, so that connections exist.
const WARM_UP: u64 = 3;
/// Repetitions of a change.
const CHANGES: usize = 5;
/// A list that is longer than a source may have.
const TOO_LONG: u32 = 100_000;
/// Requests that are counted by callgrind.
const COUNTED: u64 = 2_000;

impl Flags {
    /// The measured policies.
    fn policies(&self) -> impl Iterator<Item = &'static str> {
        let wanted =
            |policy: &&str| self.policies.is_empty() || self.policies.iter().any(|wanted| wanted == name(policy));
        POLICIES.into_iter().filter(wanted)
    }

    fn setup<'a>(&'a self, count: u32, policy: &'a str, health_check: &'a str) -> Setup<'a> {
        let idle = self.idle.unwrap_or(self.backends * 2);
        Setup { program: &self.program, count, policy, health_check, key: &self.key, idle, counts: false }
    }
}

/// The name of a policy.
fn name(policy: &str) -> &str {
    if policy.contains("consistent_hash") { "consistent_hash" } else { policy }
}

/// Memory per backend.
pub(crate) fn memory(flags: &Flags) -> Result<(), BoxError> {
    println!(
        "| memory | {} backends | {} backends | for each more backend |\n|---|---|---|---|",
        flags.few, flags.backends
    );
    for policy in flags.policies() {
        let mut measured = Vec::new();
        for count in [flags.few, flags.backends] {
            let balancer = Balancer::start(&flags.setup(count, policy, RARE))?;
            let idle = resident(balancer.pid());
            load::run(balancer.address, Until::Requests(WARM_UP * u64::from(count)))?;
            measured.push([idle, resident(balancer.pid())]);
        }
        let [few, many] = measured.try_into().map_err(|_| "two balancers were measured")?;
        let more = f64::from(flags.backends - flags.few);
        for (what, few, many) in [("before requests", few[0], many[0]), ("with connections", few[1], many[1])] {
            let each = (many.saturating_sub(few)) as f64 / more;
            println!("| {}, {what} | {} MiB | {} MiB | {each:.0} bytes |", name(policy), few >> 20, many >> 20);
        }
    }
    Ok(())
}

/// CPU time per request and throughput.
pub(crate) fn requests(flags: &Flags) -> Result<(), BoxError> {
    println!("| requests | {} backends | {} backends | ratio |\n|---|---|---|---|", flags.few, flags.backends);
    for policy in flags.policies() {
        let few = Balancer::start(&flags.setup(flags.few, policy, RARE))?;
        let many = Balancer::start(&flags.setup(flags.backends, policy, RARE))?;
        let mut rounds = [Vec::new(), Vec::new()];
        for balancer in [&few, &many] {
            load::run(balancer.address, Until::Requests(WARM_UP * u64::from(flags.backends)))?;
        }
        for _ in 0..flags.rounds {
            for (balancer, rounds) in [&few, &many].into_iter().zip(&mut rounds) {
                let (begin, cpu) = (Instant::now(), cpu_time(balancer.pid()));
                let sent = load::run(balancer.address, Until::Elapsed(flags.round))?;
                let used = cpu_time(balancer.pid()).saturating_sub(cpu);
                rounds.push((used.as_secs_f64() * 1e6 / sent as f64, sent as f64 / begin.elapsed().as_secs_f64()));
            }
        }
        let [few, many] = rounds;
        let median_of = |rounds: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| median(rounds.iter().map(of).collect());
        let (one, other) = (median_of(&few, |round| round.0), median_of(&many, |round| round.0));
        println!("| {}, CPU time per request | {one:.1} µs | {other:.1} µs | {:.3} |", name(policy), other / one);
        let (one, other) = (median_of(&few, |round| round.1), median_of(&many, |round| round.1));
        println!("| {}, requests per second | {one:.0} | {other:.0} | {:.3} |", name(policy), other / one);
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Instructions per request.
pub(crate) fn instructions(flags: &Flags) -> Result<(), BoxError> {
    if !callgrind::is_available() {
        println!("skipped: callgrind is not available; install valgrind");
        return Ok(());
    }
    println!(
        "| instructions per request | {} backends | {} backends | ratio |\n|---|---|---|---|",
        flags.few, flags.backends
    );
    for policy in flags.policies() {
        let mut counted = Vec::new();
        for count in [flags.few, flags.backends] {
            let balancer = Balancer::start(&Setup { counts: true, ..flags.setup(count, policy, RARE) })?;
            let mut client = Client::connect(balancer.address, 1)?;
            let mut send = |count: u64| (0..count).try_for_each(|_| client.request().map(drop));
            send(WARM_UP * u64::from(count) + 500)?;
            callgrind::zero(balancer.pid())?;
            send(COUNTED)?;
            counted.push(callgrind::dump(balancer.pid(), balancer.folder())? as f64 / COUNTED as f64);
        }
        if let [few, many] = counted[..] {
            println!("| {} | {few:.0} | {many:.0} | {:.3} |", name(policy), many / few);
        }
    }
    Ok(())
}

/// From a changed file to its effect.
pub(crate) fn change(flags: &Flags) -> Result<(), BoxError> {
    println!("| one changed backend | {} backends | {} backends |\n|---|---|---|", flags.few, flags.backends);
    for policy in flags.policies() {
        let mut columns = Vec::new();
        for count in [flags.few, flags.backends] {
            let balancer = Balancer::start(&flags.setup(count, policy, DEFAULT))?;
            let times = (0..CHANGES).map(|_| change_once(&balancer)).collect::<Result<Vec<_>, _>>()?;
            let longest =
                |of: fn(&[Duration; 2]) -> Duration| times.iter().map(of).max().unwrap_or_default().as_millis();
            columns.push([longest(|times| times[0]), longest(|times| times[1])]);
        }
        if let [few, many] = columns[..] {
            println!("| {}, seen at the API, longest of {CHANGES} | {} ms | {} ms |", name(policy), few[0], many[0]);
            println!(
                "| {}, first request there, longest of {CHANGES} | {} ms | {} ms |",
                name(policy),
                few[1],
                many[1]
            );
        }
    }
    Ok(())
}

/// Changes a backend, and returns when the API and a client see it.
fn change_once(balancer: &Balancer) -> Result<[Duration; 2], BoxError> {
    let begin = Instant::now();
    let changed = balancer.replace_first()?;
    let path = format!("/pools/many/backends/{changed}");
    let api = std::thread::scope(|scope| {
        let api = scope.spawn(|| balancer.wait_until("the API shows the change", || Ok(balancer.get(&path)?.0 == 200)));
        let mut client = Client::connect(balancer.address, 1)?;
        loop {
            let response = client.request()?;
            if response.windows(14).any(|line| line.eq_ignore_ascii_case(b"x-backend: new")) {
                break;
            }
            if begin.elapsed() > Duration::from_secs(60) {
                return Err(BoxError::from("no request uses the changed backend"));
            }
        }
        let traffic = begin.elapsed();
        Ok([api.join().map_err(|_| "panic")??, traffic])
    })?;
    balancer.restore()?;
    balancer.wait_until("the first list is back", || Ok(balancer.get(&path)?.0 == 404))?;
    balancer.wait_until("all are available", || {
        Ok(balancer.pool()?.get("available").and_then(Value::as_u64) == Some(balancer.count.into()))
    })?;
    Ok(api)
}

/// CPU time without requests.
pub(crate) fn health(flags: &Flags) -> Result<(), BoxError> {
    println!("| CPU without requests | {} backends | {} backends |\n|---|---|---|", flags.few, flags.backends);
    for (what, check) in [("health checks at the default interval", DEFAULT), ("health checks each hour", RARE)] {
        let mut used = Vec::new();
        for count in [flags.few, flags.backends] {
            let balancer = Balancer::start(&flags.setup(count, "round_robin", check))?;
            sleep(Duration::from_secs(6));
            let length = Duration::from_secs(10);
            let before = cpu_time(balancer.pid());
            sleep(length);
            used.push((cpu_time(balancer.pid()) - before).as_secs_f64() / length.as_secs_f64() * 100.0);
        }
        if let [few, many] = used[..] {
            println!("| {what} | {few:.1} % of a core | {many:.1} % of a core |");
        }
    }
    Ok(())
}

/// A list that is longer than a source may have: the pool keeps its backends.
pub(crate) fn too_long(flags: &Flags) -> Result<(), BoxError> {
    let balancer = Balancer::start(&flags.setup(flags.few, "round_robin", DEFAULT))?;
    let before = resident(balancer.pid());
    balancer.replace_all(TOO_LONG)?;
    let failure = || -> Result<Option<String>, BoxError> {
        Ok(balancer.pool()?.pointer("/sources/0/failure").and_then(Value::as_str).map(str::to_owned))
    };
    balancer.wait_until("the list is rejected", || Ok(failure()?.is_some()))?;
    sleep(Duration::from_secs(3));
    load::run(balancer.address, Until::Requests(1_000))?;
    let grown = resident(balancer.pid()).saturating_sub(before) >> 20;
    println!("{TOO_LONG} backends from a source: {}", failure()?.unwrap_or_default());
    println!("1,000 requests succeeded; the process has grown by {grown} MiB");
    Ok(())
}
