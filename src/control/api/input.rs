//! Input of endpoints: parts of the path, the query, a JSON body. Invalid input returns a [`Problem`].

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::request::Parts;
use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::context::Api;
use super::description::Description;
use super::problem::{Cause, Problem};

/// An input of an endpoint.
pub trait Input {
    /// Adds its description.
    fn describe(description: &mut Description, schemas: &mut SchemaGenerator);
}

/// The parameters in the path.
pub struct Path<T>(pub T);

/// The query.
pub struct Query<T>(pub T);

/// The body.
pub struct Body<T>(pub T);

impl Input for () {
    fn describe(_: &mut Description, _: &mut SchemaGenerator) {}
}

impl<T: JsonSchema> Input for Path<T> {
    fn describe(description: &mut Description, schemas: &mut SchemaGenerator) {
        description.parameters.extend(parameters::<T>("path", schemas));
    }
}

impl<T: JsonSchema> Input for Query<T> {
    fn describe(description: &mut Description, schemas: &mut SchemaGenerator) {
        description.parameters.extend(parameters::<T>("query", schemas));
    }
}

impl<T: JsonSchema> Input for Body<T> {
    fn describe(description: &mut Description, schemas: &mut SchemaGenerator) {
        description.body = Some(schemas.subschema_for::<T>());
    }
}

impl<A: Input, B: Input> Input for (A, B) {
    fn describe(description: &mut Description, schemas: &mut SchemaGenerator) {
        A::describe(description, schemas);
        B::describe(description, schemas);
    }
}

/// The fields of `T` as parameters.
fn parameters<T: JsonSchema>(place: &str, schemas: &mut SchemaGenerator) -> Vec<Value> {
    let schema = T::json_schema(schemas).to_value();
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let fields = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let parameter = |(name, mut schema): (String, Value)| {
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        let required = required.iter().any(|required| *required == name);
        json!({ "name": name, "in": place, "required": required, "description": description, "schema": schema })
    };
    fields.into_iter().map(parameter).collect()
}

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
