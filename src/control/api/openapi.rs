//! The API as an OpenAPI 3.1 document, generated from the table of endpoints and the types of their input and
//! responses. `docs/openapi.json` is the same.
//!
//! OpenAPI 3.1 uses JSON Schema, so schemars, which also generates the schema of the configuration, is
//! sufficient; OpenAPI libraries need a second description of each type.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::description::Description;
use super::endpoint::Endpoint;
use super::problem::Problem;

/// The extension with the lowest role that may call an operation.
pub const ROLE: &str = "x-role";

/// The document for `endpoints`.
#[must_use]
pub fn document(endpoints: Vec<Endpoint>) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let problem = schemas.subschema_for::<Problem>();
    let rejection = json!({
        "description": "The operation failed; `cause` is a stable name of the reason.",
        "content": { "application/problem+json": { "schema": problem } },
    });
    let mut paths = Map::new();
    for endpoint in endpoints {
        let operation = operation(&endpoint, (endpoint.describe)(&mut schemas), &rejection);
        let methods = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        if let Value::Object(methods) = methods {
            methods.insert(endpoint.method.as_str().to_ascii_lowercase(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "l7lb control API",
            "description": "The control API of a running l7lb.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "http://localhost", "description": "at the Unix-domain socket control.sock" }],
        "paths": paths,
        "components": { "schemas": schemas.take_definitions(true) },
    })
}

fn operation(endpoint: &Endpoint, description: Description, rejection: &Value) -> Value {
    let words = endpoint.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let method = endpoint.method.as_str().to_ascii_lowercase();
    let id: Vec<&str> = std::iter::once(method.as_str()).chain(words).collect();
    let content = |schema: Schema| json!({ "application/json": { "schema": schema } });
    let done = json!({ "description": "Done.", "content": content(description.response) });
    let mut operation = Map::from_iter([
        ("operationId".to_owned(), id.join("_").into()),
        ("summary".to_owned(), endpoint.summary.into()),
        (ROLE.to_owned(), endpoint.role.as_str().into()),
        ("responses".to_owned(), json!({ "200": done, "default": rejection })),
    ]);
    if !description.parameters.is_empty() {
        operation.insert("parameters".to_owned(), description.parameters.into());
    }
    if let Some(body) = description.body {
        operation.insert("requestBody".to_owned(), json!({ "required": true, "content": content(body) }));
    }
    operation.into()
}
