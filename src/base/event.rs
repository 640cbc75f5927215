//! Events: every notable change while the balancer runs, each with one wording.
//!
//! An event is reported once, when it happens, and not repeated. The operator log prints it as a line, and
//! keeps the last events for `l7lb events`.

use std::fmt;

use log::kv::Value;
use log::{Level, Record};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::backend_address::BackendAddress;
use crate::base::units::{Period, PoolName, Timestamp};

/// An event for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A backend passed its health checks and gets requests from now on.
    BackendUp {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: BackendAddress,
    },
    /// A backend failed its health checks and gets no more requests.
    BackendDown {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: BackendAddress,
        /// The result of the last check.
        reason: String,
    },
    /// A backend was removed from the configuration, and its last request has ended.
    BackendRemoved {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: BackendAddress,
        /// Requests aborted because they took longer than `removal_timeout`.
        aborted: u32,
    },
    /// An operator has set or removed an override of a backend.
    BackendOverridden {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: BackendAddress,
        /// Its state: `enabled`, `draining` or `disabled`.
        state: String,
        /// Its weight.
        weight: u32,
    },
    /// An override has ended because the configured settings of the backend changed.
    OverrideEnded {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: BackendAddress,
    },
    /// The state file cannot be read or written.
    StateFileFailed {
        /// The file.
        file: String,
        /// The reason, and its effect.
        reason: String,
    },
    /// Passive health has ejected a backend.
    BackendEjected {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: BackendAddress,
        /// The reason.
        reason: String,
        /// The duration.
        period: Period,
    },
    /// An ejected backend gets requests again.
    BackendReturned {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: BackendAddress,
    },
    /// A backend closes idle connections earlier than `keepalive_timeout`, so l7lb does so before it. Reported once.
    KeepaliveShortened {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: BackendAddress,
        /// How long the backend keeps an idle connection.
        limit: Period,
        /// The configured timeout.
        keepalive_timeout: Period,
    },
    /// The circuit breaker of a backend has opened.
    CircuitOpened {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: BackendAddress,
    },
    /// The circuit breaker of a backend has closed.
    CircuitClosed {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: BackendAddress,
    },
    /// Requests exceeded the adaptive limit of a pool.
    Overload {
        /// The pool.
        pool: PoolName,
        /// Requests since the last such event.
        requests: u64,
        /// Whether they were rejected; otherwise they were only counted.
        rejected: bool,
        /// The current limit of requests in flight.
        limit: u32,
    },
    /// The name of a backend could not be resolved; the last known addresses stay in use.
    NameUnresolved {
        /// The pool that the backend belongs to.
        pool: PoolName,
        /// `host:port` as configured.
        name: String,
        /// The message of the resolver.
        reason: String,
    },
    /// The name of a backend resolves again.
    NameResolved {
        /// The pool that the backend belongs to.
        pool: PoolName,
        /// `host:port` as configured.
        name: String,
    },
    /// A source has another list of backends, which applies from now on.
    DiscoveryChanged {
        /// The pool.
        pool: PoolName,
        /// The source.
        source: String,
        /// Backends that are new.
        added: usize,
        /// Backends that are removed.
        removed: usize,
        /// All backends of the source.
        total: usize,
    },
    /// A source returns no list; the last good one stays in use.
    DiscoveryFailed {
        /// The pool.
        pool: PoolName,
        /// The source.
        source: String,
        /// The reason.
        reason: String,
    },
    /// A source returns lists again.
    DiscoveryRecovered {
        /// The pool.
        pool: PoolName,
        /// The source.
        source: String,
    },
    /// The list of a source lacks more than half of its backends, or is empty; the missing ones stay for now.
    DiscoveryHeld {
        /// The pool.
        pool: PoolName,
        /// The source.
        source: String,
        /// Backends that stay although the list lacks them.
        missing: usize,
        /// The backends before this list.
        of: usize,
    },
    /// Backends in the list of a source are not accepted.
    DiscoveredBackendsRejected {
        /// The pool.
        pool: PoolName,
        /// The source.
        source: String,
        /// How many.
        count: usize,
        /// The first one, with the reason.
        reason: String,
    },
    /// A backend was registered through the control API, or its registration has changed.
    BackendRegistered {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: BackendAddress,
        /// Whether it is new in the pool.
        added: bool,
    },
    /// The registration of a backend has ended; the backend is drained, then removed.
    BackendDeregistered {
        /// Its pool.
        pool: PoolName,
        /// Its address.
        backend: BackendAddress,
        /// Whether it was not renewed within its time to live.
        expired: bool,
    },
    /// A certificate was reloaded and is used from now on.
    CertificateLoaded {
        /// The listener's address.
        listener: String,
        /// Its file.
        certificate: String,
        /// Its serial number in hexadecimal digits.
        serial: String,
    },
    /// Authorities, revocation lists or ticket keys were reloaded and apply from now on.
    TlsFileLoaded {
        /// The listener's address.
        listener: String,
        /// The file.
        file: String,
    },
    /// A changed TLS file cannot be used; the previous content stays in use.
    TlsReloadFailed {
        /// The listener's address.
        listener: String,
        /// The problem.
        reason: String,
    },
    /// A certificate expires soon, or has expired.
    CertificateExpires {
        /// The listener's address.
        listener: String,
        /// Its first name.
        certificate: String,
        /// Its serial number in hexadecimal digits.
        serial: String,
        /// Its expiry.
        expires: Timestamp,
        /// Whether it has expired.
        expired: bool,
    },
    /// A configuration was reloaded and is active.
    ConfigReloaded {
        /// The file.
        file: String,
        /// The changes.
        changes: String,
    },
    /// A configuration cannot be used; the previous one stays active.
    ConfigRejected {
        /// The file.
        file: String,
        /// The diagnostics as printed.
        reason: String,
    },
    /// Changed parts of the configuration take effect only in a new process.
    NeedsUpgrade {
        /// Their keys.
        keys: Vec<String>,
    },
    /// An operator has changed the log level.
    LogLevelChanged {
        /// The new level: lines of this level and more severe ones are logged.
        log_level: String,
    },
    /// A caller of the control API has changed something, or tried to.
    ApiCall {
        /// The caller: `token NAME`, `certificate SUBJECT`, or `uid N` at the control socket.
        caller: String,
        /// Its IP address, or `control.sock`.
        from: String,
        /// The method and the path.
        call: String,
        /// The status code of the response.
        status: u16,
    },
    /// A caller of the control API has presented a wrong token. Reported for the first failure of an address in a minute,
    /// and when the address is blocked.
    LoginFailed {
        /// Its IP address.
        from: String,
        /// The reason.
        reason: String,
        /// Whether calls from this address are rejected for the rest of the minute.
        blocked: bool,
    },
    /// A token was read again and is valid from now on; the previous one is not.
    TokenLoaded {
        /// Its name.
        token: String,
        /// Its file.
        file: String,
    },
    /// A changed token file cannot be used; the previous token stays valid.
    TokenReloadFailed {
        /// Its name.
        token: String,
        /// The problem.
        reason: String,
    },
    /// Connections cannot be accepted, because file descriptors or memory for sockets have run out. Reported again
    /// at most every minute.
    AcceptFailed {
        /// The reason, with the limit and the remedy.
        reason: String,
    },
    /// An operator has purged stored responses.
    CachePurged {
        /// What was purged.
        purged: Vec<String>,
        /// Whether the responses are stale instead of gone.
        soft: bool,
        /// The stores.
        stores: Vec<String>,
        /// Whether the purge survives a restart.
        saved: bool,
    },
    /// The journal of purges of the store on disk cannot be read or written.
    PurgeJournalFailed {
        /// The file.
        file: String,
        /// The reason, and its effect.
        reason: String,
    },
    /// Access log lines were lost because the destination failed or was too slow.
    LogLinesLost {
        /// Lines since the last such event.
        lines: u64,
        /// The reason.
        reason: String,
    },
}

impl Event {
    /// Writes the event to the operator log: as a line, and as JSON under the key [`Event::KEY`]. The logger
    /// gets it at every level and decides what to print.
    pub fn announce(self) {
        let json = serde_json::to_string(&self).unwrap_or_default();
        let fields = [(Self::KEY, Value::from(json.as_str()))];
        let (level, text) = (self.level(), self.to_string());
        let line = format_args!("{text}");
        let record = Record::builder().level(level).target(module_path!()).args(line).key_values(&fields).build();
        log::logger().log(&record);
    }

    /// The key of the event in log records.
    pub const KEY: &'static str = "event";

    /// The severity.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::TlsReloadFailed { .. }
            | Self::TokenReloadFailed { .. }
            | Self::ConfigRejected { .. }
            | Self::AcceptFailed { .. }
            | Self::StateFileFailed { .. }
            | Self::PurgeJournalFailed { .. } => Level::Error,
            Self::BackendDown { .. }
            | Self::BackendEjected { .. }
            | Self::CircuitOpened { .. }
            | Self::Overload { .. }
            | Self::NameUnresolved { .. }
            | Self::CertificateExpires { .. }
            | Self::NeedsUpgrade { .. }
            | Self::OverrideEnded { .. }
            | Self::DiscoveryFailed { .. }
            | Self::DiscoveryHeld { .. }
            | Self::DiscoveredBackendsRejected { .. }
            | Self::BackendDeregistered { expired: true, .. }
            | Self::LoginFailed { .. }
            | Self::LogLinesLost { .. } => Level::Warn,
            Self::BackendRemoved { aborted: 1.., .. } => Level::Warn,
            Self::BackendRemoved { aborted: 0, .. }
            | Self::BackendUp { .. }
            | Self::BackendReturned { .. }
            | Self::KeepaliveShortened { .. }
            | Self::CircuitClosed { .. }
            | Self::NameResolved { .. }
            | Self::CertificateLoaded { .. }
            | Self::TlsFileLoaded { .. }
            | Self::ConfigReloaded { .. }
            | Self::LogLevelChanged { .. }
            | Self::ApiCall { .. }
            | Self::TokenLoaded { .. }
            | Self::CachePurged { .. }
            | Self::DiscoveryChanged { .. }
            | Self::DiscoveryRecovered { .. }
            | Self::BackendRegistered { .. }
            | Self::BackendDeregistered { expired: false, .. }
            | Self::BackendOverridden { .. } => Level::Info,
        }
    }
}

impl fmt::Display for Event {
    #[expect(clippy::too_many_lines, reason = "one arm for each event")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BackendUp { pool, backend } => write!(f, "backend up: pool={pool} backend={backend}"),
            Self::BackendDown { pool, backend, reason } => {
                write!(f, "backend down: pool={pool} backend={backend} reason={reason:?}")
            }
            Self::BackendEjected { pool, backend, reason, period } => {
                write!(f, "backend ejected: pool={pool} backend={backend} reason={reason:?} for={period}")
            }
            Self::BackendOverridden { pool, backend, state, weight } => {
                write!(f, "backend overridden: pool={pool} backend={backend} state={state} weight={weight}")
            }
            Self::OverrideEnded { pool, backend } => {
                write!(f, "override ended, the configured settings changed: pool={pool} backend={backend}")
            }
            Self::StateFileFailed { file, reason } => write!(f, "state file: file={file} reason={reason:?}"),
            Self::BackendReturned { pool, backend } => write!(f, "backend returned: pool={pool} backend={backend}"),
            Self::CircuitOpened { pool, backend } => write!(f, "circuit opened: pool={pool} backend={backend}"),
            Self::CircuitClosed { pool, backend } => write!(f, "circuit closed: pool={pool} backend={backend}"),
            Self::Overload { pool, requests, rejected, limit } => {
                write!(f, "overload: pool={pool} limit={limit} {}={requests}", overload(*rejected))
            }
            Self::NameUnresolved { .. }
            | Self::NameResolved { .. }
            | Self::KeepaliveShortened { .. }
            | Self::BackendRemoved { .. }
            | Self::DiscoveryChanged { .. }
            | Self::DiscoveryFailed { .. }
            | Self::DiscoveryRecovered { .. }
            | Self::DiscoveryHeld { .. }
            | Self::DiscoveredBackendsRejected { .. }
            | Self::BackendRegistered { .. }
            | Self::BackendDeregistered { .. } => self.describe_discovery(f),
            Self::CertificateLoaded { listener, certificate, serial } => {
                write!(f, "certificate loaded: listener={listener} certificate={certificate} serial={serial}")
            }
            Self::TlsFileLoaded { listener, file } => write!(f, "TLS file loaded: listener={listener} file={file}"),
            Self::TlsReloadFailed { listener, reason } => {
                write!(f, "{TLS_FILES_KEPT}: listener={listener} reason={reason:?}")
            }
            Self::CertificateExpires { listener, certificate, serial, expires, expired } => {
                write!(f, "certificate {}: listener={listener} ", expiry(*expired))?;
                write!(f, "certificate={certificate} serial={serial} expires={expires}")
            }
            Self::ConfigReloaded { file, changes } => {
                write!(f, "configuration reloaded: file={file} changes={changes:?}")
            }
            Self::ConfigRejected { file, reason } => {
                write!(f, "configuration rejected, the previous one stays active: file={file}\n{}", reason.trim_end())
            }
            Self::NeedsUpgrade { keys } => write!(f, "changed keys need an upgrade: keys={}", keys.join(",")),
            Self::LogLevelChanged { log_level } => write!(f, "log level changed: level={log_level}"),
            Self::ApiCall { caller, from, call, status } => {
                write!(f, "API call: caller={caller:?} from={from} call={call:?} status={status}")
            }
            Self::LoginFailed { from, reason, blocked } => {
                write!(f, "login failed: from={from} reason={reason:?} blocked={blocked}")
            }
            Self::TokenLoaded { token, file } => write!(f, "token loaded: token={token} file={file}"),
            Self::TokenReloadFailed { token, reason } => {
                write!(f, "token not reloaded, the previous one stays valid: token={token} reason={reason:?}")
            }
            Self::AcceptFailed { reason } => write!(f, "cannot accept connections: reason={reason:?}"),
            Self::CachePurged { purged, soft, stores, saved } => {
                write!(f, "cache purged: {} saved={saved}", purge(purged, *soft, stores))
            }
            Self::PurgeJournalFailed { file, reason } => write!(f, "purge journal: file={file} reason={reason:?}"),
            Self::LogLinesLost { lines, reason } => {
                write!(f, "access log lines lost: lines={lines} reason={reason:?}")
            }
        }
    }
}

impl Event {
    /// Describes an event of discovery, or about one backend.
    fn describe_discovery(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameUnresolved { pool, name, reason } => {
                write!(f, "name unresolved: pool={pool} name={name} reason={reason:?}")
            }
            Self::NameResolved { pool, name } => write!(f, "name resolved: pool={pool} name={name}"),
            Self::KeepaliveShortened { pool, backend, limit, keepalive_timeout } => {
                let limits = format_args!("limit={limit} keepalive_timeout={keepalive_timeout}");
                write!(f, "{IDLE_CLOSED}: pool={pool} backend={backend} {limits}")
            }
            Self::BackendRemoved { pool, backend, aborted } => {
                write!(f, "backend removed: pool={pool} backend={backend} aborted={aborted}")
            }
            Self::DiscoveryChanged { pool, source, added, removed, total } => {
                let counts = format_args!("added={added} removed={removed} total={total}");
                write!(f, "discovered backends changed: pool={pool} source={source:?} {counts}")
            }
            Self::DiscoveryFailed { pool, source, reason } => {
                write!(f, "{LIST_KEPT}: pool={pool} source={source:?} reason={reason:?}")
            }
            Self::DiscoveryRecovered { pool, source } => {
                write!(f, "discovery works again: pool={pool} source={source:?}")
            }
            Self::DiscoveryHeld { pool, source, missing, of } => {
                write!(f, "{REMOVAL_HELD}: pool={pool} source={source:?} missing={missing} of={of}")
            }
            Self::DiscoveredBackendsRejected { pool, source, count, reason } => {
                let rest = format_args!("count={count} reason={reason:?}");
                write!(f, "discovered backends rejected: pool={pool} source={source:?} {rest}")
            }
            Self::BackendRegistered { pool, backend, added } => {
                let what = if *added { "registered" } else { "registration changed" };
                write!(f, "backend {what}: pool={pool} backend={backend}")
            }
            Self::BackendDeregistered { pool, backend, expired } => {
                let what = if *expired { "expired" } else { "ended" };
                write!(f, "backend registration {what}: pool={pool} backend={backend}")
            }
            _ => Ok(()),
        }
    }
}

const LIST_KEPT: &str = "discovery failed, the last good list stays in use";
const REMOVAL_HELD: &str = "discovery lacks too many backends, they stay for now";
const TLS_FILES_KEPT: &str = "TLS files not reloaded, the previous ones stay in use";
const IDLE_CLOSED: &str = "backend closes idle connections before keepalive_timeout";

/// What happened to the requests of an overload.
const fn overload(rejected: bool) -> &'static str {
    if rejected { "rejected" } else { "would_reject" }
}

/// Whether a certificate has expired.
const fn expiry(expired: bool) -> &'static str {
    if expired { "has expired" } else { "expires soon" }
}

/// What was purged, and where.
fn purge(purged: &[String], soft: bool, stores: &[String]) -> String {
    let kind = if soft { "soft" } else { "hard" };
    format!("what={:?} kind={kind} stores={}", purged.join(", "), stores.join(","))
}
