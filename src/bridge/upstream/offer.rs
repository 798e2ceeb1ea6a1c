//! What an upstream offers: its lists, item by item as it wrote them.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Lists, Live, Spec};
use crate::bridge::wire::{self, Message};

/// Pages of one list that are read; an upstream that has more is cut off, with a warning.
const MAX_PAGES: usize = 1000;

/// One tool, resource, template or prompt.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// What it is called by: a name, a URI or a URI template.
    pub(crate) key: String,
    /// The whole of it, as written.
    pub(crate) raw: Box<RawValue>,
}

/// All lists of an upstream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Offer {
    /// By name.
    pub(crate) tools: Vec<Item>,
    /// By URI.
    pub(crate) resources: Vec<Item>,
    /// By URI template.
    pub(crate) templates: Vec<Item>,
    /// By name.
    pub(crate) prompts: Vec<Item>,
}

impl Offer {
    /// Which lists differ.
    pub(super) fn difference(&self, other: &Self) -> Lists {
        let differ = |one: &[Item], two: &[Item]| {
            !one.iter().map(|item| item.raw.get()).eq(two.iter().map(|item| item.raw.get()))
        };
        Lists {
            tools: differ(&self.tools, &other.tools),
            resources: differ(&self.resources, &other.resources) || differ(&self.templates, &other.templates),
            prompts: differ(&self.prompts, &other.prompts),
        }
    }

    /// The counts, for the log.
    pub(super) fn summary(&self) -> String {
        let (tools, prompts) = (self.tools.len(), self.prompts.len());
        format!("{tools} tools, {} resources, {prompts} prompts", self.resources.len() + self.templates.len())
    }
}

/// Asks for those lists; the others stay as they are in `known`.
pub(super) async fn fetch(spec: &Spec, live: &Live, known: &Offer, lists: Lists) -> Offer {
    let mut offer = known.clone();
    if lists.tools {
        offer.tools = list(spec, live, &known.tools, "tools", "tools/list", "tools", "name").await;
    }
    if lists.resources {
        offer.resources =
            list(spec, live, &known.resources, "resources", "resources/list", "resources", "uri").await;
        let method = "resources/templates/list";
        offer.templates =
            list(spec, live, &known.templates, "resources", method, "resourceTemplates", "uriTemplate").await;
    }
    if lists.prompts {
        offer.prompts = list(spec, live, &known.prompts, "prompts", "prompts/list", "prompts", "name").await;
    }
    offer
}

/// All pages of one list. Where they cannot be had, that is logged, and what was known before still counts; where
/// nothing was, what came does: the rest of the upstream is still of use.
async fn list(
    spec: &Spec,
    live: &Live,
    known: &[Item],
    capability: &str,
    method: &str,
    member: &str,
    key: &str,
) -> Vec<Item> {
    let mut items = Vec::new();
    if !live.server.offers(capability) {
        return items;
    }
    let mut params = "{}".to_owned();
    for _ in 0..MAX_PAGES {
        let write = |id| wire::request(id, method, &params).into_bytes();
        let page = match live.connection.request(write, None, spec.timeout, |_| {}).await {
            Ok(reply) => read_page(reply.text(), member, key),
            Err(error) => Err(error.to_string()),
        };
        match page {
            Ok((found, next)) => {
                items.extend(found);
                match next {
                    Some(cursor) => params = format!(r#"{{"cursor":{cursor}}}"#),
                    None => return items,
                }
            }
            Err(reason) => {
                tracing::warn!(upstream = spec.name, "{method}: {reason}");
                return if known.is_empty() { items } else { known.to_vec() };
            }
        }
    }
    tracing::warn!(upstream = spec.name, "{method}: more than {MAX_PAGES} pages, the rest is left out");
    items
}

/// The items of one page, and the cursor of the next.
fn read_page(message: &str, member: &str, key: &str) -> Result<(Vec<Item>, Option<Box<RawValue>>), String> {
    let result = match wire::parse(message).map_err(|error| error.reason)? {
        Message::Response { result: Some(result), .. } => result,
        Message::Response { error: Some(error), .. } => return Err(format!("refused: {error}")),
        _ => return Err("the answer is not a response".to_owned()),
    };
    let mut page: indexmap::IndexMap<String, Box<RawValue>> =
        serde_json::from_str(result.get()).map_err(|error| format!("the answer does not fit: {error}"))?;
    let list = page.swap_remove(member).ok_or_else(|| format!("the answer has no `{member}`"))?;
    let raws: Vec<Box<RawValue>> =
        serde_json::from_str(list.get()).map_err(|error| format!("`{member}` is not a list: {error}"))?;
    let mut items = Vec::with_capacity(raws.len());
    for raw in raws {
        match find_member(&raw, key).and_then(wire::as_str).map(std::borrow::Cow::into_owned) {
            Some(key) => items.push(Item { key, raw }),
            None => tracing::warn!("an item of `{member}` has no `{key}`: it is left out"),
        }
    }
    let next = page.swap_remove("nextCursor").filter(|cursor| cursor.get().starts_with('"'));
    Ok((items, next))
}

/// A member of an object, as written.
pub(crate) fn find_member<'a>(object: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Members<'a>(#[serde(borrow)] indexmap::IndexMap<wire::Str<'a>, &'a RawValue>);
    let members: Members<'a> = serde_json::from_str(object.get()).ok()?;
    members.0.into_iter().find(|(key, _)| key.0 == name).map(|(_, value)| value)
}
