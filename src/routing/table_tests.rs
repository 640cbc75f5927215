//! The table as a whole: duplicates, iteration, similar routes and the cost of long paths.

use std::time::{Duration, Instant};

use http::Method;

use super::rule_tests::{assert_route, matcher, table};
use super::{Duplicate, Table};

fn duplicates(texts: &[&str]) -> Vec<(usize, usize)> {
    match Table::build(texts.iter().map(|text| (matcher(text), ()))) {
        Ok(_) => Vec::new(),
        Err(found) => found.iter().map(|pair| (pair.first, pair.second)).collect(),
    }
}

#[test]
fn duplicates_are_reported_in_pairs() {
    assert_eq!(duplicates(&["* a /p", "* * /p", "* *.a /p", "* a =/p", "GET a /p"]), []);
    assert_eq!(duplicates(&["* a =/p", "* a =/p/", "GET a /q", "POST,PUT a /q"]), []);
    assert_eq!(duplicates(&["* a /p", "* A. /p/", "* a /p"]), [(0, 1), (0, 2)]);
    assert_eq!(duplicates(&["* *.a /", "* * /", "* *.A /", "* * /"]), [(0, 2), (1, 3)]);
    assert_eq!(duplicates(&["GET a /", "PUT a /", "GET,POST,PUT a /"]), [(0, 2), (1, 2)]);
    assert_eq!(duplicates(&["GET,PUT a /", "PUT,GET a /"]), [(0, 1)]);
    let found = Table::build(["* a /p", "* a /p/"].map(|text| (matcher(text), ()))).unwrap_err();
    let pair = Duplicate { first: 0, second: 1, matcher: "a/p/".to_owned(), partial: false };
    assert!(pair.to_string().contains("route 1 (a/p/) matches the same requests as route 0"));
    assert_eq!(found, [pair]);
}

#[test]
fn routes_are_iterated_in_their_original_order() {
    let texts = ["* b /", "* a /", "* * =/c"];
    let table = table(&texts);
    assert_eq!(table.iter().map(|(_, text)| *text).collect::<Vec<_>>(), texts);
    assert!(table.iter().all(|(built, text)| *built == matcher(text)));
    assert_eq!((table.len(), table.is_empty()), (3, false));
    let empty = Table::<()>::build([]).unwrap();
    assert!(empty.is_empty() && empty.find(None, "/", &Method::GET).is_none());
}

#[test]
fn nearest_returns_the_closest_routes_of_the_host() {
    let table = table(&["* a /users", "* a /orders/v1", "* b /user", "POST * /status", "* * /z"]);
    assert_eq!(table.nearest(Some("a"), "/usesr"), ["a/users"]);
    assert_eq!(table.nearest(Some("a"), "/orders"), ["a/orders/v1"]);
    assert_eq!(table.nearest(Some("a"), "/STATUS/x"), ["POST */status"]);
    assert_eq!(table.nearest(None, "/status"), ["POST */status"]);
    assert!(table.nearest(None, "/qqq").is_empty());
    assert_eq!(table.nearest(Some("a"), "/").len(), 3);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test is about elapsed time")]
fn long_path_of_slashes_costs_linear_time() {
    let deep: &'static str = Box::leak(format!("* * {}", "/a".repeat(4_000)).into_boxed_str());
    let table = table(&["* * /", "* * /a", deep]);
    let (slashes, below) = ("/".repeat(4_000) + &"x".repeat(4_192), "/a".repeat(4_096));
    let start = Instant::now();
    for _ in 0..10 {
        assert_route(&table, "a", &slashes, Some("* * /"));
        assert_route(&table, "a", &below, Some(deep));
        assert_route(&table, "a", &below[..7_998], Some("* * /a"));
    }
    table.nearest(Some("a"), &below);
    // Even unoptimised on a busy machine 160,000 steps take a small fraction of this; quadratic time would take
    // hundreds of times longer.
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}
