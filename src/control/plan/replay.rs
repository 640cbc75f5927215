//! Replays recorded requests with two configurations: how many would have another outcome, and which.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::replay_side::{Destination, ReplaySide, RequestOutcome};
use crate::decision::snapshot::Snapshot;
use crate::http::client_address::ClientKey;
use crate::observe::recent_requests::RecordedRequest;
use crate::routing::affinity::{AffinityMethod, HashSource};
use crate::routing::conditions::Source;

/// The number of samples for each entry.
const SAMPLES: usize = 5;
/// The number of moves shown as text.
const SHOWN: usize = 20;
/// Probabilities that differ by less are equal; the rest is rounding.
const EPSILON: f64 = 1e-9;

/// The outcome of recent requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Replay {
    /// The number of replayed requests.
    pub requests: usize,
    /// The time span of these requests in seconds.
    pub seconds: f64,
    /// The share that would have another outcome, from 0 to 1: another pool, or another response of l7lb
    /// itself.
    pub moved: f64,
    /// The moves, largest first.
    pub moves: Vec<Move>,
    /// Clients that would newly exceed a limit.
    pub newly_limited: Clients,
    /// Clients that would no longer exceed a limit.
    pub no_longer_limited: Clients,
    /// Limitations of these figures.
    pub notes: Vec<String>,
}

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    /// It goes to this pool.
    Pool(String),
    /// It is rejected.
    Rejected {
        /// The HTTP status code.
        status: u16,
        /// The cause, as in the access log.
        cause: String,
    },
}

/// Requests with another outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Move {
    /// The current outcome.
    pub from: OutcomeKind,
    /// The new outcome.
    pub to: OutcomeKind,
    /// Their share of all requests, from 0 to 1.
    pub share: f64,
    /// Their number; an expected value if selection is random.
    pub requests: f64,
    /// Examples.
    pub samples: Vec<Sample>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// Its method.
    pub method: String,
    /// The requested host.
    pub host: Option<String>,
    /// Its path.
    pub path: String,
    /// The client address.
    pub client: IpAddr,
}

/// A set of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Clients {
    /// Their number.
    pub count: usize,
    /// Examples.
    pub samples: Vec<IpAddr>,
}

/// Replays the requests, which are ordered by time, with both configurations. `now` determines their age.
#[must_use]
pub fn replay<'a>(
    before: &Snapshot,
    after: &Snapshot,
    requests: impl IntoIterator<Item = RecordedRequest<'a>>,
    now: Instant,
) -> Replay {
    let mut requests = requests.into_iter().peekable();
    let Some(begin) = requests.peek().map(|recorded| recorded.key.at) else { return Replay::default() };
    let (mut old, mut new) = (ReplaySide::new(before, begin), ReplaySide::new(after, begin));
    let mut tally = Tally::default();
    for recorded in requests {
        let was = old.decide(&recorded, None);
        let is = new.decide(&recorded, Some(&was));
        tally.add(&recorded, &was, &is);
    }
    tally.finish(now.saturating_duration_since(begin), notes(before, after))
}

/// The counts so far.
#[derive(Default)]
struct Tally {
    requests: usize,
    path_truncated: usize,
    moves: BTreeMap<(Destination, Destination), (f64, Vec<Sample>)>,
    /// The address of each limited client, and which configuration limits it.
    limited: HashMap<ClientKey, (IpAddr, bool, bool)>,
}

impl Tally {
    fn add(&mut self, recorded: &RecordedRequest<'_>, was: &RequestOutcome, is: &RequestOutcome) {
        self.requests += 1;
        self.path_truncated += usize::from(recorded.path_truncated);
        if was.limited || is.limited {
            let client = recorded.key.client;
            let limited = self.limited.entry(client.into()).or_insert((client, false, false));
            (limited.1, limited.2) = (limited.1 || was.limited, limited.2 || is.limited);
        }
        for (from, to, chance) in moves(&was.destinations, &is.destinations) {
            let (sum, samples) = self.moves.entry((from, to)).or_default();
            *sum += chance;
            let known = |sample: &Sample| {
                sample.path == recorded.key.path
                    && sample.method == recorded.key.method
                    && sample.host.as_deref() == recorded.key.host
            };
            if samples.len() < SAMPLES && !samples.iter().any(known) {
                samples.push(Sample::of(recorded));
            }
        }
    }

    fn finish(self, age: Duration, mut notes: Vec<String>) -> Replay {
        let all = self.requests.max(1) as f64;
        let finish = |((from, to), (requests, samples)): ((Destination, Destination), (f64, Vec<Sample>))| Move {
            from: from.into(),
            to: to.into(),
            share: rounded(requests / all),
            requests: rounded(requests),
            samples,
        };
        let mut moves: Vec<Move> = self.moves.into_iter().map(finish).collect();
        moves.sort_by(|a, b| b.requests.total_cmp(&a.requests));
        if self.path_truncated > 0 {
            notes.push(format!("{} paths were truncated because they were too long", self.path_truncated));
        }
        let clients = |wanted: fn(bool, bool) -> bool| {
            let mut found: Vec<IpAddr> =
                self.limited.values().filter(|(_, was, is)| wanted(*was, *is)).map(|(client, ..)| *client).collect();
            found.sort_unstable();
            Clients { count: found.len(), samples: found.into_iter().take(SAMPLES).collect() }
        };
        Replay {
            requests: self.requests,
            seconds: age.as_secs_f64(),
            moved: rounded(moves.iter().map(|one| one.share).sum()),
            moves,
            newly_limited: clients(|was, is| is && !was),
            no_longer_limited: clients(|was, is| was && !is),
            notes,
        }
    }
}

/// The smallest moves that turn one distribution into the other: what a destination loses is divided among the
/// destinations that gain, in proportion to their gains.
fn moves(was: &[(Destination, f64)], is: &[(Destination, f64)]) -> Vec<(Destination, Destination, f64)> {
    let chance = |destinations: &[(Destination, f64)], wanted: &Destination| {
        destinations.iter().filter(|(destination, _)| destination == wanted).map(|(_, chance)| chance).sum::<f64>()
    };
    let surplus = |some: &[(Destination, f64)], others: &[(Destination, f64)]| {
        let mut surplus: Vec<(Destination, f64)> = Vec::new();
        for (place, _) in some {
            let more = chance(some, place) - chance(others, place);
            if more > EPSILON && !surplus.iter().any(|(known, _)| known == place) {
                surplus.push((place.clone(), more));
            }
        }
        surplus
    };
    let (losers, winners) = (surplus(was, is), surplus(is, was));
    let total: f64 = winners.iter().map(|(_, more)| more).sum();
    let pairs = losers.iter().flat_map(|loser| winners.iter().map(move |winner| (loser, winner)));
    pairs.map(|((from, less), (to, more))| (from.clone(), to.clone(), less * more / total)).collect()
}

/// Differences that cannot be replayed, and figures with limited accuracy.
fn notes(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let mut notes = Vec::new();
    if before.trusted_proxies != after.trusted_proxies {
        notes.push(
            "`trusted_proxies` differ; the replay uses the recorded client addresses for both configurations"
                .to_owned(),
        );
    }
    let sizes = |snapshot: &Snapshot| {
        let limits = snapshot.request_limits;
        (limits.header_size, limits.header_count, limits.target_size)
    };
    if sizes(before) != sizes(after) {
        notes.push("`request_limits` differ; sizes of headers and targets are not recorded".to_owned());
    }
    for (_, route) in after.routes.iter().filter(|(_, route)| !route.targets.is_single()) {
        let needed = match route.sticky.as_ref().map(|sticky| &sticky.method) {
            Some(AffinityMethod::Hash(HashSource::Header(name))) => name.clone(),
            Some(AffinityMethod::Hash(HashSource::Cookie(_))) => http::header::COOKIE,
            _ => continue,
        };
        if !before.recent_requests.headers.contains(&needed) {
            let name = &route.name;
            notes.push(format!(
                "route `{name}` selects the pool by header `{needed}`, which is not listed in `recent_requests.headers`; \
                 its requests are divided by the weights of its pools"
            ));
        }
    }
    notes.extend(unknown_conditions(before, after));
    notes
}

/// Conditions of routes on parts of a request that are not recorded; they see a request without that part.
fn unknown_conditions(before: &Snapshot, after: &Snapshot) -> BTreeSet<String> {
    let recorded = &before.recent_requests.headers;
    let routes = before.routes.iter().chain(after.routes.iter());
    let unknown = routes.flat_map(|(matcher, route)| {
        let unknown = matcher.conditions.named.iter().map(|one| &one.source).filter(|source| match source {
            Source::Header(name) => !recorded.contains(name),
            Source::Cookie(_) => !recorded.contains(&http::header::COOKIE),
            Source::Query(_) => true,
        });
        unknown.map(|source| {
            let remedy = match source {
                Source::Query(_) => "queries are not recorded",
                _ => "which is not listed in `recent_requests.headers`",
            };
            format!("route `{}` has a condition on {source}; {remedy}, so the replay sees none", route.name)
        })
    });
    unknown.collect()
}

impl Sample {
    fn of(recorded: &RecordedRequest<'_>) -> Self {
        let key = &recorded.key;
        Self {
            method: key.method.to_owned(),
            host: key.host.map(str::to_owned),
            path: key.path.to_owned(),
            client: key.client,
        }
    }
}

impl From<Destination> for OutcomeKind {
    fn from(destination: Destination) -> Self {
        match destination {
            Destination::Pool(name) => Self::Pool(name.into()),
            Destination::Rejected(status, cause) => Self::Rejected { status, cause: cause.to_string() },
        }
    }
}

impl fmt::Display for OutcomeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(name) => write!(f, "pool {name}"),
            Self::Rejected { status, cause } => write!(f, "{status} {cause}"),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.method, self.host.as_deref().unwrap_or("-"), self.path)
    }
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requests == 0 {
            return writeln!(f, "requests\n  no recent requests are kept, so none was replayed");
        }
        let age = humantime::format_duration(Duration::from_secs((self.seconds.ceil() as u64).max(1)));
        writeln!(f, "the last {} requests, from the past {age}", self.requests)?;
        if self.moves.is_empty() {
            writeln!(f, "  all would have the same outcome")?;
        } else {
            writeln!(f, "  {} would have another outcome", percent(self.moved))?;
        }
        for one in self.moves.iter().take(SHOWN) {
            writeln!(f, "  {:>7}  from {} to {}", percent(one.share), one.from, one.to)?;
            for sample in one.samples.iter().take(2) {
                writeln!(f, "             {sample}  (client {})", sample.client)?;
            }
        }
        if self.moves.len() > SHOWN {
            writeln!(f, "           and {} smaller moves", self.moves.len() - SHOWN)?;
        }
        for (clients, what) in
            [(&self.newly_limited, "would now be limited"), (&self.no_longer_limited, "would no longer be limited")]
        {
            if clients.count > 0 {
                let plural = if clients.count == 1 { "" } else { "s" };
                let names: Vec<String> = clients.samples.iter().map(ToString::to_string).collect();
                let more = if clients.count > names.len() { ", …" } else { "" };
                writeln!(f, "  {} client{plural} {what}: {}{more}", clients.count, names.join(", "))?;
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  note: {note}"))
    }
}

/// Rounds away the error of adding many probabilities.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// A share as text.
#[must_use]
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.05 { "< 0.1 %".to_owned() } else { format!("{percent:.1} %") }
}
