//! Conformance of the real binary to RFC 9111 and the RFCs around it, as tables of exchanges.
//!
//! A file in `cases/` has cases of this form; ` | ` separates fields, `#` starts a comment line:
//!
//! ```text
//! @ default                                  the route of the cases below, see `ROUTES`
//! == 9111/4.3.1 | ETag becomes If-None-Match the section and the name
//! GET ?a=1 | Accept: text/html               a request; its path is /ROUTE/NUMBER, `?a=1` is appended
//! < 200 | ETag: "a" | Cache-Control: no-cache   the origin's response; flags are in `table::FLAGS`
//! wait 2s
//! GET ?a=1
//! > If-None-Match: "a" | !Range              what the origin receives
//! < 304 | ETag: "a"
//! = 200 body=#1 | Age<=1 | X~part | !Y       what the client receives: `#1` is the body of the first response
//! ```
//!
//! Without `<` the request must not reach the origin, and the response must be from the cache. `<~` is the response to
//! a request that l7lb sends by itself, after the client's response, and `<+` the one to a second request. The default of `=` is the response of the origin,
//! or the last stored one. `{now-60}` is a date, `{start-60}` one relative to the start of the case; see `fields`.
//!
//! `+ SECTION | name | fields` is a case of two GET of which the second must be from the cache; with `-` it must reach
//! the origin. `?? why` marks the next case as not implemented: it must fail, so that the list stays true.
//! `L7LB_CASES=part` runs the cases whose name or section contains the part.

mod exchange;
mod fields;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use exchange::{Slot, Slots, Turns};
use table::Case;

use super::origin::Origin;
use crate::lab::{Lab, free_port};

const FILES: [(&str, &str); 8] = [
    ("storing", include_str!("cases/storing.txt")),
    ("freshness", include_str!("cases/freshness.txt")),
    ("requests", include_str!("cases/requests.txt")),
    ("keys", include_str!("cases/keys.txt")),
    ("validation", include_str!("cases/validation.txt")),
    ("ranges", include_str!("cases/ranges.txt")),
    ("invalidation", include_str!("cases/invalidation.txt")),
    ("stale", include_str!("cases/stale.txt")),
];

/// The routes and their keys in `cache`.
const ROUTES: [(&str, &str); 22] = [
    ("default", ""),
    ("ttl", "default_ttl: 60s, negative_ttl: 2s"),
    ("heuristic", "heuristic: true"),
    ("bounded", "max_ttl: 4s"),
    ("stale", "stale_while_revalidate: 60s"),
    ("errors", "stale_if_error: 60s"),
    ("cookies", "set_cookie: strip"),
    ("strict", "stale_if_error: 0s"),
    ("ignoring", "client_directives: false"),
    ("small", "max_object_size: 1KiB"),
    ("twice", "minimum_uses: 2"),
    ("get", "methods: [GET]"),
    ("quiet", "status_header: false"),
    ("sorted", "key: { query: sorted }"),
    ("tracking", "key: { query: without_tracking }"),
    ("only", "key: { query: only, parameters: [a] }"),
    ("noquery", "key: { query: none }"),
    ("anyhost", "key: { host: false }"),
    ("keyheader", "key: { headers: [X-Device] }"),
    ("keycookie", "key: { cookies: [lang] }"),
    ("bypass", "bypass: { headers: [X-Bypass], cookies: [session], query: [preview] }"),
    ("statuses", "default_ttl: 60s, statuses: [200, 404]"),
];

fn cases() -> Vec<Case> {
    let filter = std::env::var("L7LB_CASES").unwrap_or_default();
    let mut cases: Vec<Case> = FILES.iter().flat_map(|(file, text)| table::parse(file, text)).collect();
    for (number, case) in cases.iter_mut().enumerate() {
        assert!(ROUTES.iter().any(|(route, _)| *route == case.route), "unknown route in {case:?}");
        case.number = number;
    }
    cases.retain(|case| case.name.contains(&filter) || case.section.contains(&filter));
    cases
}

/// Runs all cases at once against one l7lb. The result of each case is what went wrong, if anything.
fn run(cases: &[Case], is_cached: bool) -> Vec<(Case, Result<(), String>)> {
    let slots: Slots =
        Arc::new(cases.iter().map(|case| (case.number, Mutex::new(Slot::default()))).collect::<HashMap<_, _>>());
    let known = Arc::clone(&slots);
    let origin = Origin::start(move |request, stream| exchange::respond(&known, request, stream));
    let port = free_port();
    let routes: String = ROUTES
        .iter()
        .map(|(name, keys)| {
            let status = if keys.contains("status_header") { "" } else { "status_header: true, " };
            let keys = super::with_store(&format!("{status}{keys}"));
            let cache = if is_cached { format!(", cache: {{ {keys} }}") } else { String::new() };
            format!("  - {{ path: /{name}, pool: a, retry: {{ attempts: 1 }}{cache} }}\n")
        })
        .collect();
    let lab = Lab::start(&super::configuration(port, origin.port, &routes));
    let turns = Arc::new(Turns::new(48));
    let running: Vec<_> = cases
        .iter()
        .map(|case| {
            let (case, slots, turns) = (case.clone(), Arc::clone(&slots), Arc::clone(&turns));
            std::thread::spawn(move || {
                let result = exchange::run(&case, &slots[&case.number], port, &turns);
                (case, result)
            })
        })
        .collect();
    let results = running.into_iter().map(|thread| thread.join().unwrap()).collect();
    let log = lab.log();
    let problems: Vec<&str> = log.lines().filter(|line| line.contains("panicked") || line.contains("ERROR")).collect();
    assert!(problems.is_empty(), "{problems:#?}\n{log}");
    results
}

#[test]
fn cache_conforms_to_the_rfcs() {
    let cases = cases();
    let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut failed = Vec::new();
    for (case, result) in run(&cases, true) {
        let title = format!("{}: RFC {} {}", case.file, case.section, case.name);
        match (&case.not_implemented, result) {
            (None, Ok(())) => {}
            (None, Err(why)) => failed.push(format!("{title}\n{why}")),
            (Some(why), Err(_)) => missing.entry(case.section).or_default().push(format!("{}: {why}", case.name)),
            (Some(_), Ok(())) => failed.push(format!("{title}\n    is marked as not implemented, but passes")),
        }
    }
    eprintln!("{} cases; not implemented:", cases.len());
    for (section, names) in missing {
        eprintln!("  RFC {section}\n    {}", names.join("\n    "));
    }
    assert!(failed.is_empty(), "{} of {} cases fail:\n\n{}", failed.len(), cases.len(), failed.join("\n\n"));
}

#[test]
fn table_has_every_section_and_no_case_twice() {
    if std::env::var("L7LB_CASES").is_ok() {
        return;
    }
    let cases = cases();
    assert!(cases.len() >= 200, "{} cases", cases.len());
    let mut names: Vec<_> = cases.iter().map(|case| (&case.section, &case.name)).collect();
    names.sort();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "{twice:?}");
    for section in ["9111/3", "9111/4.2", "9111/4.3", "9111/4.4", "9110/13", "9110/14", "9211", "5861", "8246", "9213"]
    {
        assert!(cases.iter().any(|case| case.section.starts_with(section)), "no case of {section}");
    }
}

/// The harness itself: without `cache`, a case that expects a stored response fails.
#[test]
fn case_that_expects_a_stored_response_fails_without_a_cache() {
    let mut cases = cases();
    cases.retain(|case| case.expects_stored_response() && case.not_implemented.is_none());
    let passed: Vec<String> =
        run(&cases, false).into_iter().filter(|(_, result)| result.is_ok()).map(|(case, _)| case.name).collect();
    assert!(passed.is_empty(), "{passed:?}");
}
