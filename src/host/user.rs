//! Users by name and number (passwd(5)).

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long databases other than `/etc/passwd` may take, such as a directory's in the network.
const PATIENCE: Duration = Duration::from_secs(5);

/// As much of an answer is read, in bytes.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// The name of that user; the number where `/etc/passwd` does not have it. Both are taken by `loginctl` and its like.
#[must_use]
pub fn name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    find(&users, uid).map_or_else(|| uid.to_string(), str::to_owned)
}

/// Whether there is a user of that name, in whatever database.
#[must_use]
pub fn exists(name: &str) -> bool {
    Entry::of_name(name).is_some()
}

/// The number of that user's own group.
#[must_use]
pub fn group(name: &str) -> Option<u32> {
    Some(Entry::of_name(name)?.gid)
}

/// A user, as the machine's databases have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its own group.
    pub gid: u32,
    /// Its home.
    pub home: String,
    /// Its shell.
    pub shell: String,
}

impl Entry {
    /// The user of that name, or else of that number, where the name is one.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let named = line("passwd", name, 0).and_then(|line| Self::parse(&line));
        named.or_else(|| Self::of_uid(name.parse().ok()?))
    }

    /// The user of that number.
    #[must_use]
    pub fn of_uid(uid: u32) -> Option<Self> {
        Self::parse(&line("passwd", &uid.to_string(), 2)?)
    }

    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
        Some(Self {
            name: name.to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: home.to_owned(),
            shell: shell.to_owned(),
        })
    }
}

/// The number of the group of that name, or which is that number.
#[must_use]
pub fn gid_of(group: &str) -> Option<u32> {
    match line("group", group, 0) {
        Some(line) => line.split(':').nth(2)?.parse().ok(),
        None => group.parse().ok(),
    }
}

/// The numbers of all groups that a user is in.
#[must_use]
pub fn groups_of(user: &str) -> Vec<u32> {
    let answer = answer(Command::new("id").args(["-G", user]), PATIENCE).unwrap_or_default();
    answer.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// The line of a database that has `key` in that field: that of the file in `/etc`, else what the machine's other
/// databases say (nsswitch.conf(5)).
fn line(database: &str, key: &str, field: usize) -> Option<String> {
    let fits = |line: &&str| line.split(':').nth(field) == Some(key);
    let file = fs::read_to_string(format!("/etc/{database}")).unwrap_or_default();
    let found = file.lines().find(fits).map(str::to_owned);
    found.or_else(|| {
        let answer = answer(Command::new("getent").args([database, key]), PATIENCE)?;
        answer.lines().find(fits).map(str::to_owned)
    })
}

/// What a command prints; none when it cannot be run or takes longer than that.
fn answer(command: &mut Command, within: Duration) -> Option<String> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let stdout = child.stdout.take()?;
    let (send, receive) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut text = String::new();
        // Nobody waits for it any more when the time was up.
        let _ = stdout.take(LONGEST_ANSWER).read_to_string(&mut text).map(|_| send.send(text));
    });
    let text = receive.recv_timeout(within).ok();
    // It has ended by itself, or has to.
    let _ = child.kill();
    let _ = child.wait();
    text
}

fn find(users: &str, uid: u32) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid) && !name.is_empty()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_name_is_a_user() {
        assert!(exists("root"));
        assert!(!exists("roo"));
        assert_eq!((group("root"), group("roo")), (Some(0), None));
        assert_eq!((gid_of("root"), gid_of("0"), gid_of("roo")), (Some(0), Some(0), None));
        assert_eq!(Entry::of_uid(0), Entry::of_name("root"));
        assert!(groups_of("root").contains(&0));
    }

    #[test]
    fn another_database_is_asked_and_not_for_ever() {
        let shell = |script: &str, within| {
            let begun = std::time::Instant::now();
            let said = answer(Command::new("sh").args(["-c", script]), within);
            (said, begun.elapsed() < Duration::from_secs(20))
        };
        assert_eq!(shell("echo a:x:1:2:::", PATIENCE), (Some("a:x:1:2:::\n".to_owned()), true));
        assert_eq!(shell("exec sleep 1000", Duration::from_millis(50)), (None, true));
        assert_eq!(answer(&mut Command::new("/nowhere/getent"), PATIENCE), None);
    }

    #[test]
    fn a_user_is_found_by_number() {
        let users = "root:x:0:0:root:/root:/bin/sh\n+::::::\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(find(users, 0), Some("root"));
        assert_eq!(find(users, 1000), Some("ada"));
        assert_eq!(find(users, 1), None);
    }
}
