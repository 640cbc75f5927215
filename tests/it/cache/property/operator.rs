//! What an operator does during the exchanges: purges of every scope and kind, and changes of the configuration.

use std::sync::Mutex;
use std::time::Instant;

use fastrand::Rng;
use http::{Method, StatusCode};

use crate::control::call;
use crate::control::commands::stdout_of;
use crate::lab::Lab;
use crate::reload::{reloaded, replace};

/// Until when responses were purged. A response that the origin sent before is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// By a hard purge, or by an unsafe request: it must not be used.
    pub hard: Option<Instant>,
    /// By a soft purge: it must be validated.
    pub soft: Option<Instant>,
}

impl Purged {
    /// What two purges mean together.
    pub fn and(self, other: Self) -> Self {
        Self { hard: self.hard.max(other.hard), soft: self.soft.max(other.soft) }
    }

    pub fn hard(at: Instant) -> Self {
        Self { hard: Some(at), soft: None }
    }
}

/// A purge of the responses to targets that start with a text.
pub struct Purge {
    start: String,
    arguments: [String; 2],
    soft: bool,
}

impl Purge {
    /// A purge that concerns targets of this worker, or rarely those of all.
    pub fn random(rng: &mut Rng, worker: usize, route: &str, target: &str) -> Self {
        let text = |text: &str| text.to_owned();
        let below = format!("/{route}/{worker}/");
        let (start, arguments) = match rng.usize(..100) {
            0..50 => (text(target), [text("url"), format!("http://cache.test{target}")]),
            50..75 => (text(target), [text("prefix"), format!("cache.test{target}")]),
            75..85 => (below.clone(), [text("prefix"), below]),
            85..98 => (below, [text("tag"), tag(route, worker)]),
            _ => (text("/"), [text("all"), text("true")]),
        };
        Self { start, arguments, soft: rng.usize(..3) == 0 }
    }

    pub fn concerns(&self, target: &str) -> bool {
        target.starts_with(&self.start)
    }

    pub fn arguments(&self) -> (&[String; 2], bool) {
        (&self.arguments, self.soft)
    }

    fn concerns_all(&self) -> bool {
        self.start == "/"
    }
}

/// The tag of all responses of a worker on a route.
pub fn tag(route: &str, worker: usize) -> String {
    format!("{route}-{worker}")
}

/// The operator of the balancer.
pub struct Operator {
    pub lab: Lab,
    /// The configuration, and one with other settings that change no rule of the cache.
    pub configurations: [String; 2],
    /// The purges of all responses.
    all: Mutex<Purged>,
    reloads: Mutex<usize>,
    purges: Mutex<usize>,
}

impl Operator {
    pub fn new(lab: Lab, configurations: [String; 2]) -> Self {
        Self { lab, configurations, all: Mutex::default(), reloads: Mutex::default(), purges: Mutex::default() }
    }

    /// The purges of all responses that are complete.
    pub fn purged(&self) -> Purged {
        *self.all.lock().unwrap()
    }

    /// How many purges and reloads there were.
    pub fn counts(&self) -> [usize; 2] {
        [*self.purges.lock().unwrap(), *self.reloads.lock().unwrap()]
    }

    /// Purges through the command line or the control API. Returns what is purged when it is complete.
    pub fn purge(&self, purge: &Purge, by_command: bool) -> Purged {
        let start = Instant::now();
        let [scope, value] = &purge.arguments;
        if by_command {
            let option = format!("--{scope}");
            let mut arguments = vec!["cache", "purge", &option];
            arguments.extend((!purge.concerns_all()).then_some(value.as_str()));
            arguments.extend(purge.soft.then_some("--soft"));
            stdout_of(&self.lab, &arguments);
        } else {
            let value = if purge.concerns_all() { value.clone() } else { format!("\"{value}\"") };
            let body = format!("{{\"{scope}\":{value},\"soft\":{}}}", purge.soft);
            let (status, response) = call(&self.lab, Method::POST, "/cache/purge", &body);
            assert_eq!(status, StatusCode::OK, "{body}: {response}");
        }
        *self.purges.lock().unwrap() += 1;
        let soft = Purged { hard: None, soft: Some(start) };
        let purged = if purge.soft { soft } else { Purged::hard(start) };
        if purge.concerns_all() {
            let mut all = self.all.lock().unwrap();
            *all = all.and(purged);
        }
        purged
    }

    /// Applies the other configuration.
    pub fn reload(&self) {
        let mut reloads = self.reloads.lock().unwrap();
        *reloads += 1;
        replace(&self.lab, &self.configurations[*reloads % 2]);
        reloaded(&self.lab);
    }
}
