//! How far a bridge is shut off from the machine, in systemd's directives (systemd.exec(5)).
//!
//! What may never be among them: `MemoryDenyWriteExecute=` (no JavaScript engine runs under it), `ProtectControlGroups=`
//! (the bridge keeps each upstream in a control group of its own), `PrivateNetwork=` and `ProcSubset=pid`.

use serde::Serialize;

use super::super::features::{Feature, Version};
use super::text;
use crate::instance::Scope;
use crate::manager::{Account, Error, Sandbox, UnitSpec};

/// One directive that is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::manager::systemd) struct Directive {
    pub(in crate::manager::systemd) key: &'static str,
    pub(in crate::manager::systemd) value: Value,
}

/// What a directive is set to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(in crate::manager::systemd) enum Value {
    /// `yes`
    Yes(bool),
    /// One word.
    Word(&'static str),
    /// Words of which only these are allowed.
    Only(&'static [&'static str]),
    /// A list of words.
    Words(&'static [&'static str]),
    /// A list of paths.
    Paths(Vec<String>),
    /// None of the flags that there are: capabilities, kinds of namespaces.
    None(Nothing),
    /// An error number, by name.
    Error(Errno),
}

/// No flags: how a unit file says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(in crate::manager::systemd) enum Nothing {
    /// By an empty list.
    #[serde(rename = "")]
    Empty,
    /// By restricting all of them.
    #[serde(rename = "yes")]
    Restricted,
}

/// An error number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(in crate::manager::systemd) enum Errno {
    /// Operation not permitted.
    #[serde(rename = "EPERM")]
    NotPermitted = 1,
}

const fn yes(key: &'static str) -> Directive {
    Directive { key, value: Value::Yes(true) }
}

const fn word(key: &'static str, word: &'static str) -> Directive {
    Directive { key, value: Value::Word(word) }
}

/// What needs no privilege and is in the way of no usual server. In a user's unit it all implies `NoNewPrivileges=`.
static PLAIN: [Directive; 5] = [
    yes("NoNewPrivileges"),
    yes("LockPersonality"),
    yes("RestrictRealtime"),
    yes("RestrictSUIDSGID"),
    Directive { key: "SystemCallArchitectures", value: Value::Words(&["native"]) },
];

/// What else needs no privilege, but not every server can do without: browsers and bubblewrap make namespaces.
static CONFINED: [Directive; 4] = [
    Directive { key: "RestrictNamespaces", value: Value::None(Nothing::Restricted) },
    Directive {
        key: "RestrictAddressFamilies",
        // Node and glibc ask the kernel for the machine's addresses over netlink.
        value: Value::Only(&["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"]),
    },
    Directive { key: "SystemCallFilter", value: Value::Only(&["@system-service"]) },
    Directive { key: "SystemCallErrorNumber", value: Value::Error(Errno::NotPermitted) },
];

/// What takes a mount namespace: in a user's unit only together with `PrivateUsers=`.
static MOUNTED: [Directive; 3] = [yes("PrivateTmp"), yes("PrivateMounts"), yes("ProtectKernelTunables")];

/// What takes capabilities away as well. In a user's unit older versions fail at it.
static DEVICES: Directive = yes("PrivateDevices");

/// What a user may not do anyway.
static KERNEL: [Directive; 4] =
    [yes("ProtectKernelModules"), yes("ProtectKernelLogs"), yes("ProtectClock"), yes("ProtectHostname")];

/// What only the system's manager can do.
static PRIVILEGED: [Directive; 5] = [
    Directive { key: "CapabilityBoundingSet", value: Value::None(Nothing::Empty) },
    Directive { key: "AmbientCapabilities", value: Value::None(Nothing::Empty) },
    word("DevicePolicy", "closed"),
    word("ProtectProc", "invisible"),
    yes("RemoveIPC"),
];

/// The directives for that unit.
pub(in crate::manager::systemd) fn directives(
    spec: &UnitSpec,
    scope: Scope,
    version: Version,
) -> Result<Vec<Directive>, Error> {
    let strict = spec.sandbox == Sandbox::Strict;
    if spec.sandbox == Sandbox::Off {
        return Ok(Vec::new());
    }
    let mut set = PLAIN.to_vec();
    match scope {
        Scope::User if strict => {
            set.extend_from_slice(&CONFINED);
            set.push(yes("PrivateUsers"));
            set.extend_from_slice(&MOUNTED);
            set.push(word("ProtectSystem", "strict"));
            let writable = spec.writable.iter().map(|path| text(path)).collect::<Result<_, _>>()?;
            set.push(Directive { key: "ReadWritePaths", value: Value::Paths(writable) });
            if version.has(Feature::UserDevices) {
                set.push(DEVICES.clone());
            }
        }
        Scope::User => {}
        // Root's own bridge is there to do root's work.
        Scope::System if spec.account == Account::Managers && !strict => {}
        Scope::System => {
            set.extend_from_slice(&CONFINED);
            set.extend_from_slice(&MOUNTED);
            set.push(DEVICES.clone());
            set.extend_from_slice(&KERNEL);
            set.extend_from_slice(&PRIVILEGED);
            if spec.account == Account::Own || strict {
                set.push(word("ProtectSystem", "strict"));
            } else {
                set.push(word("ProtectSystem", "full"));
            }
            if spec.account == Account::Own {
                set.push(word("ProtectHome", "yes"));
            }
        }
    }
    Ok(set)
}

impl Directive {
    /// What a unit file sets the directive of that name to, so that it is as if it were not there; `None` for one that
    /// is no part of a sandbox.
    pub(super) fn off(key: &str) -> Option<&'static str> {
        let known = [&PLAIN[..], &CONFINED, &MOUNTED, &KERNEL, &PRIVILEGED].into_iter().flatten();
        let named = ["ProtectSystem", "ProtectHome", "PrivateUsers", "PrivateDevices", "RestrictNamespaces"];
        match key {
            _ if named.contains(&key) => Some("no"),
            "CapabilityBoundingSet" => Some("~"),
            "DevicePolicy" => Some("auto"),
            "ProtectProc" => Some("default"),
            "ReadWritePaths" => Some(""),
            _ => known.into_iter().find(|directive| directive.key == key).map(|directive| {
                match directive.value {
                    Value::Yes(_) => "no",
                    _ => "",
                }
            }),
        }
    }
}
