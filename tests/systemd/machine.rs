//! A throw-away machine with a real systemd: PID 1, logind, dbus, journald, and a user whose manager lingers.
//!
//! Its root is an overlay over the host's or over a tree of another Debian, so that node, python and libraries are there;
//! what is written goes to a tmpfs, and outlives a reboot. Both are mounted in a mount namespace that a process of ours
//! keeps, and who kills all of the machine when this one dies, however it dies: of systemd-nspawn alone the machine would
//! not take notice. So a killed run leaves nothing behind but empty cgroups.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::output::Output;
use crate::tree::Tree;

/// How long the root may take to be made; it takes a moment.
const MAKE_DEADLINE: Duration = Duration::from_secs(30);

/// How long a machine may take to boot; it takes about 5 s.
const BOOT_DEADLINE: Duration = Duration::from_secs(90);
/// How long a machine may take to shut down: a unit that does not stop is killed after 90 s.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(120);
/// How long nspawn may take to clean up after a machine; it takes a moment.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How long a command in the machine may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);
/// How long after its deadline a command that ignores SIGTERM is killed.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(100);

/// The user who has a lingering manager, and nothing else.
const TESTER: &str = "tester";
/// The user who has no manager: no linger, no login, no bus, no runtime folder.
const LONER: &str = "loner";

/// What systemd-nspawn ends with when it is told to keep its unit and the machine has rebooted.
const REBOOTED: i32 = 133;

/// Makes the root in an empty folder, tells the uid of who lingers, and keeps it until its input ends; then kills what is
/// left of the machine. `$1` folder, `$2` lower tree, `$3` machine id, `$4` our binary, `$5` who lingers, `$6` who does
/// not, `$7` the machine's cgroup.
const KEEP: &str = r#"
set -eu

# nspawn keeps state by the name of the root; other runs have a root of that name too.
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=0755 tmpfs /run/systemd/nspawn

mount -t tmpfs -o mode=0755 tmpfs "$1"
cd "$1"
mkdir upper work root
mount -t overlay -o "lowerdir=$2,upperdir=upper,workdir=work" overlay root

# What the host starts at boot is none of the tests' business; aliases (dbus.service) and masks stay.
rm -rf root/etc/systemd/system/*.wants root/etc/systemd/system/*.requires root/etc/rc?.d/*
: > root/etc/fstab
rm -f root/etc/machine-id root/etc/hostname
echo "$3" > root/etc/machine-id
echo foxxy-test > root/etc/hostname

# A persistent journal is the one that users may read their own part of.
rm -rf root/var/log/journal root/var/lib/systemd/linger
mkdir -p root/var/log/journal root/var/lib/systemd/linger
for user in "$5" "$6"; do chroot root useradd --create-home --shell /bin/sh "$user"; done
touch "root/var/lib/systemd/linger/$5"

install -D -m 0755 "$4" root/usr/local/bin/foxxy-bridge
chroot root id -u "$5"
cat
[ ! -d "$7" ] || echo 1 > "$7/cgroup.kill"
"#;

/// Boots the root that is kept. `$1` who keeps it, `$2` its folder, `$3` an empty cgroup, then more options of nspawn.
const BOOT: &str = r#"
set -eu
keeper=$1 root=$2/root
echo $$ > "$3/cgroup.procs"
shift 3
exec nsenter --target "$keeper" --mount -- systemd-nspawn --quiet --boot --directory="$root" --console=pipe \
    --register=no --keep-unit --settings=no --private-network --link-journal=no --resolv-conf=off "$@"
"#;

/// A booted machine; dropping it stops it.
pub(crate) struct Machine {
    tree: Tree,
    /// Its machine id, by which its root is known from the host's.
    id: String,
    /// The process whose mount namespace has the root.
    keeper: Child,
    console: File,
    /// The cgroup that all of it is in, as each hierarchy has it: version 2, and where nspawn copies it to.
    cgroups: Vec<PathBuf>,
    /// What runs of it; nothing between a shutdown and the next boot.
    running: Mutex<Option<Running>>,
    /// The uid of `tester`.
    tester: u32,
    /// What was run since the last look, and how often in a row it said the same.
    transcript: Mutex<Vec<(Output, usize)>>,
}

/// A machine from its boot to its end.
struct Running {
    nspawn: Child,
    /// The machine's PID 1, as the host numbers it.
    leader: Option<u32>,
}

/// Who runs a command.
#[derive(Clone, Copy)]
enum As {
    Root,
    Tester,
    Loner,
}

impl Machine {
    /// Boots one and waits for the user manager of `tester`; an error tells what the console said.
    pub(crate) fn boot(tree: Tree) -> Result<Self, String> {
        let id =
            fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(|e| format!("no random id: {e}"))?;
        let id = id.trim().replace('-', "");
        let console = tempfile::tempfile().map_err(|e| format!("no file for the console: {e}"))?;
        let cgroups = cgroups(&format!("foxxy-test-{id}"))?;
        let (keeper, tester) = keep(tree, &id, &cgroups[0], &console)?;

        let (running, transcript) = (Mutex::new(None), Mutex::new(Vec::new()));
        let machine = Self { tree, id, keeper, console, cgroups, running, tester, transcript };
        machine.start()?;
        machine.transcript.lock().expect("no test holds the transcript").clear();
        Ok(machine)
    }

    /// Reboots it as an administrator does, and waits until it is up again; what was written is still there.
    #[track_caller]
    pub(crate) fn reboot(&self) {
        // Whoever asks for it may be ended before the answer.
        self.root(&["systemctl", "reboot"]);
        let mut ended = None;
        poll(SHUTDOWN_DEADLINE, || {
            let mut running = self.running();
            ended = running.as_mut().and_then(|running| running.nspawn.try_wait().ok().flatten());
            ended.is_some()
        });
        let code = ended.expect("the machine shuts down").code();
        assert_eq!(code, Some(REBOOTED), "it ended otherwise: {}", read_all(&self.console));
        self.start().unwrap_or_else(|why| panic!("after a reboot: {why}"));
    }

    fn start(&self) -> Result<(), String> {
        // Those of the boot before have controllers, and such cgroups take no process.
        self.cgroups.iter().for_each(|cgroup| remove_cgroup(cgroup));
        let cgroup = &self.cgroups[0];
        fs::create_dir(cgroup).map_err(|e| format!("{}: {e}", cgroup.display()))?;
        let nspawn = self.nspawn(cgroup).map_err(|e| format!("setpriv (util-linux): {e}"))?;
        *self.running() = Some(Running { nspawn, leader: None });
        self.wait_for_boot()
            .map_err(|why| format!("{why}\n--- console\n{}{}", read_all(&self.console), self.explain(&[])))
    }

    /// Starts systemd-nspawn on the root.
    fn nspawn(&self, cgroup: &Path) -> std::io::Result<Child> {
        let servers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers");
        // It is killed when we die; a Ctrl-C is for us alone.
        let mut command = Command::new("setpriv");
        command.process_group(0).args([
            "--pdeathsig",
            "KILL",
            "sh",
            "-c",
            BOOT,
            "boot",
            &self.keeper.id().to_string(),
            env!("CARGO_TARGET_TMPDIR"),
        ]);
        command.arg(cgroup);
        command.arg(format!("--bind-ro={}:/opt/servers", servers.display()));
        if let Some(venv) = self.tree.venv() {
            command.arg(format!("--bind-ro={}:/opt/servers/venv", venv.display()));
        }
        // On a host with both cgroup versions nspawn would pick the old one.
        command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        command.stdin(Stdio::null()).stdout(self.console.try_clone()?).stderr(self.console.try_clone()?);
        command.spawn()
    }

    fn wait_for_boot(&self) -> Result<(), String> {
        let start = Instant::now();
        let left = || BOOT_DEADLINE.saturating_sub(start.elapsed());

        poll(left(), || {
            let mut running = self.running();
            let Some(running) = running.as_mut() else { return true };
            running.leader = find_leader(running.nspawn.id(), &self.id);
            running.leader.is_some() || !matches!(running.nspawn.try_wait(), Ok(None))
        });
        self.leader().ok_or("systemd-nspawn did not start the machine")?;

        let booted = |out: &Output| matches!(out.stdout.trim(), "running" | "degraded");
        poll(left(), || booted(&self.root(&["systemctl", "is-system-running"])))
            .then_some(())
            .ok_or("the machine's systemd did not come up")?;
        poll(left(), || booted(&self.user(&["systemctl", "--user", "is-system-running"])))
            .then_some(())
            .ok_or("the user manager did not come up")?;
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leader(&self) -> Option<u32> {
        self.running().as_ref().and_then(|running| running.leader)
    }

    /// Runs a command as `tester`, in their home and with nothing but their runtime folder.
    pub(crate) fn user(&self, argv: &[&str]) -> Output {
        self.run(As::Tester, argv)
    }

    /// Runs a shell script as `tester`; it stops at the first command that fails.
    pub(crate) fn user_sh(&self, script: &str) -> Output {
        self.run(As::Tester, &["sh", "-euc", script])
    }

    /// Runs a command as `loner`, who has neither a user manager nor a runtime folder.
    pub(crate) fn loner(&self, argv: &[&str]) -> Output {
        self.run(As::Loner, argv)
    }

    /// Runs a command as root.
    pub(crate) fn root(&self, argv: &[&str]) -> Output {
        self.run(As::Root, argv)
    }

    /// What an MCP client that is not ours gets from a server, as `tester`: `target` and `steps` are those of
    /// `tests/servers/client.py`. Panics when there is no session; errors that the server answered are in the result.
    #[track_caller]
    pub(crate) fn mcp(&self, target: &str, steps: &Value) -> Value {
        let client = ["/opt/servers/venv/bin/python", "/opt/servers/client.py", target, "steps"];
        let output = self.user(&[&client[..], &[&steps.to_string()]].concat());
        serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("no MCP session: {output}"))
    }

    /// Waits for a condition; panics with `what` when it has not come true by the deadline.
    #[track_caller]
    pub(crate) fn wait_until(&self, deadline: Duration, what: &str, condition: impl FnMut() -> bool) {
        assert!(poll(deadline, condition), "waited {} s in vain: {what}", deadline.as_secs());
    }

    /// What was run since the last call, and the last lines of the journal, chosen by journalctl's options.
    pub(crate) fn explain(&self, journal: &[&str]) -> String {
        let transcript = std::mem::take(&mut *self.transcript.lock().expect("no test holds the transcript"));
        let mut text = String::new();
        for (output, times) in transcript {
            let again = if times > 1 { format!(" ({times} times)") } else { String::new() };
            let _ = writeln!(text, "{output}{again}");
        }
        if self.leader().is_some() {
            let argv = [&["journalctl", "--no-pager", "--no-hostname", "--lines=60"], journal].concat();
            let _ = write!(text, "--- journal\n{}", self.execute(As::Root, &argv).stdout);
        }
        text
    }

    #[track_caller]
    fn run(&self, who: As, argv: &[&str]) -> Output {
        let output = self.execute(who, argv);
        self.note(&output);
        assert!(output.took < COMMAND_DEADLINE, "not done after {} s: {output}", COMMAND_DEADLINE.as_secs());
        output
    }

    fn execute(&self, who: As, argv: &[&str]) -> Output {
        let stdout = tempfile::tempfile().expect("a file for stdout");
        let stderr = tempfile::tempfile().expect("a file for stderr");
        let start = Instant::now();
        // Files, not pipes: a process left behind in the machine must not keep us reading.
        let mut child = self
            .command(who, argv)
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().expect("a second handle"))
            .stderr(stderr.try_clone().expect("a second handle"))
            .spawn()
            .expect("nsenter (util-linux) is installed");
        // `timeout` in the machine ends the command; this ends us when even that hangs.
        if !poll(COMMAND_DEADLINE + 2 * KILL_AFTER, || !matches!(child.try_wait(), Ok(None))) {
            let _ = child.kill();
        }
        let code = child.wait().expect("our own child").code();

        Output {
            command: argv.join(" "),
            code,
            stdout: read_all(&stdout),
            stderr: read_all(&stderr),
            took: start.elapsed(),
        }
    }

    fn note(&self, output: &Output) {
        let mut transcript = self.transcript.lock().expect("no test holds the transcript");
        match transcript.last_mut() {
            Some((last, times)) if last.repeats(output) => *times += 1,
            _ => transcript.push((output.clone(), 1)),
        }
    }

    /// `argv` in the machine's namespaces, as `who`, with a clean environment and a deadline.
    fn command(&self, who: As, argv: &[&str]) -> Command {
        let (user, home) = match who {
            As::Root => ("root", "/root".to_owned()),
            As::Tester => (TESTER, format!("/home/{TESTER}")),
            As::Loner => (LONER, format!("/home/{LONER}")),
        };
        let mut command = Command::new("nsenter");
        let leader = self.leader().expect("the machine is up");
        command.args(["--target", &leader.to_string()]);
        command.args(["--mount", "--uts", "--ipc", "--pid", "--net", "--cgroup", "--"]);
        command.args(["timeout", &format!("--kill-after={}", KILL_AFTER.as_secs())]);
        command.arg(COMMAND_DEADLINE.as_secs().to_string());
        command.args(["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"]);
        command.args(["env", "--ignore-environment", "--chdir", &home]);
        command.args([format!("HOME={home}"), format!("USER={user}"), format!("LOGNAME={user}")]);
        command.args(["SHELL=/bin/sh", "LANG=C.UTF-8", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"]);
        if matches!(who, As::Tester) {
            command.arg(format!("XDG_RUNTIME_DIR=/run/user/{}", self.tester));
        }
        command.args(argv);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(Running { mut nspawn, leader }) = self.running().take() {
            // The kernel ends a machine with its PID 1, and nspawn then cleans up after it.
            let leader = leader.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
            if let (Some(leader), Ok(None)) = (leader, nspawn.try_wait()) {
                let _ = kill_process(leader, Signal::KILL);
                poll(STOP_DEADLINE, || !matches!(nspawn.try_wait(), Ok(None)));
            }
            let _ = nspawn.kill();
            let _ = nspawn.wait();
        }
        // This ends its input.
        let _ = self.keeper.wait();
        self.cgroups.iter().for_each(|cgroup| remove_cgroup(cgroup));
    }
}

/// Makes a fresh root in a mount namespace of its own; who keeps that, and the uid of `tester` in it.
fn keep(tree: Tree, id: &str, cgroup: &Path, console: &File) -> Result<(Child, u32), String> {
    let failed = |why: &dyn std::fmt::Display| format!("no root: {why}");
    let stdout = tempfile::tempfile().map_err(|e| failed(&e))?;
    let mut keeper = Command::new("unshare")
        // A Ctrl-C is for us alone.
        .process_group(0)
        .args(["--mount", "--propagation", "private", "sh", "-c", KEEP, "keep", env!("CARGO_TARGET_TMPDIR")])
        .arg(tree.root())
        .args([id, env!("CARGO_BIN_EXE_foxxy-bridge"), TESTER, LONER])
        .arg(cgroup)
        .stdin(Stdio::piped())
        .stdout(stdout.try_clone().map_err(|e| failed(&e))?)
        .stderr(console.try_clone().map_err(|e| failed(&e))?)
        .spawn()
        .map_err(|e| failed(&e))?;
    let mut tester = None;
    poll(MAKE_DEADLINE, || {
        tester = read_all(&stdout).strip_suffix('\n').and_then(|uid| uid.parse().ok());
        tester.is_some() || !matches!(keeper.try_wait(), Ok(None))
    });
    match tester {
        Some(tester) => Ok((keeper, tester)),
        None => {
            let _ = keeper.kill();
            let _ = keeper.wait();
            Err(failed(&read_all(console)))
        }
    }
}

/// Where a cgroup of that name, below the one of this process, is in each hierarchy; version 2 first.
fn cgroups(name: &str) -> Result<Vec<PathBuf>, String> {
    let read = |file| fs::read_to_string(file).map_err(|e| format!("{file}: {e}"));
    let groups = read("/proc/self/cgroup")?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let group = Path::new(group.ok_or("this process is in no cgroup of version 2")?).join(name);

    let mounts = read("/proc/self/mounts")?;
    let mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let (mut new, old): (Vec<_>, Vec<_>) =
        mounts.filter(|mount| mount[2].starts_with("cgroup")).partition(|mount| mount[2] == "cgroup2");
    if new.is_empty() {
        return Err("no cgroup2 is mounted, and a machine's systemd needs one".to_owned());
    }
    new.extend(old);
    Ok(new.iter().map(|mount| Path::new(mount[1]).join(&group)).collect())
}

/// Removes a cgroup and those in it, which no process is in any more.
fn remove_cgroup(cgroup: &Path) {
    let inner = fs::read_dir(cgroup).into_iter().flatten().flatten();
    inner
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .for_each(|e| remove_cgroup(&e.path()));
    let _ = fs::remove_dir(cgroup);
}

/// The child of nspawn that is PID 1 of a machine whose root is the one with this machine id.
///
/// Until its root is that one it still sees the host's, and a command run in it would reach the host's systemd.
fn find_leader(nspawn: u32, id: &str) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).ok()?;
    children.split_whitespace().find_map(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        let is_init = ids.split_whitespace().count() > 1 && ids.split_whitespace().last() == Some("1");
        let root = fs::read_to_string(format!("/proc/{pid}/root/etc/machine-id")).ok()?;
        (is_init && root.trim() == id).then(|| pid.parse().ok())?
    })
}

/// Looks at a condition until it is true or the time is up; tells whether it came true.
fn poll(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

/// All that was written to a file whose handle a child shares.
fn read_all(mut file: &File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("our own temporary file");
    String::from_utf8_lossy(&bytes).into_owned()
}
