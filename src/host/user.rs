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
    line(name).is_some()
}

/// The number of that user's own group.
#[must_use]
pub fn group(name: &str) -> Option<u32> {
    line(name)?.split(':').nth(3)?.parse().ok()
}

/// The line of that user: that of `/etc/passwd`, else what the machine's other databases say (nsswitch.conf(5)).
fn line(name: &str) -> Option<String> {
    let is_theirs = |line: &&str| line.split(':').next() == Some(name);
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().find(is_theirs).map(str::to_owned);
    found.or_else(|| {
        let answer = answer(Command::new("getent").args(["passwd", name]), PATIENCE)?;
        answer.lines().find(is_theirs).map(str::to_owned)
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
