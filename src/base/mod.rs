//! Types that every other module may use: units, configuration faults, events, and the state of the
//! process. No I/O beyond reading text files and file metadata, and writing to the service
//! manager's socket.
//!
//! - [`units`]: durations, sizes, percentages and names, as written in YAML and JSON.
//! - [`backend_address`]: the address of a backend, which identifies it.
//! - [`cause`]: the closed list of reasons for responses of l7lb itself, and for failed attempts.
//! - [`fault`]: a fault in a configuration, with its place and a hint.
//! - [`event`]: every notable change while the balancer runs, with one wording each (`event_text`).
//! - [`lifecycle`]: whether the process is starting, serving or draining.
//! - [`systemd`]: notifications to the service manager.
//! - [`accept_errors`]: reports errors of accept loops without a flood.
//! - [`file_stamps`]: detects changed files.
//! - [`regular_expression`]: regular expressions of the configuration.
//! - [`template_text`]: texts with variables.
//! - [`text_file`]: reads text files with a byte-order mark.
//! - [`timeouts`]: the timeouts of a request to a backend.
//! - [`vital`]: ends the process if a task fails without which it must not continue.

pub mod units;
pub mod backend_address;
pub mod accept_errors;
pub mod cause;
pub mod fault;
pub mod event;
mod event_text;
pub mod lifecycle;
pub mod systemd;
pub mod file_stamps;
pub mod regular_expression;
pub mod template_text;
pub mod text_file;
pub mod timeouts;
pub mod vital;
