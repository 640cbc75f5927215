//! Why a request goes where it goes: each route, and why it lost.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use pingora_http::RequestHeader;
use serde_json::{Value, json};

use super::example::Outcome;
use super::expectations::pools;
use super::host;
use crate::config::Checked;
use crate::route::{HostPattern, Matcher, Methods, PathPattern, Table};
use crate::snapshot::{Route, Snapshot};

/// What became of one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It takes the request.
    Takes,
    /// It is for another host.
    Host,
    /// Its path is not a prefix of the request's on whole segments.
    Path,
    /// It is for other methods.
    Method,
    /// It fits, but the host of the one that takes the request is more specific.
    HostLessSpecific,
    /// It fits, but the path of the one that takes the request is.
    PathLessSpecific,
    /// It fits, but the one that takes the request lists its method.
    MethodLessSpecific,
    /// It fits, but the request was refused before routes were asked.
    NotAsked,
}

impl Verdict {
    fn words(self) -> &'static str {
        match self {
            Self::Takes => "takes it",
            Self::Host => "lost: another host",
            Self::Path => "lost: another path",
            Self::Method => "lost: another method",
            Self::HostLessSpecific => "lost: fits, but its host is less specific",
            Self::PathLessSpecific => "lost: fits, but its path is less specific",
            Self::MethodLessSpecific => "lost: fits, but does not list the method",
            Self::NotAsked => "not asked: refused before",
        }
    }
}

/// One route that was considered.
pub struct Considered {
    /// Its name.
    pub name: String,
    /// What it takes, in one line.
    pub matcher: String,
    /// What became of it.
    pub verdict: Verdict,
}

/// All there is to say about where a request goes.
pub struct Explanation<'a> {
    /// What becomes of it.
    pub outcome: Outcome,
    /// The routes in the order of the file.
    pub considered: Vec<Considered>,
    checked: &'a Checked,
}

impl<'a> Explanation<'a> {
    /// Looks at every route of the snapshot, which was made from `checked`.
    #[must_use]
    pub fn new(outcome: Outcome, snapshot: &Snapshot, checked: &'a Checked) -> Self {
        let taken = outcome.decision.route.as_ref();
        let takes = |route: &Arc<Route>| taken.is_some_and(|taken| Arc::ptr_eq(taken, route));
        let winner = snapshot.routes.iter().find(|(_, route)| takes(route)).map(|(matcher, _)| matcher);
        let verdict = |matcher: &Matcher, route: &Arc<Route>| match &outcome.request {
            _ if takes(route) => Verdict::Takes,
            None => Verdict::NotAsked,
            Some(request) => misfit(matcher, request).unwrap_or_else(|| match winner {
                None => Verdict::NotAsked,
                // Host beats path beats method; see `crate::route`.
                Some(winner) if winner.host != matcher.host => Verdict::HostLessSpecific,
                Some(winner) if winner.path != matcher.path => Verdict::PathLessSpecific,
                Some(_) => Verdict::MethodLessSpecific,
            }),
        };
        let considered = snapshot.routes.iter().map(|(matcher, route)| Considered {
            name: route.name.to_string(),
            matcher: matcher.to_string(),
            verdict: verdict(matcher, route),
        });
        Self { considered: considered.collect(), outcome, checked }
    }

    /// The same for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let refusal = self.outcome.decision.refusal;
        let route = self.outcome.decision.route.as_ref();
        let routes = self.considered.iter().map(|considered| {
            json!({
                "name": considered.name,
                "matcher": considered.matcher,
                "takes": considered.verdict == Verdict::Takes,
                "why": considered.verdict.words(),
            })
        });
        let backends = route.map_or_else(Vec::new, |route| self.backends(route));
        json!({
            "client": self.outcome.client.to_string(),
            "path": self.path(),
            "routes": routes.collect::<Vec<_>>(),
            "route": route.map(|route| route.name.as_str()),
            "pool": route.map(|route| pools(route)),
            "backends": backends.iter().map(|(address, weight)| json!({ "address": address, "weight": weight })).collect::<Vec<_>>(),
            "limits": self.outcome.limits.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "status": refusal.map(|refusal| refusal.rejection.status()),
            "cause": refusal.map(|refusal| refusal.rejection.cause()),
            "detail": refusal.map(|refusal| refusal.detail).unwrap_or_default(),
        })
    }

    fn path(&self) -> Option<&str> {
        self.outcome.request.as_ref().map(|request| request.uri.path())
    }

    fn backends(&self, route: &Route) -> Vec<(String, u32)> {
        let pools = route.targets.iter().filter_map(|target| self.checked.pools.get(target.pool.name()));
        let members = pools.flat_map(|pool| &pool.members);
        members.map(|member| (member.target.to_string(), member.weight)).collect()
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "client   {}", self.outcome.client)?;
        writeln!(f, "path     {}", self.path().unwrap_or("-"))?;
        writeln!(f, "routes")?;
        let width = self.considered.iter().map(|route| route.name.chars().count()).max().unwrap_or_default();
        for Considered { name, matcher, verdict } in &self.considered {
            let matcher = if name == matcher { String::new() } else { format!("  ({matcher})") };
            writeln!(f, "  {name:width$}  {}{matcher}", verdict.words())?;
        }
        let mut limits = String::new();
        for (index, limit) in self.outcome.limits.iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            write!(limits, "{comma}{limit}")?;
        }
        writeln!(f, "limits   {}", if limits.is_empty() { "none" } else { &limits })?;
        if let (Some(route), None) = (&self.outcome.decision.route, &self.outcome.decision.refusal) {
            writeln!(f, "pool     {}", pools(route))?;
            for (address, weight) in self.backends(route) {
                writeln!(f, "  {address}  weight {weight}")?;
            }
        }
        writeln!(f, "outcome  {}", self.outcome.words())
    }
}

/// Why the matcher does not fit the request. A table of one route says so for each part alone, so
/// this cannot disagree with the table that serves traffic.
fn misfit(matcher: &Matcher, request: &RequestHeader) -> Option<Verdict> {
    let root = PathPattern::new("/", false).ok()?;
    let any = Matcher { host: HostPattern::Any, path: root, methods: Methods::any() };
    let parts = [
        (Matcher { host: matcher.host.clone(), ..any.clone() }, Verdict::Host),
        (Matcher { path: matcher.path.clone(), ..any.clone() }, Verdict::Path),
        (Matcher { methods: matcher.methods.clone(), ..any }, Verdict::Method),
    ];
    parts.into_iter().find_map(|(part, verdict)| {
        let table = Table::build([(part, ())]).ok()?;
        table.find(host(request), request.uri.path(), &request.method).is_none().then_some(verdict)
    })
}
