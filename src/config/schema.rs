//! The JSON Schema of the config, made from the model; it is what the checker checks by.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::model::Config;

/// Other keys that mean this property.
pub(crate) const ALIASES: &str = "x-aliases";
/// Other spellings of this enum's values, with the value they mean.
pub(crate) const SPELLINGS: &str = "x-spellings";

/// The schema with our own `x-` keywords, which the checker reads.
pub(crate) static SCHEMA: LazyLock<Value> = LazyLock::new(|| schemars::schema_for!(Config).to_value());

/// The JSON Schema (draft 2020-12) of the config, for editors and validators.
pub fn schema() -> Value {
    let mut schema = SCHEMA.clone();
    publish(&mut schema);
    schema
}

/// Turns our own keywords and allowances into what every validator understands.
fn publish(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(spellings)) = object.remove(SPELLINGS) {
                add_spellings(object, &spellings);
            }
            object.retain(|key, _| !key.starts_with("x-"));
            object.values_mut().for_each(publish);
            allow_expansions(object);
        }
        Value::Array(items) => items.iter_mut().for_each(publish),
        _ => {}
    }
}

fn add_spellings(object: &mut Map<String, Value>, spellings: &Map<String, Value>) {
    let Some(Value::Array(variants)) = object.get_mut("oneOf") else { return };
    for (spelling, meaning) in spellings {
        let description = format!("The same as {}.", meaning.as_str().unwrap_or_default());
        variants.push(json!({ "type": "string", "const": spelling, "description": description }));
    }
}

/// A `${…}` may stand for any number, truth or word; what it gives is not for an editor to check.
fn allow_expansions(object: &mut Map<String, Value>) {
    const EXPANSION: &str = r"\$\{";
    let words = |variant: &Value| variant.get("const").is_some();
    if let Some(Value::Array(variants)) = object.get_mut("oneOf")
        && variants.iter().all(words)
    {
        variants.push(json!({ "type": "string", "pattern": EXPANSION }));
    }
    if let Some(Value::String(pattern)) = object.get_mut("pattern") {
        pattern.push('|');
        pattern.push_str(EXPANSION);
    }
    let plain = |name: &Value| ["integer", "number", "boolean"].iter().any(|plain| name == plain);
    let mut types = match object.get("type") {
        Some(Value::Array(names)) => names.clone(),
        Some(name) => vec![name.clone()],
        None => return,
    };
    if types.iter().any(plain) && !types.contains(&json!("string")) {
        types.push(json!("string"));
        object.insert("type".to_owned(), Value::Array(types));
        object.insert("pattern".to_owned(), json!(EXPANSION));
    }
}

/// The keys an object has by its schema, with their schemas; none where the schema names no keys.
pub(crate) fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object)
}

/// Follows `$ref`, and looks through an `anyOf` that only says "or null".
pub(crate) fn resolve(mut schema: &'static Value) -> Resolved {
    let mut nullable = false;
    loop {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let pointer = name.strip_prefix('#').and_then(|pointer| SCHEMA.pointer(pointer));
            schema = pointer.unwrap_or(&Value::Bool(true));
        } else if let Some(branches) = schema.get("anyOf").and_then(Value::as_array) {
            let mut others = branches.iter().filter(|branch| branch.get("type") != Some(&json!("null")));
            nullable |= others.clone().count() < branches.len();
            match (others.next(), others.next()) {
                (Some(only), None) => schema = only,
                _ => return Resolved { schema, nullable },
            }
        } else {
            return Resolved { schema, nullable };
        }
    }
}

/// A schema with its references followed.
#[derive(Clone, Copy)]
pub(crate) struct Resolved {
    pub(crate) schema: &'static Value,
    /// Whether the way there allowed null.
    pub(crate) nullable: bool,
}

impl Resolved {
    /// The types it allows, without null; empty when it does not say.
    pub(crate) fn types(self) -> Vec<&'static str> {
        let named = match self.schema.get("type") {
            Some(Value::String(name)) => vec![name.as_str()],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        named.into_iter().filter(|name| *name != "null").collect()
    }

    /// Whether null is allowed.
    pub(crate) fn allows_null(self) -> bool {
        self.nullable
            || matches!(self.schema.get("type"), Some(Value::Array(names)) if names.contains(&json!("null")))
    }

    /// The words it allows, where it is an enum.
    pub(crate) fn words(self) -> Option<Vec<&'static str>> {
        if let Some(Value::Array(words)) = self.schema.get("enum") {
            return Some(words.iter().filter_map(Value::as_str).collect());
        }
        let Some(Value::Array(variants)) = self.schema.get("oneOf") else { return None };
        variants.iter().map(|variant| variant.get("const").and_then(Value::as_str)).collect()
    }

    /// Where it is one of several objects told apart by one key: that key, and each value with its object.
    pub(crate) fn tagged(self) -> Option<(&'static str, Vec<(&'static str, &'static Value)>)> {
        let Some(Value::Array(variants)) = self.schema.get("oneOf") else { return None };
        let tag = properties(variants.first()?)?.iter().find(|(_, schema)| schema.get("const").is_some())?.0;
        let word = |variant: &'static Value| properties(variant)?.get(tag)?.get("const")?.as_str();
        Some((tag, variants.iter().map(|variant| Some((word(variant)?, variant))).collect::<Option<_>>()?))
    }
}
