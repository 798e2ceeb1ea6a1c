//! How messages name places, what was found there, and what was expected.

use serde_json::Value as Json;

use super::document::Value;
use super::problem::shorten;
use super::schema::Resolved;
use super::units::format_name;

/// So many characters of a value say which one it is.
const QUOTED: usize = 60;

/// A key path with one more segment.
pub(crate) fn join(path: &str, segment: &str) -> String {
    if path.is_empty() || segment.starts_with('[') {
        format!("{path}{segment}")
    } else {
        format!("{path}.{segment}")
    }
}

/// A key as it stands in a key path: quoted where it would be misread.
pub(crate) fn segment(key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "_-$".contains(c));
    if plain { shorten(key, QUOTED) } else { format!("{:?}", shorten(key, QUOTED)) }
}

/// What was found, in a few words that give no secret away.
pub(crate) fn found(value: &Value, secret: bool) -> String {
    match value {
        Value::Null | Value::Broken => "null".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Table(_) => "an object".to_owned(),
        Value::Date(_) => "a date".to_owned(),
        Value::Bool(_) if secret => "a boolean".to_owned(),
        Value::Number(_) if secret => "a number".to_owned(),
        Value::Text(_) if secret => "a string".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Text(text) if text.is_expanded() => format!("what {:?} gives", shorten(text.shown(), QUOTED)),
        Value::Text(text) => format!("the string {:?}", shorten(text.shown(), QUOTED)),
    }
}

/// What the schema asks for, in a few words.
pub(crate) fn expected(schema: Resolved) -> String {
    if let Some(words) = schema.words() {
        return one_of(&words);
    }
    if let Some(name) = schema.schema.get("format").and_then(Json::as_str).and_then(format_name) {
        return name.to_owned();
    }
    let names: Vec<_> = schema.types().iter().map(|name| type_name(name, schema.schema)).collect();
    // What names no type is one of several objects: what takes anything is never expected.
    if names.is_empty() { "an object".to_owned() } else { names.join(" or ") }
}

fn type_name(name: &str, schema: &Json) -> String {
    let kind = match name {
        "string" => "a string",
        "boolean" => "true or false",
        "object" => "an object",
        "integer" => "a whole number",
        "number" => "a number",
        "array" => {
            let items = schema.get("items").map(|items| resolve_types(items)).unwrap_or_default();
            return if items == ["string"] { "a list of strings".to_owned() } else { "a list".to_owned() };
        }
        other => other,
    };
    let bound = |name: &str| schema.get(name).and_then(Json::as_f64);
    match (bound("minimum"), bound("maximum")) {
        (Some(least), Some(most)) => format!("{kind} from {least} to {most}"),
        (Some(least), None) => format!("{kind} from {least} up"),
        (None, Some(most)) => format!("{kind} up to {most}"),
        (None, None) => kind.to_owned(),
    }
}

fn resolve_types(schema: &Json) -> Vec<&str> {
    schema.get("type").and_then(Json::as_str).into_iter().collect()
}

/// The words of an enum.
pub(crate) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("one of {}", quoted.join(", "))
}
