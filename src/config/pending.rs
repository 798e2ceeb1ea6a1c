//! Keys that are read and checked, but whose function this version does not have yet.

use serde_json::Value as Json;

use super::check::to_json;
use super::describe::{join, segment};
use super::document::{Node, Value};
use super::model::Bridge;
use super::problem::{Note, Report};
use super::upstream::Upstream;

/// A key path (`*` is any key), and the value that is meant where others are in force already.
type Row = (&'static str, Option<&'static str>);

/// Delete a row when its function arrives; nothing else is to be done here.
const PENDING: &[Row] = &[
    ("mcpServers.*.healthCheck", None),
    ("mcpServers.*.oauth_config", None),
    ("mcpServers.*.security", None),
    ("mcpServers.*.tags", None),
    ("mcpServers.*.log_level", None),
    ("mcpServers.*.resourceNamespace", None),
    ("bridge.oauth_port", None),
    ("bridge.failover", None),
    ("bridge.configReload", None),
    ("bridge.mcp_log_level", None),
    ("bridge.read_only_mode", None),
    ("bridge.security", None),
    ("bridge.allow_command_substitution", None),
    ("bridge.allowed_commands", None),
    ("bridge.allow_dangerous_commands", None),
    ("bridge.daemon.pid_file", None),
    ("bridge.daemon.log_file", None),
    ("bridge.daemon.log", None),
    ("bridge.daemon.manager", Some("pidfile")),
];

/// One warning for each row that the file sets to more than its default, at the first place that does.
pub(crate) fn warn(root: &Node, report: &mut Report) {
    for (path, value) in PENDING {
        let keys: Vec<_> = path.split('.').collect();
        let row = Search { wanted: *value, default: default_of(&keys) };
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

/// The default of a row's key, where it has one.
fn default_of(keys: &[&str]) -> Option<Json> {
    let (defaults, keys) = match keys {
        ["bridge", keys @ ..] => (serde_json::to_value(Bridge::default()).ok()?, keys),
        ["mcpServers", "*", keys @ ..] => (serde_json::to_value(Upstream::default()).ok()?, keys),
        _ => return None,
    };
    keys.iter().try_fold(&defaults, |value, key| value.get(key)).cloned()
}

struct Search {
    wanted: Option<&'static str>,
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
        match (&node.value, self.wanted) {
            (Value::Text(text), Some(wanted)) => text.as_str() == wanted,
            _ => !is_off(node) && (self.default.is_none() || to_json(node) != self.default),
        }
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
