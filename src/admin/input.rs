//! What endpoints take: parts of the path, the query, a JSON body. What does not fit is a [`Problem`].

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::{Api, Cause, Problem};

/// Something that an endpoint takes.
pub trait Input {}

/// The parts of the path that vary, by their names.
pub struct Path<T>(pub T);

/// The query.
pub struct Query<T>(pub T);

/// The body.
pub struct Body<T>(pub T);

impl Input for () {}
impl<T> Input for Path<T> {}
impl<T> Input for Query<T> {}
impl<T> Input for Body<T> {}
impl<A: Input, B: Input> Input for (A, B) {}

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let read = axum::extract::Path::from_request_parts(parts, api).await;
        read.map(|axum::extract::Path(value)| Self(value))
            .map_err(|e: PathRejection| Problem::new(Cause::Malformed, e.body_text()))
    }
}

impl<T: DeserializeOwned> FromRequestParts<Api> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let read = axum::extract::Query::from_request_parts(parts, api).await;
        read.map(|axum::extract::Query(value)| Self(value))
            .map_err(|e: QueryRejection| Problem::new(Cause::Malformed, e.body_text()))
    }
}

impl<T: DeserializeOwned> FromRequest<Api> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let read = axum::Json::from_request(request, api).await;
        read.map(|axum::Json(value)| Self(value)).map_err(|e: JsonRejection| {
            let too_large = e.status() == Cause::TooLarge.status();
            Problem::new(if too_large { Cause::TooLarge } else { Cause::Malformed }, e.body_text())
        })
    }
}
