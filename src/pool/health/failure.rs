//! The reason of a failed check, for one log line.

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
