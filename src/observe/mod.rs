//! The access log, the operator log, metrics, and recent requests.
//!
//! - [`record`]: the fields of one request, as a line in one of the formats.
//! - [`digits`]: the digits of times in these lines.
//! - [`access_log`]: writes lines off the request threads, to standard output, a file or syslog.
//! - [`operator_log`]: the log of the process, and its last events.
//! - [`metrics`]: counters for Prometheus. [`recorder`]: single requests. [`observers`]: reports to all of them.
//! - [`per_thread`]: what each thread of a worker has for itself.

mod digits;
pub mod access_log;
pub mod metrics;
mod observers;
mod per_thread;
pub mod operator_log;
pub mod record;
pub mod recorder;
pub mod recent_requests;

pub use access_log::AccessLog;
pub use observers::Observers;
pub use operator_log::OperatorLog;
pub use record::Record;
