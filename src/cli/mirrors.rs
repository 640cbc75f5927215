//! `l7lb mirrors`: what happened to the copies of requests.

use super::failure::Failure;
use super::process::ProcessArguments;
use super::table::{self, Table};
use crate::control::api::mirrors::{Mirror, MirrorComparison, MirroredRoute, Mirrors};

pub(super) fn main(process: &ProcessArguments) -> Result<(), Failure> {
    let response: Mirrors = process.client()?.get("/mirrors")?;
    if process.json {
        return table::json(&response);
    }
    if response.mirrors.is_empty() {
        return table::print("no filter `mirror` is configured\n");
    }
    copies(&response.mirrors).print()?;
    match comparisons(&response.mirrors) {
        Some(table) => {
            table::print("\n")?;
            table.print()
        }
        None => Ok(()),
    }
}

/// How responses to copies compare, a row for each filter and route; `None` if no filter compares.
fn comparisons(mirrors: &[Mirror]) -> Option<Table> {
    let heading = [
        "filter of",
        "route",
        "pool",
        "equal",
        "different",
        "unpaired",
        "differences",
        "p50",
        "copy p50",
        "p99",
        "copy p99",
    ];
    let mut table = Table::new(heading);
    let mut compares = false;
    for mirror in mirrors {
        for route in &mirror.routes {
            let Some(comparison) = &route.comparison else { continue };
            compares = true;
            let MirrorComparison { equal, different, unpaired, original, copy, .. } = comparison;
            table.row([
                mirror.place.clone(),
                route.route.to_string(),
                mirror.pool.to_string(),
                equal.to_string(),
                different.to_string(),
                unpaired.to_string(),
                differences(comparison),
                latency(original.p50_ms),
                latency(copy.p50_ms),
                latency(original.p99_ms),
                latency(copy.p99_ms),
            ]);
        }
    }
    compares.then_some(table)
}

/// The most frequent pairs of different status codes.
fn differences(comparison: &MirrorComparison) -> String {
    let different = comparison.pairs.iter().filter(|pair| pair.status != pair.copy_status);
    let words: Vec<String> =
        different.take(4).map(|pair| format!("{} → {}: {}", pair.status, pair.copy_status, pair.requests)).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

fn latency(millis: Option<f64>) -> String {
    millis.map_or_else(|| "-".to_owned(), |millis| format!("{millis:.1} ms"))
}

/// What happened to the copies, a row for each filter and route.
fn copies(mirrors: &[Mirror]) -> Table {
    let mut table = Table::new([
        "filter of",
        "route",
        "pool",
        "share",
        "sent",
        "too many",
        "body too large",
        "body incomplete",
        "statuses",
        "failures",
    ]);
    for mirror in mirrors {
        if mirror.routes.is_empty() {
            let nothing = [(); 6].map(|()| "-".to_owned());
            row(&mut table, mirror, "-", nothing);
        }
        for route in &mirror.routes {
            let MirroredRoute { sent, dropped, statuses, failures, .. } = route;
            let statuses: Vec<String> = statuses.iter().map(|one| format!("{}: {}", one.status, one.copies)).collect();
            let failures: Vec<String> = failures.iter().map(|one| format!("{}: {}", one.cause, one.copies)).collect();
            let or_dash = |list: &[String]| if list.is_empty() { "-".to_owned() } else { list.join(", ") };
            let cells = [
                sent.to_string(),
                dropped.too_many.to_string(),
                dropped.body_too_large.to_string(),
                dropped.body_incomplete.to_string(),
                or_dash(&statuses),
                or_dash(&failures),
            ];
            row(&mut table, mirror, route.route.as_str(), cells);
        }
    }
    table
}

fn row(table: &mut Table, mirror: &Mirror, route: &str, [a, b, c, d, e, f]: [String; 6]) {
    let (pool, share) = (mirror.pool.to_string(), mirror.share.clone());
    table.row([mirror.place.clone(), route.to_owned(), pool, share, a, b, c, d, e, f]);
}
