//! Both renderings of a unit.

use super::*;
use crate::manager::{Restart, Sandbox, SocketSpec};

const OLD: Version = Version(252);
const NEW: Version = Version(257);

fn plain() -> UnitSpec {
    let exec = ["/usr/bin/foxxy-bridge", "server", "start", "--config", "/home/a/50% off.json"];
    UnitSpec { exec: exec.map(str::to_owned).to_vec(), ..UnitSpec::example() }
}

fn full() -> UnitSpec {
    UnitSpec {
        environment_files: vec!["/etc/foxxy-bridge/work.env".into()],
        credentials: [("token".to_owned(), "/etc/foxxy-bridge/token".into())].into(),
        working_directory: Some("/srv/work".into()),
        watchdog: Some(Duration::from_secs(30)),
        account: Account::Named { user: Some("foxxy".into()), group: Some("mcp".into()) },
        sandbox: Sandbox::Auto,
        limits: Limits {
            memory_max: Some(Memory::Bytes(1 << 30)),
            memory_high: Some(Memory::Share(5_000)),
            cpu_quota: Some(1_500_000),
            tasks_max: Some(512),
            nofile: Some(65_536),
        },
        ..plain()
    }
}

fn rendered(spec: &UnitSpec, scope: Scope, version: Version) -> String {
    let properties = transient_properties(spec, scope, version).unwrap();
    let lines = properties.iter().map(|(name, value)| format!("{name} = {}", &**value));
    without_digest(lines)
}

/// A digest changes with everything that it is made of, which is what the other lines show.
fn without_digest(lines: impl Iterator<Item = String>) -> String {
    lines.filter(|line| !line.starts_with("LogExtraFields")).collect::<Vec<_>>().join("\n")
}

fn property(spec: &UnitSpec, version: Version, name: &str) -> Option<String> {
    let text = rendered(spec, Scope::User, version);
    text.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")).map(str::to_owned))
}

#[test]
fn a_users_unit_for_an_old_systemd() {
    insta::assert_snapshot!(rendered(&plain(), Scope::User, OLD));
}

#[test]
fn a_system_unit_with_everything_for_a_new_systemd() {
    insta::assert_snapshot!(rendered(&full(), Scope::System, NEW));
}

#[test]
fn a_users_unit_never_changes_user() {
    for name in ["User", "Group", "RuntimeDirectory"] {
        assert_eq!(property(&full(), NEW, name), None, "{name}");
    }
}

#[test]
fn every_character_is_kept_or_refused_but_never_lost() {
    for (argument, lost) in [("--name=$HOME", '$'), ("/srv/a;b.json", ';')] {
        let mut spec = plain();
        spec.exec.push(argument.into());
        let error = transient_properties(&spec, Scope::User, OLD).unwrap_err();
        assert!(matches!(error, Error::LostCharacter { character, version: 252, .. } if character == lost));
        assert!(property(&spec, NEW, "ExecStartEx").unwrap().contains(argument));
    }
}

#[test]
fn a_credential_is_loaded_from_its_file_or_refused() {
    let spec = UnitSpec { credentials: [("token".to_owned(), "/a b/token".into())].into(), ..plain() };
    assert!(property(&spec, OLD, "LoadCredential").unwrap().contains("/a b/token"));
    let error = transient_properties(&spec, Scope::User, NEW).unwrap_err();
    assert!(matches!(error, Error::LostCharacter { character: ' ', version: 257, .. }));
}

#[test]
fn no_attempts_means_no_restart_and_any_number_of_starts_by_hand() {
    let spec = UnitSpec { restart: Restart { attempts: Some(0), ..Restart::default() }, ..plain() };
    assert_eq!(property(&spec, NEW, "Restart").unwrap(), "\"no\"");
    assert_eq!(property(&spec, NEW, "StartLimitIntervalUSec").unwrap(), "uint64 0");
}

#[test]
fn restarts_for_ever_have_no_start_limit() {
    let spec = UnitSpec { restart: Restart { attempts: None, ..Restart::default() }, ..plain() };
    assert_eq!(property(&spec, NEW, "StartLimitIntervalUSec").unwrap(), "uint64 0");
}

#[test]
fn a_path_that_is_not_text_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let path = std::ffi::OsString::from_vec(b"/srv/\xff".to_vec());
    let spec = UnitSpec { working_directory: Some(path.into()), ..plain() };
    let refused = transient_properties(&spec, Scope::User, NEW);
    assert!(matches!(refused, Err(Error::NotText { .. })));
}

#[test]
fn a_template_for_every_user() {
    let spec = UnitSpec {
        instance: ANY_INSTANCE.into(),
        description: format!("foxxy-bridge {ANY_INSTANCE}"),
        exec: ["/usr/bin/foxxy-bridge", "server", "start", "--instance", ANY_INSTANCE]
            .map(str::to_owned)
            .to_vec(),
        reload: ["/usr/bin/foxxy-bridge", "server", "reload", ANY_INSTANCE].map(str::to_owned).to_vec(),
        environment: [].into(),
        sandbox: Sandbox::Auto,
        ..plain()
    };
    insta::assert_snapshot!(service_file(&spec, Scope::User, OLD).unwrap());
}

#[test]
fn a_system_units_file_with_everything() {
    let spec = UnitSpec { account: Account::Own, ..full() };
    let file = service_file(&spec, Scope::System, NEW).unwrap();
    insta::assert_snapshot!(without_digest(file.lines().map(str::to_owned)));
}

#[test]
fn what_systemd_would_take_for_its_own_is_quoted() {
    let mut spec = plain();
    spec.description = "100% of a \"bridge\"".into();
    spec.exec.extend(
        ["a b", "$HOME", "%h", "x;y", "\"q\"", "back\\slash", "", "new\nline", "ü"].map(str::to_owned),
    );
    spec.environment = [("A".to_owned(), "1 \"2\" $3 %4 \\ '5'".to_owned())].into();
    spec.environment_files = vec!["/a b/100%.env".into()];
    let file = service_file(&spec, Scope::User, OLD).unwrap();
    let lines: Vec<&str> =
        file.lines().filter(|line| line.starts_with(['D', 'E']) && !line.starts_with("ExecReload")).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_path_that_no_unit_file_can_have_is_refused() {
    for path in ["/a\\", "/a\nExecStartPre=/bin/evil", "/a "] {
        let spec = UnitSpec { environment_files: vec![path.into()], ..plain() };
        let error = service_file(&spec, Scope::User, NEW).unwrap_err();
        assert!(error.why().unwrap().contains("a unit file cannot have"), "{error:?}");
    }
}

#[test]
fn a_socket_waits_for_no_address_but_those_of_networks() {
    for (address, free) in [
        ("127.0.0.1:8080", false),
        ("[::1]:8080", false),
        ("0.0.0.0:8080", false),
        ("[::]:8080", false),
        ("192.0.2.7:8080", true),
        ("[2001:db8::7]:8080", true),
    ] {
        let spec = SocketSpec { instance: "work".into(), address: address.parse().unwrap() };
        let file = socket_file(&spec).unwrap();
        assert!(file.lines().any(|line| line == format!("ListenStream={address}")), "{file}");
        assert_eq!(file.lines().any(|line| line == "FreeBind=yes"), free, "{file}");
    }
}

#[test]
fn no_two_units_of_an_instance_have_the_same_name_on_the_bus() {
    assert_eq!(property(&plain(), NEW, "BusName").unwrap(), "\"foxxy_bridge.t_work\"");
    let file = service_file(&plain(), Scope::User, NEW).unwrap();
    assert!(file.lines().any(|line| line == "BusName=foxxy_bridge.i_work"), "{file}");
    let none = UnitSpec { instance: "v1.2".into(), ..plain() };
    assert!(!service_file(&none, Scope::User, NEW).unwrap().contains("BusName"));
}

proptest::proptest! {
    #[test]
    fn the_start_limit_can_always_be_reached(attempts in 0u32..1000, delay in 0u64..3600, life in 0u64..3) {
        let (delay, life) = (Duration::from_secs(delay), Duration::from_secs(life));
        let (interval, burst) = start_limit(attempts, delay);
        proptest::prop_assert_eq!(burst, attempts + 1);
        proptest::prop_assert!(interval > (delay + life) * attempts + life);
    }
}
