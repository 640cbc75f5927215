//! Chains of filters, and how they run.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::changes::Changes;
use super::config::Config;
use super::{Facts, Filter, Request, Response, Step};
use pingora_http::RequestHeader;

/// Where a chain is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For all requests.
    File,
    /// For the requests of a listener.
    Listener,
    /// For the requests of a route.
    Route,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Listener => "listener",
            Self::Route => "route",
        })
    }
}

/// A filter of a chain.
#[derive(Clone, Debug)]
pub struct Item {
    /// The key of the filter.
    pub name: &'static str,
    /// Its configuration.
    pub config: Config,
    /// The filter.
    pub filter: Arc<dyn Filter>,
}

/// The filters of a file, a listener or a route, in order.
#[derive(Clone, Debug, Default)]
pub struct Chain(pub Vec<Item>);

impl Chain {
    /// Whether it has no filter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same chain with the state of equal filters of `before`, such as counts.
    #[must_use]
    pub fn with_state_of(&self, before: Option<&Self>) -> Self {
        let mut old: Vec<&Item> = before.into_iter().flat_map(|before| &before.0).collect();
        let kept = |new: &Item| {
            let is_equal = |old: &&Item| old.config == new.config && old.filter.files() == new.filter.files();
            let position = old.iter().position(is_equal);
            position.map_or_else(|| new.clone(), |position| old.remove(position).clone())
        };
        Self(self.0.iter().map(kept).collect())
    }
}

/// The chains of a request, in the order in which they run.
#[derive(Clone, Copy)]
pub struct Chains<'a> {
    /// That of the file.
    pub file: &'a Chain,
    /// That of the listener.
    pub listener: Option<&'a Chain>,
    /// That of the route, if one matches.
    pub route: Option<&'a Chain>,
}

/// How the request halves have ended so far.
pub enum Progress {
    /// All filters have run.
    Complete,
    /// A filter ends the request: with a response or a rejection.
    Ended(Step),
    /// A filter waits; the next one has this position.
    Waiting(Box<dyn super::Pending>, usize),
}

impl<'a> Chains<'a> {
    /// Whether there is no filter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.file.is_empty() && self.listener.is_none_or(Chain::is_empty) && self.route.is_none_or(Chain::is_empty)
    }

    /// The filters in order.
    pub fn items(&self) -> impl Iterator<Item = (Level, &'a Item)> + use<'a> {
        let of = |level, chain: Option<&'a Chain>| {
            chain.into_iter().flat_map(|chain| &chain.0).map(move |item| (level, item))
        };
        of(Level::File, Some(self.file)).chain(of(Level::Listener, self.listener)).chain(of(Level::Route, self.route))
    }

    /// Runs the request halves from the position `from` on. `observe` sees each filter with its step and the changes so
    /// far.
    pub fn run(
        &self,
        from: usize,
        (header, facts): (&RequestHeader, &Facts<'_>),
        changes: &mut Changes,
        observe: &mut dyn FnMut(Level, &Item, &Step, &Changes),
    ) -> Progress {
        for (position, (level, item)) in self.items().enumerate().skip(from) {
            let step = item.filter.request(&mut Request { header, facts, changes });
            observe(level, item, &step, changes);
            match step {
                Step::Continue => {}
                Step::Wait(pending) => return Progress::Waiting(pending, position.saturating_add(1)),
                Step::Respond(_) | Step::Reject(_) | Step::Repeat => return Progress::Ended(step),
            }
        }
        Progress::Complete
    }

    /// Runs the response halves.
    pub fn change_response(&self, response: &mut Response<'_>) {
        for (_, item) in self.items() {
            item.filter.response(response);
        }
    }
}
