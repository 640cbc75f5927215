//! The operator log: lines on standard error with a log level that can be changed at run time, and the last
//! events for `l7lb events`.
//!
//! It is the `log` logger of the process. An [`Event`] is a log record with structured data, so code that
//! reports an event does not depend on this module.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwap;
use env_filter::{Builder, Filter};
use log::kv::Key;
use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::event::Event;
use crate::base::units::Timestamp;

/// The number of events that are kept.
pub const EVENTS_MAX: usize = 1000;

/// The prefix of l7lb's own targets, whose level can be changed at run time.
const OWN: &str = env!("CARGO_CRATE_NAME");

/// The log level: lines of this level and more severe ones are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// Failures.
    Error,
    /// Warnings.
    Warn,
    /// Changes.
    Info,
    /// Details for troubleshooting.
    Debug,
    /// Every step.
    Trace,
}

impl LogLevel {
    /// The name of the level.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

const LEVELS: [(LogLevel, LevelFilter); 6] = [
    (LogLevel::Trace, LevelFilter::Trace),
    (LogLevel::Debug, LevelFilter::Debug),
    (LogLevel::Info, LevelFilter::Info),
    (LogLevel::Warn, LevelFilter::Warn),
    (LogLevel::Error, LevelFilter::Error),
    (LogLevel::Off, LevelFilter::Off),
];

impl From<Level> for LogLevel {
    fn from(level: Level) -> Self {
        LEVELS.iter().find(|(_, filter)| *filter == level).map_or(Self::Off, |(level, _)| *level)
    }
}

/// An event with its time and text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoggedEvent {
    /// The number of the event in this process, from 1.
    pub number: u64,
    /// The time of the event.
    pub at: Timestamp,
    /// The severity.
    pub level: LogLevel,
    /// The line in the log.
    pub text: String,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// The operator log. Cheap to clone; all clones share it.
#[derive(Clone)]
pub struct OperatorLog(Arc<Shared>);

impl Default for OperatorLog {
    /// A log that prints nothing.
    fn default() -> Self {
        Self::new("off")
    }
}

struct Shared {
    printer: env_logger::Logger,
    /// The initial filter.
    directives: String,
    filter: ArcSwap<Filter>,
    events: Mutex<Events>,
}

#[derive(Default)]
struct Events {
    kept: VecDeque<LoggedEvent>,
    /// The number of announced events by name.
    counts: BTreeMap<String, u64>,
    announced: u64,
}

impl OperatorLog {
    /// A log with the filter `directives`, in the format of `RUST_LOG`.
    #[must_use]
    pub fn new(directives: &str) -> Self {
        let printer = env_logger::Builder::new().filter_level(LevelFilter::Trace).format_timestamp_millis().build();
        let filter = ArcSwap::from_pointee(Builder::new().parse(directives).build());
        Self(Arc::new(Shared { printer, directives: directives.to_owned(), filter, events: Mutex::default() }))
    }

    /// Installs it as the logger of the process.
    ///
    /// # Errors
    /// If the process already has a logger.
    pub fn install(&self) -> Result<(), log::SetLoggerError> {
        log::set_boxed_logger(Box::new(self.clone()))?;
        log::set_max_level(self.0.filter.load().filter());
        Ok(())
    }

    /// The level of l7lb's own lines.
    #[must_use]
    pub fn level(&self) -> LogLevel {
        let filter = self.0.filter.load();
        let printed = |level: Level| filter.enabled(&Metadata::builder().target(OWN).level(level).build());
        let found = LEVELS.iter().find(|(_, level)| level.to_level().is_none_or(printed));
        found.map_or(LogLevel::Off, |(level, _)| *level)
    }

    /// Sets the level of l7lb's own lines. Those of libraries keep the initial filter.
    pub fn set_level(&self, level: LogLevel) {
        let found = LEVELS.iter().find(|(known, _)| *known == level);
        let wanted = found.map_or(LevelFilter::Info, |(_, filter)| *filter);
        let filter = Builder::new().parse(&self.0.directives).filter_module(OWN, wanted).build();
        log::set_max_level(filter.filter());
        self.0.filter.store(Arc::new(filter));
    }

    /// The kept events after the one with this number, and the number of events that are no longer kept.
    #[must_use]
    pub fn events(&self, after: u64) -> (Vec<LoggedEvent>, u64) {
        let events = self.0.events.lock();
        let kept: Vec<LoggedEvent> = events.kept.iter().filter(|event| event.number > after).cloned().collect();
        let lost = events.announced.saturating_sub(after).saturating_sub(kept.len() as u64);
        (kept, lost)
    }

    /// The number of events so far, by name.
    #[must_use]
    pub fn event_counts(&self) -> BTreeMap<String, u64> {
        self.0.events.lock().counts.clone()
    }

    fn keep(&self, record: &Record<'_>, event: Event) {
        let name = event.name();
        let mut events = self.0.events.lock();
        *events.counts.entry(name).or_default() += 1;
        events.announced += 1;
        let number = events.announced;
        let announced = LoggedEvent {
            number,
            at: Timestamp::now(),
            level: record.level().into(),
            text: record.args().to_string(),
            event,
        };
        if events.kept.len() == EVENTS_MAX {
            events.kept.pop_front();
        }
        events.kept.push_back(announced);
    }
}

impl Log for OperatorLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.filter.load().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let logged = record.key_values().get(Key::from(Event::KEY));
        let logged = logged.and_then(|logged| serde_json::from_str(logged.to_borrowed_str()?).ok());
        if let Some(event) = logged {
            self.keep(record, event);
        }
        if self.0.filter.load().matches(record) {
            self.0.printer.log(record);
        }
    }

    fn flush(&self) {
        self.0.printer.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announce(log: &OperatorLog, event: &Event) {
        let json = serde_json::to_string(event).unwrap();
        let fields = [(Event::KEY, log::kv::Value::from(json.as_str()))];
        let level = event.level();
        log.log(&Record::builder().level(level).args(format_args!("{event}")).key_values(&fields).build());
    }

    fn up(port: u16) -> Event {
        Event::BackendUp { pool: "p".into(), backend: ([127, 0, 0, 1], port).into() }
    }

    #[test]
    fn last_events_are_kept_at_every_log_level() {
        let log = OperatorLog::new("off");
        log.log(&Record::builder().level(Level::Info).args(format_args!("not an event")).build());
        for port in 1..=EVENTS_MAX as u16 + 5 {
            announce(&log, &up(port));
        }
        let (kept, lost) = log.events(0);
        assert_eq!((kept.len(), lost, kept.first().map(|event| event.number)), (EVENTS_MAX, 5, Some(6)));
        let (kept, lost) = log.events(EVENTS_MAX as u64 + 3);
        assert_eq!(kept.iter().map(|event| event.event.clone()).collect::<Vec<_>>(), [up(1004), up(1005)]);
        assert_eq!((lost, kept.first().map(|event| event.level)), (0, Some(LogLevel::Info)));
        assert_eq!(kept.first().map(|event| event.text.as_str()), Some("backend up: pool=p backend=127.0.0.1:1004"));
        assert_eq!(log.events(5000), (Vec::new(), 0), "no event has this number yet");
    }

    #[test]
    fn event_survives_a_json_round_trip() {
        let (announced, _) = {
            let log = OperatorLog::new("off");
            let period = crate::base::units::Period::seconds(90);
            let reason = "5 consecutive failures".to_owned();
            announce(
                &log,
                &Event::BackendEjected { pool: "p".into(), backend: ([127, 0, 0, 1], 1).into(), reason, period },
            );
            log.events(0)
        };
        let json = serde_json::to_value(&announced[0]).unwrap();
        assert_eq!(json["event"], "backend_ejected");
        assert_eq!(json["period"], "1m 30s");
        assert_eq!(serde_json::from_value::<LoggedEvent>(json).unwrap().event, announced[0].event);
    }

    #[test]
    fn event_fields_do_not_collide_with_common_fields() {
        let log = OperatorLog::new("off");
        announce(&log, &Event::LogLevelChanged { log_level: "debug".to_owned() });
        let logged = log.events(0).0.remove(0);
        let text = serde_json::to_string(&logged).unwrap();
        assert_eq!(serde_json::from_str::<LoggedEvent>(&text).unwrap(), logged, "{text}");
        // The schema would contain a duplicate key.
        let schema = serde_json::to_value(schemars::schema_for!(Event)).unwrap();
        for variant in schema["oneOf"].as_array().unwrap() {
            let taken = ["number", "at", "level", "text"].map(|key| variant["properties"].get(key).is_some());
            assert_eq!(taken, [false; 4], "{variant}");
        }
    }

    #[test]
    fn level_changes_for_own_lines_and_not_for_libraries() {
        let log = OperatorLog::new("info,pingora_core=warn");
        let prints = |target: &str, level: Level| log.enabled(&Metadata::builder().target(target).level(level).build());
        assert_eq!(log.level(), LogLevel::Info);
        for (level, _) in LEVELS {
            log.set_level(level);
            assert_eq!(log.level(), level);
        }
        assert!(!prints("l7lb::event", Level::Error) && prints("h2", Level::Info));
        log.set_level(LogLevel::Debug);
        assert!(prints("l7lb::pool", Level::Debug) && !prints("pingora_core::x", Level::Info));
        assert_eq!(OperatorLog::new("warn").level(), LogLevel::Warn);
        assert_eq!(OperatorLog::new("l7lb=trace").level(), LogLevel::Trace);
    }
}
