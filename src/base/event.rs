//! Every notable change while the balancer runs, in one place and in one wording.
//!
//! A change is announced once, when it happens; what stays the same is not repeated. The operator's
//! log is the listener: it prints a line, and keeps the last events for whoever asks.

use std::fmt;
use std::net::SocketAddr;

use log::kv::Value;
use log::{Level, Record};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::units::{Period, PoolName, Timestamp};

/// Something that an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A backend passed its health checks and takes requests from now on.
    BackendUp {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: SocketAddr,
    },
    /// A backend failed its health checks and takes no more requests.
    BackendDown {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: SocketAddr,
        /// What the last check saw.
        reason: String,
    },
    /// A backend is no longer in the configuration, and its last request has ended.
    BackendRemoved {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: SocketAddr,
        /// How many requests were cut because they took longer than `removal_timeout`.
        cut: u32,
    },
    /// An operator said something about a backend that is not what the file says, or is again.
    BackendOverridden {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: SocketAddr,
        /// Whether it is to have requests now: `enabled`, `draining` or `disabled`.
        state: String,
        /// Its weight now.
        weight: u32,
    },
    /// What an operator said about a backend holds no more, since the file now says something else about it.
    OverrideEnded {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: SocketAddr,
    },
    /// A backend is worse than its peers and takes no requests for a while.
    BackendEjected {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: SocketAddr,
        /// What its traffic showed.
        reason: String,
        /// For how long.
        period: Period,
    },
    /// An ejected backend takes requests again.
    BackendReturned {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: SocketAddr,
    },
    /// A backend's circuit breaker opened: it takes no requests for a while.
    CircuitOpened {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: SocketAddr,
    },
    /// A backend's circuit breaker closed: it takes all requests again.
    CircuitClosed {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: SocketAddr,
    },
    /// Requests were beyond what a pool can work on at once.
    Overload {
        /// The pool.
        pool: PoolName,
        /// How many since the last such event.
        requests: u64,
        /// Whether they were refused; otherwise they were only counted.
        refused: bool,
        /// How many may be in flight now.
        limit: u32,
    },
    /// A backend's name could not be resolved; the last known addresses stay in use.
    NameUnresolved {
        /// The pool that the backend belongs to.
        pool: PoolName,
        /// `host:port` as configured.
        name: String,
        /// The resolver's answer.
        reason: String,
    },
    /// A backend's name resolves again.
    NameResolved {
        /// The pool that the backend belongs to.
        pool: PoolName,
        /// `host:port` as configured.
        name: String,
    },
    /// A certificate was read anew and is shown from now on.
    CertificateLoaded {
        /// The listener's address.
        listener: String,
        /// Its file.
        certificate: String,
        /// Its serial number in hexadecimal digits.
        serial: String,
    },
    /// Authorities, revocation lists or ticket keys were read anew and hold from now on.
    TlsFileLoaded {
        /// The listener's address.
        listener: String,
        /// The file.
        file: String,
    },
    /// A file of a listener's TLS has changed and cannot be used; what was there before stays.
    TlsReloadFailed {
        /// The listener's address.
        listener: String,
        /// What is wrong.
        reason: String,
    },
    /// A certificate ends soon, or has ended.
    CertificateExpires {
        /// The listener's address.
        listener: String,
        /// Its first name.
        certificate: String,
        /// Its serial number in hexadecimal digits.
        serial: String,
        /// When it ends.
        expires: Timestamp,
        /// Whether that is past.
        expired: bool,
    },
    /// A configuration file was read anew and is in force.
    ConfigReloaded {
        /// The file.
        file: String,
        /// What is different.
        changes: String,
    },
    /// A configuration file cannot be used; the configuration before it stays in force.
    ConfigRejected {
        /// The file.
        file: String,
        /// Each fault as it is printed.
        reason: String,
    },
    /// Parts of the configuration differ from what the process was started with, and only a new process
    /// can take them up.
    NeedsUpgrade {
        /// The blocks by their keys.
        keys: Vec<String>,
    },
    /// Somebody changed how much is logged.
    LogLevelChanged {
        /// Lines of this level and of those that are worse are logged.
        log_level: String,
    },
    /// Log lines were thrown away because the log's destination did not keep up or failed.
    LogLinesLost {
        /// How many since the last such event.
        lines: u64,
        /// Why.
        reason: String,
    },
}

impl Event {
    /// Tells the operator: the log has it as a line and, for who wants to take it apart, as JSON under the
    /// key [`Event::KEY`]. The logger hears of it whatever the level, and decides what to print.
    pub fn announce(self) {
        let json = serde_json::to_string(&self).unwrap_or_default();
        let fields = [(Self::KEY, Value::from(json.as_str()))];
        let (level, text) = (self.level(), self.to_string());
        let line = format_args!("{text}");
        let record = Record::builder().level(level).target(module_path!()).args(line).key_values(&fields).build();
        log::logger().log(&record);
    }

    /// What the log's records have it under.
    pub const KEY: &'static str = "event";

    /// How bad it is.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::TlsReloadFailed { .. } | Self::ConfigRejected { .. } => Level::Error,
            Self::BackendDown { .. }
            | Self::BackendEjected { .. }
            | Self::CircuitOpened { .. }
            | Self::Overload { .. }
            | Self::NameUnresolved { .. }
            | Self::CertificateExpires { .. }
            | Self::NeedsUpgrade { .. }
            | Self::OverrideEnded { .. }
            | Self::LogLinesLost { .. } => Level::Warn,
            Self::BackendRemoved { cut: 1.., .. } => Level::Warn,
            Self::BackendRemoved { cut: 0, .. }
            | Self::BackendUp { .. }
            | Self::BackendReturned { .. }
            | Self::CircuitClosed { .. }
            | Self::NameResolved { .. }
            | Self::CertificateLoaded { .. }
            | Self::TlsFileLoaded { .. }
            | Self::ConfigReloaded { .. }
            | Self::LogLevelChanged { .. }
            | Self::BackendOverridden { .. } => Level::Info,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BackendUp { pool, backend } => write!(f, "backend up: pool={pool} backend={backend}"),
            Self::BackendDown { pool, backend, reason } => {
                write!(f, "backend down: pool={pool} backend={backend} reason={reason:?}")
            }
            Self::BackendRemoved { pool, backend, cut } => {
                write!(f, "backend removed: pool={pool} backend={backend} cut={cut}")
            }
            Self::BackendEjected { pool, backend, reason, period } => {
                write!(f, "backend ejected: pool={pool} backend={backend} reason={reason:?} for={period}")
            }
            Self::BackendOverridden { pool, backend, state, weight } => {
                write!(f, "backend overridden: pool={pool} backend={backend} state={state} weight={weight}")
            }
            Self::OverrideEnded { pool, backend } => {
                write!(f, "override ended, the file says something else: pool={pool} backend={backend}")
            }
            Self::BackendReturned { pool, backend } => write!(f, "backend returned: pool={pool} backend={backend}"),
            Self::CircuitOpened { pool, backend } => write!(f, "circuit opened: pool={pool} backend={backend}"),
            Self::CircuitClosed { pool, backend } => write!(f, "circuit closed: pool={pool} backend={backend}"),
            Self::Overload { pool, requests, refused, limit } => {
                let what = if *refused { "refused" } else { "would_refuse" };
                write!(f, "overload: pool={pool} limit={limit} {what}={requests}")
            }
            Self::NameUnresolved { pool, name, reason } => {
                write!(f, "name unresolved: pool={pool} name={name} reason={reason:?}")
            }
            Self::NameResolved { pool, name } => write!(f, "name resolved: pool={pool} name={name}"),
            Self::CertificateLoaded { listener, certificate, serial } => {
                write!(f, "certificate loaded: listener={listener} certificate={certificate} serial={serial}")
            }
            Self::TlsFileLoaded { listener, file } => write!(f, "TLS file loaded: listener={listener} file={file}"),
            Self::TlsReloadFailed { listener, reason } => {
                write!(f, "TLS files not reloaded, the old ones stay in use: listener={listener} reason={reason:?}")
            }
            Self::CertificateExpires { listener, certificate, serial, expires, expired } => {
                let state = if *expired { "has expired" } else { "expires soon" };
                write!(
                    f,
                    "certificate {state}: listener={listener} certificate={certificate} serial={serial} expires={expires}"
                )
            }
            Self::ConfigReloaded { file, changes } => {
                write!(f, "configuration reloaded: file={file} changes={changes:?}")
            }
            Self::ConfigRejected { file, reason } => {
                let reason = reason.trim_end();
                write!(f, "configuration rejected, the old one stays in force: file={file}\n{reason}")
            }
            Self::NeedsUpgrade { keys } => {
                write!(f, "changed, but only an upgrade takes it up: keys={}", keys.join(","))
            }
            Self::LogLevelChanged { log_level } => write!(f, "log level changed: level={log_level}"),
            Self::LogLinesLost { lines, reason } => {
                write!(f, "access log lines lost: lines={lines} reason={reason:?}")
            }
        }
    }
}
