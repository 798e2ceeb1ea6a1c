//! The bridges of a machine without systemd: root starts them, and they run as somebody else.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::home::is_root;

/// A machine as far as a bridge sees it: an `/etc` with the users and the config, an empty `/run` and `/var/log`, no
/// network. `$1` is its folder, `$2` what is typed there.
const BOOT: &str = r#"
set -eu
ip link set lo up
mount --bind "$1/etc" /etc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
export PATH="$1/bin:$PATH"
until_serves() { until curl -sf -o /dev/null http://127.0.0.1:8080/readyz; do sleep 0.05; done; }
bridge() { foxxy-bridge server list --format json | sed -n 's/.*"pid": \([0-9]*\).*/\1/p'; }
. "$1/session"
"#;

/// What is said when that is typed on a machine whose bridge has that config; none where only root can make one.
fn typed(config: &Value, session: &str) -> Option<(bool, String)> {
    if !is_root() {
        return None;
    }
    let folder = TempDir::with_prefix("machine").expect("a folder");
    let at = |path: &str| folder.path().join(path);
    for path in ["bin", "etc/foxxy-bridge"] {
        fs::create_dir_all(at(path)).expect("a folder");
    }
    // Whom the bridge becomes has to get to the program.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("a mode");
    fs::copy(env!("CARGO_BIN_EXE_foxxy-bridge"), at("bin/foxxy-bridge")).expect("a copy");
    for file in ["passwd", "group"] {
        fs::copy(Path::new("/etc").join(file), at("etc").join(file)).expect("a copy");
    }
    fs::write(at("etc/foxxy-bridge/config.json"), config.to_string()).expect("a config");
    fs::write(at("session"), session).expect("a file");
    let logrotate = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/logrotate.d/foxxy-bridge");
    fs::copy(logrotate, at("etc/logrotate.conf")).expect("a copy");

    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--net"]);
    command.args(["sh", "-c", BOOT, "sh"]).arg(folder.path());
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("TOKEN", "s3cr3t");
    let output = command.stdin(Stdio::null()).output().expect("unshare (util-linux)");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Some((output.status.success(), said))
}

/// A server that says as whom and with what it was started.
fn config(user: &str) -> Value {
    let says = "echo \"I am $(id -un), at home in $HOME, with $KEY and $SET\" >&2; exec cat";
    json!({
        "mcpServers": { "says": { "command": "sh", "args": ["-c", says], "env": { "KEY": "${TOKEN}" } } },
        "bridge": { "daemon": { "manager": "pidfile", "user": user, "environment": { "SET": "a value" } } },
    })
}

#[test]
fn a_bridge_becomes_its_user_before_its_servers_start_and_owns_its_files() {
    let session = r#"
        foxxy-bridge server start --daemon
        until foxxy-bridge server logs -o cat | grep -q 'I am daemon, at home in /usr/sbin, with s3cr3t and a value'; do
            sleep 0.05
        done
        for pid in $(bridge) $(head -n 1 /run/foxxy-bridge/default/pid); do ps -o user= -p "$pid"; done
        cd /run/foxxy-bridge/default
        stat -c '%U %a %n' . pid state lock control.sock variables
        stat -c '%U %a %n' /var/log/foxxy-bridge/default /var/log/foxxy-bridge/default/bridge.log
        cd /
        # Another takes its place, with what it was given.
        unset TOKEN
        foxxy-bridge server restart
        until [ "$(foxxy-bridge server logs -o cat | grep -c 'with s3cr3t and a value')" = 2 ]; do sleep 0.05; done
        foxxy-bridge server stop
        find /run/foxxy-bridge -type f -o -type s
    "#;
    let Some((well, said)) = typed(&config("daemon"), session) else { return };
    let expected = "daemon\ndaemon\ndaemon 700 .\ndaemon 600 pid\ndaemon 600 state\ndaemon 600 lock\n\
        daemon 600 control.sock\ndaemon 600 variables\ndaemon 700 /var/log/foxxy-bridge/default\n\
        daemon 600 /var/log/foxxy-bridge/default/bridge.log\nrestarted default: ";
    assert!(well && said.contains(expected), "{said}");
    assert!(said.contains("\nstopped default\n") && !said.contains("s3cr3t"), "{said}");
}

#[test]
fn only_root_can_start_a_bridge_as_somebody_else() {
    let session = r#"
        setpriv --reuid games --regid games --clear-groups env HOME=/tmp foxxy-bridge \
            server start --daemon --user --config /etc/foxxy-bridge/config.json || echo "refused with $?"
        chown -R daemon: /etc/foxxy-bridge
        mkdir /run/home; chown daemon: /run/home
        setpriv --reuid daemon --regid daemon --clear-groups env HOME=/run/home XDG_RUNTIME_DIR=/run/home foxxy-bridge \
            server start --daemon --user --config /etc/foxxy-bridge/config.json
        ps -o user= -p "$(HOME=/run/home; head -n 1 /run/home/.config/foxxy-bridge/pids/*.pid)"
    "#;
    let Some((well, said)) = typed(&config("daemon"), session) else { return };
    let refused = "cannot be started as the user `daemon`\n  only root can become another user\nhint: start it as root \
        or as daemon, or take bridge.daemon.user out of the config\n";
    assert!(well && said.contains(refused) && said.contains("refused with 77\n"), "{said}");
    assert!(
        said.contains("started foxxy-bridge: ") && said.ends_with("daemon\n") || said.contains("\ndaemon\n"),
        "{said}"
    );
}

#[test]
fn a_user_who_is_not_there_is_named() {
    let session =
        r#"foxxy-bridge server start --daemon || echo "refused with $?"; find /run /var/log -name '*foxxy*'"#;
    let Some((well, said)) = typed(&config("nobody-of-this-name"), session) else { return };
    assert!(well && said.contains("there is no user `nobody-of-this-name`\nhint: "), "{said}");
    assert!(said.contains("refused with 1\n") && !said.contains("/run/foxxy"), "{said}");
}

#[test]
fn logrotate_has_the_log_opened_anew() {
    let session = r#"
        foxxy-bridge server start --daemon
        until_serves
        cd /var/log/foxxy-bridge/default
        logrotate --force --state /run/logrotate.state /etc/logrotate.conf
        until [ -e bridge.log ]; do sleep 0.05; done
        foxxy-bridge server reload
        stat -c '%U %a %n' bridge.log bridge.log.1
        grep -c 'serving http' bridge.log.1
        grep -c 'reloaded: ' bridge.log
        foxxy-bridge server logs -o cat
        foxxy-bridge server stop
    "#;
    let Some((well, said)) = typed(&config("daemon"), session) else { return };
    let files = "daemon 600 bridge.log\ndaemon 600 bridge.log.1\n1\n1\n";
    assert!(well && said.contains(files), "{said}");
    let log = said.split(files).nth(1).unwrap_or_default();
    assert!(log.find("serving http") < log.find("reloaded: ") && log.contains("serving http"), "{said}");
}
