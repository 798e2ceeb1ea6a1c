//! Unit files, from the templates in `templates/` (systemd.syntax(7), systemd.unit(5), systemd.service(5)).

use std::sync::LazyLock;

use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, Output, RenderContext, RenderError,
    RenderErrorReason, no_escape,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::drop_in::UnitText;
use super::{DIGEST_FIELD, Settings, memory_text};
use crate::instance::Scope;
use crate::manager::systemd::features::Version;
use crate::manager::{ANY_INSTANCE, Error, SocketSpec, UnitSpec};

/// The drop-in that says what one instance has of its own. Those of a person, such as `override.conf` of `systemctl
/// edit`, come after it.
pub(in crate::manager::systemd) const DROP_IN: &str = "50-foxxy-bridge.conf";

/// What the first line of a file begins with that may be replaced and removed.
const OURS: &str = "Written by foxxy-bridge";

/// What a person is told who opens such a file.
const HEADER: &str = concat!("Written by foxxy-bridge ", env!("CARGO_PKG_VERSION"));

static TEMPLATES: LazyLock<Handlebars<'static>> = LazyLock::new(|| {
    let mut templates = Handlebars::new();
    templates.set_strict_mode(true);
    // A unit file is no HTML.
    templates.register_escape_fn(no_escape);
    let texts = [
        ("service", include_str!("../../../../templates/service.hbs")),
        ("socket", include_str!("../../../../templates/socket.hbs")),
        ("drop-in", include_str!("../../../../templates/drop-in.hbs")),
    ];
    for (name, text) in texts {
        if let Err(error) = templates.register_template_string(name, text) {
            unreachable!("the template {name} is part of the program: {error}");
        }
    }
    let helpers: [(&str, Words); 7] = [
        ("text", |value| Ok(escaped(&plain(value)))),
        ("path", |value| on_one_line(&plain(value))),
        ("quoted", |value| Ok(quote(&plain(value)))),
        ("command", |value| Ok(command_line(value))),
        ("words", |value| Ok(each(value, plain))),
        ("span", |value| Ok(span_text(value.as_u64().unwrap_or_default()))),
        ("value", |value| Ok(value_text(value))),
    ];
    for (name, words) in helpers {
        templates.register_helper(name, helper(words));
    }
    templates
});

/// How a helper writes a value, or why it cannot be written.
type Words = fn(&Value) -> Result<String, String>;

/// A helper of the templates: what it makes of its one argument.
fn helper(words: Words) -> Box<dyn HelperDef + Send + Sync> {
    Box::new(
        move |helper: &Helper<'_>,
              _: &Handlebars<'_>,
              _: &Context,
              _: &mut RenderContext<'_, '_>,
              out: &mut dyn Output|
              -> HelperResult {
            let value = helper.param(0).map_or(&Value::Null, |argument| argument.value());
            let text = words(value).map_err(RenderErrorReason::Other)?;
            Ok(out.write(&text)?)
        },
    )
}

/// The file of a service.
///
/// # Errors
/// A path that no unit file can hold.
pub(in crate::manager::systemd) fn service_file(
    spec: &UnitSpec,
    scope: Scope,
    version: Version,
) -> Result<String, Error> {
    let settings = Settings::new(spec, scope, version)?;
    let wanted_by = match scope {
        Scope::User => "default.target",
        Scope::System => "multi-user.target",
    };
    let advice = match spec.instance.as_str() {
        ANY_INSTANCE => "; changes belong in a drop-in: systemctl edit foxxy-bridge@NAME.service",
        _ => "",
    };
    let limits = &settings.limits;
    let number = |limit: Option<u64>| limit.map(|limit| limit.to_string());
    let mut values = json!(settings);
    values["limits"] = json!({
        "memory_max": limits.memory_max.map(memory_text),
        "memory_high": limits.memory_high.map(memory_text),
        "cpu_quota": limits.cpu_quota.map(percent_text),
        "tasks_max": number(limits.tasks_max),
        "nofile": number(limits.nofile),
    });
    values["header"] = format!("{HEADER}{advice}").into();
    values["bus_name"] = super::bus_names(&spec.instance).map(|[_, name]| name).into();
    // The template is for settings of many kinds.
    let digest = (spec.instance != ANY_INSTANCE).then(|| format!("{DIGEST_FIELD}{}", settings.digest()));
    values["digest"] = digest.into();
    values["wanted_by"] = wanted_by.into();
    render("service", &values)
}

/// The file of a socket.
pub(in crate::manager::systemd) fn socket_file(spec: &SocketSpec) -> Result<String, Error> {
    let header = format!("{HEADER}; changes belong in a drop-in: systemctl edit foxxy-bridge@NAME.socket");
    let description = format!("foxxy-bridge {}, not started before its first client", spec.instance);
    let ip = spec.address.ip();
    // These two every machine has, from the beginning.
    let free_bind = !ip.is_loopback() && !ip.is_unspecified();
    let address = spec.address.to_string();
    render(
        "socket",
        &json!({ "header": header, "description": description, "address": address, "free_bind": free_bind }),
    )
}

/// The drop-in that makes a unit whose file is `base` one that says what `wanted` says, for the instance of that name;
/// `None` when it does so already.
pub(in crate::manager::systemd) fn drop_in(
    base: &UnitText,
    wanted: &UnitText,
    command: &str,
) -> Result<Option<String>, Error> {
    #[derive(Serialize)]
    struct Section {
        name: String,
        lines: Vec<String>,
    }
    let sections: Vec<Section> =
        base.changes_to(wanted).into_iter().map(|(name, lines)| Section { name, lines }).collect();
    if sections.is_empty() {
        return Ok(None);
    }
    let header = format!("{HEADER}, and again by `{command}`; changes of yours belong in another drop-in");
    render("drop-in", &json!({ "header": header, "sections": sections })).map(Some)
}

/// Whether a file was written by this program, so that it may be replaced and removed.
pub(in crate::manager::systemd) fn is_ours(file: &str) -> bool {
    file.strip_prefix("# ").is_some_and(|rest| rest.starts_with(OURS))
}

fn render(template: &str, values: &Value) -> Result<String, Error> {
    TEMPLATES.render(template, values).map_err(|error| Error::NotInUnitFile { detail: cause(&error) })
}

/// The innermost words of an error.
fn cause(error: &RenderError) -> String {
    match error.reason() {
        RenderErrorReason::Other(words) => words.clone(),
        other => other.to_string(),
    }
}

/// Text in which systemd puts nothing in place of a `%`, but for the instance's name.
fn escaped(text: &str) -> String {
    text.replace('%', "%%").replace(ANY_INSTANCE, "%i")
}

/// A path where systemd takes the rest of the line as it is, without quotes.
fn on_one_line(path: &str) -> Result<String, String> {
    let strange = path.ends_with('\\') || path.trim() != path || path.contains(['\n', '\r']);
    if strange {
        return Err(format!("the path {path:?} has a character that a unit file cannot have there"));
    }
    Ok(escaped(path))
}

/// One word between double quotes, whatever is in it.
fn quote(word: &str) -> String {
    let mut quoted = String::from("\"");
    for character in escaped(word).chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_ascii_control() => {
                quoted.push_str(&format!("\\x{:02x}", u32::from(control)));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// A word that needs no quotes stays as a person would write it.
fn word(word: &str) -> String {
    let simple = |character: char| character.is_ascii_alphanumeric() || "/_.,:@=+-\0".contains(character);
    if !word.is_empty() && word.chars().all(simple) { escaped(word) } else { quote(word) }
}

/// A command line that is taken literally: the colon keeps systemd from putting variables in place of a `$`.
fn command_line(words: &Value) -> String {
    format!(":{}", each(words, |argument| word(&plain(argument))))
}

/// The items of a list, with a space between them.
fn each(list: &Value, words: impl Fn(&Value) -> String) -> String {
    list.as_array().into_iter().flatten().map(words).collect::<Vec<_>>().join(" ")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A time in seconds, or in microseconds where it is not a whole number of them.
fn span_text(micros: u64) -> String {
    match micros % 1_000_000 {
        0 => (micros / 1_000_000).to_string(),
        _ => format!("{micros}us"),
    }
}

/// Processor time as a share of one processor.
fn percent_text(micros_per_second: u64) -> String {
    let hundredths = micros_per_second / 100;
    match hundredths % 100 {
        0 => format!("{}%", hundredths / 100),
        rest => format!("{}.{rest:02}%", hundredths / 100),
    }
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(_) => each(value, |one| word(&plain(one))),
        other => plain(other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// The words of a command line as systemd takes them apart (extract-word.c), with specifiers and no variables.
    fn taken_apart(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut characters = line.strip_prefix(':').expect("taken literally").chars().peekable();
        while characters.peek().is_some() {
            let (mut word, mut quoted) = (String::new(), false);
            loop {
                match characters.next() {
                    None => break,
                    Some(' ') if !quoted => break,
                    Some('"') => quoted = !quoted,
                    Some('\'') => panic!("systemd would take it for a quote: {line}"),
                    Some('\\') => word.push(match characters.next().expect("something after it") {
                        'n' => '\n',
                        't' => '\t',
                        'x' => {
                            let digits: String = characters.by_ref().take(2).collect();
                            char::from(u8::from_str_radix(&digits, 16).expect("two hex digits"))
                        }
                        same @ ('"' | '\\') => same,
                        other => panic!("systemd knows no such escape: {other}"),
                    }),
                    Some('%') => {
                        assert_eq!((characters.next(), word.push('%')), (Some('%'), ()), "a specifier");
                    }
                    Some(other) => word.push(other),
                }
            }
            assert!(!quoted, "not closed: {line}");
            words.push(word);
        }
        words
    }

    proptest! {
        #[test]
        fn systemd_gets_the_words_that_were_given(words in prop::collection::vec("[^\0']{0,12}", 1..5)) {
            prop_assert_eq!(taken_apart(&command_line(&json!(words))), words);
        }

        #[test]
        fn a_command_line_stays_on_its_line(words in prop::collection::vec("[^\0]{0,12}", 1..5)) {
            let line = command_line(&json!(words));
            prop_assert!(!line.contains(['\n', '\r']), "{}", line);
        }
    }
}
