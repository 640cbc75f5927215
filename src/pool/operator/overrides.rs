//! The administrative state and weight of a backend: from the configuration, or from an operator override.
//!
//! An override ends when the configured settings of the backend change. A value that equals the configuration
//! is not stored as an override.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::units::Timestamp;

/// The administrative state of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum State {
    /// Gets requests if it is healthy.
    #[default]
    Enabled = 0,
    /// Gets no new requests; requests in flight finish. Its health is still checked.
    Draining = 1,
    /// Gets no new requests; requests in flight finish. Its health is not checked. After it is enabled again, a
    /// health check must pass before it gets requests.
    Disabled = 2,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enabled",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        })
    }
}

/// The settings of a backend in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfiguredSettings {
    /// Takes traffic only when too few primary backends are available.
    pub backup: bool,
    /// Gets no new requests.
    pub drain: bool,
    /// Share of the traffic relative to the other backends; 0 gets none.
    pub weight: u32,
}

impl Default for ConfiguredSettings {
    fn default() -> Self {
        Self { backup: false, drain: false, weight: 1 }
    }
}

impl ConfiguredSettings {
    fn state(self) -> State {
        if self.drain { State::Draining } else { State::Enabled }
    }
}

/// An operator override.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// The state, if it differs from the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// The weight, if it differs from the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// When an operator last changed it.
    pub since: Timestamp,
}

/// A change by an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets the state.
    State(State),
    /// Sets the weight.
    Weight(u32),
    /// Removes the override: the configured settings apply again.
    Clear,
}

/// The settings of one backend. Requests read the two atomics; changes take the lock.
#[derive(Debug)]
pub(in crate::pool) struct OperatorSettings {
    state: AtomicU8,
    weight: AtomicU32,
    settings: Mutex<(ConfiguredSettings, Option<Override>)>,
}

impl OperatorSettings {
    pub(in crate::pool) fn new(configured: ConfiguredSettings) -> Self {
        Self {
            state: AtomicU8::new(configured.state() as u8),
            weight: AtomicU32::new(configured.weight),
            settings: Mutex::new((configured, None)),
        }
    }

    pub(in crate::pool) fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            0 => State::Enabled,
            1 => State::Draining,
            _ => State::Disabled,
        }
    }

    pub(in crate::pool) fn weight(&self) -> u32 {
        // Sequentially consistent with the exchange of configuration snapshots: see [`crate::pool::Pool::update_weights`].
        self.weight.load(Ordering::SeqCst)
    }

    pub(in crate::pool) fn active_override(&self) -> Option<Override> {
        self.settings.lock().1
    }

    pub(in crate::pool) fn configured(&self) -> ConfiguredSettings {
        self.settings.lock().0
    }

    /// Applies new configured settings. If they differ from the current ones, an override ends and is returned.
    pub(in crate::pool) fn reconfigure(&self, configured: ConfiguredSettings) -> Option<Override> {
        let mut settings = self.settings.lock();
        if settings.0 == configured {
            return None;
        }
        let ended = settings.1.take();
        settings.0 = configured;
        self.publish(configured, None);
        ended
    }

    /// Applies a change by an operator.
    pub(in crate::pool) fn change(&self, change: Change, since: Timestamp) {
        let mut settings = self.settings.lock();
        let (configured, before) = *settings;
        let mut now = before.unwrap_or(Override { state: None, weight: None, since });
        match change {
            Change::State(state) => now.state = (state != configured.state()).then_some(state),
            Change::Weight(weight) => now.weight = (weight != configured.weight).then_some(weight),
            Change::Clear => (now.state, now.weight) = (None, None),
        }
        now.since = since;
        settings.1 = (now.state.is_some() || now.weight.is_some()).then_some(now);
        self.publish(configured, settings.1);
    }

    fn publish(&self, configured: ConfiguredSettings, active: Option<Override>) {
        let state = active.and_then(|active| active.state).unwrap_or(configured.state());
        let weight = active.and_then(|active| active.weight).unwrap_or(configured.weight);
        self.state.store(state as u8, Ordering::Relaxed);
        self.weight.store(weight, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: ConfiguredSettings = ConfiguredSettings { backup: false, drain: false, weight: 3 };

    fn at(second: u64) -> Timestamp {
        Timestamp(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second))
    }

    #[test]
    fn override_ends_when_the_configured_settings_change() {
        let settings = OperatorSettings::new(CONFIGURED);
        assert_eq!((settings.state(), settings.weight(), settings.active_override()), (State::Enabled, 3, None));
        settings.change(Change::State(State::Draining), at(1));
        settings.change(Change::Weight(9), at(2));
        let active_override = Override { state: Some(State::Draining), weight: Some(9), since: at(2) };
        assert_eq!(
            (settings.state(), settings.weight(), settings.active_override()),
            (State::Draining, 9, Some(active_override))
        );
        assert_eq!(settings.reconfigure(CONFIGURED), None, "unchanged settings keep the override");
        assert_eq!(settings.active_override(), Some(active_override));
        assert_eq!(settings.reconfigure(ConfiguredSettings { weight: 4, ..CONFIGURED }), Some(active_override));
        assert_eq!((settings.state(), settings.weight(), settings.active_override()), (State::Enabled, 4, None));
    }

    #[test]
    fn override_that_equals_the_configuration_is_not_stored() {
        let settings = OperatorSettings::new(ConfiguredSettings { drain: true, ..CONFIGURED });
        settings.change(Change::State(State::Draining), at(1));
        settings.change(Change::Weight(3), at(1));
        assert_eq!(settings.active_override(), None);
        settings.change(Change::State(State::Enabled), at(2));
        assert_eq!(
            settings.active_override(),
            Some(Override { state: Some(State::Enabled), weight: None, since: at(2) })
        );
        settings.change(Change::Weight(0), at(3));
        settings.change(Change::State(State::Draining), at(4));
        assert_eq!(settings.active_override(), Some(Override { state: None, weight: Some(0), since: at(4) }));
        settings.change(Change::Clear, at(5));
        assert_eq!((settings.state(), settings.weight(), settings.active_override()), (State::Draining, 3, None));
    }
}
