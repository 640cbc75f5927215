//! The operator log: standard error, filtered by `RUST_LOG`.

use super::failure::Failure;
use crate::observe::OperatorLog;

/// The default filter. Pingora logs much that l7lb logs in its own words; only its errors are kept.
const DEFAULT_FILTER: &str =
    "info,pingora_core=warn,pingora_proxy=error,pingora_load_balancing=error,pingora_core::server=error";

/// Starts the operator log.
pub(super) fn start() -> Result<OperatorLog, Failure> {
    let directives = std::env::var("RUST_LOG").ok().filter(|directives| !directives.is_empty());
    let log = OperatorLog::new(directives.as_deref().unwrap_or(DEFAULT_FILTER));
    log.install().map_err(|e| Failure::runtime(e.to_string()))?;
    Ok(log)
}
