//! The operator's log: standard error, filtered by `RUST_LOG`.

use env_logger::{Builder, Env};

/// What is logged unless `RUST_LOG` says otherwise. Pingora tells much of what l7lb tells already,
/// in its own words; its errors are kept.
const DEFAULT_FILTER: &str =
    "info,pingora_core=warn,pingora_proxy=error,pingora_load_balancing=error,pingora_core::server=error";

/// Starts the log.
pub(super) fn start() {
    Builder::from_env(Env::default().default_filter_or(DEFAULT_FILTER)).format_timestamp_millis().init();
}
