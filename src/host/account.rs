//! Becoming another user, which only root can.

use std::io;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

use super::user;

/// A user to run as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
    /// All groups that it is in.
    pub groups: Vec<u32>,
    /// Its home.
    pub home: String,
    /// Its shell.
    pub shell: String,
}

/// Why there is no such account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// No user of that name.
    #[error("there is no user `{0}`")]
    NoUser(String),
    /// No group of that name.
    #[error("there is no group `{0}`")]
    NoGroup(String),
}

impl Account {
    /// The user of that name, in that group or else its own.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn find(name: Option<&str>, group: Option<&str>) -> Result<Self, AccountError> {
        let found = match name {
            Some(name) => user::Entry::of_name(name).ok_or_else(|| AccountError::NoUser(name.to_owned()))?,
            None => {
                let uid = rustix::process::geteuid().as_raw();
                user::Entry::of_uid(uid).ok_or_else(|| AccountError::NoUser(uid.to_string()))?
            }
        };
        let gid = match group {
            Some(group) => user::gid_of(group).ok_or_else(|| AccountError::NoGroup(group.to_owned()))?,
            None => found.gid,
        };
        let mut groups = user::groups_of(&found.name);
        if !groups.contains(&gid) {
            groups.push(gid);
        }
        Ok(Self { uid: found.uid, gid, groups, home: found.home, shell: found.shell, name: found.name })
    }

    /// Whether this process is that user already, in that group.
    #[must_use]
    pub fn is_own(&self) -> bool {
        let groups = rustix::process::getgroups().unwrap_or_default();
        let in_group = rustix::process::getegid().as_raw() == self.gid
            || groups.iter().any(|group| group.as_raw() == self.gid);
        rustix::process::geteuid().as_raw() == self.uid && in_group
    }

    /// Makes this process that user, for good. It must have one thread: others would stay who they are.
    ///
    /// # Errors
    /// From the system: this is not root.
    pub fn become_it(&self) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<_> = self.groups.iter().copied().map(Gid::from_raw).collect();
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }

    /// The variables that say who one is.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, &str); 4] {
        [("HOME", &self.home), ("USER", &self.name), ("LOGNAME", &self.name), ("SHELL", &self.shell)]
    }
}
