//! What holds for any input.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::string::string_regex;

use super::{json, sources};
use crate::config::check::{check, to_json};
use crate::config::expand::Expander;
use crate::config::problem::Report;
use crate::config::schema::SCHEMA;
use crate::config::{Config, Format, document, parse, schema, show};

fn never_panics(text: &str) {
    for format in [Format::Json, Format::Toml] {
        match parse(text, format, Path::new("f"), Path::new("/nowhere"), &sources()) {
            Ok((config, _)) => drop(show(&config)),
            Err(invalid) => {
                assert!(!invalid.problems.is_empty());
                assert!(!invalid.to_string().contains("a fault of foxxy-bridge"), "{text}");
            }
        }
    }
}

/// A value of some kind, right or wrong, for any key.
fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        (0u32..70_000).prop_map(Into::into),
        string_regex("[ -~]{0,12}").unwrap().prop_map(Into::into),
        proptest::sample::select(vec![
            "stdio", "http", "bearer", "10M", "50%", "${PORT}", "${YES}", "infinity", "DEBUG"
        ])
        .prop_map(Into::into),
        Just("http://h/".into()),
    ];
    let key = key().boxed();
    leaf.prop_recursive(3, 16, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Into::into),
            vec((key.clone(), inner), 0..4)
                .prop_map(|pairs| pairs.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

/// Any key of the schema, and now and then another.
fn key() -> impl Strategy<Value = String> {
    fn collect(schema: &serde_json::Value, keys: &mut Vec<String>) {
        match schema {
            serde_json::Value::Object(object) => {
                if let Some(serde_json::Value::Object(properties)) = object.get("properties") {
                    keys.extend(properties.keys().cloned());
                }
                object.values().for_each(|value| collect(value, keys));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, keys)),
            _ => {}
        }
    }
    let mut keys = Vec::new();
    collect(&schema(), &mut keys);
    assert!(keys.len() > 100, "{keys:?}");
    prop_oneof![9 => proptest::sample::select(keys), 1 => string_regex("[a-zA-Z_. -]{0,8}").unwrap()]
}

/// An object that may be a server, a bridge or a daemon.
fn object() -> impl Strategy<Value = serde_json::Value> {
    vec((key(), value()), 0..12).prop_map(|pairs| pairs.into_iter().collect::<serde_json::Map<_, _>>().into())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        never_panics(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn anything_that_looks_like_a_config_never_panics(text in r#"([{}\[\],:="'#/*.\\$\n ]|\$\{|true|null|mcpServers|bridge|-?[0-9]{1,3}|[a-c]){0,60}"#) {
        never_panics(&text);
    }

    #[test]
    fn what_passes_the_schema_fits_the_model(server in object(), bridge in object(), daemon in object()) {
        let mut bridge = bridge;
        bridge["daemon"] = daemon;
        let text = serde_json::json!({ "mcpServers": { "s": server }, "bridge": bridge }).to_string();
        never_panics(&text);
        // Whatever was found wrong: what is left of the tree must fit.
        let (sources, mut report) = (sources(), Report::default());
        let mut root = document::parse(&text, Format::Json).unwrap();
        let mut expander = Expander::new(&sources, Path::new("/nowhere"), &root);
        check(&mut root, &SCHEMA, &mut expander, &mut report);
        if let Some(left) = to_json(&root) {
            prop_assert!(serde_json::from_value::<Config>(left).is_ok(), "{}", text);
        }
    }

    #[test]
    fn a_shown_config_loads_to_the_same(
        name in "[a-z][a-z0-9.-]{0,20}",
        command in "[ -#%-~]{1,20}",
        args in vec("[ -#%-~é]{0,20}", 0..4),
        port in 1u16..,
        timeout in 1u32..86_400,
        millis in 0u32..86_400_000,
        priority: i64,
        bytes: u64,
    ) {
        prop_assume!(!command.trim().is_empty());
        let text = serde_json::json!({
            "mcpServers": { name: { "command": command, "args": args, "timeout": timeout, "retryDelay": millis, "priority": priority } },
            "bridge": { "port": port, "daemon": { "limits": { "memory_max": bytes } } },
        });
        let (config, _) = json(&text.to_string()).unwrap();
        prop_assert_eq!(json(&show(&config)).unwrap().0, config);
    }
}
