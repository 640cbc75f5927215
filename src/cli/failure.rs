//! A failed command and the exit codes.
//!
//! Exit codes: 0 success, 1 failure at run time, 2 fault in the command line or the configuration, 3 timeout of
//! `--wait`.

/// A failure at run time.
pub(super) const EXIT_RUNTIME: u8 = 1;
/// The configuration or the command line is invalid.
pub(super) const EXIT_USAGE: u8 = 2;
/// `--wait` timed out.
pub(super) const EXIT_TIMEOUT: u8 = 3;

/// A failed command with its exit code.
pub(super) struct Failure {
    pub(super) code: u8,
    /// Empty if the command has already printed everything.
    pub(super) message: String,
}

impl Failure {
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { code: EXIT_USAGE, message: message.into() }
    }

    pub(super) fn runtime(message: impl Into<String>) -> Self {
        Self { code: EXIT_RUNTIME, message: message.into() }
    }
}
