//! The reason of a failed check, for one log line.

/// A failed check.
pub(in crate::pool) struct Failure {
    /// The reason.
    pub(in crate::pool) reason: String,
    /// Whether the backend did not respond within the timeout. A refused connection does not count: a process that is
    /// about to end accepts no new connections but completes its requests.
    pub(in crate::pool) silent: bool,
}

impl From<Box<pingora::Error>> for Failure {
    fn from(error: Box<pingora::Error>) -> Self {
        use pingora::ErrorType::{ConnectTimedout, ReadTimedout, TLSHandshakeTimedout, WriteTimedout};
        let timeouts = [ConnectTimedout, TLSHandshakeTimedout, ReadTimedout, WriteTimedout];
        Self { reason: reason(&error), silent: timeouts.contains(error.etype()) }
    }
}

/// The reason, short enough for one line.
pub(in crate::pool) fn reason(error: &pingora::Error) -> String {
    if let pingora::ErrorType::HTTPStatus(status) = error.etype() {
        return format!("status {status}");
    }
    // A chain of Pingora errors repeats itself from the outside in; its root is the actual cause.
    let cause = error.root_cause();
    match cause.downcast_ref::<pingora::Error>() {
        Some(root) => root.etype().as_str().to_owned(),
        None => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pingora::ErrorType;

    #[test]
    fn only_a_check_that_times_out_counts_as_silence() {
        for (kind, silent) in [
            (ErrorType::ReadTimedout, true),
            (ErrorType::ConnectTimedout, true),
            (ErrorType::ConnectRefused, false),
            (ErrorType::ConnectionClosed, false),
            (ErrorType::HTTPStatus(503), false),
        ] {
            assert_eq!(Failure::from(pingora::Error::new(kind.clone())).silent, silent, "{kind:?}");
        }
    }
}
