//! The timeouts of a request to a backend: those of a pool, which a route and filters override.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::fault::{Faults, Place};
use super::units::Period;

/// The `timeouts:` block of a pool or a route, or the filter `timeout`. A route inherits missing values from its pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsConfig {
    /// Timeout for establishing a TCP connection to a backend. A TLS handshake may take 3 s in addition.
    pub connect: Option<Period>,
    /// Timeout from the end of the request to the first byte of the response.
    pub first_byte: Option<Period>,
    /// Longest pause between two reads from, or two writes to, a backend.
    pub idle: Option<Period>,
    /// Timeout of one attempt, from the selection of its backend to the end of the response. Without it an
    /// attempt has no time limit.
    pub attempt: Option<Period>,
    /// Timeout of a request with all its attempts, from its arrival to the end of the response. Without it a
    /// request has no time limit.
    pub total: Option<Period>,
}

/// The checked timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Timeout for establishing a TCP connection.
    pub connect: Duration,
    /// Timeout from the end of the request to the first byte of the response.
    pub first_byte: Duration,
    /// Longest pause between two reads or two writes.
    pub idle: Duration,
    /// Timeout of one attempt, if limited.
    pub attempt: Option<Duration>,
    /// Timeout of a request with all its attempts, if limited.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            attempt: None,
            total: None,
        }
    }
}

impl TimeoutsConfig {
    /// Checks the block, and fills in missing values from `base`.
    pub fn check(&self, base: Timeouts, place: &Place, faults: &mut Faults) -> Timeouts {
        let mut valid = *self;
        for (key, period) in [
            ("connect", &mut valid.connect),
            ("first_byte", &mut valid.first_byte),
            ("idle", &mut valid.idle),
            ("attempt", &mut valid.attempt),
            ("total", &mut valid.total),
        ] {
            if *period == Some(Period(Duration::ZERO)) {
                faults.add(place.key(key), "must be greater than zero", "write for example 30s");
                *period = None;
            }
        }
        let timeouts = valid.over(base);
        if (self.attempt.is_some() || self.total.is_some())
            && let Some(problem) = timeouts.contradiction()
        {
            faults.add(
                place.key(if self.attempt.is_some() { "attempt" } else { "total" }),
                problem,
                "increase `total`",
            );
        }
        timeouts
    }

    /// Whether no timeout is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The timeouts that are given, each with its key.
    #[must_use]
    pub fn given(&self) -> Vec<(&'static str, Period)> {
        let Self { connect, first_byte, idle, attempt, total } = *self;
        let all =
            [("connect", connect), ("first_byte", first_byte), ("idle", idle), ("attempt", attempt), ("total", total)];
        all.into_iter().filter_map(|(key, period)| Some((key, period?))).collect()
    }

    /// These timeouts, and those of `base` that are not given.
    #[must_use]
    pub fn or(self, base: Self) -> Self {
        Self {
            connect: self.connect.or(base.connect),
            first_byte: self.first_byte.or(base.first_byte),
            idle: self.idle.or(base.idle),
            attempt: self.attempt.or(base.attempt),
            total: self.total.or(base.total),
        }
    }

    /// The timeouts of a request that has `base` without these.
    #[must_use]
    pub fn over(&self, base: Timeouts) -> Timeouts {
        let given = |period: Option<Period>| period.map(|Period(period)| period);
        Timeouts {
            connect: given(self.connect).unwrap_or(base.connect),
            first_byte: given(self.first_byte).unwrap_or(base.first_byte),
            idle: given(self.idle).unwrap_or(base.idle),
            attempt: given(self.attempt).or(base.attempt),
            total: given(self.total).or(base.total),
        }
    }
}

impl Timeouts {
    /// Why they contradict each other, if they do.
    #[must_use]
    pub fn contradiction(&self) -> Option<String> {
        let (one, all) = (self.attempt?, self.total?);
        let problem = || format!("an attempt may take longer ({}) than the request ({})", Period(one), Period(all));
        (one > all).then(problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Option<Period> {
        Some(Period(Duration::from_secs(seconds)))
    }

    #[test]
    fn given_timeouts_override_and_others_stay() {
        let earlier = TimeoutsConfig { connect: seconds(1), idle: seconds(2), ..TimeoutsConfig::default() };
        let later = TimeoutsConfig { idle: seconds(3), total: seconds(4), ..TimeoutsConfig::default() };
        let both = later.or(earlier);
        assert_eq!(both, TimeoutsConfig { connect: seconds(1), ..later });
        let base = Timeouts { attempt: Some(Duration::from_secs(5)), ..Timeouts::default() };
        let effective = both.over(base);
        assert_eq!(
            effective,
            Timeouts {
                connect: Duration::from_secs(1),
                idle: Duration::from_secs(3),
                total: Some(Duration::from_secs(4)),
                ..base
            }
        );
        assert!(effective.contradiction().unwrap().contains("an attempt may take longer (5s) than the request (4s)"));
        assert_eq!(both.given().len(), 3);
        assert_eq!(TimeoutsConfig::default().over(base), base);
    }
}
