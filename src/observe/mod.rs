//! The access log, the operator log, and recent requests.
//!
//! - [`record`]: the fields of one request, as a line in one of the formats.
//! - [`digits`]: the digits of times in these lines.
//! - [`access_log`]: writes lines off the request threads, to standard output, a file or syslog.
//! - [`operator_log`]: the log of the process, and its last events.

mod digits;
pub mod access_log;
pub mod operator_log;
pub mod record;
pub mod recent_requests;

pub use access_log::AccessLog;
pub use operator_log::OperatorLog;
pub use record::Record;
