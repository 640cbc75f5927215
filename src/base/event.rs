//! Events: every notable change while the balancer runs, each with one wording.
//!
//! An event is reported once, when it happens, and not repeated. The operator log prints it as a line, and
//! keeps the last events for `l7lb events`.

use log::kv::Value;
use log::{Level, Record};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::backend_address::BackendAddress;
use crate::base::units::{Period, PoolName, RouteName, Timestamp};

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
    /// A list of a source is held back, because it would move more requests than `max_moved` allows.
    DiscoveryHeldBack {
        /// The pool.
        pool: PoolName,
        /// The source.
        source: String,
        /// The share of the requests to the backends of the source that it would move, such as `25.0%`.
        moved: String,
        /// The allowed share.
        max_moved: String,
    },
    /// Further backends came up, went down or were removed in the same second: more than 50 of a pool are only counted.
    BackendsChanged {
        /// Their pool.
        pool: PoolName,
        /// Backends that passed their health checks.
        up: u32,
        /// Backends that failed their health checks.
        down: u32,
        /// Backends that were removed, without requests in flight.
        removed: u32,
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
    /// A changed file of a filter was read again and is in use.
    FilterFileLoaded {
        /// The file.
        file: String,
    },
    /// A changed file of a filter cannot be used; its previous contents stay in use.
    FilterFileFailed {
        /// The file.
        file: String,
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
    /// Responses to requests and to their copies had different status codes. Reported again at most every minute, for each
    /// filter and route.
    MirrorDiffers {
        /// The route.
        route: RouteName,
        /// The pool of the copies.
        pool: PoolName,
        /// The pairs of responses since the last such event.
        compared: u64,
        /// Those with different status codes.
        different: u64,
        /// The status code for the client in the last pair.
        status: u16,
        /// The status code of its copy.
        copy_status: u16,
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

    /// Its name, as in the `event` field of its JSON.
    #[must_use]
    pub fn name(&self) -> String {
        let json = serde_json::to_value(self).unwrap_or_default();
        json.get("event").and_then(|name| name.as_str()).unwrap_or_default().to_owned()
    }

    /// The key of the event in log records.
    pub const KEY: &'static str = "event";

    /// The severity.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::TlsReloadFailed { .. }
            | Self::TokenReloadFailed { .. }
            | Self::FilterFileFailed { .. }
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
            | Self::DiscoveryHeldBack { .. }
            | Self::DiscoveredBackendsRejected { .. }
            | Self::BackendDeregistered { expired: true, .. }
            | Self::LoginFailed { .. }
            | Self::MirrorDiffers { .. }
            | Self::LogLinesLost { .. } => Level::Warn,
            Self::BackendRemoved { aborted: 1.., .. } | Self::BackendsChanged { down: 1.., .. } => Level::Warn,
            Self::BackendRemoved { aborted: 0, .. }
            | Self::BackendsChanged { down: 0, .. }
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
            | Self::FilterFileLoaded { .. }
            | Self::CachePurged { .. }
            | Self::DiscoveryChanged { .. }
            | Self::DiscoveryRecovered { .. }
            | Self::BackendRegistered { .. }
            | Self::BackendDeregistered { expired: false, .. }
            | Self::BackendOverridden { .. } => Level::Info,
        }
    }
}
