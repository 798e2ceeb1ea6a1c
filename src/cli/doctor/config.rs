//! Whether the configs can be read, and not by everybody.

use super::facts::{Config, Facts, Unread};
use super::finding::Finding;
use crate::cli::output;
use crate::config;
use crate::host::exposure::Exposure;

/// Each config can be read, and is valid.
pub(super) async fn valid(facts: &Facts) -> Vec<Finding> {
    facts.configs.iter().flat_map(read).collect()
}

fn read(config: &Config) -> Vec<Finding> {
    let mend = |problem: &config::Problem| {
        let edit = || format!("edit {}; to see every key: foxxy-bridge config schema", config.shown());
        problem.hint.clone().unwrap_or_else(edit)
    };
    let warned = |problem: &config::Problem| Finding::warning(bare(problem), mend(problem));
    match &config.read {
        Ok(read) => {
            let upstreams = &read.loaded.config.upstreams;
            let enabled = upstreams.values().filter(|upstream| upstream.enabled).count();
            let mut found: Vec<Finding> = read.loaded.warnings.iter().map(warned).collect();
            if found.is_empty() {
                found.push(Finding::ok(match config.path {
                    Some(_) => {
                        format!("{}: {enabled} of {} servers enabled", config.shown(), upstreams.len())
                    }
                    None => "none: the built-in default is used".to_owned(),
                }));
            }
            found
        }
        Err(Unread::Invalid(invalid)) => {
            let wrong = invalid.problems.iter();
            let wrong = wrong.map(|problem| Finding::problem(bare(problem), mend(problem)));
            wrong.chain(invalid.warnings.iter().map(warned)).collect()
        }
        Err(Unread::Silent) => vec![Finding::problem(
            format!("{} is not read within some seconds", config.shown()),
            "see whether its file system answers: `findmnt` tells which it is",
        )],
    }
}

/// A problem without its hint, which is told apart.
fn bare(problem: &config::Problem) -> String {
    config::Problem { hint: None, ..problem.clone() }.to_string()
}

/// No config that others may change, and none with a secret in it that others may read.
pub(super) async fn private(facts: &Facts) -> Vec<Finding> {
    let named = facts.configs.iter().filter_map(|config| Some((config, config.path.as_deref()?)));
    named
        .filter_map(|(config, path)| {
            let secrets = config.config().map(literal_secrets).unwrap_or_default();
            let path = path.display().to_string();
            Some(tell(&path, config.exposure?, &secrets))
        })
        .collect()
}

/// In words; `secrets` are the keys whose values stand in the file.
fn tell(path: &str, exposure: Exposure, secrets: &[String]) -> Finding {
    if exposure.writable {
        let found = format!("{path} may be changed by every user, and says which programs are run");
        return Finding::problem(found, format!("chmod o-w {}", output::quoted(path)));
    }
    if exposure.replaceable {
        let folder = path.rsplit_once('/').map_or("/", |(folder, _)| folder);
        let found = format!("{path} may be replaced by every user, and says which programs are run");
        return Finding::problem(found, format!("chmod o-w {}", output::quoted(folder)));
    }
    match secrets {
        [] => Finding::ok(format!("{path}: no secret in it that others may read")),
        _ if !exposure.readable => Finding::ok(format!("{path}: its secrets are for its owner")),
        [first, others @ ..] => {
            let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
            Finding::warning(
                format!("{path} may be read by every user, and has a secret in it: {first}{more}"),
                format!("chmod 600 {}; or take it from a variable, as `${{TOKEN}}`", output::quoted(path)),
            )
        }
    }
}

/// The keys of the secrets that stand in the config itself.
fn literal_secrets(config: &config::Config) -> Vec<String> {
    let mut found = Vec::new();
    for (server, upstream) in &config.upstreams {
        let tables = [("env", &upstream.env), ("headers", &upstream.headers)];
        for (table, values) in tables {
            let literal = values.iter().filter(|(name, value)| sounds_secret(name) && is_literal(value));
            found.extend(literal.map(|(name, _)| format!("mcpServers.{server}.{table}.{name}")));
        }
        let secret = upstream.authentication.as_ref().map(|authentication| match authentication {
            config::Authentication::Bearer { token } => token,
            config::Authentication::ApiKey { key, .. } => key,
            config::Authentication::Basic { password, .. } => password,
        });
        if secret.is_some_and(is_literal) {
            found.push(format!("mcpServers.{server}.authentication"));
        }
        let client = upstream.oauth_config.as_ref().and_then(|oauth| oauth.client_secret.as_ref());
        if client.is_some_and(is_literal) {
            found.push(format!("mcpServers.{server}.oauth_config.client_secret"));
        }
    }
    let of_bridge = config.bridge.daemon.environment.iter();
    let literal = of_bridge.filter(|(name, value)| sounds_secret(name) && is_literal(value));
    found.extend(literal.map(|(name, _)| format!("bridge.daemon.environment.{name}")));
    found
}

/// Whether nothing of a value comes from elsewhere.
fn is_literal(secret: &config::Secret) -> bool {
    !secret.expose().is_empty() && !secret.shown().contains("${")
}

/// Whether a variable or header of that name holds a secret, as far as names tell.
fn sounds_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["token", "key", "secret", "passw", "auth", "credential", "cookie"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cli::doctor::finding::State;
    use crate::config::{Format, Sources};

    fn secrets(text: &str) -> Vec<String> {
        let env = |name: &str| (name == "TOKEN").then(|| "t0ken".to_owned());
        let sources = Sources { env: &env, home: None, credentials: None };
        let parsed = config::parse(text, Format::Json, Path::new("c.json"), Path::new("/"), &sources);
        literal_secrets(&parsed.unwrap().0)
    }

    #[test]
    fn a_secret_is_one_that_stands_in_the_file() {
        let text = r#"{ "mcpServers": {
            "a": { "command": "x", "env": { "API_KEY": "k", "NODE_ENV": "production", "MY_TOKEN": "${TOKEN}" } },
            "b": { "url": "https://x.example/mcp", "headers": { "Authorization": "Bearer ${TOKEN}", "X-Key": "k" } },
            "c": { "url": "https://x.example/mcp", "authentication": { "type": "bearer", "token": "t" } },
            "d": { "url": "https://x.example/mcp", "authentication": { "type": "bearer", "token": "${TOKEN}" } }
        } }"#;
        assert_eq!(
            secrets(text),
            ["mcpServers.a.env.API_KEY", "mcpServers.b.headers.X-Key", "mcpServers.c.authentication"]
        );
    }

    #[test]
    fn what_others_may_do_with_a_config_decides() {
        let secret = ["mcpServers.a.env.API_KEY".to_owned()];
        let closed = Exposure::default();
        let open = Exposure { readable: true, ..closed };
        assert_eq!(tell("/c.json", closed, &secret).state, State::Ok);
        assert_eq!(tell("/c.json", open, &[]).state, State::Ok);
        let warned = tell("/my c.json", open, &secret);
        assert_eq!(warned.state, State::Warning);
        assert!(warned.found.ends_with("a secret in it: mcpServers.a.env.API_KEY"), "{warned:?}");
        assert!(warned.fix.unwrap().starts_with("chmod 600 '/my c.json';"));
        let replaceable = tell("/d/c.json", Exposure { replaceable: true, ..closed }, &[]);
        assert_eq!((replaceable.state, replaceable.fix.as_deref()), (State::Problem, Some("chmod o-w /d")));
    }
}
