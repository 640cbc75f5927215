//! The JSON Schema of the configuration, generated from its types, for editors.
//!
//! It checks less than `l7lb check`: names, types and units, but not consistency.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::{Value, json};

use super::Config;

/// A value may be an environment variable instead.
const VARIABLE: &str = r"\$\{";

/// The schema (draft 2020-12), as in `conf/schema.json`.
#[must_use]
pub fn schema() -> Value {
    // Many types are called Config; inlined they need no names.
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Config>();
    RecursiveTransform(allow_variables).transform(&mut schema);
    schema.insert("title".to_owned(), json!("l7lb configuration"));
    schema.to_value()
}

/// Allows `${NAME}` for scalars, which is replaced before types are checked.
fn allow_variables(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::String(pattern)) = object.get_mut("pattern") {
        *pattern = format!("{pattern}|{VARIABLE}");
        return;
    }
    let variable = json!({ "type": "string", "pattern": VARIABLE });
    for alternatives in ["oneOf", "anyOf"] {
        if let Some(Value::Array(alternatives)) = object.get_mut(alternatives)
            && alternatives.iter().all(|alternative| alternative.get("const").is_some())
        {
            alternatives.push(variable.clone());
        }
    }
    let types: Vec<Value> = match object.get("type") {
        Some(Value::Array(types)) => types.clone(),
        Some(Value::String(one)) => vec![json!(one)],
        _ => return,
    };
    let number = types.iter().any(|kind| matches!(kind.as_str(), Some("integer" | "number" | "boolean")));
    if number && !types.contains(&json!("string")) {
        object.insert("type".to_owned(), types.into_iter().chain([json!("string")]).collect());
        object.insert("pattern".to_owned(), json!(VARIABLE));
    }
}
