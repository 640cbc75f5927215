//! Runs the configuration tests.

use super::example::{ExampleRequest, Outcome};
use crate::base::fault::{Fault, Faults, Place};
use crate::base::units::PoolName;
use crate::config::{Checked, expectation};
use crate::decision::snapshot::{Route, Snapshot};

/// The failed tests of `checked` in `snapshot`, each with its place and the actual outcome.
#[must_use]
pub fn failures(checked: &Checked, snapshot: &Snapshot) -> Vec<Fault> {
    let mut faults = Faults::default();
    for (index, test) in checked.tests.iter().enumerate() {
        let place = Place::root().key("tests").index(index);
        match example(test) {
            Err(problem) => {
                faults.add(place.key("request"), problem, "write for example `GET https://example.com/api`");
            }
            Ok(example) => {
                let outcome = example.outcome(snapshot, &checked.listeners);
                compare(&test.expect, &outcome, &place.key("expect"), &mut faults);
            }
        }
    }
    faults.into_vec()
}

fn example(test: &expectation::Config) -> Result<ExampleRequest, String> {
    let mut example = ExampleRequest::parse(&test.request)?;
    for (name, value) in &test.headers {
        example = example.with_header(name, value)?;
    }
    Ok(match test.from {
        Some(peer) => example.from(peer),
        None => example,
    })
}

fn compare(expect: &expectation::Expect, outcome: &Outcome, place: &Place, faults: &mut Faults) {
    let rejection = outcome.decision.rejection.map(|rejection| rejection.rejection);
    // A request that l7lb responds to itself is not routed, even if a route matches.
    let local = outcome.local_response();
    let is_forwarded = rejection.is_none() && outcome.own_words().is_none();
    let route = outcome.decision.route.as_ref().filter(|_| is_forwarded);
    let pairs = [
        (
            "route",
            expect.route.as_ref().map(|name| name.as_str().to_owned()),
            route.map(|route| route.name.to_string()),
        ),
        (
            "pool",
            expect.pool.as_ref().map(|name| name.as_str().to_owned()),
            route.map(|route| matched(route, expect.pool.as_ref())),
        ),
        (
            "status",
            expect.status.map(|status| status.to_string()),
            rejection
                .map(|rejection| rejection.status().to_string())
                .or_else(|| Some(local?.status.as_u16().to_string())),
        ),
        (
            "cause",
            expect.cause.clone(),
            rejection.map(|rejection| rejection.cause().to_string()).or_else(|| Some(local?.cause.to_string())),
        ),
    ];
    for (key, expected, real) in pairs {
        if let Some(expected) = expected.filter(|expected| Some(expected) != real.as_ref()) {
            faults.add(place.key(key), format!("expected the {key} `{expected}`, but {}", outcome.words()), CORRECT);
        }
    }
    compare_details(expect, outcome, place, faults);
}

const CORRECT: &str = "run `l7lb explain` for the reason; correct the routes or the test";

/// Compares what filters determine.
fn compare_details(expect: &expectation::Expect, outcome: &Outcome, place: &Place, faults: &mut Faults) {
    let mut compare = |place: Place, what: String, expected: &str, real: Option<String>| {
        if real.as_deref() != Some(expected) {
            let real = real.map_or_else(|| "there is none".to_owned(), |real| format!("it is `{real}`"));
            faults.add(place, format!("expected {what} `{expected}`, but {real}"), CORRECT);
        }
    };
    let response = |name: &str| {
        let (_, headers) = outcome.response.as_ref()?;
        headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    if let Some(location) = &expect.location {
        compare(place.key("location"), "the location".to_owned(), location, response("location"));
    }
    if let Some(body) = &expect.body {
        let real = outcome.local_response().map(|local| String::from_utf8_lossy(&local.body).into_owned());
        compare(place.key("body"), "the body".to_owned(), body, real);
    }
    for (name, value) in &expect.response_headers {
        let what = format!("the response header {name}");
        compare(place.key("response_headers").key(name), what, value, response(name));
    }
    let forwarded = outcome.forwarded();
    if let Some(path) = &expect.path {
        let real =
            forwarded.as_ref().map(|request| request.uri.path_and_query().map_or("/", |it| it.as_str()).to_owned());
        compare(place.key("path"), "the path".to_owned(), path, real);
    }
    if let Some(host) = &expect.host {
        let real = forwarded.as_ref().and_then(|request| super::host(request)).map(str::to_owned);
        compare(place.key("host"), "the host".to_owned(), host, real);
    }
    for (name, value) in &expect.request_headers {
        let real = forwarded.as_ref().and_then(|request| request.headers.get(name));
        let real = real.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let what = format!("the request header {name}");
        compare(place.key("request_headers").key(name), what, value, real);
    }
}

/// The expected pool, if the route uses it; otherwise all its pools.
fn matched(route: &Route, expected: Option<&PoolName>) -> String {
    let expected = expected.filter(|expected| route.targets.iter().any(|target| target.pool.name() == *expected));
    expected.map_or_else(|| pools(route), PoolName::to_string)
}

/// The pools of the route.
pub(super) fn pools(route: &Route) -> String {
    let names: Vec<&str> = route.targets.iter().map(|target| target.pool.name().as_str()).collect();
    names.join(", ")
}

impl Outcome {
    /// The outcome as a clause.
    #[must_use]
    pub fn words(&self) -> String {
        if let (None, Some(own)) = (&self.decision.rejection, self.own_words()) {
            return format!("l7lb responds itself: {own}");
        }
        match (&self.decision.rejection, &self.decision.route) {
            (Some(rejection), _) => {
                let rejected = rejection.rejection;
                let detail =
                    if rejection.detail.is_empty() { String::new() } else { format!(": {}", rejection.detail) };
                format!("it is rejected with {} {}{detail}", rejected.status(), rejected.cause())
            }
            (None, Some(route)) => format!("route `{}` sends it to pool `{}`", route.name, pools(route)),
            (None, None) => "no route matches".to_owned(),
        }
    }
}
