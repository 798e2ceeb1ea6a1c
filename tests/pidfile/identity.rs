//! Whatever is in the place of a PID file: it is told, it stays as it is unless it is ours, and no stranger is signalled.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::home::{Home, PLAIN_USER, is_root, lives, signal, stat, wait_until};

/// Somebody who has nothing to do with it.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().expect("sleep"))
    }

    /// One who holds a lock on a file, as supervisors do.
    fn with_lock(file: &Path) -> Self {
        // It is handed over open, so that nothing else ties them to the home.
        let file = File::options().read(true).write(true).open(file).expect("a file");
        let script =
            "import fcntl, time\nfcntl.lockf(0, fcntl.LOCK_EX)\nprint('held', flush=True)\ntime.sleep(1000)";
        let python = if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
        let mut command = Command::new(python);
        command.args(["-IS", "-c", script]).stdin(file).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python");
        let mut line = String::new();
        let said = child.stdout.take().expect("its output");
        BufReader::new(said).read_line(&mut line).expect("a line");
        assert_eq!(line, "held\n");
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// That no signal has reached it.
    #[track_caller]
    fn is_unharmed(&self) {
        assert!(lives(self.pid()), "it was signalled");
        assert_eq!(stat(self.pid(), 3).as_deref(), Some("S"), "it was halted");
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A PID file as a supervisor would have left it.
fn record(home: &Home, pid: u32, start_time: u64, boot: &str) -> String {
    let config = home.config_of("work").display().to_string();
    format!(
        "{pid}\nname = \"work\"\nconfig = {config:?}\nstarted = \"2026-01-31T12:00:00Z\"\nboot_id = {boot:?}\n\
         start_time = {start_time}\nversion = \"0.1.0\"\n"
    )
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot").trim().to_owned()
}

/// That nothing is said to run, and a stop finds nothing to stop.
#[track_caller]
fn is_not_running(home: &Home) {
    assert_eq!(home.listed("work"), Value::Null);
    for (said, code) in
        [(home.status("work"), 3), (home.stop("work"), 1), (home.foxxy(&["server", "stop", "-F", "work"]), 1)]
    {
        let said = said.refused(code);
        assert!(said.contains("the bridge `work` is not running"), "{said}");
    }
    assert_eq!(home.status_of("work")["state"], "not running");
}

/// That a start goes as it always does.
#[track_caller]
fn starts(home: &Home) {
    let said = home.start("work").success();
    assert!(said.starts_with("started work: "), "{said}");
    home.one_runs("work");
    assert_eq!(home.stop("work").success(), "stopped work\n");
    home.nothing_is_left();
}

#[test]
fn what_makes_no_sense_in_a_pid_file_is_passed_over() {
    let home = Home::new();
    home.config("work", &json!({}));
    let junk = [
        &b"garbage\n"[..],
        b"",
        b"\n",
        b"-1\n",
        b"0\n",
        b"99999999999999999999\n",
        b"4294967297\n",
        b"2147483648\n",
        b"1 2\n",
        b"\0\0\0\0",
        b"\xff\xfe\n",
        b"4194304\nname = 1\n",
    ];
    let mut junk: Vec<Vec<u8>> = junk.into_iter().map(Vec::from).collect();
    junk.extend([vec![b'7'; 10 << 20], vec![b'\n'; 10 << 20], vec![0; 10 << 20]]);
    home.pids();
    for text in junk {
        home.write(&home.pid_file("work"), &text);
        is_not_running(&home);
        assert_eq!(fs::read(home.pid_file("work")).expect("a file"), text, "who looks changes nothing");
        starts(&home);
    }
}

#[test]
fn the_number_of_a_stranger_is_no_supervisor() {
    let home = Home::new();
    home.config("work", &json!({}));
    let stranger = Stranger::new();
    let start_time: u64 = stat(stranger.pid(), 22).expect("a time").parse().expect("a number");
    home.pids();
    home.write(&home.pid_file("work"), format!("{}\n", stranger.pid()));
    is_not_running(&home);
    starts(&home);
    stranger.is_unharmed();

    // As one whose number another has by now; and of another boot, even with the same start.
    for (start_time, boot, is_failed) in [
        (start_time - 1, boot(), true),
        (start_time, "another".to_owned(), false),
        (start_time, boot(), true),
    ] {
        home.write(&home.pid_file("work"), record(&home, stranger.pid(), start_time, &boot));
        if is_failed {
            // It was this boot's, and was not stopped.
            let row = home.listed("work");
            assert_eq!((&row["status"], &row["pid"]), (&json!("failed"), &json!(null)), "{row}");
            home.status("work").refused(3);
            assert_eq!(home.stop("work").success(), "stopped work: it had failed and was given up\n");
            home.nothing_is_left();
            home.write(&home.pid_file("work"), record(&home, stranger.pid(), start_time, &boot));
        } else {
            is_not_running(&home);
        }
        starts(&home);
        stranger.is_unharmed();
    }
}

#[test]
fn the_number_of_a_stranger_in_what_a_supervisor_has_said_of_its_bridge_is_no_supervisor() {
    let home = Home::new();
    home.config("work", &json!({}));
    let stranger = Stranger::new();
    home.start("work").success();
    let supervisor = home.supervisor("work");
    for pid in [supervisor, home.bridge("work").expect("a bridge")] {
        signal(pid, Signal::KILL);
    }
    wait_until("all have ended", || home.processes().is_empty());
    // With the PID file gone, that is where it is looked for.
    fs::remove_file(home.pid_file("work")).expect("a PID file");
    let state = home.own("run/work/state");
    let said = fs::read_to_string(&state).expect("a state");
    let (before, after) = (format!("pid = {supervisor}\n"), format!("pid = {}\n", stranger.pid()));
    assert_eq!(said.matches(&before).count(), 1, "{said}");
    home.write(&state, said.replace(&before, &after));
    assert_eq!(home.listed("work")["status"], "failed");
    assert_eq!(home.stop("work").success(), "stopped work: it had failed and was given up\n");
    starts(&home);
    stranger.is_unharmed();
}

#[test]
fn a_stranger_who_holds_the_lock_is_told_and_not_signalled() {
    let home = Home::new();
    home.config("work", &json!({}));
    home.pids();
    let pid_file = home.pid_file("work");
    for text in [String::new(), "1\n".to_owned(), record(&home, 1, 1, "another")] {
        home.write(&pid_file, &text);
        let stranger = Stranger::with_lock(&pid_file);
        is_not_running(&home);
        for more in [&[][..], &["--force"], &["--cleanup"]] {
            let said = home.start_with("work", more, &[]).refused(1);
            assert!(said.contains("is held by another process"), "{said}");
            assert!(said.contains(&format!("process {} is no supervisor", stranger.pid())), "{said}");
        }
        stranger.is_unharmed();
        assert_eq!(fs::read_to_string(&pid_file).expect("a file"), text, "it is not ours");
        home.nothing_but(&["pids/work.pid"]);
        drop(stranger);
        starts(&home);
    }
}

#[test]
fn a_stranger_who_holds_the_lock_is_no_supervisor_by_what_one_has_left() {
    let home = Home::new();
    home.config("work", &json!({}));
    home.start("work").success();
    for pid in [home.supervisor("work"), home.bridge("work").expect("a bridge")] {
        signal(pid, Signal::KILL);
    }
    wait_until("all have ended", || home.processes().is_empty());
    let stranger = Stranger::with_lock(&home.pid_file("work"));
    assert_eq!(home.listed("work")["status"], "failed");
    home.stop("work");
    home.foxxy(&["server", "stop", "-F", "work"]);
    let said = home.start("work").refused(1);
    assert!(said.contains(&format!("process {} is no supervisor", stranger.pid())), "{said}");
    stranger.is_unharmed();
    drop(stranger);
    starts(&home);
}

/// What else may be in its place, made there, and what is said of it.
type Obstacle = (&'static str, fn(&Home, &Path), &'static str, i32);

const OBSTACLES: [Obstacle; 6] = [
    (
        "a link",
        |home, at| {
            home.write(&home.path("letters"), "1\n");
            symlink(home.path("letters"), at).expect("a link");
        },
        "it is a link",
        1,
    ),
    ("a link to nothing", |home, at| symlink(home.path("nothing"), at).expect("a link"), "it is a link", 1),
    ("a folder", |_, at| fs::create_dir(at).expect("a folder"), "it is no plain file", 1),
    (
        "a pipe",
        |_, at| {
            mknodat(CWD, at, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        },
        "it is no plain file",
        1,
    ),
    (
        "a second name of a file",
        |home, at| {
            home.write(&home.path("letters"), "1\n");
            fs::hard_link(home.path("letters"), at).expect("a link");
        },
        "it is no plain file of one name",
        1,
    ),
    // Last, as only root can make it.
    (
        "another user's file",
        |home, at| {
            home.write(at, "1\n");
            chown(at, Some(PLAIN_USER), None).expect("another owner");
        },
        "it is another user's",
        77,
    ),
];

#[test]
fn what_cannot_be_a_pid_file_is_told_and_left_as_it_is() {
    for (what, make, reason, code) in &OBSTACLES[..if is_root() { 6 } else { 5 }] {
        let home = Home::new();
        home.config("work", &json!({}));
        home.config("other", &json!({}));
        home.pids();
        let pid_file = home.pid_file("work");
        make(&home, &pid_file);
        let before = fs::symlink_metadata(&pid_file).expect("something");
        is_not_running(&home);
        for more in [&[][..], &["--force"]] {
            let said = home.start_with("work", more, &[]).refused(*code);
            assert!(said.contains(reason) && said.contains("pids/work.pid"), "{what}: {said}");
        }
        // It is in nobody else's way.
        home.start("other").success();
        home.stop("other").success();
        let after = fs::symlink_metadata(&pid_file).expect("something");
        assert_eq!(
            (before.ino(), before.len(), before.mode()),
            (after.ino(), after.len(), after.mode()),
            "{what}"
        );
        assert!(!home.path("nothing").exists(), "{what}");
        if let Ok(letters) = fs::read(home.path("letters")) {
            assert_eq!(letters, b"1\n", "{what}");
        }
        home.nothing_but(&["pids/work.pid"]);
        if before.is_dir() { fs::remove_dir(&pid_file) } else { fs::remove_file(&pid_file) }
            .expect("it goes");
        starts(&home);
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_lists_all_the_same() {
    for folder in ["pids", "run", "logs", ""] {
        let home = Home::of_a_plain_user();
        home.config("work", &json!({}));
        if !folder.is_empty() {
            home.write(&home.own(folder).join("x"), "");
            fs::remove_file(home.own(folder).join("x")).expect("a file");
        }
        let mode =
            |mode| fs::set_permissions(home.own(folder), fs::Permissions::from_mode(mode)).expect("a mode");
        mode(0o500);
        is_not_running(&home);
        let said = home.start("work").refused(77);
        assert!(said.contains(".config/foxxy-bridge/"), "{folder}: {said}");
        assert!(said.contains("Permission denied"), "{folder}: {said}");
        mode(0o700);
        home.nothing_is_left();
        starts(&home);
    }
}

#[test]
fn one_whose_pid_file_was_removed_is_found_all_the_same() {
    let home = Home::new();
    home.config("work", &json!({}));
    for (arguments, word) in
        [(&["server", "stop", "work"][..], "stopped"), (&["server", "stop", "-F", "work"], "killed")]
    {
        home.start("work").success();
        let (supervisor, bridge) = (home.supervisor("work"), home.bridge("work").expect("a bridge"));
        fs::remove_file(home.pid_file("work")).expect("a PID file");
        let row = home.listed("work");
        assert_eq!((&row["status"], &row["pid"]), (&json!("running"), &json!(bridge)), "{row}");
        home.status("work").success();
        let said = home.start("work").success();
        assert!(said.starts_with("work is already running: "), "{said}");
        let mut processes = home.processes();
        processes.sort_unstable();
        let mut meant = vec![supervisor, bridge];
        meant.sort_unstable();
        assert_eq!(processes, meant);
        assert_eq!(home.foxxy(arguments).success(), format!("{word} work\n"));
        home.nothing_is_left();
    }
}

#[test]
fn a_pid_file_of_ones_own_choice_is_used_and_found() {
    let home = Home::new();
    let pid_file = home.path("var/work.pid");
    home.write(&home.path("var/x"), "");
    home.config("work", &json!({ "bridge": { "daemon": { "pid_file": pid_file } } }));
    home.start("work").success();
    let text = fs::read_to_string(&pid_file).expect("a PID file");
    let supervisor: u32 = text.lines().next().unwrap_or_default().parse().expect("a number");
    assert!(lives(supervisor) && !home.pid_file("work").exists());
    assert_eq!(home.listed("work")["status"], "running");
    assert!(home.start("work").success().starts_with("work is already running: "));
    home.foxxy(&["server", "restart", "work"]).success();
    assert_eq!(home.stop("work").success(), "stopped work\n");
    assert!(!pid_file.exists() && !lives(supervisor));
    home.nothing_is_left();
}

#[test]
fn a_file_of_somebodys_is_not_made_a_pid_file() {
    let home = Home::new();
    let letters = home.path("letters");
    home.config("work", &json!({ "bridge": { "daemon": { "pid_file": letters } } }));
    for text in ["dear ada,\n", "-1\n", "{}", "\n1\n"] {
        home.write(&letters, text);
        let said = home.start("work").refused(1);
        assert!(said.contains("it is no PID file") && said.contains("letters"), "{said}");
        assert_eq!(fs::read_to_string(&letters).expect("a file"), text);
        home.nothing_is_left();
    }
    // An old number of a daemon's is what such a file is for.
    home.write(&letters, "4194304\n");
    home.start("work").success();
    home.stop("work").success();
    home.nothing_is_left();
}

#[test]
fn what_is_made_is_for_its_user_alone() {
    let home = Home::new();
    home.config("work", &json!({}));
    // Whatever the umask.
    let mut command = Command::new("sh");
    let start = home.command(
        &["server", "start", "--daemon", "--config", home.config_of("work").to_str().expect("a path")],
        &[],
    );
    command.args(["-c", "umask 0; exec \"$@\"", "sh"]).arg(start.get_program()).args(start.get_args());
    command.env_clear().envs(start.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("a shell").success());
    let mut wrong = Vec::new();
    let mut look = |path: &Path| {
        let found = fs::symlink_metadata(path).expect("a file");
        let meant = if found.is_dir() { 0o700 } else { 0o600 };
        if found.mode() & 0o777 != meant {
            wrong.push(format!("{}: {:o}", path.display(), found.mode() & 0o777));
        }
    };
    for folder in ["pids", "run", "run/work", "logs"] {
        look(&home.own(folder));
        let entries =
            fs::read_dir(home.own(folder)).expect("a folder").map(|entry| entry.expect("an entry").path());
        // The log's own mode is tested where it is written.
        entries.filter(|path| !path.is_dir() && folder != "logs").for_each(|path| look(&path));
    }
    assert_eq!(wrong, Vec::<String>::new());
    home.stop("work").success();
    home.nothing_is_left();
}
