//! Every notable change while the balancer runs, in one place and in one wording.
//!
//! A change is announced once, when it happens; what stays the same is not repeated. The operator's
//! log is the listener for now.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::units::PoolName;

/// Something that an operator wants to know.
#[derive(Clone, Debug)]
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
    /// A backend is worse than its peers and takes no requests for a while.
    BackendEjected {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: SocketAddr,
        /// What its traffic showed.
        reason: String,
        /// For how long.
        period: Duration,
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
        expires: SystemTime,
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
    /// Log lines were thrown away because the log's destination did not keep up or failed.
    LogLinesLost {
        /// How many since the last such event.
        lines: u64,
        /// Why.
        reason: String,
    },
}

impl Event {
    /// Tells the operator.
    pub fn announce(self) {
        match self {
            Self::BackendUp { pool, backend } => {
                log::info!("backend up: pool={pool} backend={backend}")
            }
            Self::BackendDown { pool, backend, reason } => {
                log::warn!("backend down: pool={pool} backend={backend} reason={reason:?}");
            }
            Self::BackendEjected { pool, backend, reason, period } => {
                let period = humantime::format_duration(period);
                log::warn!("backend ejected: pool={pool} backend={backend} reason={reason:?} for={period}");
            }
            Self::BackendReturned { pool, backend } => {
                log::info!("backend returned: pool={pool} backend={backend}");
            }
            Self::CircuitOpened { pool, backend } => log::warn!("circuit opened: pool={pool} backend={backend}"),
            Self::CircuitClosed { pool, backend } => log::info!("circuit closed: pool={pool} backend={backend}"),
            Self::Overload { pool, requests, refused, limit } => {
                let what = if refused { "refused" } else { "would_refuse" };
                log::warn!("overload: pool={pool} limit={limit} {what}={requests}");
            }
            Self::NameUnresolved { pool, name, reason } => {
                log::warn!("name unresolved: pool={pool} name={name} reason={reason:?}");
            }
            Self::NameResolved { pool, name } => {
                log::info!("name resolved: pool={pool} name={name}")
            }
            Self::CertificateLoaded { listener, certificate, serial } => {
                log::info!("certificate loaded: listener={listener} certificate={certificate} serial={serial}");
            }
            Self::TlsFileLoaded { listener, file } => {
                log::info!("TLS file loaded: listener={listener} file={file}");
            }
            Self::TlsReloadFailed { listener, reason } => {
                log::error!("TLS files not reloaded, the old ones stay in use: listener={listener} reason={reason:?}");
            }
            Self::CertificateExpires { listener, certificate, serial, expires, expired } => {
                let expires = humantime::format_rfc3339_seconds(expires);
                let state = if expired { "has expired" } else { "expires soon" };
                log::warn!(
                    "certificate {state}: listener={listener} certificate={certificate} serial={serial} expires={expires}"
                );
            }
            Self::ConfigReloaded { file, changes } => {
                log::info!("configuration reloaded: file={file} changes={changes:?}");
            }
            Self::ConfigRejected { file, reason } => {
                log::error!("configuration rejected, the old one stays in force: file={file}\n{}", reason.trim_end());
            }
            Self::NeedsUpgrade { keys } => {
                log::warn!("changed, but only an upgrade takes it up: keys={}", keys.join(","));
            }
            Self::LogLinesLost { lines, reason } => {
                log::warn!("access log lines lost: lines={lines} reason={reason:?}")
            }
        }
    }
}
