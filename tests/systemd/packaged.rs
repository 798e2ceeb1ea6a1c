//! The units that packages ship, as they are in `units/`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bridge::{config, foxxy, get, list, nothing_is_left, property, status};
use crate::machine::Machine;

crate::tests![
    systemctl_alone_starts_a_users_bridge,
    an_enabled_bridge_takes_the_packaged_template,
    the_machines_bridge_has_an_account_and_a_home_and_little_else,
    systemd_finds_nothing_wrong_with_them,
];

const SOON: Duration = Duration::from_secs(30);

/// The files of a package, and where they go.
const FILES: [(&str, &str); 5] = [
    ("/usr/lib/systemd/user/foxxy-bridge@.service", include_str!("../../units/user/foxxy-bridge@.service")),
    ("/usr/lib/systemd/user/foxxy-bridge@.socket", include_str!("../../units/user/foxxy-bridge@.socket")),
    (
        "/usr/lib/systemd/system/foxxy-bridge@.service",
        include_str!("../../units/system/foxxy-bridge@.service"),
    ),
    ("/usr/lib/systemd/system/foxxy-bridge@.socket", include_str!("../../units/system/foxxy-bridge@.socket")),
    ("/usr/lib/sysusers.d/foxxy-bridge.conf", include_str!("../../contrib/sysusers.d/foxxy-bridge.conf")),
];

/// Does what a package's installation does, then `act`, then what its removal does.
fn with_package(machine: &Machine, act: impl FnOnce()) {
    for (path, text) in FILES {
        machine
            .root(&["sh", "-euc", r#"mkdir -p "${1%/*}" && printf '%s' "$2" > "$1""#, "sh", path, text])
            .success();
    }
    machine.root(&["ln", "-s", "/usr/local/bin/foxxy-bridge", "/usr/bin/foxxy-bridge"]).success();
    let reload = || {
        machine.root(&["systemctl", "daemon-reload"]).success();
        machine.user(&["systemctl", "--user", "daemon-reload"]).success();
    };
    machine.root(&["systemd-sysusers"]).success();
    reload();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
    machine.root(&["systemctl", "stop", "foxxy-bridge@*"]);
    for (path, _) in FILES {
        machine.root(&["rm", path]).success();
    }
    machine.root(&[
        "sh",
        "-c",
        "userdel foxxy-bridge; rm -rf /var/lib/foxxy-bridge /etc/foxxy-bridge /usr/bin/foxxy-bridge",
    ]);
    reload();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn systemctl_alone_starts_a_users_bridge(machine: &Machine) {
    with_package(machine, || {
        config(
            machine,
            ".config/foxxy-bridge/work.json",
            r#"{ "mcpServers": {}, "bridge": { "port": 8650 } }"#,
        );
        machine.user(&["systemctl", "--user", "start", "foxxy-bridge@work"]).success();
        assert_eq!(get(machine, "http://127.0.0.1:8650/readyz"), "200");
        let listed = list(machine);
        let told = ["name", "status", "config", "unit"].map(|key| listed[0][key].clone());
        let path = "/home/tester/.config/foxxy-bridge/work.json";
        assert_eq!(told, ["work", "running", path, "foxxy-bridge@work.service"]);
        machine.user(&["systemctl", "--user", "reload", "foxxy-bridge@work"]).success();
        // The template is the same for every config.
        config(
            machine,
            ".config/foxxy-bridge/work.json",
            r#"{ "mcpServers": {}, "bridge": { "port": 8650, "daemon": { "limits": { "tasks_max": 99 } } } }"#,
        );
        machine.user(&["systemctl", "--user", "restart", "foxxy-bridge@work"]).success();
        let log = foxxy(machine, &["server", "logs", "work", "--level", "warning"]).success();
        assert!(log.contains("bridge.daemon is not in force in foxxy-bridge@work.service"), "{log}");
        assert_eq!(foxxy(machine, &["server", "stop", "work"]).success(), "stopped work\n");
        nothing_is_left(machine);
        // Of what is not there it says so, once.
        machine.user(&["systemctl", "--user", "start", "foxxy-bridge@nobody"]).failure(1);
        assert_eq!(property(machine, "foxxy-bridge@nobody", "NRestarts"), "0");
        let said = property(machine, "foxxy-bridge@nobody", "StatusText");
        assert!(said.contains("neither nobody.json nor nobody.toml is in"), "{said}");
        machine.user(&["systemctl", "--user", "reset-failed"]).success();
        machine.user_sh("rm -r ~/.config/foxxy-bridge").success();
        nothing_is_left(machine);
    });
}

fn an_enabled_bridge_takes_the_packaged_template(machine: &Machine) {
    with_package(machine, || {
        let path = config(
            machine,
            ".config/foxxy-bridge/pack.json",
            r#"{ "mcpServers": {}, "bridge": { "port": 8651 } }"#,
        );
        foxxy(machine, &["server", "enable", "pack", "--now"]).success();
        assert_eq!(status(machine, "pack")["config"], path);
        let fragment = property(machine, "foxxy-bridge@pack", "FragmentPath");
        assert_eq!(fragment, "/usr/lib/systemd/user/foxxy-bridge@.service");
        // Only what it has of its own is in the drop-in: a new template of the package's next version counts.
        let drop_in = "cat ~/.config/systemd/user/foxxy-bridge@pack.service.d/50-foxxy-bridge.conf";
        let drop_in = machine.user_sh(drop_in).success();
        assert!(drop_in.contains("Environment=\"PATH=") && !drop_in.contains("WatchdogSec"), "{drop_in}");
        foxxy(machine, &["server", "disable", "pack", "--now"]).success();
        assert_eq!(machine.user_sh("ls -A ~/.config/systemd/user 2>/dev/null || true").success(), "");
        machine.user_sh("rm -r ~/.config/foxxy-bridge").success();
        nothing_is_left(machine);
    });
}

fn the_machines_bridge_has_an_account_and_a_home_and_little_else(machine: &Machine) {
    with_package(machine, || {
        // As npx does: it keeps what it fetches in its home, and runs it from there.
        let script = "mkdir -p ~/.npm/bin; cp \"$(command -v node)\" ~/.npm/bin/fetched; \
            exec ~/.npm/bin/fetched /opt/servers/node_modules/@modelcontextprotocol/server-everything/dist/index.js stdio";
        let text = json!({
            "mcpServers": { "e": { "command": "sh", "args": ["-euc", script] } },
            "bridge": { "port": 8652 },
        });
        let write = "mkdir -p /etc/foxxy-bridge; printf '%s' \"$1\" > /etc/foxxy-bridge/work.json";
        machine.root(&["sh", "-euc", write, "sh", &text.to_string()]).success();
        // A config that is begun there is for the account, too.
        machine.root(&["foxxy-bridge", "config", "init", "--config", "/etc/foxxy-bridge/new.json"]).success();
        let seen = machine.root(&["stat", "-c", "%a %U %G", "/etc/foxxy-bridge/new.json"]).success();
        assert_eq!(seen, "640 root foxxy-bridge\n");
        machine.root(&["systemctl", "start", "foxxy-bridge@work"]).success();
        let foxxy = |arguments: &[&str]| machine.root(&[&["foxxy-bridge", "server"], arguments].concat());
        let mut status = Value::Null;
        machine.wait_until(SOON, "its server is connected", || {
            let said = foxxy(&["server-status", "work", "--format", "json"]).stdout;
            status = serde_json::from_str(&said).unwrap_or_default();
            status["healthy"] == true
        });
        let pid = status["upstreams"][0]["pid"].to_string();
        assert_eq!(machine.root(&["ps", "-o", "user:20=", "-p", &pid]).success().trim(), "foxxy-bridge");
        let exe = machine.root(&["readlink", &format!("/proc/{pid}/exe")]).success();
        assert_eq!(exe, "/var/lib/foxxy-bridge/work/.npm/bin/fetched\n");
        let of_process = machine.root(&["cat", &format!("/proc/{pid}/status")]).success();
        for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"] {
            assert!(of_process.lines().any(|found| found == line), "{line}: {of_process}");
        }
        let score = machine
            .root(&["systemd-analyze", "security", "--no-pager", "foxxy-bridge@work.service"])
            .success();
        let score = score.lines().find_map(|line| line.split("for foxxy-bridge@work.service: ").nth(1));
        let score: f64 = score.and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("a score");
        assert!(score <= 2.0, "it is exposed to {score}");

        // All that the command line can do, it does with the machine's as well.
        foxxy(&["restart", "work"]).success();
        foxxy(&["reload", "work"]).success();
        assert!(foxxy(&["logs", "work"]).success().contains("e: connected: "));
        assert!(foxxy(&["list"]).success().contains("work"));
        foxxy(&["enable", "work"]).success();
        machine.reboot();
        machine.wait_until(SOON, "it is up after a boot", || {
            get(machine, "http://127.0.0.1:8652/readyz") == "200"
        });
        assert_eq!(foxxy(&["disable", "work", "--now"]).success(), "disabled work\n");
        let left = "ls -A /etc/systemd/system/foxxy* /var/lib/foxxy-bridge/work/kept /run/foxxy-bridge/work";
        assert_eq!(machine.root(&["sh", "-c", left]).stdout, "");
    });
}

fn systemd_finds_nothing_wrong_with_them(machine: &Machine) {
    with_package(machine, || {
        for (path, _) in FILES.iter().filter(|(path, _)| path.contains("@.")) {
            let path = path.replace("@.", "@work.");
            let verified = if path.contains("/user/") {
                machine.user(&["systemd-analyze", "--user", "verify", &path])
            } else {
                machine.root(&["systemd-analyze", "verify", &path])
            };
            assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""), "{path}");
        }
    });
}
