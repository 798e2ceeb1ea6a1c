//! The name of an instance, and the unit names made from it.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::host::process::Identity;

/// The longest name, in bytes (names are ASCII).
pub const MAX_NAME_LEN: usize = 64;

/// The instance of the default config.
const DEFAULT: &str = "default";

/// The name of a config whose path has no letter that a name may have.
const NAMELESS: &str = "bridge";

/// The name of an instance: 1 to 64 of `[A-Za-z0-9_.-]`, the first one neither `-` nor `.`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing in it.
    #[error("an instance name cannot be empty")]
    Empty,
    /// It has more than 64 characters.
    #[error("the instance name `{0}` is too long: at most {MAX_NAME_LEN} characters are allowed")]
    TooLong(String),
    /// It starts like an option or a hidden file.
    #[error("the instance name `{0}` cannot start with `-` or `.`")]
    Start(String),
    /// It has a character that a name may not have.
    #[error("the instance name `{name}` cannot have {character:?}: use letters, digits, `_`, `.` and `-`")]
    Character {
        /// The text.
        name: String,
        /// The first character that is not allowed.
        character: char,
    },
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of a config that was given none.
    ///
    /// `config` is canonical; `holder` answers which config a name belongs to now. A config that already holds one
    /// of the names it could have keeps it, so that the answer does not change when another instance goes away.
    pub fn derive(config: &Path, is_default: bool, holder: impl Fn(&Name) -> Option<PathBuf>) -> Self {
        let plain = if is_default { DEFAULT.to_owned() } else { plain_name(config) };
        let digest = hex(&Sha256::digest(config.as_os_str().as_bytes()));
        // 8 digits tell configs of one name apart; more are for a config that was named to look like another's.
        let hashed = [8, 16, 32].map(|digits| {
            let kept = &plain[..plain.len().min(MAX_NAME_LEN - 1 - digits)];
            format!("{kept}-{}", &digest[..digits])
        });
        let candidates: Vec<Name> = std::iter::once(plain.clone()).chain(hashed).map(Name).collect();
        let holders: Vec<Option<PathBuf>> = candidates.iter().map(holder).collect();
        let own = holders.iter().position(|held| held.as_deref() == Some(config));
        let free = || holders.iter().position(Option::is_none);
        let index = own.or_else(free).unwrap_or(candidates.len() - 1);
        candidates[index].clone()
    }

    /// Whether it is that of the default config.
    pub fn is_default(&self) -> bool {
        self.0 == DEFAULT
    }

    /// The transient unit of this name.
    pub fn unit(&self) -> String {
        format!("foxxy-bridge-{self}.service")
    }

    /// The control group of this name's bridge under that supervisor. It is of no other: what is found in it is not some
    /// other bridge's.
    pub fn control_group(&self, supervisor: &Identity) -> String {
        format!("foxxy-bridge-{self}-{}-{}", supervisor.pid, supervisor.start_time)
    }

    /// The instance of the template unit for this name.
    pub fn template_unit(&self) -> String {
        format!("foxxy-bridge@{self}.service")
    }

    /// The socket that starts the instance of the template unit at its first client.
    pub fn template_socket(&self) -> String {
        format!("foxxy-bridge@{self}.socket")
    }

    /// What the bridge is called on the bus of its manager, in a transient unit and in one of the template: no two units
    /// may have the same name there. `None` when no bus takes the name: between dots there must be something, and that
    /// may not begin with a digit.
    pub fn bus_names(&self) -> Option<[String; 2]> {
        let is_element =
            |part: &str| !part.is_empty() && !part.starts_with(|first: char| first.is_ascii_digit());
        let names = Self::bus_names_of(&self.0);
        names[0].split('.').all(is_element).then_some(names)
    }

    /// The same for anything that stands in the place of a name.
    pub fn bus_names_of(instance: &str) -> [String; 2] {
        ["t", "i"].map(|kind| format!("foxxy_bridge.{kind}_{instance}"))
    }

    /// The name in a unit's name, of either kind; `None` for a unit that is not ours.
    pub fn from_unit(unit: &str) -> Option<Self> {
        let stem = unit.strip_suffix(".service")?;
        let name = stem.strip_prefix("foxxy-bridge-").or_else(|| stem.strip_prefix("foxxy-bridge@"))?;
        name.parse().ok()
    }

    /// The name in that of a socket of ours; `None` for any other unit.
    pub fn from_socket(unit: &str) -> Option<Self> {
        unit.strip_prefix("foxxy-bridge@")?.strip_suffix(".socket")?.parse().ok()
    }

    /// The patterns that match the units of every instance.
    pub fn unit_patterns() -> [&'static str; 3] {
        ["foxxy-bridge-*.service", "foxxy-bridge@*.service", "foxxy-bridge@*.socket"]
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if let Some(character) = text.chars().find(|&character| !is_legal(character)) {
            return Err(NameError::Character { name: text.to_owned(), character });
        }
        if text.starts_with(['-', '.']) {
            return Err(NameError::Start(text.to_owned()));
        }
        if text.len() > MAX_NAME_LEN {
            return Err(NameError::TooLong(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

fn is_legal(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '-')
}

/// The name that a config's path suggests: its stem, or its folder's name when the stem is `config`.
fn plain_name(config: &Path) -> String {
    let stem = config.file_stem().unwrap_or_default();
    let folder = config.parent().and_then(Path::file_name);
    let source = if stem == "config" { folder.unwrap_or(stem) } else { stem };
    let replaced: String =
        source.to_string_lossy().chars().map(|c| if is_legal(c) { c } else { '-' }).collect();
    let mut name = replaced.trim_start_matches(['-', '.']).to_owned();
    name.truncate(MAX_NAME_LEN);
    if name.is_empty() { NAMELESS.to_owned() } else { name }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::*;

    fn nobody(_: &Name) -> Option<PathBuf> {
        None
    }

    fn derived(path: &str) -> String {
        Name::derive(Path::new(path), false, nobody).to_string()
    }

    #[test]
    fn a_bad_name_says_what_is_wrong_with_it() {
        let message = |text: &str| text.parse::<Name>().unwrap_err().to_string();
        assert_eq!(message(""), "an instance name cannot be empty");
        assert_eq!(message("-work"), "the instance name `-work` cannot start with `-` or `.`");
        assert_eq!(message(".."), "the instance name `..` cannot start with `-` or `.`");
        assert!(message("a/b").contains("cannot have '/'"));
        assert!(message("a\nb").contains("cannot have '\\n'"));
        assert!(message("größe").contains("cannot have 'ö'"));
        assert!(message(&"x".repeat(65)).contains("at most 64"));
    }

    #[test]
    fn the_bus_takes_every_bus_name_that_is_made() {
        let bus_name = |text: &str| text.parse::<Name>().unwrap().bus_names().map(|[transient, _]| transient);
        assert_eq!(bus_name("work").as_deref(), Some("foxxy_bridge.t_work"));
        assert_eq!(bus_name("1-a.b_c").as_deref(), Some("foxxy_bridge.t_1-a.b_c"));
        for not_one in ["v1.2", "a..b", "a."] {
            assert_eq!(bus_name(not_one), None, "{not_one}");
        }
        assert!(bus_name(&"x".repeat(MAX_NAME_LEN)).is_some_and(|name| name.len() <= 255));
    }

    #[test]
    fn a_name_comes_from_the_stem() {
        assert_eq!(derived("/etc/foxxy-bridge/prod.json"), "prod");
        assert_eq!(derived("/home/a/test-config.json"), "test-config");
        assert_eq!(derived("/home/a/v1.2.toml"), "v1.2");
    }

    #[test]
    fn a_stem_of_config_takes_its_folders_name() {
        assert_eq!(derived("/srv/team/config.json"), "team");
        assert_eq!(derived("/config.json"), "config");
    }

    #[test]
    fn what_a_name_may_not_have_becomes_a_dash() {
        assert_eq!(derived("/srv/my work@home.json"), "my-work-home");
        assert_eq!(derived("/srv/.hidden"), "hidden");
        assert_eq!(derived("/srv/日本.json"), "bridge");
    }

    #[test]
    fn the_default_config_is_default() {
        assert_eq!(
            Name::derive(Path::new("/home/a/.config/foxxy-bridge/config.json"), true, nobody).as_str(),
            "default"
        );
    }

    #[test]
    fn a_held_name_gets_eight_digits_of_the_paths_hash() {
        let holder = |name: &Name| (name.as_str() == "work").then(|| PathBuf::from("/a/work.json"));
        // printf %s /b/work.json | sha256sum
        assert_eq!(Name::derive(Path::new("/b/work.json"), false, holder).as_str(), "work-66734f9d");
    }

    #[test]
    fn a_config_that_holds_a_name_keeps_it() {
        let config = Path::new("/b/work.json");
        let hashed = Name::derive(config, false, |name| {
            (name.as_str() == "work").then(|| PathBuf::from("/a/work.json"))
        });
        // The other one is gone by now: `work` is free, and still the answer is the name that is running.
        let again = Name::derive(config, false, |name| (*name == hashed).then(|| config.to_owned()));
        assert_eq!(again, hashed);
    }

    #[test]
    fn a_config_named_like_anothers_hash_is_told_apart() {
        let first = PathBuf::from("/a/work.json");
        let config = Path::new("/b/work.json");
        let eight = Name::derive(config, false, |name| (name.as_str() == "work").then(|| first.clone()));
        let squatter = PathBuf::from(format!("/c/{eight}.json"));
        let name = Name::derive(config, false, |name| {
            if name.as_str() == "work" {
                Some(first.clone())
            } else {
                (*name == eight).then(|| squatter.clone())
            }
        });
        assert_eq!(name.as_str().len(), "work-".len() + 16);
    }

    #[test]
    fn only_our_units_give_a_name() {
        assert_eq!(Name::from_unit("foxxy-bridge-a.b.service").unwrap().as_str(), "a.b");
        assert_eq!(Name::from_unit("foxxy-bridge@work.service").unwrap().as_str(), "work");
        assert_eq!(Name::from_unit("foxxy-bridge@.service"), None);
        assert_eq!(Name::from_unit("foxxy-bridge.service"), None);
        assert_eq!(Name::from_unit("foxxy-bridge-a.socket"), None);
        assert_eq!(Name::from_unit("other.service"), None);
    }

    /// What systemd's `unit_name_is_valid` asks of a plain or an instance name.
    fn is_legal_unit(unit: &str) -> bool {
        let Some((prefix, kind)) = unit.rsplit_once('.') else { return false };
        unit.len() <= 255
            && kind == "service"
            && !prefix.is_empty()
            && !prefix.starts_with('@')
            && prefix.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c))
    }

    fn any_path() -> impl Strategy<Value = PathBuf> {
        let part = prop_oneof![
            "[a-z]{1,3}",
            "\\PC{1,90}",
            Just("config.json".to_owned()),
            Just("work.json".to_owned()),
        ];
        let text =
            proptest::collection::vec(part, 1..4).prop_map(|parts| PathBuf::from("/").join(parts.join("/")));
        let bytes = proptest::collection::vec(1u8.., 1..200)
            .prop_map(|bytes| PathBuf::from("/").join(OsString::from_vec(bytes)));
        prop_oneof![3 => text, 1 => bytes]
    }

    proptest! {
        #[test]
        fn any_path_gives_a_legal_unit_that_gives_the_name_back(path in any_path(), is_default: bool, held: bool) {
            let holder = |name: &Name| (held && !name.as_str().contains('-')).then(|| PathBuf::from("/other"));
            let name = Name::derive(&path, is_default, holder);
            prop_assert_eq!(name.as_str().parse::<Name>(), Ok(name.clone()));
            for unit in [name.unit(), name.template_unit()] {
                prop_assert!(is_legal_unit(&unit), "{}", unit);
                prop_assert_eq!(Name::from_unit(&unit), Some(name.clone()));
            }
        }

        #[test]
        fn distinct_configs_get_distinct_names(paths in proptest::collection::btree_set(any_path(), 1..40)) {
            let mut held: BTreeMap<Name, PathBuf> = BTreeMap::new();
            for path in &paths {
                let name = Name::derive(path, false, |name| held.get(name).cloned());
                prop_assert!(held.insert(name, path.clone()).is_none());
            }
            // Asked again with all of them running, each config is told the name that it has.
            for (name, path) in &held {
                prop_assert_eq!(&Name::derive(path, false, |name| held.get(name).cloned()), name);
            }
        }

        #[test]
        fn a_name_reads_back_as_it_was_written(text in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}") {
            prop_assert_eq!(text.parse::<Name>().unwrap().to_string(), text);
        }

        #[test]
        fn a_name_never_leaves_its_folder(text in "\\PC{0,80}") {
            if let Ok(name) = text.parse::<Name>() {
                let joined = Path::new("/run/foxxy-bridge").join(name.as_str());
                prop_assert_eq!(joined.parent(), Some(Path::new("/run/foxxy-bridge")));
            }
        }
    }
}
