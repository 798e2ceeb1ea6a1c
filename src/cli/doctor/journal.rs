//! Whether the log of a bridge can be read.

use futures_util::StreamExt as _;

use super::facts::Facts;
use super::finding::Finding;
use crate::host;
use crate::manager::{Error, LogQuery, ServiceManager as _};

/// `journalctl` is there, and reads what bridges log.
pub(super) async fn readable(facts: &Facts) -> Vec<Finding> {
    let Ok(systemd) = &facts.systemd else { return Vec::new() };
    // Whether there is anything of a bridge does not matter.
    let Ok(name) = "default".parse() else { return Vec::new() };
    let query = LogQuery {
        file: None,
        name,
        follow: false,
        lines: Some(1),
        since: None,
        until: None,
        upstream: None,
        priority: None,
    };
    let first = match systemd.logs(&query).await {
        Ok(mut entries) => entries.next().await.transpose(),
        Err(error) => Err(error),
    };
    vec![match first {
        Ok(_) => Finding::ok("it can be read"),
        Err(error) => tell(&error, &facts.user, host::machine::keeps_journal()),
    }]
}

/// In words; `kept` is whether the journal is on disk.
fn tell(error: &Error, user: &str, kept: bool) -> Finding {
    let why = error.why().map(|why| format!(": {why}")).unwrap_or_default();
    let found = format!("{error}{}", why.replace('\n', " "));
    match error {
        Error::Journal { .. } | Error::JournalHidden { .. } if !kept => Finding::problem(
            format!("{found} (it is kept in memory only, where no user has a part of their own)"),
            format!(
                "keep it on disk: sudo mkdir -p /var/log/journal && sudo journalctl --flush; or let {user} read all \
                 of it: sudo usermod --append --groups systemd-journal {user}, then log in again"
            ),
        ),
        Error::Journal { .. } | Error::JournalHidden { .. } => Finding::problem(
            found,
            format!("sudo usermod --append --groups systemd-journal {user}, then log in again"),
        ),
        _ => Finding::problem(found, error.hint().unwrap_or_else(|| "journalctl --user".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_in_memory_is_told_apart_from_one_without_permission() {
        let error = Error::Journal { detail: "No journal files were opened.".into() };
        let found = tell(&error, "ada", true);
        assert_eq!(found.found, "the journal cannot be read: No journal files were opened.");
        assert!(found.fix.unwrap().starts_with("sudo usermod --append --groups systemd-journal ada"));
        assert!(tell(&error, "ada", false).fix.unwrap().contains("/var/log/journal"));
    }
}
