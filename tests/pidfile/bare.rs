//! A tree with no library at all, neither systemd's nor the C library: busybox, and the program that `make static` makes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Stdio};

/// What is typed there, by root and then by a user; each command must succeed.
const SESSION: &str = r#"
set -eu
run() {
    echo "$ $*"
    "$@"
}
run foxxy-bridge --version
run foxxy-bridge config validate --config /etc/work.json
run foxxy-bridge server start --daemon --config /etc/work.json
run wget -q -O - http://127.0.0.1:8080/readyz
echo
run foxxy-bridge server start --daemon --config /etc/work.json
run foxxy-bridge server list
run foxxy-bridge server status work
run foxxy-bridge server reload work
run foxxy-bridge server restart work
run wget -q -O - http://127.0.0.1:8080/readyz
echo
run foxxy-bridge server logs work
# That there are no servers is a warning.
run foxxy-bridge doctor --config /etc/work.json || true
run foxxy-bridge server stop work
! wget -q -O - http://127.0.0.1:8080/readyz 2>/dev/null
! pidof foxxy-bridge
"#;

/// Mounts what a system has, and lets each of them have their session. `$1` is the tree.
const BOOT: &str = r#"
set -eu
ip link set lo up
mount -t proc proc "$1/proc"
exec chroot "$1" /bin/sh -euc '
    /bin/sh /session
    exec su -s /bin/sh -c "exec /bin/sh /session" ada
'
"#;

#[test]
#[ignore = "make test-static builds the program that it needs"]
fn in_a_tree_without_any_library_all_commands_work() {
    let program = std::env::var_os("STATIC_BRIDGE").expect("STATIC_BRIDGE says where the program is");
    let tree = tempfile::tempdir().expect("a folder");
    let at = |path: &str| tree.path().join(path);
    for folder in ["bin", "usr/bin", "etc", "proc", "dev", "tmp", "run", "root", "var/log", "home/ada"] {
        fs::create_dir_all(at(folder)).expect("a folder");
    }
    fs::copy("/usr/bin/busybox", at("bin/busybox")).expect("busybox-static");
    fs::copy(program, at("usr/bin/foxxy-bridge")).expect("a copy");
    for applet in ["sh", "wget", "su", "pidof", "id", "getent"] {
        symlink("busybox", at("bin").join(applet)).expect("a link");
    }
    fs::write(at("etc/passwd"), "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n")
        .expect("a file");
    fs::write(at("etc/group"), "root:x:0:\nada:x:1000:\n").expect("a file");
    fs::write(at("etc/hosts"), "127.0.0.1 localhost\n").expect("a file");
    fs::write(at("dev/null"), "").expect("a file");
    fs::set_permissions(at("dev/null"), Permissions::from_mode(0o666)).expect("a mode");
    fs::write(at("etc/work.json"), r#"{ "mcpServers": {}, "bridge": { "host": "localhost" } }"#)
        .expect("a file");
    fs::write(at("session"), SESSION).expect("a file");
    std::os::unix::fs::chown(at("home/ada"), Some(1000), Some(1000)).expect("a home of hers");
    // Root of the tree is not for its owner alone, as a temporary folder is.
    fs::set_permissions(tree.path(), Permissions::from_mode(0o755)).expect("a mode");

    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount", "--net", "sh", "-c", BOOT, "sh"]);
    command.arg(tree.path()).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
    let output = command.stdin(Stdio::null()).output().expect("unshare (util-linux)");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("\nstarted work: http://localhost:8080/mcp (PID ").count(), 2, "{said}");
    assert_eq!(said.matches("\nstopped work\n").count(), 2, "{said}");
    assert!(said.contains("PID file /run/foxxy-bridge/work/pid)"), "{said}");
    assert!(said.contains("PID file ~/.config/foxxy-bridge/pids/work.pid)"), "{said}");
}
