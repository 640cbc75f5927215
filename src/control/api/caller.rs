//! Who calls an endpoint, the role that the endpoint requires, and the record of changes.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::{Cause, Problem};
use crate::base::event::Event;
use crate::config::admin::Role;

/// The longest path in an event, in characters.
const PATH_MAX: usize = 200;

/// The authenticated caller of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// `token NAME`, `certificate SUBJECT`, or `uid N`.
    pub name: String,
    /// Its IP address, or `control.sock`.
    pub from: String,
    /// Its role.
    pub role: Role,
}

impl Caller {
    /// A user at the control socket, who may do everything.
    #[must_use]
    pub fn user(uid: u32) -> Self {
        Self { name: format!("uid {uid}"), from: "control.sock".to_owned(), role: Role::Admin }
    }
}

/// Serves a request if the role of its caller suffices. Calls of endpoints that need more than [`Role::Read`] are
/// recorded as events, rejected ones too. A request without a caller is rejected.
pub(super) async fn guard(required: Role, request: Request, next: Next) -> Response {
    let Some(caller) = request.extensions().get::<Caller>().cloned() else {
        return Problem::new(Cause::Unauthenticated, "the caller is not known").into_response();
    };
    let path: String = request.uri().path().chars().take(PATH_MAX).collect();
    let call = format!("{} {path}", request.method());
    let response = if caller.role >= required {
        next.run(request).await
    } else {
        let detail = format!("the role `{required}` is required, and {} has the role `{}`", caller.name, caller.role);
        Problem::new(Cause::Forbidden, detail).into_response()
    };
    if required > Role::Read {
        let status = response.status().as_u16();
        Event::ApiCall { caller: caller.name, from: caller.from, call, status }.announce();
    }
    response
}
