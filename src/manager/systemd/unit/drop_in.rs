//! What a unit file says, read back, and what another must add to say something else.

use super::sandbox::Directive;

/// Settings that a further assignment adds to; an empty one starts anew.
const LISTS: [&str; 13] = [
    "After",
    "Environment",
    "EnvironmentFile",
    "ExecReload",
    "ExecStart",
    "ListenStream",
    "LoadCredential",
    "LogExtraFields",
    "ReadWritePaths",
    "RestartPreventExitStatus",
    "RestrictAddressFamilies",
    "RuntimeDirectory",
    "StateDirectory",
];

/// Settings that a packaged unit may have and an instance not, and that an empty assignment takes back.
const OPTIONAL: [&str; 7] = [
    "BusName",
    "Environment",
    "EnvironmentFile",
    "ExecReload",
    "LoadCredential",
    "StateDirectory",
    "WorkingDirectory",
];

/// The settings of a unit file, by section and key, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::manager::systemd) struct UnitText(Vec<Setting>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    section: String,
    key: String,
    /// One for each assignment that counts.
    values: Vec<String>,
}

impl UnitText {
    /// Reads the text of a unit file (systemd.syntax(7)). Lines that are no settings are passed over, as systemd does.
    pub(in crate::manager::systemd) fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        let mut section = String::new();
        for line in joined_lines(text) {
            let line = line.trim();
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
            } else if let Some((key, value)) = line.split_once('=') {
                settings.assign(&section, key.trim_end(), value.trim_start());
            }
        }
        settings
    }

    /// The same with an instance's name in place of `%i`.
    pub(in crate::manager::systemd) fn of_instance(mut self, name: &str) -> Self {
        let values = self.0.iter_mut().flat_map(|setting| &mut setting.values);
        for value in values {
            // `%%` is a percent sign, whatever follows.
            *value = value.split("%%").map(|part| part.replace("%i", name)).collect::<Vec<_>>().join("%%");
        }
        self
    }

    fn get(&self, section: &str, key: &str) -> Option<&Setting> {
        self.0.iter().find(|setting| setting.section == section && setting.key == key)
    }

    fn assign(&mut self, section: &str, key: &str, value: &str) {
        let found = self.0.iter().position(|setting| setting.section == section && setting.key == key);
        let at = found.unwrap_or_else(|| {
            self.0.push(Setting { section: section.to_owned(), key: key.to_owned(), values: Vec::new() });
            self.0.len() - 1
        });
        let values = &mut self.0[at].values;
        // An empty assignment to a list is one that the list does not have; to anything else it is a value.
        if value.is_empty() || !is_list(key) {
            values.clear();
        }
        if !value.is_empty() || !is_list(key) {
            values.push(value.to_owned());
        }
    }

    /// By section, the lines that must be added to this file for it to say what `wanted` says. Settings that are none
    /// of ours stay as they are, and `[Install]` is for the file alone.
    pub(super) fn changes_to(&self, wanted: &Self) -> Vec<(String, Vec<String>)> {
        let mut sections: Vec<(String, Vec<String>)> = Vec::new();
        let mut add =
            |section: &str, lines: Vec<String>| match sections.iter_mut().find(|(name, _)| name == section) {
                Some((_, all)) => all.extend(lines),
                None => sections.push((section.to_owned(), lines)),
            };
        for setting in wanted.0.iter().filter(|setting| setting.section != "Install") {
            let before = self.get(&setting.section, &setting.key).map_or(&[][..], |setting| &setting.values);
            if before == setting.values {
                continue;
            }
            // What is there already need not be said again, where it comes first.
            let (anew, rest) = match setting.values.strip_prefix(before) {
                Some(rest) if is_list(&setting.key) => (false, rest),
                _ => (is_list(&setting.key), &setting.values[..]),
            };
            let line = |value: &str| format!("{}={value}", setting.key);
            add(
                &setting.section,
                anew.then(|| line("")).into_iter().chain(rest.iter().map(|value| line(value))).collect(),
            );
        }
        for setting in self.0.iter().filter(|setting| wanted.get(&setting.section, &setting.key).is_none()) {
            let off = match Directive::off(&setting.key) {
                Some(off) => off,
                None if OPTIONAL.contains(&setting.key.as_str()) => "",
                // Another user has a group of their own. Without one the user stays, too: an empty one were root.
                None if setting.key == "Group" && wanted.get(&setting.section, "User").is_some() => "",
                None => continue,
            };
            add(&setting.section, vec![format!("{}={off}", setting.key)]);
        }
        sections
    }
}

fn is_list(key: &str) -> bool {
    LISTS.contains(&key)
}

/// The lines of a file without its comments, those joined that a backslash at the end makes one.
fn joined_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
        let mut whole = open.take().map_or_else(String::new, |start| start + " ");
        match line.strip_suffix('\\') {
            Some(start) => {
                whole.push_str(start);
                open = Some(whole);
            }
            None => {
                whole.push_str(line);
                lines.push(whole);
            }
        }
    }
    lines.extend(open);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "# x\n[Unit]\nDescription=foxxy-bridge %i\n\n[Service]\nType=notify\n\
        ExecStart=:/usr/bin/foxxy-bridge server \\\n    start --instance %i\nEnvironment=\"A=100%%i\"\n\
        NoNewPrivileges=yes\nUser=foxxy-bridge\nGroup=foxxy-bridge\nNice=5\n[Install]\nWantedBy=default.target\n";

    fn changes(wanted: &str) -> String {
        let base = UnitText::parse(BASE).of_instance("work");
        let lines = base.changes_to(&UnitText::parse(wanted)).into_iter();
        lines.map(|(section, lines)| format!("[{section}]\n{}\n", lines.join("\n"))).collect()
    }

    #[test]
    fn a_unit_that_says_the_same_needs_nothing() {
        let same = BASE.replace("100%%i", "KEPT").replace("%i", "work").replace("KEPT", "100%%i");
        assert_eq!(changes(&same), "");
    }

    #[test]
    fn only_what_differs_is_said() {
        assert_eq!(
            changes(
                "[Unit]\nDescription=foxxy-bridge work\n[Service]\nType=notify-reload\nExecStart=:/opt/b\n\
                Environment=\"A=100%%i\"\nEnvironment=\"PATH=/bin\"\nNoNewPrivileges=yes\n[Install]\nWantedBy=x\n"
            ),
            "[Service]\nType=notify-reload\nExecStart=\nExecStart=:/opt/b\nEnvironment=\"PATH=/bin\"\n"
        );
    }

    #[test]
    fn nobody_becomes_root_for_want_of_a_name() {
        let of = |account: &str| {
            let wanted = BASE.replace("User=foxxy-bridge\nGroup=foxxy-bridge\n", account);
            changes(&wanted.replace("100%%i", "KEPT").replace("%i", "work").replace("KEPT", "100%%i"))
        };
        assert_eq!(of(""), "");
        assert_eq!(of("Group=mcp\n"), "[Service]\nGroup=mcp\n");
        assert_eq!(of("User=ada\n"), "[Service]\nUser=ada\nGroup=\n");
        assert_eq!(of("User=root\nGroup=root\n"), "[Service]\nUser=root\nGroup=root\n");
    }

    #[test]
    fn a_sandbox_is_taken_down_in_words_that_systemd_takes() {
        let wanted =
            BASE.replace("NoNewPrivileges=yes\n", "").replace("100%%i", "KEPT").replace("%i", "work");
        let wanted = wanted.replace("KEPT", "100%%i");
        assert_eq!(changes(&wanted), "[Service]\nNoNewPrivileges=no\n");
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange_to_be_read(text in "\\PC{0,80}(\n\\PC{0,80}){0,5}") {
            let _ = UnitText::parse(&text).of_instance("a");
        }
    }
}
