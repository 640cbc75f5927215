//! One endpoint of the API: method, path, input and response.
//!
//! Input and response come from the signature of the handler, so the description always agrees with the code.

use axum::Json;
use axum::extract::{FromRequest, State};
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;

use super::context::Api;
use super::description::Description;
use super::input::Input;
use super::problem::Problem;
use crate::config::admin::Role;

/// An endpoint of the control API.
pub struct Endpoint {
    /// The method.
    pub method: Method,
    /// The path, with `{names}` for parameters.
    pub path: &'static str,
    /// The lowest role that may call it.
    pub role: Role,
    /// Its purpose in a sentence.
    pub summary: &'static str,
    /// Describes input and response.
    pub(super) describe: fn(&mut SchemaGenerator) -> Description,
    /// Serves it.
    pub(super) serve: MethodRouter<Api>,
}

impl Endpoint {
    /// An endpoint with the input and response in the signature of `handler`. `method` is one that axum can
    /// route.
    pub fn new<H, I, M, F, A>(method: Method, path: &'static str, role: Role, summary: &'static str, handler: H) -> Self
    where
        H: Fn(Api, I) -> F + Clone + Send + Sync + 'static,
        I: Input + FromRequest<Api, M> + Send + 'static,
        M: 'static,
        F: Future<Output = Result<A, Problem>> + Send + 'static,
        A: Serialize + JsonSchema + 'static,
    {
        let with_json = move |api, input| {
            let response = handler(api, input);
            async { response.await.map(Json) }
        };
        Self::with_response::<_, _, _, _, _, A>(method, path, role, summary, with_json)
    }

    /// An endpoint whose response `R` has further fields than those of JSON. Its body is described by `A`.
    pub(super) fn with_response<H, I, M, F, R, A>(
        method: Method,
        path: &'static str,
        role: Role,
        summary: &'static str,
        handler: H,
    ) -> Self
    where
        H: Fn(Api, I) -> F + Clone + Send + Sync + 'static,
        I: Input + FromRequest<Api, M> + Send + 'static,
        M: 'static,
        F: Future<Output = Result<R, Problem>> + Send + 'static,
        R: IntoResponse + 'static,
        A: JsonSchema + 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::TRACE);
        // Invalid input has already been rejected with a problem ([`super::input`]).
        let serve = on(filter, move |State(api): State<Api>, input: I| handler(api, input));
        let describe = |schemas: &mut SchemaGenerator| {
            let mut description = Description { response: schemas.subschema_for::<A>(), ..Description::default() };
            I::describe(&mut description, schemas);
            description
        };
        Self { method, path, role, summary, describe, serve }
    }
}
