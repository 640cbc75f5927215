//! The wording of events in the operator log.

use std::fmt;

use super::event::Event;

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
            | Self::BackendsChanged { .. }
            | Self::DiscoveryChanged { .. }
            | Self::DiscoveryFailed { .. }
            | Self::DiscoveryRecovered { .. }
            | Self::DiscoveryHeld { .. }
            | Self::DiscoveryHeldBack { .. }
            | Self::DiscoveredBackendsRejected { .. }
            | Self::BackendRegistered { .. }
            | Self::BackendDeregistered { .. } => self.describe_discovery(f),
            Self::MirrorDiffers { route, pool, compared, different, status, copy_status } => {
                let last = format_args!("status={status} copy_status={copy_status}");
                write!(f, "{COPIES_DIFFER}: route={route} pool={pool} compared={compared} different={different} {last}")
            }
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
            Self::FilterFileLoaded { file } => write!(f, "file of a filter loaded: file={file}"),
            Self::FilterFileFailed { file, reason } => {
                write!(f, "file of a filter not loaded, the previous one stays in use: file={file} reason={reason:?}")
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
            Self::DiscoveryHeldBack { pool, source, moved, max_moved } => {
                let shares = format_args!("moved={moved} max_moved={max_moved}");
                write!(f, "discovered backends held back, they would move too many requests: pool={pool} ")?;
                write!(f, "source={source:?} {shares}")
            }
            Self::BackendsChanged { pool, up, down, removed } => {
                write!(f, "further backends changed: pool={pool} up={up} down={down} removed={removed}")
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

const COPIES_DIFFER: &str = "responses of copies differ";
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
