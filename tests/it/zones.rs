//! Zones: requests prefer the backends of the local zone while their capacity suffices.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::lab::client::get;
use crate::lab::load::Load;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port, run};

/// A backend, its zone and its weight.
type Zoned = (Backend, &'static str, u32);

fn start(backends: &[(&str, &'static str, u32)]) -> Vec<Zoned> {
    backends.iter().map(|(name, zone, weight)| (Backend::start(name), *zone, *weight)).collect()
}

/// The configuration of a process in the zone of the environment variable `ZONE`.
fn yaml(port: u16, backends: &[Zoned], pool: &str) -> String {
    let backends = backends.iter().map(|(backend, zone, weight)| {
        format!("{{ address: '127.0.0.1:{}', zone: {zone}, weight: {weight} }}", backend.port)
    });
    format!(
        "server: {{ zone: '${{ZONE:-a}}', threads: 2, upgrade_sock: '{{folder}}/upgrade.sock', \
         pid_file: '{{folder}}/l7lb.pid' }}\n\
         reload: {{ watch: false }}\n\
         listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ p: {{ balance: random, {pool}, health_check: {{ type: http, path: /health, \
         interval: 100ms, unhealthy_interval: 100ms, timeout: 5s, rise: 1, fall: 3 }}, backends: [{}] }} }}\n\
         routes: [{{ path: /, pool: p }}]\n",
        backends.collect::<Vec<_>>().join(", ")
    )
}

/// The share of each backend among 600 requests; all of them get 200.
fn shares(port: u16) -> BTreeMap<String, f64> {
    let mut shares = BTreeMap::new();
    for _ in 0..600 {
        let response = get(port, "/");
        assert_eq!(response.status, 200, "{response:?}");
        *shares.entry(response.header("x-backend").to_owned()).or_default() += 1.0 / 600.0;
    }
    shares
}

fn share(shares: &BTreeMap<String, f64>, zone: &str) -> f64 {
    shares.iter().filter(|(name, _)| name.starts_with(zone)).map(|(_, share)| share).sum()
}

/// Six standard deviations of a share of 600 requests are at most 0.12.
const WITHIN: f64 = 0.12;

#[test]
fn unequal_zones_get_the_shares_of_the_rule() {
    let backends = start(&[("a1", "a", 1), ("b1", "b", 2), ("c1", "c", 4), ("c2", "c", 2)]);
    // The capacities are 1, 2 and 6 of 9, and a fair share is 3.
    let expected = [("a", [1.0 / 3.0, 0.0, 2.0 / 3.0]), ("b", [0.0, 2.0 / 3.0, 1.0 / 3.0]), ("c", [0.0, 0.0, 1.0])];
    let mut load: BTreeMap<String, f64> = BTreeMap::new();
    for (zone, expected) in expected {
        let port = free_port();
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let lab = Lab::start_with(folder, &yaml(port, &backends, "slow_start: 0s"), &[("ZONE", zone)]);
        lab.wait_until_ready();
        eventually("every backend is up", PATIENCE, || is_available(&lab, backends.len()));
        let shares = shares(port);
        for (other, expected) in ["a", "b", "c"].into_iter().zip(expected) {
            let share = share(&shares, other);
            let within = if expected == 0.0 || expected == 1.0 { 1e-6 } else { WITHIN };
            assert!((share - expected).abs() < within, "in zone {zone}, zone {other} gets {share}, not {expected}");
        }
        shares.into_iter().for_each(|(name, share)| *load.entry(name).or_default() += share / 3.0);
    }
    // With the same traffic in each zone, each unit of weight has the same load.
    for (backend, _, weight) in &backends {
        let (load, fair) = (load[backend.name()], f64::from(*weight) / 9.0);
        assert!((load - fair).abs() < WITHIN / 2.0, "{} has the load {load}, not {fair}", backend.name());
    }
}

fn is_available(lab: &Lab, count: usize) -> bool {
    let listed = command(lab, &["backends", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let backends = listed["backends"].as_array().unwrap();
    backends.iter().filter(|backend| backend["available"] == true).count() == count
}

fn command(lab: &Lab, arguments: &[&str]) -> String {
    let file = lab.folder().join("l7lb.yaml");
    let output = run(&[arguments, &["--conf", file.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn failed_local_zone_moves_its_traffic_and_returns_with_slow_start() {
    let mut backends =
        start(&[("a1", "a", 1), ("a2", "a", 1), ("b1", "b", 1), ("b2", "b", 1), ("c1", "c", 1), ("c2", "c", 3)]);
    let port = free_port();
    let lab = Lab::start(&yaml(port, &backends, "slow_start: 5m").replace("weight: 1", "weight: 2"));
    // The capacities are 4, 4 and 5: zone a has less than a fair share of 13 / 3.
    eventually("every backend is up", PATIENCE, || is_available(&lab, 6));
    let kept = 4.0 / (13.0 / 3.0);
    let before = shares(port);
    assert!((share(&before, "a") - kept).abs() < WITHIN, "zone a gets {before:?}, not {kept}");

    let load = Load::start(port, "/", 4, 1);
    load.wait_for_more(100);
    backends[..2].iter_mut().for_each(|(backend, _, _)| backend.kill());
    for (backend, _, _) in &backends[..2] {
        lab.wait_for_log(&format!("backend down: pool=p backend=127.0.0.1:{}", backend.port));
    }
    load.wait_for_more(100);
    // Capacities 0, 4 and 5; a fair share is 3, so zones b and c get 1 : 2.
    eventually("shares are computed again", PATIENCE, || {
        let moved = shares(port);
        share(&moved, "a") == 0.0 && (share(&moved, "b") - 1.0 / 3.0).abs() < WITHIN
    });

    backends[..2].iter_mut().for_each(|(backend, _, _)| backend.restart());
    eventually("every backend is up", PATIENCE, || is_available(&lab, 6));
    eventually("the local zone gets requests", PATIENCE, || get(port, "/").header("x-backend").starts_with('a'));
    let returning = share(&shares(port), "a");
    assert!(returning > 0.0 && returning < 0.5, "slow start of five minutes is not over: {returning}");

    Lab::configure(lab.folder(), &yaml(port, &backends, "slow_start: 0s"));
    command(&lab, &["reload"]);
    // Capacities 2, 2 and 4: a fair share is 8 / 3.
    let returned = share(&shares(port), "a");
    assert!((returned - 0.75).abs() < WITHIN, "{returned}");
    let report = load.stop();
    assert_eq!(report.failed, Vec::<String>::new());
    assert_eq!(report.statuses.keys().copied().collect::<Vec<_>>(), [200], "{report:?}");
}

#[test]
fn commands_show_zones_and_explain_the_preference() {
    let backends = start(&[("a1", "a", 1), ("b1", "b", 3)]);
    let port = free_port();
    let yaml = yaml(port, &backends, "slow_start: 0s");
    let lab = Lab::start(&yaml);
    eventually("every backend is up", PATIENCE, || is_available(&lab, 2));
    let listed = command(&lab, &["backends"]);
    assert!(listed.lines().nth(1).unwrap().contains("  a     1  "), "{listed}");
    let explained = command(&lab, &["explain", "--live", &format!("http://localhost:{port}/")]);
    let sentence =
        "zone a is local and gets 50 %: its capacity of 1 is less than a fair share of 2 (4 in 2 zones); b gets 50 %";
    assert!(explained.contains(sentence), "{explained}");
    let listed = command(&lab, &["pools"]);
    assert!(listed.contains("p     a (local)  1         1         50 %"), "{listed}");
    assert!(listed.contains("p     b          1         3         50 %"), "{listed}");
    let pools: Value = serde_json::from_str(&command(&lab, &["pools", "--json"])).unwrap();
    let zones = &pools["pools"][0]["zones"];
    assert_eq!((zones["local"].as_str(), zones["zones"][1]["share"].as_f64()), (Some("a"), Some(0.5)), "{pools:#}");

    Lab::configure(lab.folder(), &yaml.replace("ZONE:-a", "ZONE:-b").replace("zone: a,", "zone: c,"));
    let file = lab.folder().join("l7lb.yaml");
    let planned = run(&["plan", file.to_str().unwrap(), "--conf", file.to_str().unwrap()]);
    let planned = String::from_utf8_lossy(&planned.stdout).into_owned();
    assert!(planned.contains(&format!("`zone` of 127.0.0.1:{} a → c", backends[0].0.port)), "{planned}");
    assert!(planned.contains("`server.zone` changed"), "{planned}");
    command(&lab, &["reload"]);
    let shares = shares(port);
    assert!((share(&shares, "b") - 1.0).abs() < 1e-6, "the local zone has more than a fair share: {shares:?}");
}
