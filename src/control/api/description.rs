//! The description of an endpoint for the OpenAPI document.

use schemars::Schema;
use serde_json::Value;

/// The input and response of an endpoint.
#[derive(Default)]
pub struct Description {
    /// The parameters of path and query, in the form of OpenAPI.
    pub parameters: Vec<Value>,
    /// The schema of the request body.
    pub body: Option<Schema>,
    /// The schema of a successful response.
    pub response: Schema,
}
