//! A home of a test's own: a temporary folder, the program as it is typed there, and a look at what is left.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take that is bound to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(90);
/// Between two looks at what cannot be waited for.
const GLANCE: Duration = Duration::from_millis(5);
/// Whom root becomes where a test needs somebody whom the kernel refuses things.
pub(crate) const PLAIN_USER: u32 = 65_534;

/// A home, with all that runs from it.
pub(crate) struct Home {
    folder: TempDir,
    program: PathBuf,
    user: Option<u32>,
    ports: Mutex<Vec<u16>>,
}

/// What a command said.
pub(crate) struct Output {
    command: String,
    /// The exit status; none when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    /// Without warnings, which the config may have.
    pub(crate) stderr: String,
}

/// A command that runs.
pub(crate) struct Running {
    command: String,
    child: Child,
}

impl Home {
    pub(crate) fn new() -> Self {
        // What has lost its parent comes home to the tests, where nobody reaps it, as in many a container: what has ended
        // and is still there must not be taken for alive.
        let own = Pid::from_raw(std::process::id().cast_signed());
        rustix::process::set_child_subreaper(own).expect("to adopt orphans");
        let folder = tempfile::tempdir().expect("a folder");
        let program = env!("CARGO_BIN_EXE_foxxy-bridge").into();
        Self { folder, program, user: None, ports: Mutex::default() }
    }

    /// One of somebody who is not root.
    pub(crate) fn of_a_plain_user() -> Self {
        let mut home = Self::new();
        if is_root() {
            // The program may be in a folder that is closed to others.
            let program = home.path("foxxy-bridge");
            if fs::hard_link(&home.program, &program).is_err() {
                fs::copy(&home.program, &program).expect("a copy of the program");
            }
            chown(home.folder.path(), Some(PLAIN_USER), Some(PLAIN_USER)).expect("a folder of theirs");
            (home.program, home.user) = (program, Some(PLAIN_USER));
        }
        home
    }

    /// Something in the home.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// Something in its folder of configs.
    pub(crate) fn own(&self, below: &str) -> PathBuf {
        self.path(".config/foxxy-bridge").join(below)
    }

    /// The PID file of a bridge of that name.
    pub(crate) fn pid_file(&self, name: &str) -> PathBuf {
        self.own("pids").join(format!("{name}.pid"))
    }

    /// Makes the folder of PID files, as the program does.
    pub(crate) fn pids(&self) -> PathBuf {
        let folder = self.own("pids");
        fs::create_dir_all(&folder).expect("a folder");
        self.give(&folder);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("a mode");
        folder
    }

    /// Has what is in the home belong to whom it is of.
    pub(crate) fn give(&self, path: &Path) {
        let below = path.ancestors().take_while(|path| *path != self.folder.path());
        for path in below.filter(|_| self.user.is_some()) {
            chown(path, self.user, self.user).expect("a file of theirs");
        }
    }

    /// Writes a text, and the folders that it is in.
    pub(crate) fn write(&self, path: &Path, text: impl AsRef<[u8]>) {
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(path, text).expect("a file");
        self.give(path);
    }

    /// Writes the config of a bridge of that name, kept by a PID file on a free port unless it says otherwise; its port.
    pub(crate) fn config(&self, name: &str, config: &Value) -> u16 {
        let mut config = config.clone();
        let bridge = &mut config["bridge"];
        if bridge["port"].is_null() {
            bridge["port"] = json!(free_port());
        }
        bridge["daemon"]["manager"] = json!("pidfile");
        let port = u16::try_from(bridge["port"].as_u64().expect("a port")).expect("a port");
        if config["mcpServers"].is_null() {
            config["mcpServers"] = json!({});
        }
        self.ports.lock().expect("ports").push(port);
        self.write(&self.config_of(name), config.to_string());
        port
    }

    /// Where that config is.
    pub(crate) fn config_of(&self, name: &str) -> PathBuf {
        self.own(&format!("{name}.json"))
    }

    /// The program as this home's owner types it.
    pub(crate) fn command(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).args(arguments.first().filter(|word| **word == "server").map(|_| "--user"));
        command.env_clear().envs(environment.iter().copied());
        command.env("HOME", self.folder.path()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.current_dir(self.folder.path());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Types a command, with variables besides.
    #[track_caller]
    pub(crate) fn begin(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        let child = self.command(arguments, environment).spawn().expect("the program starts");
        let variables: String = environment.iter().map(|(name, value)| format!("{name}={value} ")).collect();
        Running { command: format!("{variables}foxxy-bridge {}", arguments.join(" ")), child }
    }

    /// Types a command and waits for its end.
    #[track_caller]
    pub(crate) fn foxxy(&self, arguments: &[&str]) -> Output {
        self.begin(arguments, &[]).end()
    }

    /// Starts the bridge of the config of that name.
    #[track_caller]
    pub(crate) fn start(&self, name: &str) -> Output {
        self.start_with(name, &[], &[])
    }

    /// The same with more arguments and variables.
    #[track_caller]
    pub(crate) fn start_with(&self, name: &str, more: &[&str], environment: &[(&str, &str)]) -> Output {
        self.begin_start(name, more, environment).end()
    }

    /// Begins to.
    #[track_caller]
    pub(crate) fn begin_start(&self, name: &str, more: &[&str], environment: &[(&str, &str)]) -> Running {
        let config = self.config_of(name);
        let start = ["server", "start", "--daemon", "--config", config.to_str().expect("a path")];
        self.begin(&[&start[..], more].concat(), environment)
    }

    #[track_caller]
    pub(crate) fn stop(&self, name: &str) -> Output {
        self.foxxy(&["server", "stop", name])
    }

    #[track_caller]
    pub(crate) fn status(&self, name: &str) -> Output {
        self.foxxy(&["server", "status", name])
    }

    /// What it says of itself, or what is said of it, whatever the exit code.
    #[track_caller]
    pub(crate) fn status_of(&self, name: &str) -> Value {
        let said = self.foxxy(&["server", "status", name, "--format", "json"]);
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// What `server list` knows.
    #[track_caller]
    pub(crate) fn list(&self) -> Vec<Value> {
        let said = self.foxxy(&["server", "list", "--format", "json"]).success();
        serde_json::from_str(&said).expect("a list in JSON")
    }

    /// What it knows of one; null where that is not in it.
    #[track_caller]
    pub(crate) fn listed(&self, name: &str) -> Value {
        self.list().into_iter().find(|row| row["name"] == name).unwrap_or_default()
    }

    /// The number in a PID file.
    #[track_caller]
    pub(crate) fn supervisor(&self, name: &str) -> u32 {
        let text = fs::read_to_string(self.pid_file(name)).expect("a PID file");
        text.lines().next().unwrap_or_default().parse().unwrap_or_else(|error| panic!("{error}: {text:?}"))
    }

    /// The process of a bridge, by its supervisor's word; none while there is none.
    pub(crate) fn bridge(&self, name: &str) -> Option<u32> {
        let state = fs::read_to_string(self.own("run").join(name).join("state")).ok()?;
        u32::try_from(state.parse::<toml::Table>().ok()?.get("bridge")?.as_integer()?).ok()
    }

    /// All that runs from this home and has not ended.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let home = self.folder.path().as_os_str().as_encoded_bytes();
        let is_of_it = |pid: &u32| {
            ["environ", "cmdline"].iter().any(|file| {
                let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                text.windows(home.len()).any(|part| part == home)
            })
        };
        all().filter(|pid| is_of_it(pid) && lives(*pid)).collect()
    }

    /// Those of a program's name, of which the kernel keeps 15 characters.
    pub(crate) fn called(&self, name: &str) -> Vec<u32> {
        let is_it =
            |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
        self.processes().into_iter().filter(is_it).collect()
    }

    /// That one supervisor and one bridge run, and those that are meant.
    #[track_caller]
    pub(crate) fn one_runs(&self, name: &str) {
        let listed = self.listed(name);
        assert_eq!(listed["status"], "running", "{listed}");
        let bridge = self.bridge(name).expect("a bridge");
        assert_eq!(listed["pid"], bridge, "{listed}");
        let (mut found, mut meant) = (self.processes(), vec![self.supervisor(name), bridge]);
        found.sort_unstable();
        meant.sort_unstable();
        assert_eq!(found, meant, "{}", self.tree());
    }

    /// That no process and no file is left, but for configs and logs, and nobody listens.
    #[track_caller]
    pub(crate) fn nothing_is_left(&self) {
        self.nothing_but(&[]);
    }

    /// The same but for those files, below the folder of configs.
    #[track_caller]
    pub(crate) fn nothing_but(&self, files: &[&str]) {
        let processes: Vec<_> = self.processes().into_iter().map(describe).collect();
        assert!(processes.is_empty(), "processes are left: {processes:#?}");
        let is_meant = |path: &PathBuf| {
            let below = path.strip_prefix(self.own("")).expect("below it").to_str().expect("a text");
            let of_a_person = below.ends_with(".json") || below.starts_with("logs");
            of_a_person || ["pids", "run"].contains(&below) || files.contains(&below)
        };
        let left: Vec<_> = everything(&self.own("")).into_iter().filter(|path| !is_meant(path)).collect();
        assert!(left.is_empty(), "files are left: {left:#?}");
        for port in self.ports.lock().expect("ports").iter() {
            TcpListener::bind(("127.0.0.1", *port)).unwrap_or_else(|error| panic!("port {port}: {error}"));
        }
        assert_eq!(
            self.list().into_iter().filter(|row| self.is_ours(row)).collect::<Vec<_>>(),
            Vec::<Value>::new()
        );
    }

    /// Whether a bridge in a list is of this home: on a machine with systemd there may be others.
    pub(crate) fn is_ours(&self, row: &Value) -> bool {
        row["manager"] != "systemd"
    }

    /// What is there, for people.
    fn tree(&self) -> String {
        let mut tree = String::new();
        for pid in self.processes() {
            let _ = writeln!(tree, "{}", describe(pid));
        }
        for path in everything(&self.own("")) {
            let _ = writeln!(tree, "{}", path.display());
            if path.is_file() && !path.ends_with("environment") {
                let text = fs::read(&path).unwrap_or_default();
                let shown =
                    String::from_utf8_lossy(text.get(..4096).unwrap_or(&text)).replace('\n', "\n    ");
                let _ = writeln!(tree, "    {}", shown.trim_end());
            }
        }
        tree
    }

    /// Kills all that runs from it.
    fn end_all(&self) {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for pid in left {
                signal(pid, Signal::KILL);
            }
            thread::sleep(GLANCE);
        }
    }
}

impl Drop for Home {
    #[expect(clippy::print_stderr, reason = "it tells of a test that fails")]
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.tree());
        }
        self.end_all();
        // A test may have closed some.
        for path in
            everything(self.folder.path()).into_iter().filter(|path| path.is_dir() && !path.is_symlink())
        {
            let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
        }
    }
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, and that of everybody who has its output.
    #[track_caller]
    pub(crate) fn end(self) -> Output {
        let Self { command, child } = self;
        let (pid, (tell, told)) = (child.id(), mpsc::channel());
        thread::spawn(move || tell.send(child.wait_with_output()));
        let Ok(ended) = told.recv_timeout(COMMAND) else {
            signal(pid, Signal::KILL);
            panic!("`{command}` did not end");
        };
        let ended = ended.expect("an output");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        let lines = text(ended.stderr);
        let lines = lines.lines().filter(|line| !line.starts_with("warning: "));
        let stderr = lines.map(|line| format!("{line}\n")).collect();
        let code = ended.status.code();
        assert!(
            code.is_some() || ended.status.signal() == Some(9),
            "`{command}` ended with {}",
            ended.status
        );
        Output { command, code, stdout: text(ended.stdout), stderr }
    }
}

impl Output {
    /// Its stdout, if it succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert!(self.code == Some(0), "expected success: {self}");
        self.stdout
    }

    /// Its stderr, if it was refused as it should be: with that exit code, one error, a hint, and nothing on stdout.
    #[track_caller]
    pub(crate) fn refused(self, code: i32) -> String {
        assert!(self.code == Some(code), "expected exit status {code}: {self}");
        assert_eq!(self.stdout, "", "{self}");
        let count = |word: &str| self.stderr.lines().filter(|line| line.starts_with(word)).count();
        assert!(self.stderr.starts_with("error: "), "{self}");
        assert_eq!((count("error: "), count("hint: ")), (1, 1), "one error and one hint: {self}");
        self.stderr
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code.map_or("a signal".to_owned(), |code| code.to_string());
        write!(f, "$ {}\n[{code}]", self.command)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                write!(f, "\n[{name}] {}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// Does it for each at the same time: most of such a test waits.
pub(crate) fn for_each_at_once<T: Send>(all: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for one in all {
            let test = &test;
            scope.spawn(move || test(one));
        }
    });
}

/// What is to be done at the end of a block, however that comes.
pub(crate) struct Finally<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(GLANCE);
    }
}

/// Waits until there is something.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    wait_until(what, || {
        found = look();
        found.is_some()
    });
    found.expect("it was found")
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A port that nobody has, below those that the kernel gives to whoever connects.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 8_000).expect("a small number");
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The status code of the answer to a GET on a connection of its own.
pub(crate) fn get(port: u16, path: &str) -> Result<u16, String> {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = ask().map_err(|error| error.to_string())?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.ok_or_else(|| format!("no answer: {answer:?}"))
}

/// Sends a signal; one that has ended gets none.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid.cast_signed()).expect("a PID"), signal);
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A field of proc_pid_stat(5), from the third on.
pub(crate) fn stat(pid: u32, number: usize) -> Option<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number - 3).map(str::to_owned)
}

/// Whether a process is there and has not ended.
pub(crate) fn lives(pid: u32) -> bool {
    stat(pid, 3).is_some_and(|state| state != "Z" && state != "X")
}

/// Whether it is halted.
pub(crate) fn is_halted(pid: u32) -> bool {
    stat(pid, 3).is_some_and(|state| state == "T")
}

pub(crate) fn children(pid: u32) -> Vec<u32> {
    all().filter(|child| stat(*child, 4) == Some(pid.to_string())).collect()
}

fn describe(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    format!(
        "{pid} (parent {}, {}) {line}",
        stat(pid, 4).unwrap_or_default(),
        stat(pid, 3).unwrap_or_default()
    )
}

/// All that is in a folder.
fn everything(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
        .into_iter()
        .flat_map(|path| {
            let below = if path.is_dir() && !path.is_symlink() { everything(&path) } else { Vec::new() };
            std::iter::once(path).chain(below)
        })
        .collect()
}
