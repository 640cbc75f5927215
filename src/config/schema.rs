//! The JSON Schema of the configuration, generated from its types, for editors.
//!
//! It checks less than `l7lb check`: names, types and units, but not consistency.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::{Map, Value, json};

use super::Config;
use super::short_forms::{BARE_SOURCES, SHORT_SOURCES};

/// A value may be an environment variable instead.
const VARIABLE: &str = r"\$\{";

/// The schema (draft 2020-12), as in `conf/schema.json`.
#[must_use]
pub fn schema() -> Value {
    let mut schema = generated();
    RecursiveTransform(allow_variables).transform(&mut schema);
    schema.insert("title".to_owned(), json!("l7lb configuration"));
    let mut schema = schema.to_value();
    allow_addresses(&mut schema);
    allow_single_items(&mut schema, "#");
    schema
}

/// The schema of the types alone: without variables and short forms.
pub(super) fn types() -> Value {
    generated().to_value()
}

fn generated() -> Schema {
    // Many types are called Config; inlined they need no names.
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>()
}

/// Allows the short forms of listeners, backends and sources of backends: an address instead of a block, and a port as an address. The
/// server name of TLS may follow from `https://` in an address.
fn allow_addresses(schema: &mut Value) {
    let address = json!(["string", "integer"]);
    let pool = "/properties/pools/additionalProperties/properties";
    for list in ["/properties/listeners", &format!("{pool}/backends")] {
        let Some(block) = schema.pointer_mut(&format!("{list}/items")) else { continue };
        if let Some(written) = block.pointer_mut("/properties/address/type") {
            written.clone_from(&address);
        }
        *block = json!({ "anyOf": [block.take(), { "type": address }] });
    }
    if let Some(source) = schema.pointer_mut(&format!("{pool}/discover/items")) {
        for (kind, _) in SHORT_SOURCES {
            if let Some(block) = source.pointer_mut(&format!("/properties/{kind}")) {
                *block = json!({ "anyOf": [block.take(), { "type": address }] });
            }
        }
        *source = json!({ "anyOf": [source.take(), { "enum": BARE_SOURCES }] });
    }
    if let Some(Value::Object(tls)) = schema.pointer_mut(&format!("{pool}/tls")) {
        tls.remove("required");
    }
}

/// Allows one item where a list is expected. `pointer` is the place of `schema`, to which the alternative refers.
fn allow_single_items(schema: &mut Value, pointer: &str) {
    let Some(object) = schema.as_object_mut() else { return };
    if object.contains_key("items") && !is_alternative(pointer) {
        let moved = ["type", "items", "minItems"].into_iter();
        let list: Map<String, Value> = moved.filter_map(|key| object.remove_entry(key)).collect();
        let item = json!({ "$ref": format!("{pointer}/anyOf/0/items") });
        object.insert("anyOf".to_owned(), json!([list, item]));
    }
    for (key, value) in object.iter_mut() {
        match value {
            Value::Array(values) => {
                for (index, value) in values.iter_mut().enumerate() {
                    allow_single_items(value, &format!("{pointer}/{key}/{index}"));
                }
            }
            Value::Object(_) if key == "properties" => {
                let properties = value.as_object_mut().into_iter().flatten();
                properties.for_each(|(name, value)| allow_single_items(value, &format!("{pointer}/{key}/{name}")));
            }
            value => allow_single_items(value, &format!("{pointer}/{key}")),
        }
    }
}

/// Whether the schema at `pointer` is one of several, so that the others say what else is allowed.
fn is_alternative(pointer: &str) -> bool {
    pointer.rsplit('/').nth(1) == Some("anyOf")
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
