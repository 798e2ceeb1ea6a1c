//! Keys that are read and checked, but whose function this version does not have yet.

use serde_json::Value as Json;

use super::check::to_json;
use super::describe::{join, segment};
use super::document::{Node, Value};
use super::model::Bridge;
use super::problem::{Note, Report};
use super::upstream::Upstream;

/// Key paths; `*` is any key. Delete one when its function arrives; nothing else is to be done here.
const PENDING: &[&str] = &[
    "mcpServers.*.healthCheck",
    "mcpServers.*.oauth_config",
    "mcpServers.*.security",
    "mcpServers.*.tags",
    "mcpServers.*.log_level",
    "mcpServers.*.resourceNamespace",
    "bridge.oauth_port",
    "bridge.failover",
    "bridge.configReload",
    "bridge.mcp_log_level",
    "bridge.read_only_mode",
    "bridge.security",
    "bridge.allow_command_substitution",
    "bridge.allowed_commands",
    "bridge.allow_dangerous_commands",
];

/// One warning for each of them that the file sets to more than its default, at the first place that does.
pub(crate) fn warn(root: &Node, report: &mut Report) {
    for path in PENDING {
        let keys: Vec<_> = path.split('.').collect();
        let row = Search { default: default_of(&keys) };
        let mut places = Vec::new();
        row.find(root, 0, &keys, String::new(), &mut places);
        let others = places.len().saturating_sub(1);
        let Some((offset, key)) = places.into_iter().next() else { continue };
        let note = Note::new(offset, key, "accepted, not yet in force");
        report.warn(match others {
            0 => note,
            1 => note.hint("also in 1 other place"),
            _ => note.hint(format!("also in {others} other places")),
        });
    }
}

/// The default of a key, where it has one.
fn default_of(keys: &[&str]) -> Option<Json> {
    let (defaults, keys) = match keys {
        ["bridge", keys @ ..] => (serde_json::to_value(Bridge::default()).ok()?, keys),
        ["mcpServers", "*", keys @ ..] => (serde_json::to_value(Upstream::default()).ok()?, keys),
        _ => return None,
    };
    keys.iter().try_fold(&defaults, |value, key| value.get(key)).cloned()
}

struct Search {
    default: Option<Json>,
}

impl Search {
    fn find(&self, node: &Node, at: usize, keys: &[&str], path: String, places: &mut Vec<(usize, String)>) {
        let Some((key, rest)) = keys.split_first() else {
            if self.is_meant(node) {
                places.push((at, path));
            }
            return;
        };
        let Value::Table(entries) = &node.value else { return };
        for entry in entries.iter().filter(|entry| *key == "*" || entry.key == *key) {
            let path = join(&path, &segment(&entry.key));
            self.find(&entry.node, entry.key_span.start, rest, path, places);
        }
    }

    fn is_meant(&self, node: &Node) -> bool {
        !is_off(node) && (self.default.is_none() || to_json(node) != self.default)
    }
}

/// Whether a value asks for nothing, so that nobody waits for its effect.
pub(crate) fn is_off(node: &Node) -> bool {
    match &node.value {
        Value::Null | Value::Bool(false) | Value::Broken => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Text(text) => matches!(text.as_str(), "" | "off"),
        Value::List(items) => items.is_empty(),
        Value::Table(entries) => {
            entries.iter().all(|entry| is_off(&entry.node))
                || node.get("enabled").is_some_and(|entry| entry.node.value == Value::Bool(false))
        }
        Value::Bool(true) | Value::Date(_) => false,
    }
}
