//! Endpoints for events and the log level.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::Api;
use super::input::{Body, Query};
use super::problem::Problem;
use crate::base::event::Event;
use crate::observe::operator_log::{LogLevel, LoggedEvent};

/// The selection of events.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EventQuery {
    /// Events after the one with this number; 0 for all recorded events.
    pub after: u64,
}

/// Events, the oldest first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Events {
    /// The kept events: the last 1000.
    pub events: Vec<LoggedEvent>,
    /// The number of selected events that are no longer recorded.
    pub lost: u64,
}

/// The log level of l7lb's own lines; those of libraries keep the initial `RUST_LOG`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// Lines of this level and more severe ones are logged.
    pub level: LogLevel,
}

pub(super) async fn events(api: Api, Query(since): Query<EventQuery>) -> Result<Events, Problem> {
    let (events, lost) = api.log.events(since.after);
    Ok(Events { events, lost })
}

pub(super) async fn level(api: Api, (): ()) -> Result<Level, Problem> {
    Ok(Level { level: api.log.level() })
}

pub(super) async fn set_level(api: Api, Body(wanted): Body<Level>) -> Result<Level, Problem> {
    api.log.set_level(wanted.level);
    Event::LogLevelChanged { log_level: wanted.level.word().to_owned() }.announce();
    level(api, ()).await
}
