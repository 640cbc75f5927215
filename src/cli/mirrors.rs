//! `l7lb mirrors`: what happened to the copies of requests.

use super::failure::Failure;
use super::process::ProcessArguments;
use super::table::{self, Table};
use crate::control::api::mirrors::{Mirror, MirroredRoute, Mirrors};

pub(super) fn main(process: &ProcessArguments) -> Result<(), Failure> {
    let response: Mirrors = process.client()?.get("/mirrors")?;
    if process.json {
        return table::json(&response);
    }
    if response.mirrors.is_empty() {
        return table::print("no filter `mirror` is configured\n");
    }
    copies(&response.mirrors).print()
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
