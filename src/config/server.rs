//! The `server:` block: Pingora's keys under their own names, with defaults of l7lb, and the engine.
//!
//! Pingora ignores unknown keys; here every key is listed, so that a typing error is reported. A test compares
//! this list with Pingora's.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use pingora_core::server::configuration::ServerConf;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::fault::{Faults, Place};
use crate::base::text_file;
use crate::base::units::Zone;
use crate::tls::certificates;

/// What serves the requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// The engine of l7lb, and Pingora's loop for what it does not serve.
    #[default]
    Own,
    /// Pingora's loop, for comparison.
    Pingora,
}

/// The `server:` block. All names and meanings except `engine`, `state_file` and `zone` are Pingora's (`ServerConf`).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the names and meanings are Pingora's; docs/configuration/server.md describes each")]
pub struct Config {
    pub version: Option<usize>,
    pub daemon: bool,
    pub error_log: Option<String>,
    pub pid_file: Option<String>,
    pub upgrade_sock: Option<String>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub working_directory: Option<PathBuf>,
    pub threads: Option<usize>,
    pub listener_tasks_per_fd: Option<usize>,
    pub work_stealing: Option<bool>,
    pub runtime_enable_alt_timer: bool,
    pub ca_file: Option<String>,
    pub grace_period_seconds: Option<u64>,
    pub graceful_shutdown_timeout_seconds: Option<u64>,
    pub client_bind_to_ipv4: Vec<String>,
    pub client_bind_to_ipv6: Vec<String>,
    pub upstream_keepalive_pool_size: Option<usize>,
    pub upstream_connect_offload_threadpools: Option<usize>,
    pub upstream_connect_offload_thread_per_pool: Option<usize>,
    pub downstream_tls_offload_threadpools: Option<usize>,
    pub downstream_tls_offload_thread_per_pool: Option<usize>,
    pub upstream_debug_ssl_keylog: bool,
    pub max_retries: Option<usize>,
    pub upgrade_sock_connect_accept_max_retries: Option<usize>,
    pub max_blocking_threads: Option<usize>,
    pub blocking_threads_ttl_seconds: Option<u64>,
    pub fast_timeout_to_tokio_threshold_seconds: Option<u64>,
    pub runtime_metrics_poll_time_histogram: bool,
    #[schemars(with = "Option<String>")]
    pub runtime_metrics_poll_time_histogram_scale: Option<serde_yaml::Value>,
    pub runtime_metrics_poll_time_histogram_resolution_micros: Option<u64>,
    pub runtime_metrics_poll_time_histogram_buckets: Option<usize>,
    pub daemon_wait_for_ready: bool,
    pub daemon_ready_timeout_seconds: Option<NonZeroU64>,
    pub daemon_notify_timeout_seconds: Option<NonZeroU64>,
    pub engine: EngineKind,
    pub state_file: Option<PathBuf>,
    pub zone: Option<Zone>,
}

/// Seconds that requests may take to end at a graceful shutdown.
const GRACE_SECONDS: u64 = 30;

/// The largest number of idle connections to backends per thread.
const UPSTREAM_KEEPALIVE_POOL_SIZE: usize = 1024;

/// The value of `state_file` that turns it off.
const OFF: &str = "off";

impl Config {
    /// The state file of a process with this upgrade socket; `None` if it is off.
    #[must_use]
    pub fn state_file(&self, upgrade_sock: &str) -> Option<PathBuf> {
        match &self.state_file {
            None => Some(Path::new(upgrade_sock).with_file_name("state.json")),
            Some(path) if path == Path::new(OFF) => None,
            Some(path) => Some(path.clone()),
        }
    }

    /// Checks the block and applies the defaults.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> ServerConf {
        for (key, value) in [
            ("threads", self.threads),
            ("listener_tasks_per_fd", self.listener_tasks_per_fd),
            ("max_retries", self.max_retries),
        ] {
            if value == Some(0) {
                faults.add(place.key(key), "must be at least 1", "remove the key to use the default");
            }
        }
        for (key, addresses) in
            [("client_bind_to_ipv4", &self.client_bind_to_ipv4), ("client_bind_to_ipv6", &self.client_bind_to_ipv6)]
        {
            for (index, address) in addresses.iter().enumerate() {
                let fits = address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_ipv6() == key.ends_with('6'));
                if !fits {
                    faults.add(
                        place.key(key).index(index),
                        format!("`{address}` is not an address of this family"),
                        "write an IP address without a port",
                    );
                }
            }
        }
        if let Some(Err(problem)) = self.ca_file.as_ref().map(|file| check_authorities(Path::new(file))) {
            faults.add(place.key("ca_file"), problem, "give a PEM file with CA certificates");
        }
        let scale = self.runtime_metrics_poll_time_histogram_scale.clone().map(serde_yaml::from_value).transpose();
        if scale.is_err() {
            faults.add(
                place.key("runtime_metrics_poll_time_histogram_scale"),
                "unknown value",
                "write `linear` or `log`",
            );
        }
        ServerConf {
            runtime_metrics_poll_time_histogram_scale: scale.unwrap_or_default(),
            ..self.to_server_conf(&private_folder())
        }
    }

    /// The number of threads.
    pub(super) fn threads(&self) -> usize {
        self.threads.unwrap_or_else(cores)
    }

    fn to_server_conf(&self, folder: &Path) -> ServerConf {
        let base = ServerConf::default();
        let in_folder = |name: &str| folder.join(name).display().to_string();
        let this = self.clone();
        ServerConf {
            version: this.version.unwrap_or(base.version),
            daemon: this.daemon,
            error_log: this.error_log,
            pid_file: this.pid_file.unwrap_or_else(|| in_folder("l7lb.pid")),
            upgrade_sock: this.upgrade_sock.unwrap_or_else(|| in_folder("upgrade.sock")),
            user: this.user,
            group: this.group,
            working_directory: this.working_directory,
            threads: self.threads(),
            listener_tasks_per_fd: this.listener_tasks_per_fd.unwrap_or(base.listener_tasks_per_fd),
            work_stealing: this.work_stealing.unwrap_or(false),
            runtime_enable_alt_timer: this.runtime_enable_alt_timer,
            ca_file: this.ca_file,
            grace_period_seconds: Some(this.grace_period_seconds.unwrap_or(GRACE_SECONDS)),
            graceful_shutdown_timeout_seconds: Some(this.graceful_shutdown_timeout_seconds.unwrap_or(5)),
            client_bind_to_ipv4: this.client_bind_to_ipv4,
            client_bind_to_ipv6: this.client_bind_to_ipv6,
            upstream_keepalive_pool_size: this.upstream_keepalive_pool_size.unwrap_or(UPSTREAM_KEEPALIVE_POOL_SIZE),
            upstream_connect_offload_threadpools: this.upstream_connect_offload_threadpools,
            upstream_connect_offload_thread_per_pool: this.upstream_connect_offload_thread_per_pool,
            downstream_tls_offload_threadpools: this.downstream_tls_offload_threadpools,
            downstream_tls_offload_thread_per_pool: this.downstream_tls_offload_thread_per_pool,
            upstream_debug_ssl_keylog: this.upstream_debug_ssl_keylog,
            max_retries: this.max_retries.unwrap_or(base.max_retries),
            upgrade_sock_connect_accept_max_retries: this.upgrade_sock_connect_accept_max_retries,
            max_blocking_threads: this.max_blocking_threads,
            blocking_threads_ttl_seconds: this.blocking_threads_ttl_seconds,
            fast_timeout_to_tokio_threshold_seconds: this
                .fast_timeout_to_tokio_threshold_seconds
                .or(base.fast_timeout_to_tokio_threshold_seconds),
            runtime_metrics_poll_time_histogram: this.runtime_metrics_poll_time_histogram,
            runtime_metrics_poll_time_histogram_scale: None,
            runtime_metrics_poll_time_histogram_resolution_micros: this
                .runtime_metrics_poll_time_histogram_resolution_micros,
            runtime_metrics_poll_time_histogram_buckets: this.runtime_metrics_poll_time_histogram_buckets,
            daemon_wait_for_ready: this.daemon_wait_for_ready,
            daemon_ready_timeout_seconds: this.daemon_ready_timeout_seconds,
            daemon_notify_timeout_seconds: this.daemon_notify_timeout_seconds,
        }
    }
}

/// Pingora reads the file again, and skips a certificate after a byte-order mark.
fn check_authorities(file: &Path) -> Result<(), String> {
    certificates::read_chain(file).map_err(|e| e.problem)?;
    match text_file::read(file) {
        Ok(text) if text_file::without_mark(&text).len() < text.len() => {
            Err(format!("{} starts with a byte-order mark; remove it", file.display()))
        }
        _ => Ok(()),
    }
}

/// One thread per core; Pingora's default is one thread.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The private folder for pid file and upgrade socket: `/run/l7lb` for root, otherwise in the runtime folder of
/// the user. A process that can reach the upgrade socket can take over the listeners, so it must not be in
/// `/tmp`, Pingora's default.
#[must_use]
pub fn private_folder() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/run/l7lb");
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder).join("l7lb"),
        _ => std::env::temp_dir().join(format!("l7lb-{}", nix::unistd::geteuid())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_key_of_pingora_is_known() {
        let theirs = serde_yaml::to_value(ServerConf::default()).unwrap();
        for (key, value) in theirs.as_mapping().unwrap() {
            let one = serde_yaml::Mapping::from_iter([(key.clone(), value.clone())]);
            let read = serde_yaml::from_value::<Config>(one.into());
            assert!(read.is_ok(), "{key:?}: {read:?}");
        }
    }

    #[test]
    fn defaults_differ_from_pingora_where_documented() {
        let conf = Config::default().check(&Place::root(), &mut Faults::default());
        assert_eq!(conf.threads, cores());
        assert_eq!(conf.grace_period_seconds, Some(30));
        assert_eq!(conf.upstream_keepalive_pool_size, 1024);
        assert!(!conf.upgrade_sock.starts_with("/tmp/pingora"));
    }
}
