//! Checks a tree against the schema, all problems at once, and brings it into the model's own spelling.
//!
//! What comes out clean deserialises into the model: known keys only, under their canonical names, strings expanded,
//! words and numbers of the right type.

use std::collections::HashMap;

use serde_json::{Map, Number, Value as Json};

use super::describe::{expected, found, join, one_of, segment};
use super::document::{Entry, Node, Value};
use super::expand::Expander;
use super::problem::{Note, Report};
use super::schema::{ALIASES, Resolved, SPELLINGS, properties, resolve};
use super::text::{Carried, KEEPS_SOURCE};
use super::units::check_format;

/// Longer keys are no misspelling of ours, and comparing them would cost time.
const LONGEST_KEY: usize = 64;

/// Checks and rewrites the tree; problems go to the report.
pub(crate) fn check(
    root: &mut Node,
    schema: &'static Json,
    expander: &mut Expander<'_>,
    report: &mut Report,
) {
    Checker { expander, report, path: String::new() }.node(root, schema);
}

struct Checker<'c, 'e> {
    expander: &'c mut Expander<'e>,
    report: &'c mut Report,
    path: String,
}

impl Checker<'_, '_> {
    fn node(&mut self, node: &mut Node, schema: &'static Json) {
        let schema = resolve(schema);
        match &mut node.value {
            Value::Null if schema.allows_null() => {}
            Value::Text(text) => {
                if self.expander.expand(text, node.span.start, &self.path, self.report) {
                    self.scalar(node, schema);
                } else {
                    node.value = Value::Broken;
                }
            }
            Value::Table(_) | Value::List(_) if is_anything(schema.schema) => {
                self.anything(node, schema.schema);
            }
            Value::Table(_) if schema.types().contains(&"object") => self.table(node, schema.schema),
            Value::Table(_) => match schema.tagged() {
                Some((tag, variants)) => self.tagged(node, tag, &variants),
                None => self.scalar(node, schema),
            },
            Value::List(items) if schema.types().contains(&"array") => {
                let item_schema = schema.schema.get("items").unwrap_or(&Json::Bool(true));
                for (index, item) in items.iter_mut().enumerate() {
                    self.within(&format!("[{index}]"), |checker| checker.node(item, item_schema));
                }
            }
            _ => self.scalar(node, schema),
        }
    }

    /// Walks what the schema leaves open, for its strings.
    fn anything(&mut self, node: &mut Node, schema: &'static Json) {
        match &mut node.value {
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.within(&format!("[{index}]"), |checker| checker.node(item, schema));
                }
            }
            Value::Table(entries) => {
                for entry in entries {
                    self.within(&segment(&entry.key), |checker| checker.node(&mut entry.node, schema));
                }
            }
            _ => {}
        }
    }

    fn table(&mut self, node: &mut Node, schema: &'static Json) {
        let Value::Table(entries) = &mut node.value else { return };
        let known = properties(schema);
        let open =
            schema.get("additionalProperties").filter(|open| open.is_object() || **open == Json::Bool(true));
        let mut first: HashMap<String, String> = HashMap::new();
        for mut entry in std::mem::take(entries) {
            let property = known.and_then(|known| canonical(&entry.key, known));
            let property_schema = match (&property, open) {
                (Some((name, schema)), _) => {
                    let written = std::mem::replace(&mut entry.key, name.clone());
                    if let Some(other) = first.insert(name.clone(), written.clone()) {
                        self.twice(&entry, &other, &written);
                        continue;
                    }
                    *schema
                }
                (None, Some(_)) if entry.key.starts_with("//") => continue,
                (None, Some(open)) => open,
                (None, None) => {
                    self.unknown(&entry, known);
                    continue;
                }
            };
            self.within(&segment(&entry.key), |checker| checker.node(&mut entry.node, property_schema));
            entries.push(entry);
        }
        self.required(node, schema);
    }

    fn required(&mut self, node: &mut Node, schema: &'static Json) {
        let names =
            schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
        for name in names {
            let entry = node.get(name);
            if entry.is_some_and(|entry| entry.node.value == Value::Broken) {
                node.value = Value::Broken;
            } else if entry.is_none() {
                let known = properties(schema).and_then(|known| known.get(name));
                let expected = known.map_or_else(|| "a value".to_owned(), |schema| expected(resolve(schema)));
                self.within(&segment(name), |checker| {
                    checker.error(node, format!("missing, expected {expected}"));
                });
            }
        }
    }

    /// An object whose kind is told by one of its keys.
    fn tagged(&mut self, node: &mut Node, tag: &'static str, variants: &[(&'static str, &'static Json)]) {
        let words: Vec<_> = variants.iter().map(|(word, _)| *word).collect();
        let Value::Table(entries) = &mut node.value else { return };
        let Some(entry) = entries.iter_mut().find(|entry| normal(&entry.key) == normal(tag)) else {
            let note = format!("missing, expected {}", one_of(&words));
            return self.within(&segment(tag), |checker| checker.error(node, note));
        };
        let mut chosen = None;
        self.within(&segment(tag), |checker| {
            if let Value::Text(text) = &mut entry.node.value {
                checker.expander.expand(text, entry.node.span.start, &checker.path, checker.report);
                chosen = variants.iter().find(|(word, _)| normal(word) == normal(text.as_str()));
                if let Some((word, _)) = chosen {
                    *text = (*word).into();
                }
            }
            if chosen.is_none() {
                checker.mismatch(&mut entry.node, &one_of(&words), false);
            }
        });
        match chosen {
            Some((_, schema)) => self.table(node, schema),
            None => node.value = Value::Broken,
        }
    }

    /// A value that is no container, or a container in the wrong place.
    fn scalar(&mut self, node: &mut Node, schema: Resolved) {
        let keeps_source = schema.schema.get(KEEPS_SOURCE).is_some();
        if let Some(words) = schema.words() {
            return self.word(node, schema, &words);
        }
        let types = if schema.tagged().is_some() { vec!["object"] } else { schema.types() };
        if !types.is_empty() && !fit_type(&mut node.value, &types) {
            return self.mismatch(node, &expected(schema), is_secret(schema));
        }
        if matches!(&node.value, Value::Text(text) if text.as_str().contains('\0')) {
            return self.error(node, "found a NUL character, which no value can hold".to_owned());
        }
        let fits = match &mut node.value {
            Value::Number(number) => in_range(number, schema.schema),
            Value::Text(text) => {
                let format = schema.schema.get("format").and_then(Json::as_str);
                let fits = format.is_none_or(|format| check_format(format, text.as_str()).is_ok());
                if fits && !keeps_source {
                    text.forget_source();
                }
                fits
            }
            _ => true,
        };
        if !fits {
            self.mismatch(node, &expected(schema), is_secret(schema));
        }
    }

    /// One of a few words, in any spelling of them.
    fn word(&mut self, node: &mut Node, schema: Resolved, words: &[&'static str]) {
        if let Value::Text(text) = &mut node.value {
            let wanted = normal(text.as_str());
            let spellings = schema.schema.get(SPELLINGS).and_then(Json::as_object).into_iter().flatten();
            let meant = spellings
                .filter(|(spelling, _)| normal(spelling) == wanted)
                .find_map(|(_, word)| word.as_str());
            if let Some(word) = meant.or_else(|| words.iter().copied().find(|word| normal(word) == wanted)) {
                *text = word.into();
                return;
            }
        }
        self.mismatch(node, &one_of(words), false);
    }

    fn twice(&mut self, entry: &Entry, first: &str, second: &str) {
        let key = join(&self.path, &segment(&entry.key));
        let message = if first == second {
            format!("the key {first:?} is there twice")
        } else {
            format!("found both {first:?} and {second:?}, which are the same key")
        };
        self.report.error(Note::new(entry.key_span.start, key, message).hint("keep one of the two"));
    }

    fn unknown(&mut self, entry: &Entry, known: Option<&Map<String, Json>>) {
        if ["$schema", "_", "x-", "//"].iter().any(|start| entry.key.starts_with(start)) {
            return;
        }
        let key = join(&self.path, &segment(&entry.key));
        let mut note = Note::new(entry.key_span.start, key, "unknown key, not used");
        if let Some(near) = known.and_then(|known| nearest(&entry.key, known)) {
            note = note.hint(format!("did you mean `{near}`?"));
        }
        self.report.warn(note);
    }

    fn mismatch(&mut self, node: &mut Node, expected: &str, secret: bool) {
        self.error(node, format!("found {}, expected {expected}", found(&node.value, secret)));
    }

    /// Reports a node and takes it out, so that what is left can still be checked.
    fn error(&mut self, node: &mut Node, message: String) {
        self.report.error(Note::new(node.span.start, self.path.as_str(), message));
        node.value = Value::Broken;
    }

    fn within(&mut self, segment: &str, walk: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path = join(&self.path, segment);
        walk(self);
        self.path.truncate(length);
    }
}

/// `healthCheck`, `health_check` and `Health-Check` are one key.
fn normal(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}

/// The property that a key means, under any of its spellings.
fn canonical(key: &str, known: &'static Map<String, Json>) -> Option<(String, &'static Json)> {
    if key.len() > LONGEST_KEY || key.starts_with(['_', '-']) {
        return None;
    }
    let wanted = normal(key);
    let aliases = |schema: &'static Json| schema.get(ALIASES).and_then(Json::as_array).into_iter().flatten();
    let exact = known.get_key_value(key);
    let found = exact.or_else(|| {
        known.iter().find(|(name, schema)| {
            normal(name) == wanted
                || aliases(schema).filter_map(Json::as_str).any(|alias| normal(alias) == wanted)
        })
    });
    found.map(|(name, schema)| (name.clone(), schema))
}

/// The known key that looks most like this one, if any does.
fn nearest<'k>(key: &str, known: &'k Map<String, Json>) -> Option<&'k str> {
    if key.len() > LONGEST_KEY {
        return None;
    }
    let likeness = |name: &str| strsim::jaro_winkler(&normal(key), &normal(name));
    let best = known.keys().map(|name| (likeness(name), name)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= 0.75).then_some(best.1)
}

fn is_anything(schema: &Json) -> bool {
    ["type", "oneOf", "anyOf", "enum", "properties"].iter().all(|keyword| schema.get(keyword).is_none())
}

fn is_secret(schema: Resolved) -> bool {
    schema.schema.get("writeOnly").is_some()
}

/// Whether a value is of one of these types; an expanded string becomes the number or truth that is wanted.
fn fit_type(value: &mut Value, types: &[&str]) -> bool {
    let wants = |name| types.contains(&name);
    match value {
        Value::Text(_) if wants("string") => true,
        Value::Text(text) if text.is_expanded() => {
            let read = read_plain(text.as_str().trim());
            read.is_some_and(|mut read| {
                let fits = fit_type(&mut read, types);
                *value = if fits { read } else { value.clone() };
                fits
            })
        }
        Value::Bool(_) => wants("boolean"),
        Value::Number(_) if wants("number") => true,
        Value::Number(number) if wants("integer") => match whole(number) {
            Some(integer) => {
                *number = integer;
                true
            }
            None => false,
        },
        Value::List(_) => wants("array"),
        Value::Table(_) => wants("object"),
        _ => false,
    }
}

/// The number or truth that a text spells.
fn read_plain(text: &str) -> Option<Value> {
    match serde_json::from_str(text).ok()? {
        Json::Bool(truth) => Some(Value::Bool(truth)),
        Json::Number(number) => Some(Value::Number(number)),
        _ => None,
    }
}

/// The number as an integer: `8080.0` is one.
fn whole(number: &Number) -> Option<Number> {
    if number.is_i64() || number.is_u64() {
        return Some(number.clone());
    }
    // Beyond 2^53 a float no longer says which integer was meant.
    let float =
        number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0)?;
    format!("{float:.0}").parse().ok()
}

fn in_range(number: &Number, schema: &Json) -> bool {
    let value = number.as_f64().unwrap_or(f64::INFINITY);
    let bound = |name: &str| schema.get(name).and_then(Json::as_f64);
    bound("minimum").is_none_or(|least| value >= least)
        && bound("maximum").is_none_or(|most| value <= most)
        && fits_integer_format(number, schema)
}

/// What serde will ask of an integer and `minimum`/`maximum` do not say.
fn fits_integer_format(number: &Number, schema: &Json) -> bool {
    match schema.get("format").and_then(Json::as_str) {
        Some("uint32") => number.as_u64().is_some_and(|number| u32::try_from(number).is_ok()),
        Some("uint64" | "size" | "memory-limit") => number.is_u64(),
        Some("int64") => number.is_i64(),
        _ => true,
    }
}

/// The checked tree as serde takes it; what is broken is left out.
pub(crate) fn to_json(node: &Node) -> Option<Json> {
    Some(match &node.value {
        Value::Broken => return None,
        Value::Null => Json::Null,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::Number(number) => Json::Number(number.clone()),
        Value::Date(date) => Json::String(date.clone()),
        Value::Text(text) => serde_json::to_value(Carried::from(text)).unwrap_or_default(),
        Value::List(items) => Json::Array(items.iter().filter_map(to_json).collect()),
        Value::Table(entries) => Json::Object(
            entries.iter().filter_map(|entry| Some((entry.key.clone(), to_json(&entry.node)?))).collect(),
        ),
    })
}
