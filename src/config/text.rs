//! Strings of the config: what a person wrote and what came of it, kept apart so that nothing leaks.

use std::ffi::OsStr;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

use super::expand;

/// What stands for a secret wherever it would be seen.
pub(crate) const MASK: &str = "********";

/// The schema keyword that marks a string whose source text is kept.
pub(crate) const KEEPS_SOURCE: &str = "x-keeps-source";

/// A string of the config. `Debug` and `Serialize` print it as written (`${TOKEN}`), `as_str` gives what came of it.
#[derive(Clone, PartialEq, Eq, Default, Hash)]
pub struct Text {
    value: String,
    source: Option<Box<str>>,
}

impl Text {
    pub(crate) fn expanded(value: String, source: &str) -> Self {
        Self { value, source: Some(source.into()) }
    }

    /// The expanded value. Never log it: it may hold a secret that the environment gave.
    pub fn as_str(&self) -> &str {
        &self.value
    }

    /// The text as the person wrote it, fit to be shown.
    pub fn shown(&self) -> &str {
        self.source.as_deref().unwrap_or(&self.value)
    }

    /// Whether the value is not what stands in the file.
    pub(crate) fn is_expanded(&self) -> bool {
        self.source.is_some()
    }

    /// Forgets the source, for places where the value is one of a few known words or a number.
    pub(crate) fn forget_source(&mut self) {
        self.source = None;
    }
}

impl From<String> for Text {
    fn from(value: String) -> Self {
        Self { value, source: None }
    }
}

impl From<&str> for Text {
    fn from(value: &str) -> Self {
        Self::from(value.to_owned())
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.value
    }
}

impl AsRef<OsStr> for Text {
    fn as_ref(&self) -> &OsStr {
        self.value.as_ref()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

/// How a `Text` travels from the checked tree into the model. A plain string is its own source.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Carried {
    Plain(String),
    Expanded {
        // No key that a person types: a table of theirs is never taken for this.
        #[serde(rename = "\0value")]
        value: String,
        #[serde(rename = "\0source")]
        source: Box<str>,
    },
}

impl From<&Text> for Carried {
    fn from(text: &Text) -> Self {
        let value = text.value.clone();
        match &text.source {
            Some(source) => Self::Expanded { value, source: source.clone() },
            None => Self::Plain(value),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Carried::deserialize(deserializer)? {
            Carried::Plain(value) => Self { value, source: None },
            Carried::Expanded { value, source } => Self { value, source: Some(source) },
        })
    }
}

impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", KEEPS_SOURCE: true })
    }
}

/// A string nobody may see: `Debug` prints a mask, `Serialize` the mask or the `${…}` it came from.
#[derive(Clone, PartialEq, Eq, Default, Hash, Deserialize)]
#[serde(transparent)]
pub struct Secret(Text);

impl Secret {
    /// The secret itself. Hand it to who needs it, and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0.value
    }

    /// The `${…}` parts as written, all literal text masked.
    pub fn shown(&self) -> String {
        self.0.source.as_deref().map_or_else(|| MASK.to_owned(), expand::mask_literals)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(Text::from(value))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "writeOnly": true, KEEPS_SOURCE: true })
    }
}

/// Any JSON value, with strings that keep their source: arguments that we pass on without reading them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Json {
    /// `null`
    Null(()),
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(serde_json::Number),
    /// A string.
    Text(Text),
    /// An array.
    List(Vec<Json>),
    /// An object.
    Map(indexmap::IndexMap<String, Json>),
}

impl JsonSchema for Json {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Json".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ KEEPS_SOURCE: true })
    }
}
