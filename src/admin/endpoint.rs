//! One row of the table of endpoints: where it is, what it takes, what it answers.
//!
//! All of it comes from the handler's own signature, so that the description cannot say anything else
//! than the code does.

use axum::Json;
use axum::extract::{FromRequest, State};
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;
use schemars::JsonSchema;
use serde::Serialize;

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
    /// Serves it.
    pub(super) serve: MethodRouter<Api>,
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
        Self { method, path, summary, serve }
    }
}
