//! Active health checks: what is asked, how often, and what the answers mean.
//!
//! Pingora's background service runs every pool's checks in parallel at a short, steady beat; a
//! backend's own [`Schedule`] decides at each beat whether a check is due. That is how a backend
//! that fails is asked more often than one that is well, how jitter keeps a thousand checks from
//! falling on the same moment, and how the first checks go out at once. Pingora's own counters are
//! given thresholds of one: counting rise and fall happens in the schedule, which also knows the
//! state that Pingora has no word for, "not checked yet".

pub mod connectors;
mod grpc;
pub mod probe;

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::fault::{Faults, Place};
use crate::base::units::Period;
use crate::pool::endpoint::Health;
use crate::pool::health::grpc::SERVICE_MAX;

/// What a health check asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// An HTTP request whose status must be in the expected set.
    Http,
    /// A connection that must be accepted (and a TLS handshake where the pool speaks TLS).
    #[default]
    Tcp,
    /// A call of gRPC's own health service (`grpc.health.v1`), which must say SERVING.
    Grpc,
    /// Nothing: every backend is taken to be well.
    None,
}

/// The `health_check:` block of a pool, as written.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is asked.
    pub r#type: Type,
    /// The path of the HTTP request.
    pub path: Option<String>,
    /// The Host header of the HTTP request; the backend's address unless told.
    pub host: Option<String>,
    /// Further header fields of the HTTP request.
    pub headers: std::collections::BTreeMap<String, String>,
    /// The statuses that pass, single or as ranges: `[200, "300-399"]`.
    pub status: Option<Vec<StatusRange>>,
    /// The service that a gRPC check asks for; the server as a whole unless told.
    pub service: Option<String>,
    /// Time between checks of a backend that is well.
    pub interval: Period,
    /// Time between checks of a backend that is not, and after any failed check.
    pub unhealthy_interval: Period,
    /// How long one check may take.
    pub timeout: Period,
    /// Passed checks in a row that bring a failed backend back.
    pub rise: u32,
    /// Failed checks in a row that take a backend out.
    pub fall: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            r#type: Type::default(),
            path: None,
            host: None,
            headers: std::collections::BTreeMap::new(),
            status: None,
            service: None,
            interval: Period::seconds(5),
            unhealthy_interval: Period::seconds(2),
            timeout: Period::seconds(2),
            rise: 2,
            fall: 3,
        }
    }
}

/// One status or a range of them, as written: `200` or `"200-299"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum StatusRange {
    /// A single status.
    One(u16),
    /// A range in text.
    Range(String),
}

impl StatusRange {
    fn check(&self) -> Option<RangeInclusive<u16>> {
        let range = match self {
            Self::One(status) => *status..=*status,
            Self::Range(text) => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                first.trim().parse().ok()?..=last.trim().parse().ok()?
            }
        };
        (*range.start() >= 100 && *range.end() <= 599 && !range.is_empty()).then_some(range)
    }
}

/// What an HTTP check sends and expects.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRequest {
    /// Path and query.
    pub path: String,
    /// The Host header, where it is not the backend's address.
    pub host: Option<String>,
    /// Further header fields.
    pub headers: Vec<(String, String)>,
    /// The statuses that pass.
    pub status: Vec<RangeInclusive<u16>>,
}

/// What is asked, checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// An HTTP request.
    Http(HttpRequest),
    /// A connection.
    Tcp,
    /// The state of a service, or of the server as a whole where the name is empty.
    Grpc(String),
}

/// Checked health check settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// What is asked.
    pub question: Question,
    /// How long one check may take.
    pub timeout: Duration,
    /// How often, and how many answers count.
    pub rhythm: Rhythm,
}

/// How often a backend is checked and how many answers in a row change its state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rhythm {
    /// Time between checks of a backend that is well.
    pub interval: Duration,
    /// Time between checks after a failed one.
    pub unhealthy_interval: Duration,
    /// Passes in a row that bring a failed backend back.
    pub rise: u32,
    /// Failures in a row that take a backend out.
    pub fall: u32,
}

impl Config {
    /// Proves the block consistent; `None` where checks are off.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Option<Spec> {
        if self.r#type != Type::Http {
            self.refuse_http_keys(place, faults);
        }
        if self.r#type != Type::Grpc && self.service.is_some() {
            faults.add(place.key("service"), "only a gRPC check has it", "add `type: grpc`, or remove the key");
        }
        for (key, period) in
            [("interval", self.interval), ("unhealthy_interval", self.unhealthy_interval), ("timeout", self.timeout)]
        {
            if period.0.is_zero() {
                faults.add(place.key(key), "must be longer than nothing", "write for example 5s");
            }
        }
        for (key, count) in [("rise", self.rise), ("fall", self.fall)] {
            if count == 0 {
                faults.add(place.key(key), "must be at least 1", "write 1 to act on a single check");
            }
        }
        let question = match self.r#type {
            Type::None => return None,
            Type::Tcp => Question::Tcp,
            Type::Grpc => Question::Grpc(self.check_service(place, faults)),
            Type::Http => Question::Http(self.check_http(place, faults)),
        };
        let rhythm = Rhythm {
            interval: self.interval.0,
            unhealthy_interval: self.unhealthy_interval.0,
            rise: self.rise,
            fall: self.fall,
        };
        Some(Spec { question, timeout: self.timeout.0, rhythm })
    }

    fn refuse_http_keys(&self, place: &Place, faults: &mut Faults) {
        let written = [
            ("path", self.path.is_some()),
            ("host", self.host.is_some()),
            ("headers", !self.headers.is_empty()),
            ("status", self.status.is_some()),
        ];
        for (key, _) in written.into_iter().filter(|(_, written)| *written) {
            faults.add(place.key(key), "only an HTTP check has it", "add `type: http`, or remove the key");
        }
    }

    fn check_service(&self, place: &Place, faults: &mut Faults) -> String {
        let service = self.service.clone().unwrap_or_default();
        if service.len() > SERVICE_MAX {
            let problem = format!("a name of {} bytes, more than {SERVICE_MAX}", service.len());
            faults.add(place.key("service"), problem, "write a service's full name, such as shop.v1.Orders");
        }
        service
    }

    fn check_http(&self, place: &Place, faults: &mut Faults) -> HttpRequest {
        let path = self.path.clone().unwrap_or_else(|| "/".to_owned());
        if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
            faults.add(place.key("path"), format!("`{path}` is not a path"), "write for example /health");
        }
        let host = self.host.as_deref().map(|host| ("host", "host", host));
        let fields = self.headers.iter().map(|(name, value)| ("headers", name.as_str(), value.as_str()));
        for (key, name, value) in fields.chain(host) {
            if name.parse::<http::HeaderName>().is_err() || http::HeaderValue::from_str(value).is_err() {
                faults.add(place.key(key), format!("`{name}: {value}` is not a header field"), "use plain ASCII text");
            }
        }
        let expected = self.status.clone().unwrap_or_else(|| vec![StatusRange::Range("200-299".to_owned())]);
        let mut status = Vec::with_capacity(expected.len());
        for (index, range) in expected.iter().enumerate() {
            match range.check() {
                Some(range) => status.push(range),
                None => faults.add(
                    place.key("status").index(index),
                    "not a status between 100 and 599, nor a range of them",
                    "write for example 200 or \"200-299\"",
                ),
            }
        }
        let headers = self.headers.clone().into_iter().collect();
        HttpRequest { path, host: self.host.clone(), headers, status }
    }
}

/// One finished check.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Whether the backend passed.
    pub passed: bool,
    /// When the check began.
    pub began: Instant,
    /// A number in 0..1 that shifts the next check by up to 10 % either way.
    pub jitter: f64,
}

/// When a backend is checked next, and what the checks so far add up to. Pure: time is passed in.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    due: Option<Instant>,
    /// Answers in a row that disagree with the current health.
    against: u32,
}

impl Schedule {
    /// Whether a check is due. The first one always is, and so is one that is further away than
    /// `rhythm` would have it: then the rhythm has changed.
    #[must_use]
    pub fn is_due(&self, now: Instant, rhythm: &Rhythm) -> bool {
        let furthest = now + rhythm.interval.max(rhythm.unhealthy_interval).mul_f64(1.1);
        self.due.is_none_or(|due| due <= now || due > furthest)
    }

    /// Takes in the answer of a check and says what the backend's health is now.
    pub fn observe(&mut self, health: Health, answer: Answer, rhythm: &Rhythm) -> Health {
        let passed = answer.passed;
        let needed = match (health, passed) {
            // The first answer of all decides: a start-up must not take `rise` intervals.
            (Health::Unknown, _) => 1,
            (Health::Down, true) => rhythm.rise,
            (Health::Up, false) => rhythm.fall,
            (Health::Up, true) | (Health::Down, false) => 0,
        };
        self.against = if needed == 0 { 0 } else { self.against + 1 };
        let changed = needed > 0 && self.against >= needed;
        let said = if passed { Health::Up } else { Health::Down };
        let health = if changed { said } else { health };
        if changed {
            self.against = 0;
        }
        let interval = if health == Health::Up && passed { rhythm.interval } else { rhythm.unhealthy_interval };
        self.due = Some(answer.began + interval.mul_f64(0.9 + 0.2 * answer.jitter));
        health
    }
}

impl Rhythm {
    /// How often the schedules are looked at: often enough that no check is late by more than a
    /// tenth of the shortest interval, seldom enough to cost nothing.
    #[must_use]
    pub fn beat(&self) -> Duration {
        (self.interval.min(self.unhealthy_interval) / 10).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RHYTHM: Rhythm =
        Rhythm { interval: Duration::from_secs(20), unhealthy_interval: Duration::from_secs(5), rise: 2, fall: 3 };

    /// Runs answers through a schedule and returns the health after each.
    fn run(from: Health, answers: &[bool]) -> Vec<Health> {
        let (mut schedule, mut health) = (Schedule::default(), from);
        let began = Instant::now();
        answers
            .iter()
            .map(|passed| {
                health = schedule.observe(health, Answer { passed: *passed, began, jitter: 0.5 }, &RHYTHM);
                health
            })
            .collect()
    }

    #[test]
    fn the_first_answer_decides() {
        assert_eq!(run(Health::Unknown, &[true]), [Health::Up]);
        assert_eq!(run(Health::Unknown, &[false]), [Health::Down]);
    }

    #[test]
    fn fall_failures_in_a_row_take_out_and_rise_passes_bring_back() {
        use Health::{Down, Up};
        assert_eq!(run(Up, &[false, false, true, false, false, false]), [Up, Up, Up, Up, Up, Down]);
        assert_eq!(run(Down, &[true, false, true, true]), [Down, Down, Down, Up]);
    }

    #[test]
    fn a_failing_backend_is_asked_more_often() {
        let began = Instant::now();
        let next = |health, passed, jitter| {
            let mut schedule = Schedule::default();
            assert!(schedule.is_due(began, &RHYTHM));
            schedule.observe(health, Answer { passed, began, jitter }, &RHYTHM);
            schedule.due.unwrap() - began
        };
        assert_eq!(next(Health::Up, true, 0.5), Duration::from_secs(20));
        assert_eq!(next(Health::Up, false, 0.5), Duration::from_secs(5), "doubt is followed up quickly");
        assert_eq!(next(Health::Down, true, 0.5), Duration::from_secs(5));
        assert_eq!(next(Health::Up, true, 0.0), Duration::from_secs(18));
        assert_eq!(next(Health::Up, true, 1.0), Duration::from_secs(22));
    }

    #[test]
    fn it_is_due_when_its_time_has_come() {
        let began = Instant::now();
        let mut schedule = Schedule::default();
        schedule.observe(Health::Unknown, Answer { passed: true, began, jitter: 0.5 }, &RHYTHM);
        assert!(!schedule.is_due(began + Duration::from_secs(19), &RHYTHM));
        assert!(schedule.is_due(began + Duration::from_secs(20), &RHYTHM));
        let quicker = Rhythm { interval: Duration::from_secs(5), ..RHYTHM };
        assert!(schedule.is_due(began + Duration::from_secs(1), &quicker), "the rhythm has changed");
    }

    fn check(yaml: &str) -> Result<Option<Spec>, Vec<String>> {
        let config: Config = serde_yaml::from_str(yaml).unwrap();
        let mut faults = Faults::default();
        let spec = config.check(&Place::root(), &mut faults);
        if faults.is_empty() { Ok(spec) } else { Err(faults.into_vec().iter().map(|f| f.place.to_string()).collect()) }
    }

    #[test]
    fn settings_are_checked() {
        let Some(Spec { question: Question::Http(http), .. }) =
            check("{type: http, path: /health, status: [200, 300-399]}").unwrap()
        else {
            panic!("an HTTP check was written")
        };
        assert_eq!(http.status, [200..=200, 300..=399]);
        assert_eq!(check("{type: none}"), Ok(None));
        assert_eq!(check("{type: grpc, service: a.B}").unwrap().unwrap().question, Question::Grpc("a.B".to_owned()));
        assert_eq!(check("{type: http, service: a.B}"), Err(vec!["service".to_owned()]));
        assert_eq!(check(&format!("{{type: grpc, service: {}}}", "x".repeat(128))), Err(vec!["service".to_owned()]));
        assert_eq!(check("{type: grpc, path: /x, status: [200]}"), Err(vec!["path".to_owned(), "status".to_owned()]));
        assert_eq!(check("{type: tcp, path: /x}"), Err(vec!["path".to_owned()]));
        assert_eq!(
            check("{type: http, path: health, status: [99, 2xx, 299-200], rise: 0, timeout: 0s, headers: {'a b': c}}"),
            Err(["timeout", "rise", "path", "headers", "status[0]", "status[1]", "status[2]"]
                .map(str::to_owned)
                .to_vec())
        );
    }
}
