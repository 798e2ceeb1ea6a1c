//! A config file as a tree of values that know where they stand, whether it was JSON or TOML.

use std::collections::HashSet;
use std::ops::Range;

use jsonc_parser::ast;
use jsonc_parser::common::Ranged;
use serde_json::Number;
use toml::de::{DeTable, DeValue};

use super::problem::Note;
use super::text::Text;

/// Deeper nesting than this has no use in a config, and walking it must not exhaust the stack.
const DEEPEST: usize = 64;

/// The language a config file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON; comments and trailing commas are allowed.
    Json,
    /// TOML.
    Toml,
}

/// A value and the bytes it was read from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) span: Range<usize>,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(Text),
    /// A TOML date or time, which no key of ours takes.
    Date(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// Something wrong that was reported.
    Broken,
}

/// One key of a table with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Range<usize>,
    pub(crate) node: Node,
}

impl Node {
    /// The value of a key, if this is a table that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// Where the deepest existing part of a key path stands: its key, or the root.
    pub(crate) fn offset_of(&self, path: &[&str]) -> usize {
        let mut at = (self.span.start, self);
        for key in path {
            match at.1.get(key) {
                Some(entry) => at = (entry.key_span.start, &entry.node),
                None => break,
            }
        }
        at.0
    }
}

/// Reads a text into a tree; the first syntax error or duplicate key ends it.
pub(crate) fn parse(text: &str, format: Format) -> Result<Node, Note> {
    if text.trim().is_empty() {
        let hint = "`foxxy-bridge config init` writes a sample";
        return Err(Note::new(0, "", "the file is empty, expected at least `mcpServers`").hint(hint));
    }
    match format {
        Format::Json => parse_json(text),
        Format::Toml => parse_toml(text),
    }
}

fn parse_json(text: &str) -> Result<Node, Note> {
    // Every leniency beyond comments and trailing commas would make files that other tools refuse.
    let options = jsonc_parser::ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    match jsonc_parser::parse_to_ast(text, &jsonc_parser::CollectOptions::default(), &options) {
        Ok(parsed) => match parsed.value {
            Some(value) => json_node(value, 0),
            None => Err(Note::new(0, "", "the file holds only comments, expected an object")),
        },
        Err(error) => {
            let reason = lower_first(&error.kind().to_string());
            Err(Note::new(error.range().start, "", format!("not valid JSON: {reason}")))
        }
    }
}

fn json_node(value: ast::Value<'_>, depth: usize) -> Result<Node, Note> {
    let span = value.start()..value.end();
    within_depth(depth, &span)?;
    let value = match value {
        ast::Value::NullKeyword(_) => Value::Null,
        ast::Value::BooleanLit(literal) => Value::Bool(literal.value),
        ast::Value::StringLit(literal) => Value::Text(Text::from(literal.value.into_owned())),
        ast::Value::NumberLit(literal) => Value::Number(number(literal.value, 10, &span)?),
        ast::Value::Array(array) => Value::List(
            array.elements.into_iter().map(|item| json_node(item, depth + 1)).collect::<Result<_, _>>()?,
        ),
        ast::Value::Object(object) => {
            let mut seen = HashSet::new();
            let mut entries = Vec::with_capacity(object.properties.len());
            for property in object.properties {
                let key_span = property.name.start()..property.name.end();
                let key = property.name.into_string();
                if !seen.insert(key.clone()) {
                    return Err(Note::new(key_span.start, "", format!("the key {key:?} is there twice"))
                        .hint("keep one of the two"));
                }
                entries.push(Entry { key, key_span, node: json_node(property.value, depth + 1)? });
            }
            Value::Table(entries)
        }
    };
    Ok(Node { value, span })
}

/// The TOML parser bounds inline nesting and dotted keys to 80 each, which multiply, and dropping such a tree recurses:
/// more than a thread's usual stack holds, so it gets a stack that is large enough.
fn parse_toml(text: &str) -> Result<Node, Note> {
    const STACK: usize = 64 * 1024 * 1024;
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || toml_tree(text));
        let parsed =
            parser.map_err(|error| Note::new(0, "", format!("no thread to read TOML in: {error}")))?;
        parsed.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn toml_tree(text: &str) -> Result<Node, Note> {
    match DeTable::parse(text) {
        Ok(table) => toml_node(DeValue::Table(table.into_inner()), 0..text.len(), 0),
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            let reason = lower_first(error.message());
            Err(Note::new(offset, "", format!("not valid TOML: {reason}")))
        }
    }
}

fn toml_node(value: DeValue<'_>, span: Range<usize>, depth: usize) -> Result<Node, Note> {
    within_depth(depth, &span)?;
    let value = match value {
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::String(value) => Value::Text(Text::from(value.into_owned())),
        DeValue::Integer(value) => Value::Number(number(value.as_str(), value.radix(), &span)?),
        DeValue::Float(value) => Value::Number(number(value.as_str(), 10, &span)?),
        DeValue::Datetime(value) => Value::Date(value.to_string()),
        DeValue::Array(items) => {
            let items = items.into_iter().map(|item| {
                let span = item.span();
                toml_node(item.into_inner(), span, depth + 1)
            });
            Value::List(items.collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => {
            let mut entries = Vec::with_capacity(table.len());
            for (key, item) in table {
                let (key_span, span) = (key.span(), item.span());
                let node = toml_node(item.into_inner(), span, depth + 1)?;
                entries.push(Entry { key: key.into_inner().into_owned(), key_span, node });
            }
            // The parser sorts by name; a person's order is the order of the file.
            entries.sort_by_key(|entry| entry.key_span.start);
            Value::Table(entries)
        }
    };
    Ok(Node { value, span })
}

fn within_depth(depth: usize, span: &Range<usize>) -> Result<(), Note> {
    if depth <= DEEPEST {
        return Ok(());
    }
    Err(Note::new(span.start, "", format!("nested more than {DEEPEST} levels deep")))
}

/// An integer where the text is one that 64 bits hold, else a finite float.
fn number(text: &str, radix: u32, span: &Range<usize>) -> Result<Number, Note> {
    if let Ok(integer) = i64::from_str_radix(text, radix) {
        return Ok(integer.into());
    }
    if let Ok(integer) = u64::from_str_radix(text, radix) {
        return Ok(integer.into());
    }
    let float = if radix == 10 { text.parse().ok().and_then(Number::from_f64) } else { None };
    float.ok_or_else(|| Note::new(span.start, "", format!("the number {text} is out of range")))
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
