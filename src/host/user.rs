//! The names of users, as far as `/etc/passwd` has them (passwd(5)).

use std::fs;

/// The name of that user; the number where only another database knows it. Both are taken by `loginctl` and its like.
#[must_use]
pub fn name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    find(&users, uid).map_or_else(|| uid.to_string(), str::to_owned)
}

/// Whether there is a user of that name.
#[must_use]
pub fn exists(name: &str) -> bool {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    users.lines().any(|line| line.split(':').next() == Some(name))
}

/// The number of that user's own group.
#[must_use]
pub fn group(name: &str) -> Option<u32> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(2)?.parse().ok()).flatten()
    })
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
    fn a_user_is_found_by_number() {
        let users = "root:x:0:0:root:/root:/bin/sh\n+::::::\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(find(users, 0), Some("root"));
        assert_eq!(find(users, 1000), Some("ada"));
        assert_eq!(find(users, 1), None);
    }
}
