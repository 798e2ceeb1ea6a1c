//! What all upstreams offer together, under the names that clients see, and the way back from such a name.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::upstream::{Item, Lists, Offer, Upstream};
use super::wire::{self, Edit};
use crate::config::{self, Config, ConflictResolution, Text};

/// The longest tool or prompt name (MCP 2026-07-28; older revisions set no limit).
const LONGEST_NAME: usize = 128;
/// Between an upstream's namespace and its own name of a thing.
const SEPARATOR: &str = "__";

/// Where a name leads.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// Who has it.
    pub(crate) upstream: Arc<Upstream>,
    /// What it is called there.
    pub(crate) name: String,
}

/// The offers of one moment. A change makes a new catalog.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    tools: HashMap<String, Route>,
    prompts: HashMap<String, Route>,
    resources: HashMap<String, Arc<Upstream>>,
    /// By URI template, with the part before its first variable, the longest such part first.
    templates: Vec<(String, String, Arc<Upstream>)>,
    /// The upstream that has resources, when it is the only one.
    sole: Option<Arc<Upstream>>,
    /// What is offered more than once, and so not by everybody at `/mcp`: sentences for the log.
    pub(crate) clashes: BTreeSet<String>,
    /// The result of tools/list, as JSON; the other lists likewise.
    pub(crate) tools_list: String,
    /// See `tools_list`.
    pub(crate) prompts_list: String,
    /// See `tools_list`.
    pub(crate) resources_list: String,
    /// See `tools_list`.
    pub(crate) templates_list: String,
}

impl Catalog {
    /// Puts the offers together, in the order of the config.
    pub(crate) fn build<'a>(upstreams: impl Iterator<Item = &'a Arc<Upstream>>, config: &Config) -> Self {
        let of = |upstream: &Upstream| config.upstreams.get(&upstream.spec.name);
        let mut all: Vec<(&Arc<Upstream>, Arc<Offer>)> =
            upstreams.map(|upstream| (upstream, upstream.offer())).collect();
        // Stable: where priorities are equal, the order of the config decides.
        all.sort_by_key(|(upstream, _)| of(upstream).map(|config| config.priority));
        let mut catalog = Self::default();
        let (bridge, shared) = (&config.bridge, &config.bridge.aggregation);
        let mut clashes = BTreeSet::new();
        let mut named = |list: fn(&Offer) -> &[Item], own: fn(&config::Upstream) -> Option<&Text>| {
            let entries: Vec<Entry<'_>> = all
                .iter()
                .flat_map(|(upstream, offer)| {
                    let namespace = match of(upstream).and_then(own).map(Text::as_str) {
                        Some(own) => Some(own).filter(|own| !own.is_empty()),
                        None => bridge.default_namespace.then_some(upstream.spec.name.as_str()),
                    };
                    list(offer).iter().map(move |item| Entry { upstream, namespace, item })
                })
                .collect();
            publish(&entries, bridge.conflict_resolution, &mut clashes)
        };
        let (mut tool_list, mut prompt_list) = (Vec::new(), Vec::new());
        if shared.tools {
            (catalog.tools, tool_list) = named(|offer| &offer.tools, |config| config.tool_namespace.as_ref());
        }
        if shared.prompts {
            (catalog.prompts, prompt_list) =
                named(|offer| &offer.prompts, |config| config.prompt_namespace.as_ref());
        }
        catalog.clashes = clashes;
        catalog.tools_list = listing("tools", &tool_list);
        catalog.prompts_list = listing("prompts", &prompt_list);
        catalog.add_resources(if shared.resources { &all } else { &[] });
        catalog
    }

    fn add_resources(&mut self, all: &[(&Arc<Upstream>, Arc<Offer>)]) {
        let (mut resources, mut templates) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for (upstream, offer) in all {
            for item in &offer.resources {
                if !self.resources.contains_key(&item.key) {
                    self.resources.insert(item.key.clone(), Arc::clone(upstream));
                    resources.push(item.raw.get().to_owned());
                } else {
                    let first = &self.resources[&item.key];
                    self.clashes.insert(hidden(upstream, "resource", &item.key, first));
                }
            }
            for item in &offer.templates {
                if seen.insert(item.key.as_str()) {
                    let literal = item.key.split('{').next().unwrap_or_default().to_owned();
                    self.templates.push((item.key.clone(), literal, Arc::clone(upstream)));
                    templates.push(item.raw.get().to_owned());
                }
            }
        }
        self.templates.sort_by_key(|(_, literal, _)| std::cmp::Reverse(literal.len()));
        self.resources_list = listing("resources", &resources);
        self.templates_list = listing("resourceTemplates", &templates);
        let mut having =
            all.iter().filter(|(_, offer)| !offer.resources.is_empty() || !offer.templates.is_empty());
        self.sole = match (having.next(), having.next()) {
            (Some((only, _)), None) => Some(Arc::clone(*only)),
            _ => None,
        };
    }

    /// Who has that tool.
    pub(crate) fn tool(&self, name: &str) -> Option<&Route> {
        self.tools.get(name)
    }

    /// Who has that prompt.
    pub(crate) fn prompt(&self, name: &str) -> Option<&Route> {
        self.prompts.get(name)
    }

    /// Who has that resource: who lists it, else whose template begins like it, else the only one that has any.
    pub(crate) fn resource(&self, uri: &str) -> Option<&Arc<Upstream>> {
        let by_template = || {
            let mut fitting = self.templates.iter();
            fitting.find(|(template, literal, _)| template == uri || uri.starts_with(literal.as_str()))
        };
        self.resources
            .get(uri)
            .or_else(|| by_template().map(|(_, _, upstream)| upstream))
            .or(self.sole.as_ref())
    }

    /// Which lists a client would find changed.
    pub(crate) fn difference(&self, other: &Self) -> Lists {
        Lists {
            tools: self.tools_list != other.tools_list,
            resources: self.resources_list != other.resources_list
                || self.templates_list != other.templates_list,
            prompts: self.prompts_list != other.prompts_list,
        }
    }
}

struct Entry<'a> {
    upstream: &'a Arc<Upstream>,
    namespace: Option<&'a str>,
    item: &'a Item,
}

/// Gives each entry a name that no other has, or none where the config wants only one of those that clash.
fn publish(
    entries: &[Entry<'_>],
    clash: ConflictResolution,
    clashes: &mut BTreeSet<String>,
) -> (HashMap<String, Route>, Vec<String>) {
    let plain: Vec<String> = entries.iter().map(|entry| name_in(entry.namespace, &entry.item.key)).collect();
    let mut count: HashMap<&str, usize> = HashMap::new();
    for name in &plain {
        *count.entry(name).or_default() += 1;
    }
    let mut routes: HashMap<String, Route> = HashMap::with_capacity(entries.len());
    let mut raws = Vec::with_capacity(entries.len());
    for (entry, plain) in entries.iter().zip(&plain) {
        let own = &entry.item.key;
        let mut name = plain.clone();
        if count[plain.as_str()] > 1 {
            match clash {
                ConflictResolution::Namespace => name = name_in(Some(&entry.upstream.spec.name), own),
                ConflictResolution::Priority | ConflictResolution::First => {}
                ConflictResolution::Error => {
                    clashes.insert(format!(
                        "`{plain}` is offered more than once: none of them is at /mcp, as `conflictResolution` is \
                         `error`"
                    ));
                    continue;
                }
            }
        }
        if let Some(taken) = routes.get(&name) {
            if clash != ConflictResolution::Namespace {
                clashes.insert(hidden(entry.upstream, "name", &name, &taken.upstream));
                continue;
            }
            name = with_hash(&name, &format!("{}/{own}", entry.upstream.spec.name));
        }
        raws.push(renamed(&entry.item.raw, &name));
        routes.insert(name, Route { upstream: Arc::clone(entry.upstream), name: own.clone() });
    }
    (routes, raws)
}

fn hidden(upstream: &Upstream, what: &str, key: &str, by: &Upstream) -> String {
    let (own, other) = (&upstream.spec.name, &by.spec.name);
    format!(
        "{what} `{key}` of `{own}` is also offered by `{other}`, which comes first: it is at /mcp/{own} only"
    )
}

fn name_in(namespace: Option<&str>, name: &str) -> String {
    let full = match namespace {
        Some(namespace) => format!("{namespace}{SEPARATOR}{name}"),
        None => name.to_owned(),
    };
    if full.len() <= LONGEST_NAME { full } else { with_hash(&full, &full) }
}

/// A name cut to size, that ends in a hash of `whole`: the same one every time.
fn with_hash(name: &str, whole: &str) -> String {
    let digest = Sha256::digest(whole);
    let mut end = name.len().min(LONGEST_NAME - 9);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let hash: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{hash}", &name[..end])
}

/// An item under another name, all else as its upstream wrote it.
fn renamed(item: &RawValue, name: &str) -> String {
    let Some(old) = super::upstream::find_member(item, "name") else { return item.get().to_owned() };
    let name = wire::quote(name);
    let bytes = wire::spliced(item.get(), &mut [Edit::of(item.get(), old, &name)]);
    String::from_utf8(bytes).unwrap_or_else(|_| item.get().to_owned())
}

fn listing(member: &str, items: &[String]) -> String {
    format!(r#"{{"{member}":[{}]}}"#, items.join(","))
}
