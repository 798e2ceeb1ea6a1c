//! The supervisor's life: run after run of the bridge, until it is told to stop, or the bridge has ended by itself, or it
//! is given up.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Listener, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::Reports;
use super::budget::Budget;
use super::ears::{Ears, Word};
use super::log::{Follower, Log};
use super::run::{self, Bridge, End};
use super::wishes::{self, Wish};
use crate::host::log::Level;
use crate::host::process::Identity;
use crate::host::{cgroup, fault};
use crate::instance::{Name, lock};
use crate::manager::pidfile::order::{Order, Report, Revision};
use crate::manager::pidfile::pid_file::PidFile;
use crate::manager::pidfile::record::{Ended, Record};
use crate::manager::pidfile::state::{self, Phase, State};
use crate::manager::pidfile::{NOTIFY, REVISION, STATE};

/// How long a bridge may take to end that did not get ready in time.
const LATE: Duration = Duration::from_secs(5);
/// How long what is left of a bridge may take to be gone after it was killed.
const REST: Duration = Duration::from_secs(10);
/// How long the last words of a bridge that is gone may take to be heard; the kernel has them already.
const LAST_WORDS: Duration = Duration::from_millis(5);
/// How long the last lines of a bridge that is gone may take to be written.
const LAST_LINES: Duration = Duration::from_secs(2);
/// How long a container's first process has to stop everything: container engines kill it after 10 s.
const GRACE: Duration = Duration::from_secs(9);
/// Of that, what is left for a bridge that ends at once, as the rest was not enough.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Who keeps a bridge.
pub(super) struct Keeper {
    order: Order,
    pid_file: PidFile,
    reports: Reports,
    record: Record,
    state: State,
    log: Log,
    ears: Ears,
    wishes: mpsc::Receiver<Wish>,
    children: Listener,
    budget: Budget,
    /// The socket that clients connect to, over restarts.
    kept: Option<OwnedFd>,
    /// Whether the bridge has ever served.
    begun: bool,
}

/// How a run of the bridge ended.
struct Ending {
    /// Why, in a sentence.
    reason: String,
    /// None when it could not even be started.
    end: Option<End>,
    /// Whether it has ended by itself and without an error.
    clean: bool,
    /// How long it had served.
    served: Option<Duration>,
    /// What was asked for meanwhile.
    wish: Option<Wish>,
    /// Whether it had to be killed for that.
    killed: bool,
    log: Option<Follower>,
}

/// What waits for its time while the bridge runs.
#[derive(Debug, Default)]
struct Deadlines {
    /// Until when it has to serve.
    start: Option<Instant>,
    /// When which signal is sent to one that was told to end.
    stop: VecDeque<(Instant, Signal)>,
    /// Until when it has to give a sign of life.
    silence: Option<Instant>,
}

impl Keeper {
    /// Opens all that a supervisor needs; it is gone again when that fails.
    pub(super) fn open(order: Order, pid_file: PidFile, mut reports: Reports) -> Result<Self, ExitCode> {
        match Parts::open(&order) {
            Ok(Parts { record, state, log, ears, wishes, children }) => Ok(Self {
                order,
                pid_file,
                reports,
                record,
                state,
                log,
                ears,
                wishes,
                children,
                budget: Budget::default(),
                kept: None,
                begun: false,
            }),
            Err((action, error)) => {
                reports.tell(&Report::refused(action, &error));
                pid_file.remove();
                // It fails where there is more in it.
                let _ = fs::remove_dir(&order.runtime_dir);
                Err(ExitCode::FAILURE)
            }
        }
    }

    /// Keeps the bridge; how the supervisor ends.
    pub(super) async fn keep(mut self) -> ExitCode {
        if let Err(error) = self.pid_file.write(&self.record) {
            self.log.say(Level::Warning, &format!("{}: {error}", self.order.pid_file.display()));
        }
        self.clear_away().await;
        loop {
            let ending = self.run().await;
            fault::point("supervisor:bridge-ended");
            let stops = matches!(ending.wish, Some(Wish::Stop | Wish::Kill));
            if let Some(group) = &self.state.control_group
                && let Err(error) = cgroup::end(group).await
            {
                self.log.say(Level::Warning, &format!("{}: {error}", group.display()));
            }
            // What a container's first process was given by strangers is left alone while it lives.
            if !run::end_rest(self.order.foreground && !stops, REST).await {
                self.log
                    .say(Level::Error, "processes of the bridge are left that the kernel does not let go");
            }
            self.state.bridge = None;
            let words = match ending.log {
                Some(log) => log.end(LAST_LINES).await,
                None => Vec::new(),
            };
            match ending.wish {
                Some(Wish::Stop | Wish::Kill) => {
                    return self.stopped(if ending.killed { Ended::Killed } else { Ended::Clean });
                }
                Some(Wish::Restart) => {
                    self.revise();
                    continue;
                }
                _ if ending.clean && self.begun => return self.stopped(Ended::Clean),
                _ => {}
            }
            let (end, reason) = (ending.end, ending.reason);
            self.state.failure = Some(reason.clone());
            self.state.exit_code = end.and_then(End::code);
            if !self.begun {
                self.log.say(Level::Error, &format!("the bridge did not start: {reason}"));
                self.reports.tell(&Report::Failed {
                    reason,
                    exit_code: self.state.exit_code,
                    status_text: self.state.status_text.clone(),
                    log: words,
                });
                return self.failed_to_begin();
            }
            let random = getrandom::u32().unwrap_or_default();
            let served = ending.served.unwrap_or_default();
            let pause = self.budget.spend(&self.order.settings, served, random);
            match pause.filter(|_| !end.is_some_and(End::is_hopeless)) {
                None => return self.given_up(&reason, end.is_some_and(End::is_hopeless)),
                Some(pause) => {
                    self.state.restarts += 1;
                    self.tell(Phase::Restarting);
                    self.log.say(
                        Level::Error,
                        &format!(
                            "the bridge failed: {reason}; it is started again in {:.1} s",
                            pause.as_secs_f64()
                        ),
                    );
                    if let Some(ended) = self.wait(pause).await {
                        return self.stopped(ended);
                    }
                }
            }
        }
    }

    /// Removes what an earlier supervisor has left that was killed.
    async fn clear_away(&self) {
        let folder = &self.order.runtime_dir;
        let name = self.order.name.parse::<Name>().ok();
        if let Some(group) = name.and_then(|name| state::left_group(&folder.join(STATE), &name)) {
            self.log.say(
                Level::Warning,
                &format!("ending what an earlier bridge has left in {}", group.display()),
            );
            if let Err(error) = cgroup::end(&group).await {
                self.log.say(Level::Warning, &format!("{}: {error}", group.display()));
            }
        }
        // Of settings that it did not put in force.
        let _ = fs::remove_file(folder.join(REVISION));
    }

    /// Starts the bridge and watches over it until it has ended.
    async fn run(&mut self) -> Ending {
        let settings = &self.order.settings;
        let started = run::variables(&settings.environment_files).and_then(|variables| {
            let ears = self.order.runtime_dir.join(NOTIFY);
            Bridge::start(settings, &variables, &ears, self.kept.as_ref())
        });
        let (bridge, log) = match started {
            Ok(started) => started,
            Err(error) => {
                return Ending {
                    reason: format!("it cannot be started: {error}"),
                    end: None,
                    clean: false,
                    served: None,
                    wish: None,
                    killed: false,
                    log: None,
                };
            }
        };
        let log = self.log.follow(log, bridge.number());
        fault::point("supervisor:bridge-started");
        let start = Some(Instant::now() + settings.start_timeout);
        let mut deadlines = Deadlines { start, ..Deadlines::default() };
        self.state.bridge = Some(bridge.number());
        self.state.status_text = None;
        self.tell(Phase::Starting);
        let (mut serving, mut because, mut wish, mut killed) = (None, None, None, false);
        let end = loop {
            let next = deadlines.next();
            tokio::select! {
                biased;
                words = self.ears.next(Some(bridge.number())) => {
                    self.hear(words, &mut deadlines, &mut serving);
                }
                end = bridge.ended(&mut self.children) => break end,
                Some(asked) = self.wishes.recv() => match asked {
                    Wish::Reopen => self.log.reopen(),
                    Wish::Reload if serving.is_some() => bridge.signal(Signal::HUP),
                    // It is about to read its config anyway.
                    Wish::Reload => {}
                    Wish::Kill => {
                        (wish, killed) = (Some(Wish::Kill), true);
                        deadlines = Deadlines::default();
                        bridge.signal(Signal::KILL);
                    }
                    // Asked again, it ends at once.
                    Wish::Stop if wish == Some(Wish::Stop) => bridge.signal(Signal::TERM),
                    Wish::Restart if wish.is_some() || because.is_some() => {}
                    Wish::Stop | Wish::Restart => {
                        if wish.is_none() {
                            self.tell(Phase::Stopping);
                            deadlines = self.stopping();
                            fault::point("supervisor:stopping");
                            bridge.signal(Signal::TERM);
                        }
                        wish = Some(asked);
                    }
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    let now = Instant::now();
                    if deadlines.start.take_if(|start| *start <= now).is_some() {
                        let patience = self.order.settings.start_timeout.as_secs();
                        because = Some(format!("it did not report within {patience} s that it is ready"));
                        deadlines.stop = [(now + LATE, Signal::KILL)].into();
                        bridge.signal(Signal::TERM);
                    } else if deadlines.silence.take_if(|silence| *silence <= now).is_some() {
                        because = Some("it stopped answering the watchdog and was killed".to_owned());
                        bridge.signal(Signal::KILL);
                    } else if let Some((_, signal)) = deadlines.stop.pop_front() {
                        killed |= signal == Signal::KILL;
                        bridge.signal(signal);
                    }
                }
            }
        };
        // What it said last may still wait to be heard.
        while let Ok(words) = timeout(LAST_WORDS, self.ears.next(Some(bridge.number()))).await {
            self.hear(words, &mut deadlines, &mut serving);
        }
        Ending {
            clean: end == End::Code(0) && because.is_none(),
            reason: because.unwrap_or_else(|| end.explain()),
            end: Some(end),
            served: serving.map(|since: Instant| since.elapsed()),
            wish,
            killed,
            log: Some(log),
        }
    }

    /// Takes note of what the bridge says.
    fn hear(&mut self, words: Vec<Word>, deadlines: &mut Deadlines, serving: &mut Option<Instant>) {
        let watchdog = self.order.settings.watchdog;
        for word in words {
            match word {
                Word::Status(text) => {
                    self.state.status_text = Some(text);
                    self.write_state();
                }
                Word::Alive => {
                    deadlines.silence =
                        deadlines.silence.and(watchdog).map(|patience| Instant::now() + patience);
                }
                Word::Extend(by) => deadlines.extend(Instant::now() + by, self.order.foreground),
                Word::Keep(socket) => self.kept = Some(socket),
                Word::Discard => self.kept = None,
                // After a reload it says so again.
                Word::Ready if serving.is_some() => {}
                Word::Ready => {
                    *serving = Some(Instant::now());
                    deadlines.start = None;
                    if deadlines.stop.is_empty() {
                        deadlines.silence = watchdog.map(|patience| Instant::now() + patience);
                        self.serves();
                    }
                }
            }
        }
    }

    /// Tells whoever wants to know that the bridge serves.
    fn serves(&mut self) {
        fault::point("supervisor:ready");
        let address = self.state.status_text.as_deref().and_then(|text| text.split_once(": "));
        self.record.address =
            address.map(|(address, _)| address.to_owned()).filter(|text| text.contains("://"));
        if let Err(error) = self.pid_file.write(&self.record) {
            self.log.say(Level::Warning, &format!("{}: {error}", self.order.pid_file.display()));
        }
        self.begun = true;
        self.tell(Phase::Running);
        self.reports.tell(&Report::Ready);
        self.reports.end();
    }

    /// The times of a stop that begins now.
    fn stopping(&self) -> Deadlines {
        let (now, patience) = (Instant::now(), self.order.settings.stop_timeout);
        let stop = if self.order.foreground {
            let patience = patience.min(GRACE);
            let first = patience.saturating_sub(AT_ONCE);
            [(now + first, Signal::TERM), (now + patience, Signal::KILL)].into()
        } else {
            [(now + patience, Signal::KILL)].into()
        };
        Deadlines { stop, ..Deadlines::default() }
    }

    /// Waits before another start; how it ended, if that was asked for meanwhile.
    async fn wait(&mut self, pause: Duration) -> Option<Ended> {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(until) => return None,
                _ = self.children.recv() => while run::reap().is_some() {},
                Some(asked) = self.wishes.recv() => match asked {
                    Wish::Stop | Wish::Kill => return Some(Ended::Clean),
                    Wish::Reopen => self.log.reopen(),
                    Wish::Reload => {}
                    Wish::Restart => {
                        self.revise();
                        return None;
                    }
                },
            }
        }
    }

    /// Puts the settings in force that are written down by now.
    fn revise(&mut self) {
        let path = self.order.runtime_dir.join(REVISION);
        match Revision::take(&path) {
            Ok(Some(Revision { settings, digest })) => {
                self.state.argv.clone_from(&settings.exec);
                self.state.stop_timeout = settings.stop_timeout;
                self.state.digest = digest;
                self.order.settings = settings;
            }
            Ok(None) => {}
            Err(error) => self.log.say(
                Level::Warning,
                &format!("{}: {error}: the settings from before stay in force", path.display()),
            ),
        }
    }

    /// Notes where the bridge stands.
    fn tell(&mut self, phase: Phase) {
        self.state.phase = phase;
        self.state.since = state::now();
        self.write_state();
    }

    fn write_state(&self) {
        let path = self.order.runtime_dir.join(STATE);
        if let Err(error) = self.state.write(&path) {
            self.log.say(Level::Warning, &format!("{}: {error}", path.display()));
        }
    }

    /// It was told to stop, or has ended by itself.
    fn stopped(mut self, ended: Ended) -> ExitCode {
        self.record.ended = Some(ended);
        self.leave(false);
        ExitCode::SUCCESS
    }

    /// It never served.
    fn failed_to_begin(self) -> ExitCode {
        let code = self.exit_code();
        self.leave(false);
        code
    }

    /// It failed too often, or in a way that does not get better.
    fn given_up(mut self, reason: &str, hopeless: bool) -> ExitCode {
        let why = if hopeless {
            format!("the bridge failed: {reason}; another try would not help")
        } else {
            format!(
                "the bridge failed: {reason}; that was {} times in a row: it is given up",
                self.budget.failures() + 1
            )
        };
        self.log.say(Level::Error, &why);
        if !hopeless && self.budget.failures() > 0 {
            self.state.failure = Some(format!("it failed too often in a row, at last so: {reason}"));
        }
        self.tell(Phase::Failed);
        let code = self.exit_code();
        self.leave(true);
        code
    }

    /// The bridge's own, so that whoever runs the supervisor learns it.
    fn exit_code(&self) -> ExitCode {
        let code = self.state.exit_code.and_then(|code| u8::try_from(code).ok());
        code.filter(|code| *code != 0).map_or(ExitCode::FAILURE, ExitCode::from)
    }

    /// Removes what is of use only while a bridge runs, the PID file last; `failed` keeps word of what went wrong.
    fn leave(mut self, failed: bool) {
        fault::point("supervisor:leaving");
        // Whoever waits for the end reads there how it was, and whoever looks meanwhile, that it comes.
        let _ = self.pid_file.write(&self.record);
        drop((self.kept.take(), self.ears));
        let own = [REVISION].map(|name| self.order.runtime_dir.join(name));
        let state = Some(self.order.runtime_dir.join(STATE)).filter(|_| !failed);
        // What cannot be removed is left to the next start.
        let _ = lock::clear(&self.order.lock_file, &self.order.leftovers);
        for file in own.into_iter().chain(state) {
            // What is not there any more need not be removed; what cannot be is cleaned up by the next start.
            let _ = fs::remove_file(file);
        }
        self.log.end();
        fault::point("supervisor:left");
        self.pid_file.remove();
        // It fails where there is more in it.
        let _ = fs::remove_dir(&self.order.runtime_dir);
        self.reports.end();
    }
}

impl Deadlines {
    /// The next time at which something is to be done.
    fn next(&self) -> Option<Instant> {
        let stop = self.stop.front().map(|(when, _)| *when);
        [self.start, stop, self.silence].into_iter().flatten().min()
    }

    /// Gives the bridge time until then; a container's engine would not wait for it.
    fn extend(&mut self, until: Instant, foreground: bool) {
        self.start = self.start.map(|start| start.max(until));
        if !foreground {
            self.stop.iter_mut().for_each(|(when, _)| *when = until.max(*when));
        }
    }
}

/// What a supervisor opens first.
struct Parts {
    record: Record,
    state: State,
    log: Log,
    ears: Ears,
    wishes: mpsc::Receiver<Wish>,
    children: Listener,
}

impl Parts {
    /// Or what could not be done.
    fn open(order: &Order) -> Result<Self, (String, io::Error)> {
        let failed = |action: String| move |error: io::Error| (action, error);
        let wishes = wishes::listen().map_err(failed("listen to signals".to_owned()))?;
        let children = signal(SignalKind::child()).map_err(failed("listen to signals".to_owned()))?;
        let folder = &order.runtime_dir;
        make_folder(folder).map_err(failed(format!("make {}", folder.display())))?;
        let log = Log::open(order).map_err(failed(match &order.log_file {
            Some(file) => format!("write the log {}", file.display()),
            None => "write the log".to_owned(),
        }))?;
        let ears = folder.join(NOTIFY);
        let ears = Ears::open(&ears).map_err(failed(format!("listen on {}", ears.display())))?;
        let own = Identity::own().map_err(failed("find out who it is".to_owned()))?;
        let record = Record {
            pid: own.pid,
            name: order.name.clone(),
            config: order.config.clone(),
            address: None,
            started: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            boot_id: own.boot_id.clone(),
            start_time: own.start_time,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            log_file: order.log_file.clone(),
            ended: None,
        };
        let state = State {
            phase: Phase::Starting,
            since: state::now(),
            bridge: None,
            restarts: 0,
            status_text: None,
            failure: None,
            exit_code: None,
            config: order.config.clone(),
            argv: order.settings.exec.clone(),
            pid_file: order.pid_file.clone(),
            log_file: order.log_file.clone(),
            control_group: order
                .name
                .parse::<Name>()
                .ok()
                .and_then(|name| cgroup::below_own(&name.control_group(&own))),
            unit: order.unit.clone(),
            digest: order.digest.clone(),
            adaptable: order.account.is_none(),
            stop_timeout: order.settings.stop_timeout,
            supervisor: own,
        };
        Ok(Self { record, state, log, ears, wishes, children })
    }
}

fn make_folder(folder: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}
