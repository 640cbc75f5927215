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
    let route = outcome.decision.route.as_ref().filter(|_| rejection.is_none() && outcome.own_response.is_none());
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
            rejection.map(|rejection| rejection.status().to_string()),
        ),
        ("cause", expect.cause.clone(), rejection.map(|rejection| rejection.cause().to_owned())),
    ];
    for (key, expected, real) in pairs {
        if let Some(expected) = expected.filter(|expected| Some(expected) != real.as_ref()) {
            faults.add(
                place.key(key),
                format!("expected the {key} `{expected}`, but {}", outcome.words()),
                "run `l7lb explain` for the reason; correct the routes or the test",
            );
        }
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
        if let Some(own) = self.own_response {
            return format!("l7lb responds itself: {}", own.words());
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
