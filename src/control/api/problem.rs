//! Errors of the API: a problem document (RFC 9457) with a stable cause.

use std::fmt;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The media type of problem documents.
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The stable name of the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The caller has not authenticated, or its token is not known.
    Unauthenticated,
    /// The role of the caller does not suffice.
    Forbidden,
    /// Too many failed logins from this address.
    TooManyFailedLogins,
    /// The name in `Host` is not one of this API.
    UnknownHost,
    /// A page of another site has sent the request.
    CrossOrigin,
    /// The body did not arrive in time.
    BodyTimeout,
    /// There is no such path.
    UnknownPath,
    /// The path does not support the method.
    MethodNotAllowed,
    /// There is no such pool.
    UnknownPool,
    /// The pool has no such backend.
    UnknownBackend,
    /// The request is not kept.
    UnknownRequest,
    /// The path, the query or the body is invalid.
    Malformed,
    /// The body is too large.
    TooLarge,
    /// The process is not ready yet.
    Starting,
    /// The process is shutting down.
    Draining,
    /// The configuration came from no file.
    NoFile,
    /// No route uses a cache, this store, or a cache for this URL.
    NoCache,
    /// The pool has no source `api`, so backends cannot be registered.
    NoRegistrations,
    /// The configuration names the backend, so it cannot be registered.
    Configured,
    /// The pool does not accept this address from its source.
    AddressRejected,
    /// The pool has as many registrations as it may have.
    TooManyBackends,
    /// `If-Match` or `If-None-Match` does not hold; nothing has changed.
    ConditionFailed,
    /// The configuration is faulty; the active one stays.
    ConfigurationRejected,
    /// It would move too many requests; the active configuration stays.
    ExceedsMaxMoved,
    /// The new configuration is active except for changes that need a new process, which could not take over.
    UpgradeFailed,
    /// The operation failed; nothing has changed.
    Failed,
}

impl Cause {
    /// The HTTP status code.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::CrossOrigin => StatusCode::FORBIDDEN,
            Self::TooManyFailedLogins => StatusCode::TOO_MANY_REQUESTS,
            Self::UnknownHost => StatusCode::MISDIRECTED_REQUEST,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::UnknownPath | Self::UnknownPool | Self::UnknownBackend | Self::UnknownRequest => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Starting | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoFile | Self::NoCache | Self::NoRegistrations | Self::Configured | Self::TooManyBackends => {
                StatusCode::CONFLICT
            }
            Self::ConditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::ConfigurationRejected | Self::AddressRejected => StatusCode::UNPROCESSABLE_ENTITY,
            Self::ExceedsMaxMoved => StatusCode::PRECONDITION_FAILED,
            Self::UpgradeFailed | Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// The status as text.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// The stable name of the reason.
    pub cause: Cause,
    /// The reason as text.
    pub detail: String,
    /// The diagnostics of a configuration, as printed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<String>,
}

impl Problem {
    /// A problem with its explanation.
    #[must_use]
    pub fn new(cause: Cause, detail: impl Into<String>) -> Self {
        let status = cause.status();
        let title = status.canonical_reason().unwrap_or_default().to_owned();
        Self { title, status: status.as_u16(), cause, detail: detail.into(), diagnostics: Vec::new() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        if !self.diagnostics.is_empty() {
            write!(f, "\n\n{}", self.diagnostics.join("\n"))?;
        }
        Ok(())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.cause.status(), Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM);
        response
    }
}
