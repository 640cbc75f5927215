//! What is told about each request.
//!
//! - [`record`]: the facts of one request, as a line of text or JSON.
//! - [`access_log`]: where lines go, off the request threads.

pub mod access_log;
pub mod record;

pub use access_log::AccessLog;
pub use record::Record;
