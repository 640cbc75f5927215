//! One row of the table of endpoints: where it is, what it takes, what it answers.
//!
//! All of it comes from the handler's own signature, so that the description cannot say anything else
//! than the code does.

use axum::Json;
use axum::extract::{FromRequest, State};
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::Value;

use super::input::Input;
use super::{Api, Problem};

/// Something that can be asked at the control socket.
pub struct Endpoint {
    /// The method.
    pub method: Method,
    /// The path, with `{names}` where it varies.
    pub path: &'static str,
    /// What it is for, in a sentence.
    pub summary: &'static str,
    /// What it takes and answers.
    pub(super) describe: fn(&mut SchemaGenerator) -> Description,
    /// Serves it.
    pub(super) serve: MethodRouter<Api>,
}

/// What an endpoint takes and answers.
#[derive(Default)]
pub struct Description {
    /// The parts of the path that vary, and of the query: as OpenAPI has parameters.
    pub parameters: Vec<Value>,
    /// The body that it takes.
    pub body: Option<Schema>,
    /// What it answers where it does what it is for.
    pub answer: Schema,
}

impl Endpoint {
    /// A row; what `handler` takes and answers is what its signature says. `method` is one of those that
    /// axum routes by.
    pub fn new<H, I, M, F, A>(method: Method, path: &'static str, summary: &'static str, handler: H) -> Self
    where
        H: Fn(Api, I) -> F + Clone + Send + Sync + 'static,
        I: Input + FromRequest<Api, M> + Send + 'static,
        M: 'static,
        F: Future<Output = Result<A, Problem>> + Send + 'static,
        A: Serialize + JsonSchema + 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::TRACE);
        // Whatever of the input does not fit is answered as a problem already ([`super::input`]).
        let serve = on(filter, move |State(api): State<Api>, input: I| {
            let answer = handler(api, input);
            async { answer.await.map(Json) }
        });
        let describe = |schemas: &mut SchemaGenerator| {
            let mut description = Description { answer: schemas.subschema_for::<A>(), ..Description::default() };
            I::describe(&mut description, schemas);
            description
        };
        Self { method, path, summary, describe, serve }
    }
}
