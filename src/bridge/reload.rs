//! Another config put in force, while clients go on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use indexmap::IndexMap;
use tokio::task::JoinSet;

use super::upstream::{Lists, Spec, Upstream};
use super::{Bridge, Setup};
use crate::config::{self, Config};
use crate::control::Changes;

/// How long an upstream that is given up may take to answer what it has been asked.
const LAST_ANSWERS: Duration = Duration::from_secs(30);

impl Bridge {
    /// Puts another config in force: all of it, but for what needs a restart. Only servers whose own definition is
    /// another are touched, and those finish what they have been asked.
    pub async fn reload(&self, config: Config, path: Option<PathBuf>) -> Changes {
        let mut running = self.running.lock().await;
        if self.core.stopping.is_cancelled() {
            return Changes::default();
        }
        // Upstreams that have ended since the last time.
        while running.try_join_next().is_some() {}
        self.put_in_force(config, path, &mut running)
    }

    pub(super) fn put_in_force(
        &self,
        config: Config,
        path: Option<PathBuf>,
        running: &mut JoinSet<()>,
    ) -> Changes {
        let before = self.core.setup();
        let mut changes =
            Changes { needs_restart: needing_restart(&self.core.first, &config), ..Changes::default() };
        let mut upstreams = IndexMap::new();
        let base = path.as_deref().and_then(Path::parent);
        for (name, server) in config.upstreams.iter().filter(|(_, server)| server.enabled) {
            let kept = before.upstreams.get(name);
            let same = before.config.upstreams.get(name).is_some_and(|old| is_reached_alike(old, server));
            let upstream = match kept.filter(|_| same) {
                Some(kept) => Arc::clone(kept),
                None => {
                    let list = if kept.is_some() { &mut changes.changed } else { &mut changes.added };
                    list.push(name.clone());
                    let spec = Spec::new(name, server, base, &self.builtin, &self.groups);
                    let upstream = Upstream::new(spec, Arc::clone(&self.hub));
                    if let Some(old) = kept {
                        upstream.begin_with(old.offer());
                    }
                    running.spawn(Arc::clone(&upstream).run());
                    upstream
                }
            };
            upstreams.insert(name.clone(), upstream);
        }
        for (name, old) in &before.upstreams {
            if upstreams.get(name).is_none_or(|new| !Arc::ptr_eq(new, old)) {
                running.spawn(Arc::clone(old).retire(LAST_ANSWERS));
            }
            if !upstreams.contains_key(name) {
                changes.removed.push(name.clone());
                self.end_sessions_of(name);
            }
        }
        let setup = Arc::new(Setup { config: Arc::new(config), path, upstreams });
        *self.core.setup.write().unwrap_or_else(PoisonError::into_inner) = setup;
        let shared = self.core.rebuild();
        // What a changed server offers is told when it is known.
        self.core.tell_changed(shared, |_| Lists::default());
        self.core.changed.notify_one();
        changes
    }

    /// Ends the sessions that see only that server: their clients are told when they come back.
    fn end_sessions_of(&self, name: &str) {
        for session in self.core.sessions.list() {
            if session.view == super::View::One(name.to_owned()) {
                self.core.sessions.end(&session.id);
            }
        }
    }
}

/// Whether an upstream of that definition is connected in the same way; its names and its rank are not part of it.
fn is_reached_alike(old: &config::Upstream, new: &config::Upstream) -> bool {
    let bare = |upstream: &config::Upstream| config::Upstream {
        tool_namespace: None,
        resource_namespace: None,
        prompt_namespace: None,
        priority: 0,
        tags: Vec::new(),
        ..upstream.clone()
    };
    old.enabled == new.enabled && bare(old) == bare(new)
}

/// The keys that differ from what the bridge was started with, and are looked at only then.
fn needing_restart(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (&old.bridge, &new.bridge);
    let differ = [
        ("bridge.host", old.host != new.host),
        ("bridge.port", old.port != new.port),
        ("bridge.daemon", old.daemon != new.daemon),
    ];
    differ.into_iter().filter(|(_, differ)| *differ).map(|(key, _)| key.to_owned()).collect()
}
