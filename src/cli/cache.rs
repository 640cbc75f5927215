//! `l7lb cache`: what the caches of a running process did, the stored responses, and purges.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;

use super::failure::Failure;
use super::process::ProcessArguments;
use super::table::{self, Table, or_dash};
use crate::base::units::Period;
use crate::cache::StoreKind;
use crate::control::api::cache_purge::{CachePurge, CachePurged};
use crate::control::api::cache_state::{CacheOrder, CacheState, CacheStore, CacheTop};

/// The command for the cache.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    process: ProcessArguments,
}

#[derive(Subcommand)]
enum Action {
    /// Purge stored responses: of a URL, a prefix, a tag, or all.
    Purge(PurgeArguments),
    /// List the largest or most requested stored responses.
    Top(TopArguments),
}

#[derive(Args)]
struct PurgeArguments {
    #[command(flatten)]
    what: What,
    /// The responses become stale: they are validated before they are used again.
    #[arg(long)]
    soft: bool,
    /// Only in this store.
    #[arg(long)]
    store: Option<StoreKind>,
    #[command(flatten)]
    process: ProcessArguments,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The responses to requests for this URL, all variants; without a scheme, those by HTTP and HTTPS.
    #[arg(long)]
    url: Option<String>,
    /// The responses whose URL starts with this, such as `example.com/img/`, or with this path, such as `/img/`.
    #[arg(long, value_name = "URL-OR-PATH")]
    prefix: Option<String>,
    /// The responses with this tag in Cache-Tag or Surrogate-Key.
    #[arg(long)]
    tag: Option<String>,
    /// All responses.
    #[arg(long)]
    all: bool,
}

#[derive(Args)]
struct TopArguments {
    /// Only in this store.
    #[arg(long)]
    store: Option<StoreKind>,
    /// The order.
    #[arg(long, value_enum, default_value_t)]
    by: CacheOrder,
    /// How many.
    #[arg(short, default_value_t = 20)]
    n: usize,
    #[command(flatten)]
    process: ProcessArguments,
}

impl ValueEnum for StoreKind {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.as_str()))
    }
}

impl ValueEnum for CacheOrder {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Size, Self::Hits]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(word(*self)))
    }
}

const fn word(order: CacheOrder) -> &'static str {
    match order {
        CacheOrder::Size => "size",
        CacheOrder::Hits => "hits",
    }
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.action {
        None => state(&arguments.process),
        Some(Action::Purge(arguments)) => purge(arguments),
        Some(Action::Top(arguments)) => top(arguments),
    }
}

fn state(process: &ProcessArguments) -> Result<(), Failure> {
    let response: CacheState = process.client()?.get("/cache")?;
    if process.json {
        return table::json(&response);
    }
    if response.routes.is_empty() && response.stores.is_empty() {
        return table::print("no route has a cache\n");
    }
    let mut routes = Table::new([
        "route",
        "store",
        "hit ratio",
        "requests",
        "hit",
        "stale",
        "revalidated",
        "miss",
        "collapsed",
        "unstored",
        "bypass",
        "only if cached",
        "saved",
        "mean age",
    ]);
    for route in &response.routes {
        let requests = route.requests;
        routes.row([
            route.route.to_string(),
            route.store.to_string(),
            format!("{:.1} %", route.hit_ratio * 100.0),
            requests.total.to_string(),
            requests.hit.to_string(),
            requests.stale.to_string(),
            requests.revalidated.to_string(),
            requests.miss.to_string(),
            requests.collapsed.to_string(),
            requests.unstored.to_string(),
            requests.bypass.to_string(),
            requests.only_if_cached.to_string(),
            bytes(route.bytes_saved),
            Period(Duration::from_secs(route.mean_age)).to_string(),
        ]);
    }
    routes.print()?;
    table::print("\n")?;
    stores(&response.stores).print()
}

fn stores(stores: &[CacheStore]) -> Table {
    let heading = ["store", "bytes", "capacity", "entries", "evictions", "write failures", "purges", "state"];
    let mut table = Table::new(heading);
    for store in stores {
        table.row([
            store.store.to_string(),
            bytes(store.bytes),
            bytes(store.capacity),
            store.entries.to_string(),
            store.evictions.to_string(),
            (store.write_failures + store.paused).to_string(),
            store.purges.to_string(),
            if store.scanning { "reading its folder" } else { "ready" }.to_owned(),
        ]);
    }
    table
}

/// A number of bytes with a unit.
fn bytes(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = UNITS.into_iter().find(|(shift, _)| bytes >> shift > 0);
    // Precise enough for three digits.
    unit.map_or_else(
        || format!("{bytes} B"),
        |(shift, name)| format!("{:.1} {name}", bytes as f64 / (1_u64 << shift) as f64),
    )
}

fn purge(arguments: &PurgeArguments) -> Result<(), Failure> {
    let PurgeArguments { what, soft, store, process } = arguments;
    let What { url, prefix, tag, all } = what;
    let wanted = CachePurge {
        url: url.clone(),
        prefix: prefix.clone(),
        tag: tag.clone(),
        all: *all,
        soft: *soft,
        store: *store,
    };
    let response: CachePurged = process.client()?.send(Method::POST, "/cache/purge", &wanted)?;
    if process.json {
        return table::json(&response);
    }
    let kind = if response.soft { "purged softly" } else { "purged" };
    let mut text: String = response.purged.iter().map(|purged| format!("{kind}: {purged}\n")).collect();
    for store in &response.stores {
        let problem = store.problem.as_ref();
        let problem = problem.map(|why| format!("; this does not survive a restart: {why}")).unwrap_or_default();
        text.push_str(&format!("store {}: responses requested until {}{problem}\n", store.store, store.at));
    }
    table::print(&text)
}

fn top(arguments: &TopArguments) -> Result<(), Failure> {
    let store = arguments.store.map(|store| format!("&store={store}")).unwrap_or_default();
    let path = format!("/cache/top?by={}&n={}{store}", word(arguments.by), arguments.n);
    let response: CacheTop = arguments.process.client()?.get(&path)?;
    if arguments.process.json {
        return table::json(&response);
    }
    let mut table = Table::new(["store", "size", "hits", "variant", "key"]);
    for object in &response.objects {
        table.row([
            object.store.to_string(),
            bytes(object.size),
            object.hits.to_string(),
            or_dash(object.variant.as_ref().and_then(|variant| variant.get(..8))),
            object.key.clone(),
        ]);
    }
    table.print()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_a_unit() {
        for (number, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (5 << 20, "5.0 MiB"),
            (3 << 40, "3.0 TiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }
}
